//! A pod and a host outside of it, joined by one link; the agent's listeners; connections.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use rand::SeedableRng;
use rand::rngs::SmallRng;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use ztunnel::capture::marks::Marks;
use ztunnel::capture::netns::NetworkNamespace;
use ztunnel::capture::rules::{CapturePort, Exclusions, RuleSet};
use ztunnel::capture::{Backend, Captured, enroll, listener};

/// How long anything here may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) const BACKENDS: [Backend; 2] = [Backend::Nftables, Backend::Iptables];
pub(crate) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[derive(Clone, Copy, Debug)]
pub(crate) enum Family {
    V4,
    V6,
}

pub(crate) struct Network {
    pub(crate) pod: NetworkNamespace,
    pub(crate) outside: NetworkNamespace,
    /// Keep the paths by which the namespaces were opened valid.
    _files: [File; 2],
}

/// Each look starts a program: together they take seconds.
const LINK_LOOKS: u32 = 1000;

impl Network {
    pub(crate) fn new() -> Self {
        let files = [new_namespace(), new_namespace()];
        let [pod, outside] = [&files[0], &files[1]].map(|file| NetworkNamespace::open(&path(file)).unwrap());
        let network = Self { pod, outside, _files: files };
        let peer = network.outside.path().display();
        network.in_pod(&format!("ip link add eth0 type veth peer name eth0 netns {peer}"));
        for (namespace, host) in [(&network.pod, 1), (&network.outside, 2)] {
            for command in [
                "ip link set lo up".to_owned(),
                "ip link set eth0 up".to_owned(),
                format!("ip address add 10.9.0.{host}/24 dev eth0"),
                format!("ip address add fd09::{host}/64 dev eth0 nodad"),
            ] {
                run(namespace, &command);
            }
        }
        // The kernel tells of a link's carrier a little later; until then there are no routes over it.
        for namespace in [&network.pod, &network.outside] {
            let is_up = || run(namespace, "ip -o link show eth0").contains("state UP");
            assert!((0..LINK_LOOKS).any(|_| is_up()), "the link has no carrier");
        }
        network
    }

    /// The pod is .1, the host outside .2.
    pub(crate) fn pod_address(&self, family: Family, port: u16) -> SocketAddr {
        address(family, 1, port)
    }

    pub(crate) fn outside_address(&self, family: Family, port: u16) -> SocketAddr {
        address(family, 2, port)
    }

    /// Runs a command in the pod and returns what it printed.
    pub(crate) fn in_pod(&self, command: &str) -> String {
        run(&self.pod, command)
    }

    /// Every rule in the pod, whoever made it and by which program, without counters.
    pub(crate) fn rules(&self) -> String {
        let saved = ["iptables-save", "ip6tables-save"].map(|program| {
            let text = self.in_pod(program);
            let rules = text.lines().filter(|line| line.starts_with('-') || line.starts_with(":AMBIT_"));
            rules.collect::<Vec<_>>().join("\n")
        });
        format!("{}{}", self.in_pod("nft -s list ruleset"), saved.join("\n").trim())
    }

    pub(crate) fn enroll(&self, backend: Backend) -> Captured {
        self.enroll_excluding(backend, Exclusions::default())
    }

    pub(crate) fn enroll_excluding(&self, backend: Backend, exclusions: Exclusions) -> Captured {
        enroll(&self.pod, &RuleSet { exclusions, ..rules() }, backend).unwrap()
    }
}

/// The marks of every pod here.
pub(crate) fn marks() -> Marks {
    Marks::random(&mut SmallRng::seed_from_u64(7))
}

pub(crate) fn rules() -> RuleSet {
    RuleSet { marks: marks(), exclusions: Exclusions::default(), probe_ports: [].into(), ipv6: true }
}

fn address(family: Family, host: u16, port: u16) -> SocketAddr {
    let ip = match family {
        Family::V4 => IpAddr::from([10, 9, 0, u8::try_from(host).unwrap()]),
        Family::V6 => IpAddr::from([0xfd09, 0, 0, 0, 0, 0, 0, host]),
    };
    SocketAddr::new(ip, port)
}

pub(crate) fn new_namespace() -> File {
    let make = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        File::open("/proc/thread-self/ns/net").unwrap()
    };
    thread::spawn(make).join().unwrap()
}

pub(crate) fn path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
}

pub(crate) fn run(namespace: &NetworkNamespace, command: &str) -> String {
    let words: Vec<_> = command.split(' ').collect();
    let output = namespace.run(|| Command::new(words[0]).args(&words[1..]).output()).unwrap();
    let output = output.unwrap_or_else(|error| panic!("{command}: {error}"));
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The agent's listeners in the pod.
pub(crate) struct Agent {
    pub(crate) outbound: TcpListener,
    pub(crate) plaintext: TcpListener,
    pub(crate) hbone: TcpListener,
}

impl Agent {
    pub(crate) fn start(network: &Network) -> Self {
        let [outbound, plaintext, hbone] =
            CapturePort::ALL.map(|port| listener::listen(&network.pod, port).unwrap().into());
        Self { outbound, plaintext, hbone }
    }

    pub(crate) fn stop(self) {
        [self.outbound, self.plaintext, self.hbone].into_iter().for_each(stop_listening);
    }
}

/// Listens on a free or the given port, on all addresses.
///
/// A listener that was dropped lives on in a child that another test has forked, until that child
/// calls exec: its port is free a moment later.
pub(crate) fn serve(namespace: &NetworkNamespace, port: u16) -> TcpListener {
    let deadline = Instant::now() + PATIENCE;
    let listener = loop {
        match namespace.run(|| TcpListener::bind(("::", port))).unwrap() {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::yield_now();
            }
            bound => break bound.unwrap(),
        }
    };
    listener.set_nonblocking(true).unwrap();
    listener
}

/// From its return on the port refuses. To close the socket is not enough: it lives on as [`serve`] says.
pub(crate) fn stop_listening(listener: TcpListener) {
    SockRef::from(&listener).shutdown(Shutdown::Both).unwrap();
}

/// The next connection: its stream and the client's address.
pub(crate) fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    assert!(wait(listener, PATIENCE), "nobody connected");
    let (stream, client) = listener.accept().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    (stream, SocketAddr::new(client.ip().to_canonical(), client.port()))
}

/// Whether something waits on the socket right now.
pub(crate) fn is_ready(socket: &impl AsFd) -> bool {
    wait(socket, Duration::ZERO)
}

fn wait(socket: &impl AsFd, patience: Duration) -> bool {
    let mut descriptors = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    poll(&mut descriptors, PollTimeout::try_from(patience).unwrap()).unwrap() > 0
}

pub(crate) fn connect(namespace: &NetworkNamespace, to: SocketAddr) -> io::Result<TcpStream> {
    connect_marked(namespace, to, 0)
}

/// As a process with CAP_NET_RAW can: with a mark of its choice.
pub(crate) fn connect_marked(
    namespace: &NetworkNamespace,
    to: SocketAddr,
    mark: u32,
) -> io::Result<TcpStream> {
    let socket = namespace
        .run(|| Socket::new(Domain::for_address(to), Type::STREAM.cloexec(), Some(Protocol::TCP)))
        .unwrap()?;
    socket.set_mark(mark)?;
    finish(socket, |socket| socket.connect_timeout(&to.into(), PATIENCE))
}

/// Waits until a socket that has begun to connect has done so.
pub(crate) fn connected(socket: Socket) -> io::Result<TcpStream> {
    let mut descriptors = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
    assert!(
        poll(&mut descriptors, PollTimeout::try_from(PATIENCE).unwrap()).unwrap() > 0,
        "connecting hangs"
    );
    finish(socket, |socket| socket.take_error()?.map_or(Ok(()), Err))
}

fn finish(socket: Socket, connect: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<TcpStream> {
    connect(&socket)?;
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

pub(crate) fn is_refused(result: &io::Result<TcpStream>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
}

/// Sends both ways and checks that it arrives.
pub(crate) fn exchange(a: &mut TcpStream, b: &mut TcpStream) {
    for word in [*b"one", *b"two"] {
        let mut heard = [0; 3];
        a.write_all(&word).unwrap();
        b.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word);
        b.write_all(&word).unwrap();
        a.read_exact(&mut heard).unwrap();
        assert_eq!(heard, word);
    }
}
