//! Connections to endpoints: which are shared, and how a new one is made.
//!
//! Who takes a request was decided before. What one connection of HTTP carries for one client is
//! never carried for another: the far end decides by the identity that the tunnel's CONNECT names, so
//! that this identity is part of the key.

use std::net::SocketAddr;

use ambit_mesh::decide::{OutboundDecision, Transport};
use ambit_mesh::identity::{IdentitySet, SpiffeId};
use pingora_core::protocols::http::v2::client::Http2Session;

use crate::h1::Shared;

mod dial;
mod pool;

pub use dial::{DialError, OnBehalf, TunnelKey, TunnelPool, connect, upkeep};
pub use pool::Connections;

/// What must be equal for two requests to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// How it is carried.
    pub carrier: Carrier,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// For whom.
    pub client: SpiffeId,
}

/// How a connection to an endpoint is carried.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// As it is.
    Plain {
        /// The endpoint.
        address: SocketAddr,
    },
    /// In a tunnel.
    Hbone {
        /// Where the endpoint's node agent listens.
        next_hop: SocketAddr,
        /// The endpoint.
        authority: SocketAddr,
        /// Who may answer.
        expected: IdentitySet,
    },
}

impl Carrier {
    /// As it was decided.
    pub fn of(decision: &OutboundDecision) -> Self {
        match &decision.transport {
            Transport::Passthrough => Self::Plain { address: decision.next_hop },
            Transport::Hbone { authority, expected } => {
                Self::Hbone { next_hop: decision.next_hop, authority: *authority, expected: expected.clone() }
            }
        }
    }
}

/// What is spoken to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Whatever the client speaks.
    Opaque,
}

/// One request's turn on a connection.
pub enum Session {
    /// The whole connection.
    Http1(Shared),
    /// One stream of it.
    Http2(Box<Http2Session>),
}

/// A session, and whether its connection has served others before.
pub struct Lease {
    /// The session.
    pub session: Session,
    /// Whether the far end may have closed it in the meantime.
    pub reused: bool,
}
