//! The node agent: captures the TCP connections of enrolled pods, carries them over HBONE, and
//! enforces layer-4 policy.
//!
//! A connection's way is [`outbound`] on the client's node and [`inbound`] on the server's;
//! [`plaintext`] is for peers outside the mesh. [`worker`] owns threads, [`pods`] what is captured,
//! [`agent`] puts it all together.

#![warn(missing_docs)]

pub mod accept;
pub mod agent;
pub mod application;
pub mod beginning;
pub mod capture;
pub mod cni;
pub mod config;
pub mod configuration;
pub mod dial;
pub mod dump;
pub mod ending;
pub mod expiry;
pub mod flows;
pub mod handover;
pub mod inbound;
pub mod limits;
pub mod oneshot;
pub mod outbound;
pub mod plaintext;
pub mod pods;
pub mod record;
pub mod splice;
pub mod state;
pub mod uninstall;
pub mod worker;

#[cfg(test)]
mod samples;
