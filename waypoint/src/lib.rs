//! The waypoint: routes and authorizes HTTP, gRPC and TCP for a namespace or a service.

#![warn(missing_docs)]

pub mod config;
pub mod detect;
pub mod h1;
pub mod head;
pub mod wire;
