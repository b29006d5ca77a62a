//! The agent's connecting sockets inside a pod.
//!
//! Where they connect to is decided elsewhere.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use nix::errno::Errno;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::marks::Marks;
use super::netns::{NamespaceError, NetworkNamespace};

/// A socket, not yet connected and not blocking, that leaves the pod as the agent's own: for
/// passing a connection through.
///
/// # Errors
/// When the socket cannot be made: it takes CAP_SYS_ADMIN and CAP_NET_ADMIN.
pub fn outbound_socket(pod: &NetworkNamespace, marks: &Marks, domain: Domain) -> Result<Socket, SocketError> {
    let socket = pod.run(|| open(marks, domain))?.map_err(|source| SocketError::Open { source })?;
    socket.set_tcp_keepalive(&KEEPALIVE).map_err(|source| SocketError::Open { source })?;
    Ok(socket)
}

/// As [`outbound_socket`], for a tunnel: a peer that stops answering is noticed within
/// [`SILENCE`]. A plain connection must not have this limit, since the kernel also counts the time
/// that an application takes to read again.
///
/// # Errors
/// As [`outbound_socket`].
pub fn tunnel_socket(pod: &NetworkNamespace, marks: &Marks, domain: Domain) -> Result<Socket, SocketError> {
    let socket = outbound_socket(pod, marks, domain)?;
    let failed = |source| SocketError::Open { source };
    socket.set_tcp_user_timeout(Some(SILENCE)).map_err(failed)?;
    socket.set_tcp_notsent_lowat(UNSENT).map_err(failed)?;
    Ok(socket)
}

/// Connects to the application at `destination` so that it sees `source`, the client's address, as
/// its peer. The client's port is not kept. The socket does not block: it is connected once it is
/// writable and has no pending error.
///
/// # Errors
/// When the addresses are of two families, no port is free, or the connection fails at once.
pub fn connect_application(
    pod: &NetworkNamespace,
    marks: &Marks,
    source: IpAddr,
    destination: SocketAddr,
) -> Result<Socket, SocketError> {
    let mut rng = rand::rng();
    connect_from(pod, marks, source, destination, || rand::Rng::random_range(&mut rng, SOURCE_PORTS))
}

/// Why a socket could not be made or connected.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The pod's namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The socket cannot be made.
    #[error("cannot make a socket in the pod: the agent needs CAP_NET_ADMIN and free descriptors")]
    Open {
        /// The cause.
        source: io::Error,
    },
    /// The client and the application have addresses of different families.
    #[error("cannot connect to the application at {destination} from {client}: the address families differ")]
    Families {
        /// The client.
        client: IpAddr,
        /// The application.
        destination: SocketAddr,
    },
    /// No free source port was found.
    #[error(
        "no free port of {client} for a connection to the application at {destination}: too many connections of this client are open or were closed within the last minute"
    )]
    Ports {
        /// The client.
        client: IpAddr,
        /// The application.
        destination: SocketAddr,
    },
    /// The connection failed at once.
    #[error("cannot connect to the application at {destination} from {client}")]
    Connect {
        /// The client.
        client: IpAddr,
        /// The application.
        destination: SocketAddr,
        /// The cause.
        source: io::Error,
    },
}

/// Octets that may wait in a tunnel's socket without being sent; what is under way does not count. Without
/// it the kernel takes megabytes of one stream's bulk, and every other stream of the tunnel waits behind
/// them.
pub const UNSENT: u32 = 128 * 1024;

/// Has a socket whose other end is in the pod send without pacing, whatever the system's congestion
/// control is. Nothing is congested between two sockets of one kernel, and a pacing one (BBR) costs a timer
/// and an interrupt for every burst.
///
/// # Errors
/// When the kernel lacks Reno, which none does: it cannot be left out.
pub fn keep_unpaced(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_congestion(b"reno")
}

/// How long a tunnel's peer may leave sent data unacknowledged.
pub const SILENCE: Duration = Duration::from_secs(60);

/// Ports for connections to the application: as many as the kernel's own choice has by default
/// (32768 to 60999), and none of those, because clients choose from them. A connection from
/// client port x to the application, made by the agent, and one that the same client makes
/// itself from x are the same to conntrack and to the socket table: the second would fail.
const SOURCE_PORTS: RangeInclusive<u16> = 4536..=32767;

/// Nine in ten connections of one client to one port must be taken for half of all attempts to
/// fail.
const PORT_ATTEMPTS: usize = 64;

/// Finds peers that went away without a word: after 180 s of silence, every 180 s, nine times, as
/// Istio's proxies do. Not for connections to the application: within one kernel nobody can.
pub const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(180))
    .with_interval(Duration::from_secs(180))
    .with_retries(9);

fn connect_from(
    pod: &NetworkNamespace,
    marks: &Marks,
    client: IpAddr,
    destination: SocketAddr,
    mut choose: impl FnMut() -> u16,
) -> Result<Socket, SocketError> {
    if client.is_ipv4() != destination.is_ipv4() {
        return Err(SocketError::Families { client, destination });
    }
    let attempt = |port| {
        let socket = open(marks, Domain::for_address(destination))?;
        keep_unpaced(&socket)?;
        bind_as(&socket, SocketAddr::new(client, port))?;
        start_connecting(&socket, &destination.into())?;
        Ok(socket)
    };
    let connected = pod.run(|| {
        for _ in 0..PORT_ATTEMPTS {
            let port = choose();
            // A connection from an address to itself would meet itself, not the application.
            if SocketAddr::new(client, port) == destination {
                continue;
            }
            match attempt(port) {
                Err(error) if is_taken(&error) => {}
                result => return result.map(Some),
            }
        }
        Ok(None)
    })?;
    connected
        .map_err(|source| SocketError::Connect { client, destination, source })?
        .ok_or(SocketError::Ports { client, destination })
}

fn open(marks: &Marks, domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_mark(marks.socket().get())?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

fn bind_as(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    match address {
        SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
        SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
    }
    // Connections to different ports of the application may share a source port, and an
    // application that starts to listen on it is not kept from it.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

fn start_connecting(socket: &Socket, destination: &SockAddr) -> io::Result<()> {
    match socket.connect(destination) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(()),
        result => result,
    }
}

/// Somebody listens on the port (found by bind), or a connection from it to the same destination
/// is open or was closed a moment ago (found by connect).
fn is_taken(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EADDRINUSE | Errno::EADDRNOTAVAIL))
}
