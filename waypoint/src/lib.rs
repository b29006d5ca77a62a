//! The waypoint: routes and authorizes HTTP, gRPC and TCP for a namespace or a service.
//!
//! Clients' node agents open tunnels to it ([`ingress`]); each stream is a connection whose protocol is
//! told by its first octets ([`downstream`]). A request is decided by `ambit_mesh::http` and carried out
//! in [`exchange`], over connections of [`upstream`].

#![warn(missing_docs)]

pub mod agent;
mod claimed;
pub mod config;
pub mod configuration;
pub mod detect;
pub mod downstream;
mod dump;
pub mod exchange;
pub mod frames;
pub mod grpc;
pub mod h1;
pub mod head;
pub mod ingress;
pub mod opaque;
pub mod parting;
pub mod record;
pub mod server_name;
pub mod state;
pub mod upstream;
pub mod wire;
pub mod worker;
