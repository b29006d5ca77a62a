//! Who a resource is for. Agents of nodes are sent everything; a waypoint only what its services need.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_mesh::address::ServiceName;

/// Which clients a resource is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// All of them.
    #[default]
    Everybody,
    /// Agents of nodes, and these waypoints, each by the name of its Service.
    Waypoints(Arc<BTreeSet<ServiceName>>),
}

/// What a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// An agent of a node.
    Node,
    /// An instance of the waypoint with this Service.
    Waypoint(ServiceName),
}

impl Audience {
    /// Whether a client is among them.
    pub fn includes(&self, viewer: &Viewer) -> bool {
        match (self, viewer) {
            (Self::Everybody, _) | (Self::Waypoints(_), Viewer::Node) => true,
            (Self::Waypoints(waypoints), Viewer::Waypoint(waypoint)) => waypoints.contains(waypoint),
        }
    }
}
