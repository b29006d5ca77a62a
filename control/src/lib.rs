//! The control service: reads configuration, serves xDS and certificates.
//!
//! A change runs through `source` (what is written) -> `inputs` (what is in force) -> `translate`
//! (pure: what the data plane needs) -> `publish` (what is new) -> xDS, and back into `status`.

#![forbid(unsafe_code)]

pub mod ca;
pub mod objects;
pub mod source;
