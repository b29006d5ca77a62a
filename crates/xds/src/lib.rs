//! Delta xDS between `control` and the proxies.
//!
//! Pure: [`convert`] turns protocol buffers into the mesh's vocabulary and back, [`session`] is
//! one client's side of the protocol and [`subscriptions`] the server's side of one client, both as
//! state machines that are given messages and return messages. [`client`] and [`server`] are the
//! thin shells that move those messages over gRPC. [`last_good`] keeps what a client was sent on disk.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod backoff;
pub mod client;
pub mod convert;
pub mod last_good;
mod problems;
pub mod resource_type;
pub mod resources;
pub mod server;
pub mod session;
pub mod subscriber;
pub mod subscriptions;

pub use resource_type::{ResourceType, Role};

/// In `Node.metadata`: the client takes one generation in several responses.
///
/// xDS has no word for "more follows". A client that does not say that it knows ours is sent
/// everything in one response, however large.
const PARTS_FEATURE: &str = "ambit.dev/parts";

/// In `system_version_info`, which has no meaning to the protocol: more responses follow before the
/// client is at the generation that this one is a part of.
const MORE_FOLLOWS: &str = "ambit.dev/more-follows";

#[cfg(test)]
mod pair_tests;
#[cfg(test)]
mod samples;
