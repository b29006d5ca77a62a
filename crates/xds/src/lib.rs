//! Delta xDS between `control` and the proxies.
//!
//! Pure: [`convert`] turns protocol buffers into the mesh's vocabulary and back, and [`subscriber`]
//! is the server's side of one client: a state machine that is given messages and returns messages.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod convert;
pub mod resource_type;
pub mod resources;
pub mod subscriber;

pub use resource_type::ResourceType;

#[cfg(test)]
mod samples;
