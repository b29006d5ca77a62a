//! Nothing gets past the rules, and nobody in the pod can pass for the agent.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv};
use socket2::{SockFilter, SockRef, Socket};
use ztunnel::capture::marks::REROUTE_MARK;
use ztunnel::capture::netns::NetworkNamespace;
use ztunnel::capture::{original_dst, socket};

use crate::network::*;

/// Sees every packet of all interfaces of a namespace, as a process with CAP_NET_RAW does.
struct Tap(OwnedFd);

impl Tap {
    fn open(namespace: &NetworkNamespace) -> Self {
        let open = || {
            nix::sys::socket::socket(
                AddressFamily::Packet,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::EthAll,
            )
        };
        Self(namespace.run(open).unwrap().unwrap())
    }

    /// Forgets what came so far: before it had its filter it took everything.
    fn forget(&self) {
        let mut packet = vec![0; 2048];
        while recv(self.0.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT).is_ok() {}
    }

    /// The packets seen until one that carries `end`.
    fn until(&self, end: &[u8]) -> Vec<Vec<u8>> {
        let mut seen = Vec::new();
        loop {
            let mut packet = vec![0; 2048];
            let length = recv(self.0.as_raw_fd(), &mut packet, MsgFlags::empty()).unwrap();
            packet.truncate(length);
            if packet.windows(end.len()).any(|window| window == end) {
                return seen;
            }
            seen.push(packet);
        }
    }
}

/// Sends a datagram that ends a tap's recording.
fn send_marker(namespace: &NetworkNamespace, to: SocketAddr, mark: u32) {
    let bind: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = namespace.run(|| UdpSocket::bind(bind)).unwrap().unwrap();
    SockRef::from(&socket).set_mark(mark).unwrap();
    socket.send_to(MARKER, to).unwrap();
}

const MARKER: &[u8] = b"end of the recording";

/// Whether an Ethernet frame holds TCP to `port`.
fn is_tcp_to(frame: &[u8], port: u16) -> bool {
    let (protocol, header) = match frame[12..14] {
        [0x08, 0x00] => (frame[23], 34),
        [0x86, 0xdd] => (frame[20], 54),
        _ => return false,
    };
    protocol == 6 && frame[header + 2..header + 4] == port.to_be_bytes()
}

#[test]
fn without_the_agent_no_packet_of_a_connection_leaves() {
    for backend in BACKENDS {
        let network = Network::new();
        let _server = serve(&network.outside, 80);
        for family in FAMILIES {
            let tap = Tap::open(&network.outside);
            let server = network.outside_address(family, 80);
            let probe = network.outside_address(family, 9);
            connect(&network.pod, server).unwrap();
            send_marker(&network.pod, probe, 0);
            assert!(tap.until(MARKER).iter().any(|frame| is_tcp_to(frame, 80)), "the tap sees nothing");

            network.enroll(backend);
            let tap = Tap::open(&network.outside);
            let refused = connect(&network.pod, server);
            assert!(is_refused(&refused), "{backend} {family:?}: {refused:?}");
            send_marker(&network.pod, probe, 0);
            let seen = tap.until(MARKER);
            assert!(!seen.iter().any(|frame| is_tcp_to(frame, 80)), "{backend} {family:?}");
            ztunnel::capture::remove(&network.pod).unwrap();
        }
    }
}

/// Marks that other meshes use, and near misses of the secret one.
#[test]
fn a_process_that_sets_a_mark_is_captured_all_the_same() {
    for backend in BACKENDS {
        let network = Network::new();
        let _server = serve(&network.outside, 80);
        let agent = Agent::start(&network);
        network.enroll(backend);
        let secret = marks().socket().get();
        for mark in [1337, 0x111, 1, u32::MAX, secret ^ 1, secret.swap_bytes()] {
            for family in FAMILIES {
                let destination = network.outside_address(family, 80);
                let _client = connect_marked(&network.pod, destination, mark).unwrap();
                let (captured, peer) = accept(&agent.outbound);
                let original = original_dst::outbound(&captured, peer).unwrap();
                assert_eq!(original, destination, "{backend} {mark:#x}");
            }
        }
    }
}

/// The reroute mark is public: whoever sets it talks to the pod itself at most.
#[test]
fn the_reroute_mark_leads_nowhere_but_into_the_pod() {
    for backend in BACKENDS {
        let network = Network::new();
        let server = serve(&network.outside, 80);
        let agent = Agent::start(&network);
        network.enroll(backend);
        for family in FAMILIES {
            let tap = Tap::open(&network.outside);
            let attempt = connect_marked(&network.pod, network.outside_address(family, 80), REROUTE_MARK);
            assert!(attempt.is_err(), "{backend} {family:?}");
            send_marker(&network.pod, network.outside_address(family, 9), 0);
            assert!(!tap.until(MARKER).iter().any(|frame| is_tcp_to(frame, 80)), "{backend} {family:?}");
        }
        assert!(!is_ready(&server) && !is_ready(&agent.outbound));
    }
}

/// A socket filter program can read a packet's mark, and any process with CAP_NET_RAW can attach
/// one; so the agent's packets must not show theirs where packet sockets look.
#[test]
fn a_packet_socket_does_not_see_the_agents_mark() {
    const CONTROL: u32 = 0x0bad_cafe;
    for backend in BACKENDS {
        let network = Network::new();
        let server = serve(&network.outside, 80);
        let application = serve(&network.pod, 80);
        network.enroll(backend);
        for family in FAMILIES {
            let tap = Tap::open(&network.pod);
            let secret = marks().socket().get();
            SockRef::from(&tap.0).attach_filter(&only_marked(secret, CONTROL)).unwrap();
            tap.forget();

            let destination = network.outside_address(family, 80);
            let domain = socket2::Domain::for_address(destination);
            let outbound = socket::outbound_socket(&network.pod, &marks(), domain).unwrap();
            let mut outbound = start(outbound, destination);
            exchange(&mut outbound, &mut accept(&server).0);

            let client = network.outside_address(family, 0).ip();
            let destination = network.pod_address(family, 80);
            let forwarded = socket::connect_application(&network.pod, &marks(), client, destination).unwrap();
            exchange(&mut connected(forwarded).unwrap(), &mut accept(&application).0);

            send_marker(&network.pod, network.outside_address(family, 9), CONTROL);
            assert_eq!(tap.until(MARKER), Vec::<Vec<u8>>::new(), "{backend} {family:?}");
        }
    }
}

fn start(socket: Socket, destination: SocketAddr) -> std::net::TcpStream {
    match socket.connect(&destination.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        result => result.unwrap(),
    }
    connected(socket).unwrap()
}

/// A classic BPF program that lets packets with one of two marks through.
fn only_marked(a: u32, b: u32) -> [SockFilter; 5] {
    /// linux/filter.h SKF_AD_OFF + SKF_AD_MARK
    const MARK: u32 = (-0x1000_i32 + 20).cast_unsigned();
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    [
        SockFilter::new(LOAD, 0, 0, MARK),
        SockFilter::new(JUMP_IF_EQUAL, 2, 0, a),
        SockFilter::new(JUMP_IF_EQUAL, 1, 0, b),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
