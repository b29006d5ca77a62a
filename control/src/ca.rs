//! The certificate authority: who may have a certificate of which workload, and the signing.
//!
//! A request passes three gates, each of which leaves a value that the next one needs:
//!
//! ```text
//! bearer token --authentication--> Caller --grant--> Grant --+
//! CSR ----------key_proof-------------------------> ProvenKey --authority--> Issued
//! ```
//!
//! What runs on which node is told by the rest of `control` ([`grant::NodeIdentities`]); nothing
//! here reads configuration.

pub mod authentication;
pub mod authority;
pub mod current;
pub mod grant;
pub mod key_proof;
pub mod lifetime;
pub mod parts;
pub mod service;
pub mod serving;
pub mod tokens;

mod files;
mod issuing_key;
mod leaf;
pub(crate) mod own_root;

#[cfg(test)]
mod rotation;
#[cfg(test)]
pub(crate) mod testing;
