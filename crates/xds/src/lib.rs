//! Delta xDS between `control` and the proxies.
//!
//! Pure: [`convert`] turns protocol buffers into the mesh's vocabulary and back, [`session`] is
//! one client's side of the protocol and [`subscriber`] the server's side of one client, both as
//! state machines that are given messages and return messages.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backoff;
pub mod convert;
pub mod resource_type;
pub mod resources;
pub mod session;
pub mod subscriber;

pub use resource_type::ResourceType;

#[cfg(test)]
mod pair_tests;
#[cfg(test)]
mod samples;
