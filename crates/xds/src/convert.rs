//! Protocol buffers into the mesh's vocabulary, and back.
//!
//! Pure. What cannot be represented safely is refused with an error that names the field; what
//! only tunes telemetry or preference falls back to the unspecified value. What becomes of a
//! refused resource is the session's decision, not made here.

pub mod address;
pub mod authorization;
pub mod mesh;
pub mod ports;
pub mod received;
pub mod service;
pub mod waypoint;
mod waypoint_rules;
pub mod workload;

pub use received::{InvalidResource, Received, ResourceName};
