//! The control service: reads configuration, serves xDS and certificates.
//!
//! A change runs through `source` (what is written) -> `inputs` (what is in force) -> `translate`
//! (pure: what the data plane needs) -> `publish` (what is new) -> xDS, and back into `status`.

#![forbid(unsafe_code)]

pub mod admin;
pub mod ca;
pub mod check;
pub mod config;
pub mod dump;
pub mod inputs;
pub mod kube;
pub mod limits;
pub mod listener;
pub mod memory;
pub mod objects;
pub mod pipeline;
pub mod publish;
pub mod run;
pub mod source;
pub mod state;
pub mod status;
pub mod telemetry;
pub mod tokens;
pub mod translate;
