//! The HBONE tunnel: HTTP/2 CONNECT inside mutual TLS, as Istio ambient speaks it.
//!
//! The protocol is a machine without IO ([`codec`], [`hpack`]), and so is encryption ([`tls`]).
//! [`tunnel`] puts both on a socket, [`relay`] joins a stream with an application, [`pool`] shares
//! tunnels between flows, [`patience`] finds out silent peers. Those four belong to one worker and never leave
//! its thread.

#![warn(missing_docs)]

pub mod buffer;
pub mod codec;
pub mod headers;
pub mod hpack;
pub mod patience;
pub mod pool;
pub mod relay;
pub mod socket;
pub mod tls;
pub mod tunnel;
