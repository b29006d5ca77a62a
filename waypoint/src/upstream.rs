//! Connections to endpoints: which are shared, and how a new one is made.
//!
//! Who takes a request was decided before. Where policies of the far end name clients, it decides by the
//! identity that the tunnel's CONNECT names: then this identity is part of the key, and what a connection
//! carries for one client is never carried for another.

use std::net::SocketAddr;

use ambit_hbone::tunnel::Tunnel;
use ambit_mesh::decide::{OutboundDecision, Transport, Why};
use ambit_mesh::identity::{IdentitySet, SpiffeId};
use ambit_mesh::snapshot::Snapshot;

use crate::h1::Shared;

mod choice;
mod dial;
mod http2;
mod pool;

pub use choice::Choice;
pub use dial::{DialError, OnBehalf, TunnelKey, TunnelPool, connect, upkeep};
pub use http2::Http2Stream;
pub use pool::Connections;

/// What must be equal for two requests to share a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// How it is carried.
    pub carrier: Carrier,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// For whom alone; `None` where nobody at the far end asks.
    pub client: Option<SpiffeId>,
}

/// Whom a connection to this endpoint has to be for: the client, if its policies ask who that is, or if it is
/// not known what they ask.
pub fn client_of(mesh: &Snapshot, decision: &OutboundDecision, client: &SpiffeId) -> Option<SpiffeId> {
    let asks = match (&decision.transport, &decision.endpoint) {
        (Transport::Passthrough, _) => false,
        (Transport::Hbone { .. }, None) => true,
        (Transport::Hbone { .. }, Some(endpoint)) => match decision.why {
            Why::Workload | Why::Service | Why::PassthroughService | Why::OutsideMesh => {
                mesh.policies_for(endpoint).name_clients()
            }
            // What it asks is for another waypoint to know.
            Why::WorkloadWaypoint | Why::ServiceWaypoint => true,
        },
    };
    asks.then(|| client.clone())
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
    /// Where it connects to.
    pub fn next_hop(&self) -> SocketAddr {
        match self {
            Self::Plain { address } => *address,
            Self::Hbone { next_hop, .. } => *next_hop,
        }
    }

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
    Http2(Http2Stream),
}

/// A session, and whether its connection has served others before.
pub struct Lease {
    /// The session.
    pub session: Session,
    /// Whether the far end may have closed it in the meantime.
    pub reused: bool,
    /// The tunnel that carries it, if one does.
    pub tunnel: Option<Tunnel>,
    /// Our end of its TCP connection.
    pub local: Option<SocketAddr>,
}
