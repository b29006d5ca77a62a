//! Who a workload is on the wire: its SPIFFE certificate, how it is obtained and renewed, and the
//! TLS configurations made from it.
//!
//! What an identity is allowed to do is not decided here: that is `ambit-mesh`'s policy.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod ca_client;
pub mod certificate;
pub mod channel;
pub mod clock;
pub mod csr;
pub mod manager;
pub mod roots;
pub mod schedule;
pub mod spiffe;
pub mod store;
pub mod tls;
pub mod verify;

#[cfg(test)]
mod testing;
