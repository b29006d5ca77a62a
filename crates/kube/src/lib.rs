//! The way to a Kubernetes API server: where it is, who we are there, and one client for everything.
//!
//! What is asked of the server is each program's own concern.

#![warn(missing_docs)]

mod access;
mod connector;
mod credentials;

pub use access::{Access, ConnectError, connect};
