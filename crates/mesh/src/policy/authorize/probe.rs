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
    /// Whether it is connected, in both directions.
    pub is_established: bool,
    /// The user that made it. `None` when no process holds it any more: then the kernel does not
    /// remember who did, and says root.
    pub owner: Option<u32>,
}

/// The user that the kubelet runs as.
const ROOT: u32 = 0;

/// Whether it makes sense to ask the node about this connection to `destination`.
pub fn may_be_probe(destination: &Workload, connection: &Connection) -> bool {
    let is_plain = matches!(connection.peer, Peer::Unauthenticated);
    let binding = destination.pod.as_deref();
    is_plain && binding.is_some_and(|pod| pod.probe_ports.contains(&connection.destination.port()))
}

/// Leave for a probe of the kubelet: `connection`, which comes from `client`, goes to a port of
/// `destination` that the kubelet probes, and its other end is `socket`.
pub fn admit_probe(
    destination: &Workload,
    connection: &Connection,
    client: SocketAddr,
    socket: &NodeSocket,
) -> Option<Permit> {
    let to = canonical_socket(connection.destination);
    let is_other_end =
        canonical_socket(socket.local) == canonical_socket(client) && canonical_socket(socket.remote) == to;
    let is_kubelet = socket.is_established && socket.owner == Some(ROOT);
    (may_be_probe(destination, connection) && is_other_end && is_kubelet).then(|| Permit {
        source_ip: connection.source_ip.to_canonical(),
        destination: to,
        allowed_by: AllowedBy::KubeletProbe,
        dry_run: Vec::new(),
    })
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
        let connection =
            Connection { peer: Peer::Unauthenticated, source_ip: [10, 0, 0, 254].into(), destination: to };
        let kubelet = NodeSocket { local: client, remote: to, is_established: true, owner: Some(0) };

        let permit = admit_probe(&web, &connection, client, &kubelet).unwrap();
        assert_eq!((permit.destination(), permit.allowed_by()), (to, &AllowedBy::KubeletProbe));
        let mapped = NodeSocket {
            local: "[::ffff:10.0.0.254]:40000".parse().unwrap(),
            remote: "[::ffff:10.0.0.1]:8080".parse().unwrap(),
            ..kubelet
        };
        assert!(admit_probe(&web, &connection, client, &mapped).is_some(), "IPv4 on a socket of IPv6");

        let elsewhere = "10.0.0.254:40001".parse().unwrap();
        for (rule, socket) in [
            ("another user's", NodeSocket { owner: Some(1000), ..kubelet }),
            ("nobody's any more", NodeSocket { owner: None, ..kubelet }),
            ("not connected", NodeSocket { is_established: false, ..kubelet }),
            ("another connection", NodeSocket { local: elsewhere, ..kubelet }),
            ("connected elsewhere", NodeSocket { remote: elsewhere, ..kubelet }),
        ] {
            assert_eq!(admit_probe(&web, &connection, client, &socket), None, "{rule}");
        }

        let other_port = Connection { destination: "10.0.0.1:8081".parse().unwrap(), ..connection.clone() };
        let there = NodeSocket { remote: other_port.destination, ..kubelet };
        assert_eq!(admit_probe(&web, &other_port, client, &there), None, "a port that is not probed");
        let verified = Connection { peer: Peer::Verified(web.identity.clone()), ..connection.clone() };
        assert_eq!(admit_probe(&web, &verified, client, &kubelet), None, "a peer of the mesh");
        web.pod = None;
        assert_eq!(admit_probe(&web, &connection, client, &kubelet), None, "a pod of another node");
    }
}
