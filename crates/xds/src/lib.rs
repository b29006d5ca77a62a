//! Delta xDS between `control` and the proxies.
//!
//! Pure: [`convert`] turns protocol buffers into the mesh's vocabulary and back.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod convert;
pub mod resource_type;

pub use resource_type::ResourceType;

#[cfg(test)]
mod samples;
