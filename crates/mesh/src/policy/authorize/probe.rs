//! The kubelet's probes, which no policy has to allow.
//!
//! The kubelet knows nothing of the mesh and calls pods in plain text. It is known by its socket: one
//! of the node's own network, held by root, that is the other end of the very connection. Addresses
//! prove nothing, since whoever may configure an interface can give itself the node's.

use std::net::SocketAddr;

use super::{AllowedBy, Permit};
use crate::address::canonical_socket;
use crate::policy::{Connection, Peer};
use crate::workload::Workload;

/// A TCP socket of the node's own network namespace, as the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeSocket {
    /// Its own address.
    pub local: SocketAddr,
    /// What it is connected to.
    pub remote: SocketAddr,
    /// Whether it is connected, in one direction at least.
    pub is_connected: bool,
    /// The user that made it. `None` when no process holds it any more: then the kernel does not
    /// remember who did, and says root.
    pub owner: Option<u32>,
}

/// A connection that a policy refuses and that is a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// The kubelet's: it may go on.
    Kubelet(Permit),
    /// A process of the node opened it and has closed it. If nothing was sent on it, there is nothing to
    /// refuse: this is what a probe looks like that only connects.
    Over,
}

/// The user that the kubelet runs as.
const ROOT: u32 = 0;

/// Whether it makes sense to ask the node about this connection to `destination`.
pub fn may_be_probe(destination: &Workload, connection: &Connection) -> bool {
    let is_plain = matches!(connection.peer, Peer::Unauthenticated);
    let binding = destination.pod.as_deref();
    is_plain && binding.is_some_and(|pod| pod.probe_ports.contains(&connection.destination.port()))
}

/// Whether a connection is a probe: `connection`, which comes from `client`, goes to a port of
/// `destination` that the kubelet calls, and its other end is `socket`.
pub fn probe(
    destination: &Workload,
    connection: &Connection,
    client: SocketAddr,
    socket: &NodeSocket,
) -> Option<Probe> {
    let to = canonical_socket(connection.destination);
    let is_other_end =
        canonical_socket(socket.local) == canonical_socket(client) && canonical_socket(socket.remote) == to;
    if !is_other_end || !may_be_probe(destination, connection) {
        return None;
    }
    match socket.owner {
        None => Some(Probe::Over),
        Some(ROOT) if socket.is_connected => Some(Probe::Kubelet(Permit {
            source_ip: connection.source_ip.to_canonical(),
            destination: to,
            allowed_by: AllowedBy::KubeletProbe,
            dry_run: Vec::new(),
        })),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn only_roots_socket_at_the_other_end_of_the_connection_to_a_probed_port_is_a_probe() {
        let mut web = fixtures::workload("web", &["10.0.0.1"]);
        web.pod.as_mut().unwrap().probe_ports = [8080].into();
        let (client, to) = ("10.0.0.254:40000".parse().unwrap(), "10.0.0.1:8080".parse().unwrap());
        let connection = Connection {
            peer: Peer::Unauthenticated,
            source_ip: [10, 0, 0, 254].into(),
            destination: to,
            through_waypoint: false,
        };
        let kubelet = NodeSocket { local: client, remote: to, is_connected: true, owner: Some(0) };

        let Some(Probe::Kubelet(permit)) = probe(&web, &connection, client, &kubelet) else {
            unreachable!("it is the kubelet");
        };
        assert_eq!((permit.destination(), permit.allowed_by()), (to, &AllowedBy::KubeletProbe));
        let mapped = NodeSocket {
            local: "[::ffff:10.0.0.254]:40000".parse().unwrap(),
            remote: "[::ffff:10.0.0.1]:8080".parse().unwrap(),
            ..kubelet
        };
        let found = probe(&web, &connection, client, &mapped);
        assert!(matches!(found, Some(Probe::Kubelet(_))), "IPv4 on a socket of IPv6");
        let closed = NodeSocket { is_connected: false, owner: None, ..kubelet };
        assert_eq!(probe(&web, &connection, client, &closed), Some(Probe::Over), "nobody's any more");

        let elsewhere = "10.0.0.254:40001".parse().unwrap();
        for (rule, socket) in [
            ("another user's", NodeSocket { owner: Some(1000), ..kubelet }),
            ("not connected", NodeSocket { is_connected: false, ..kubelet }),
            ("another connection", NodeSocket { local: elsewhere, ..kubelet }),
            ("connected elsewhere", NodeSocket { remote: elsewhere, ..kubelet }),
            ("another connection that is over", NodeSocket { local: elsewhere, ..closed }),
        ] {
            assert_eq!(probe(&web, &connection, client, &socket), None, "{rule}");
        }

        let other_port = Connection { destination: "10.0.0.1:8081".parse().unwrap(), ..connection.clone() };
        let there = NodeSocket { remote: other_port.destination, ..kubelet };
        assert_eq!(probe(&web, &other_port, client, &there), None, "a port that is not probed");
        let verified = Connection { peer: Peer::Verified(web.identity.clone()), ..connection.clone() };
        assert_eq!(probe(&web, &verified, client, &kubelet), None, "a peer of the mesh");
        web.pod = None;
        assert_eq!(probe(&web, &connection, client, &kubelet), None, "a pod of another node");
    }
}
