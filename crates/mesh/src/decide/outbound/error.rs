//! Why an outbound connection is not made, and what to do about it.

use std::fmt;
use std::net::SocketAddr;

use super::endpoint::Unusable;
use crate::address::{GatewayAddress, NetworkAddress, ServiceName};
use crate::decide::ResponseFlag;

/// What comes of a call instead of a decision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Outcome {
    /// Do this and decide again.
    #[error(transparent)]
    Ask(Ask),
    /// Close the connection.
    #[error(transparent)]
    Refused(#[from] OutboundError),
}

impl From<NoEndpoint> for Outcome {
    fn from(error: NoEndpoint) -> Self {
        Self::Refused(error.into())
    }
}

/// What the shell is asked to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ask {
    /// Wait, for a bounded time, for a snapshot that knows the address.
    #[error("{address} is in the mesh's ranges and not known yet")]
    Wait {
        /// The address.
        address: NetworkAddress,
    },
}

/// Why an outbound connection must not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutboundError {
    /// A connection to loopback came to the proxy, which only happens when somebody opened it to
    /// the proxy's own port.
    #[error("{destination} is a loopback address: connections to it are not for the proxy")]
    Loopback {
        /// The destination.
        destination: SocketAddr,
    },
    /// The connection would end at a proxy's own port in plain text and come back.
    #[error("{destination} is a port of the proxy itself")]
    OwnPort {
        /// The destination.
        destination: SocketAddr,
    },
    /// The mesh's ranges hold the destination, and nobody knows it.
    #[error(
        "{destination} is in the mesh's ranges and is neither a workload nor a service: \
         check that it exists and that control knows it"
    )]
    UnknownInMesh {
        /// The destination.
        destination: SocketAddr,
    },
    /// The only workload at this address was tried.
    #[error("no other workload has the address of {destination}")]
    AlreadyTried {
        /// The destination.
        destination: SocketAddr,
    },
    /// No endpoint can take the connection.
    #[error(transparent)]
    NoEndpoint(#[from] NoEndpoint),
    /// The destination's waypoint does not exist.
    #[error("waypoint {waypoint} does not exist: deploy it, or take the use-waypoint label away")]
    WaypointMissing {
        /// The waypoint.
        waypoint: GatewayAddress,
    },
    /// The destination's waypoint cannot take connections.
    #[error("no instance of waypoint {waypoint} takes connections: {left_out}")]
    WaypointNotReady {
        /// The waypoint.
        waypoint: GatewayAddress,
        /// What is wrong with its instances.
        left_out: LeftOut,
    },
}

impl OutboundError {
    /// How metrics count it.
    pub fn reason(&self) -> ResponseFlag {
        match self {
            Self::Loopback { .. }
            | Self::OwnPort { .. }
            | Self::UnknownInMesh { .. }
            | Self::AlreadyTried { .. }
            | Self::NoEndpoint(_)
            | Self::WaypointMissing { .. }
            | Self::WaypointNotReady { .. } => ResponseFlag::ConnectFailure,
        }
    }
}

/// No endpoint of a service can take a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint of {service} takes connections to port {port}: {left_out}")]
pub struct NoEndpoint {
    /// The service.
    pub service: ServiceName,
    /// The service port.
    pub port: u16,
    /// What is wrong with those it has.
    pub left_out: LeftOut,
}

/// How many endpoints of a service were left out, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Not ready, or terminating.
    pub unhealthy: u32,
    /// Tried for this connection in vain.
    pub tried: u32,
    /// Of capacity 0.
    pub without_capacity: u32,
    /// Without a port behind the service port.
    pub without_port: u32,
    /// In another network.
    pub in_other_network: u32,
    /// Without an address of the service's family.
    pub without_address: u32,
    /// Outside the locality that the service insists on.
    pub elsewhere: u32,
}

impl LeftOut {
    pub(super) fn count(&mut self, reason: Unusable) {
        let counter = match reason {
            Unusable::Unhealthy => &mut self.unhealthy,
            Unusable::Tried => &mut self.tried,
            Unusable::NoCapacity => &mut self.without_capacity,
            Unusable::NoPort => &mut self.without_port,
            Unusable::OtherNetwork => &mut self.in_other_network,
            Unusable::NoAddress => &mut self.without_address,
        };
        *counter += 1;
    }
}

impl From<Unusable> for LeftOut {
    fn from(reason: Unusable) -> Self {
        let mut left_out = Self::default();
        left_out.count(reason);
        left_out
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons = [
            (self.unhealthy, "not ready"),
            (self.tried, "tried in vain"),
            (self.without_capacity, "of capacity 0"),
            (self.without_port, "without such a port (check targetPort)"),
            (self.in_other_network, "in another network (multi-network is not supported yet)"),
            (self.without_address, "without an address to connect to (host names are not resolved here)"),
            (self.elsewhere, "outside the locality that the service insists on"),
        ];
        let mut separator = "";
        for (count, reason) in reasons.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "{separator}{count} {reason}")?;
            separator = ", ";
        }
        if separator.is_empty() { f.write_str("it has none") } else { Ok(()) }
    }
}
