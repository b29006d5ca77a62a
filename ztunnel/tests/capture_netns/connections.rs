//! What becomes of single connections.

use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use ambit_mesh::policy::NodeSocket;
use socket2::{Domain, SockRef};
use ztunnel::capture::kubelet::NodeSockets;
use ztunnel::capture::netns::NetworkNamespace;
use ztunnel::capture::node::NodeNetwork;
use ztunnel::capture::rules::{CapturePort, RuleSet};
use ztunnel::capture::{Backend, enroll, listener, original_dst, socket};

use crate::network::*;

#[test]
fn a_connection_of_the_pod_reaches_the_agent_with_its_destination() {
    for backend in BACKENDS {
        let network = Network::new();
        let agent = Agent::start(&network);
        network.enroll(backend);
        for family in FAMILIES {
            let destination = network.outside_address(family, 80);
            let mut client = connect(&network.pod, destination).unwrap();
            let (mut captured, peer) = accept(&agent.outbound);
            let original = original_dst::outbound(&captured, peer).unwrap();
            assert_eq!(original, destination, "{backend} {family:?}");
            assert_eq!(peer, client.local_addr().unwrap());
            exchange(&mut client, &mut captured);
        }
    }
}

/// Setting them on each connection would cost five system calls of each.
#[test]
fn accepted_connections_have_their_options_from_the_listening_socket() {
    let network = Network::new();
    let agent = Agent::start(&network);
    network.enroll(Backend::Nftables);
    for family in FAMILIES {
        let _outbound = connect(&network.pod, network.outside_address(family, 80)).unwrap();
        let _inbound = connect(&network.outside, network.pod_address(family, 80)).unwrap();
        let _hbone = connect(&network.outside, network.pod_address(family, 15008)).unwrap();
        for listener in [&agent.outbound, &agent.plaintext, &agent.hbone] {
            let (accepted, _) = accept(listener);
            let options = SockRef::from(&accepted);
            if std::ptr::eq(listener, &agent.hbone) {
                assert_eq!(options.tcp_notsent_lowat().unwrap(), socket::UNSENT, "{family:?}");
            }
            if std::ptr::eq(listener, &agent.outbound) {
                assert_unpaced(&options);
            }
            assert!(options.tcp_nodelay().unwrap(), "{family:?}: small writes would wait");
            assert!(options.keepalive().unwrap(), "{family:?}: a client that vanished is never noticed");
            assert_eq!(options.tcp_keepalive_time().unwrap(), Duration::from_secs(180), "{family:?}");
        }
    }
}

#[test]
fn a_connection_to_the_pod_keeps_client_and_destination() {
    for backend in BACKENDS {
        let network = Network::new();
        let _application = serve(&network.pod, 80);
        let agent = Agent::start(&network);
        network.enroll(backend);
        for family in FAMILIES {
            for (port, listener) in [(80, &agent.plaintext), (81, &agent.plaintext), (15008, &agent.hbone)] {
                let destination = network.pod_address(family, port);
                let mut client = connect(&network.outside, destination).unwrap();
                let (mut captured, peer) = accept(listener);
                assert_eq!(original_dst::inbound(&captured).unwrap(), destination, "{backend} {family:?}");
                assert_eq!(peer, client.local_addr().unwrap());
                exchange(&mut client, &mut captured);
            }
        }
    }
}

/// The agent's own ports are captured like all others, so that its limits hold there, too: what it
/// learns is a destination that it refuses.
#[test]
fn a_connection_to_a_port_of_the_agent_names_that_port() {
    for backend in BACKENDS {
        let network = Network::new();
        let agent = Agent::start(&network);
        network.enroll(backend);
        for family in FAMILIES {
            for port in [15001, 15006] {
                let destination = network.pod_address(family, port);
                let _client = connect(&network.outside, destination).unwrap();
                let (captured, _) = accept(&agent.plaintext);
                assert_eq!(original_dst::inbound(&captured).unwrap(), destination, "{backend} {family:?}");
            }
        }
    }
}

#[test]
fn the_application_sees_the_clients_address_and_its_answers_come_back() {
    for backend in BACKENDS {
        let network = Network::new();
        let application = serve(&network.pod, 80);
        let agent = Agent::start(&network);
        network.enroll(backend);
        for family in FAMILIES {
            let mut client = connect(&network.outside, network.pod_address(family, 80)).unwrap();
            let (mut inbound, peer) = accept(&agent.plaintext);
            let mut forwarded = connect_application(&network, peer.ip(), family, 80);
            assert_unpaced(&SockRef::from(&forwarded));
            let (mut served, seen) = accept(&application);
            assert_eq!(seen.ip(), peer.ip(), "{backend} {family:?}");
            assert_ne!(seen.port(), peer.port());
            exchange(&mut forwarded, &mut served);
            exchange(&mut client, &mut inbound);
        }
    }
}

/// Within the pod nothing is congested, and pacing costs a timer for each burst.
fn assert_unpaced(socket: &SockRef<'_>) {
    assert!(socket.tcp_congestion().unwrap().starts_with(b"reno\0"), "the system's congestion control");
}

fn connect_application(network: &Network, client: IpAddr, family: Family, port: u16) -> TcpStream {
    let destination = network.pod_address(family, port);
    let socket = socket::connect_application(&network.pod, &marks(), client, destination).unwrap();
    connected(socket).unwrap()
}

/// Settings that nodes and pods have otherwise: they concern how a packet's source is checked,
/// when its socket is found, and where marks go.
#[test]
fn the_way_to_the_application_does_not_depend_on_kernel_settings() {
    for setting in [
        "ipv4.conf.all.rp_filter=1",
        "ipv4.ip_early_demux=0",
        "ipv4.tcp_fwmark_accept=1",
        "ipv4.fwmark_reflect=1",
    ] {
        for backend in BACKENDS {
            let network = Network::new();
            network.in_pod(&format!("sysctl -q net.{setting}"));
            let application = serve(&network.pod, 80);
            let agent = Agent::start(&network);
            network.enroll(backend);
            for family in FAMILIES {
                let mut client = connect(&network.outside, network.pod_address(family, 80)).unwrap();
                let (mut inbound, peer) = accept(&agent.plaintext);
                exchange(&mut client, &mut inbound);
                let mut forwarded = connect_application(&network, peer.ip(), family, 80);
                let (mut served, _) = accept(&application);
                exchange(&mut forwarded, &mut served);
                // What the application itself inherits is not the agent's mark.
                assert_eq!(SockRef::from(&served).mark().unwrap(), 0, "{setting} {backend}");
            }
        }
    }
}

/// A destination inside the pod itself: the source is the pod's own address.
#[test]
fn the_agent_connects_the_pod_to_itself() {
    for backend in BACKENDS {
        let network = Network::new();
        let application = serve(&network.pod, 80);
        network.enroll(backend);
        for family in FAMILIES {
            let own = network.pod_address(family, 0).ip();
            let mut forwarded = connect_application(&network, own, family, 80);
            let (mut served, seen) = accept(&application);
            assert_eq!(seen.ip(), own, "{backend}");
            exchange(&mut forwarded, &mut served);
        }
    }
}

#[test]
fn many_short_connections_from_one_client_find_ports() {
    let network = Network::new();
    let application = serve(&network.pod, 80);
    network.enroll(Backend::Nftables);
    let client = network.outside_address(Family::V4, 0).ip();
    for _ in 0..3000 {
        let forwarded = connect_application(&network, client, Family::V4, 80);
        // The client's side closes first, so that its port has to wait.
        drop(forwarded);
        drop(accept(&application));
    }
}

#[test]
fn the_agents_own_connections_leave_the_pod() {
    for backend in BACKENDS {
        let network = Network::new();
        let server = serve(&network.outside, 80);
        let _agent = Agent::start(&network);
        network.enroll(backend);
        for (family, domain) in [(Family::V4, Domain::IPV4), (Family::V6, Domain::IPV6)] {
            let destination = network.outside_address(family, 80);
            let outbound = socket::tunnel_socket(&network.pod, &marks(), domain).unwrap();
            outbound.set_nonblocking(false).unwrap();
            outbound.connect(&destination.into()).unwrap();
            let (mut served, peer) = accept(&server);
            assert_eq!(peer.ip(), network.pod_address(family, 0).ip());
            let mut outbound = TcpStream::from(outbound);
            SockRef::from(&outbound).set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            exchange(&mut outbound, &mut served);
        }
    }
}

#[test]
fn within_the_pod_nothing_is_captured() {
    for backend in BACKENDS {
        let network = Network::new();
        let application = serve(&network.pod, 80);
        let _agent = Agent::start(&network);
        network.enroll(backend);
        let own = FAMILIES.map(|family| network.pod_address(family, 80));
        let loopback = ["127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap()];
        for destination in own.into_iter().chain(loopback) {
            let mut client = connect(&network.pod, destination).unwrap();
            let (mut served, _) = accept(&application);
            exchange(&mut client, &mut served);
        }
    }
}

/// Other ways to refuse would differ: a filtered port, a time-out.
#[test]
fn without_the_agent_every_connection_is_refused() {
    for backend in BACKENDS {
        let network = Network::new();
        let _application = serve(&network.pod, 80);
        let _server = serve(&network.outside, 80);
        network.enroll(backend);
        for family in FAMILIES {
            let inward = connect(&network.outside, network.pod_address(family, 80));
            assert!(is_refused(&inward), "{backend} {family:?}: {inward:?}");
            let hbone = connect(&network.outside, network.pod_address(family, 15008));
            assert!(is_refused(&hbone), "{backend} {family:?}: {hbone:?}");
            let outward = connect(&network.pod, network.outside_address(family, 80));
            assert!(is_refused(&outward), "{backend} {family:?}: {outward:?}");
        }
    }
}

/// Under nftables a captured connection has the application's port, which must not keep the
/// application from listening on it, as after a restart of its container.
#[test]
fn an_application_can_start_while_connections_to_it_are_captured() {
    for backend in BACKENDS {
        let network = Network::new();
        let agent = Agent::start(&network);
        network.enroll(backend);
        for (family, port) in [(Family::V4, 80), (Family::V6, 81)] {
            let mut client = connect(&network.outside, network.pod_address(family, port)).unwrap();
            let (mut captured, peer) = accept(&agent.plaintext);
            let application = serve(&network.pod, port);
            exchange(&mut client, &mut captured);
            let mut forwarded = connect_application(&network, peer.ip(), family, port);
            exchange(&mut forwarded, &mut accept(&application).0);
        }
    }
}

/// With SYN cookies the kernel keeps nothing of a SYN; the packet that completes the connection
/// must find the agent's listener, not the application's.
#[test]
fn a_flood_of_connections_does_not_get_past_the_agent() {
    for backend in BACKENDS {
        let network = Network::new();
        let application = serve(&network.pod, 80);
        let agent = Agent::start(&network);
        network.enroll(backend);
        network.in_pod("sysctl -q net.ipv4.tcp_syncookies=2");
        for family in FAMILIES {
            let destination = network.pod_address(family, 80);
            let mut client = connect(&network.outside, destination).unwrap();
            let (mut captured, _) = accept(&agent.plaintext);
            assert_eq!(original_dst::inbound(&captured).unwrap(), destination);
            exchange(&mut client, &mut captured);
            assert!(!is_ready(&application), "{backend} {family:?}");
        }
    }
}

#[test]
fn listeners_share_a_port_and_pass_to_a_successor() {
    let network = Network::new();
    let first = Agent::start(&network);
    let second = Agent::start(&network);
    drop(second);
    network.enroll(Backend::Nftables);
    let handed_over = first.plaintext.try_clone().unwrap();
    let adopted = listener::adopt(handed_over.into(), CapturePort::InboundPlaintext).unwrap();
    drop(first);
    let destination = network.pod_address(Family::V4, 80);
    let _client = connect(&network.outside, destination).unwrap();
    let (captured, _) = accept(&adopted.try_clone().unwrap().into());
    assert_eq!(original_dst::inbound(&captured).unwrap(), destination);
    for wrong in [CapturePort::InboundHbone, CapturePort::Outbound] {
        listener::adopt(adopted.try_clone().unwrap().into(), wrong).unwrap_err();
    }
    listener::adopt(captured.into(), CapturePort::InboundPlaintext).unwrap_err();
}

#[test]
fn a_connection_to_a_port_that_is_probed_is_refused_while_the_application_does_not_listen() {
    let network = Network::new();
    enroll(&network.pod, &RuleSet { probe_ports: [80].into(), ..rules() }, Backend::Nftables).unwrap();
    let agent = Agent::start(&network);
    for family in FAMILIES {
        let probed = network.pod_address(family, 80);
        assert!(is_refused(&connect(&network.outside, probed)), "{family:?}");
        let application = serve(&network.pod, 80);
        let _client = connect(&network.outside, probed).unwrap();
        accept(&agent.plaintext);
        stop_listening(application);
        // Every other port is the agent's to answer.
        let _other = connect(&network.outside, network.pod_address(family, 81)).unwrap();
        accept(&agent.plaintext);
    }
}

/// Here the host outside is the node: the agent runs in a network of its own, as a DaemonSet does.
#[test]
fn the_node_tells_of_its_own_connections_and_no_pod_does() {
    let network = Network::new();
    let sockets_of = |namespace: &NetworkNamespace| {
        NodeSockets::open(&NodeNetwork::open(Some(namespace.path())).unwrap()).unwrap()
    };
    let (node, pod) = (sockets_of(&network.outside), sockets_of(&network.pod));
    for family in FAMILIES {
        let application = serve(&network.pod, 80);
        let to = network.pod_address(family, 80);
        let client = connect(&network.outside, to).unwrap();
        let from = client.local_addr().unwrap();
        let kubelet = NodeSocket { local: from, remote: to, is_connected: true, owner: Some(0) };
        assert_eq!(node.find(from, to).unwrap(), Some(kubelet), "{family:?}");
        assert_eq!(pod.find(from, to).unwrap(), None, "{family:?}");
        // The same addresses in a pod are no socket of the node.
        let own = serve(&network.pod, 81);
        let inside = connect(&network.pod, network.pod_address(family, 81)).unwrap();
        let from = inside.local_addr().unwrap();
        assert_eq!(node.find(from, network.pod_address(family, 81)).unwrap(), None, "{family:?}");
        drop((application, own));
    }
}
