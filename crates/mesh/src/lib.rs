//! The mesh's vocabulary and its decisions, as pure functions of values.
//!
//! Nothing here performs IO, reads a clock, draws a random number of its own or takes a lock: the
//! programs fetch, call and do; this crate says what is right. It is what `ambit explain` and the
//! tests call with the same arguments as the data path.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod address;
pub mod balance;
pub mod decide;
pub mod http;
pub mod identity;
pub mod mesh;
pub mod policy;
pub mod service;
pub mod snapshot;
pub mod workload;

#[cfg(test)]
mod fixtures;
