//! The agent's listening sockets inside a pod: opens them, or takes over those of a predecessor.
//!
//! Accepting is the workers' concern. Each worker opens its own set: sockets on one port share the
//! connections (SO_REUSEPORT).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use super::netns::{NamespaceError, NetworkNamespace};
use super::rules::CapturePort;
use super::socket::{KEEPALIVE, UNSENT, keep_unpaced};

/// Listening sockets of one pod. A port may have several: connections are spread over them.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For what the pod sends.
    pub outbound: Vec<TcpListener>,
    /// For plaintext that others send it.
    pub plaintext: Vec<TcpListener>,
    /// For tunnels.
    pub hbone: Vec<TcpListener>,
}

impl Listeners {
    /// Those of one port.
    pub fn of(&self, port: CapturePort) -> &Vec<TcpListener> {
        match port {
            CapturePort::Outbound => &self.outbound,
            CapturePort::InboundPlaintext => &self.plaintext,
            CapturePort::InboundHbone => &self.hbone,
        }
    }

    /// Those of one port, to add or take some.
    pub fn of_mut(&mut self, port: CapturePort) -> &mut Vec<TcpListener> {
        match port {
            CapturePort::Outbound => &mut self.outbound,
            CapturePort::InboundPlaintext => &mut self.plaintext,
            CapturePort::InboundHbone => &mut self.hbone,
        }
    }
}

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`, 4096 by
/// default.
const BACKLOG: i32 = 4096;

/// Opens a listening socket for `port` in the pod, not blocking, for both address families where
/// the pod has both.
///
/// # Errors
/// When the port is taken by a process of another user, or the agent lacks CAP_NET_ADMIN.
pub fn listen(pod: &NetworkNamespace, port: CapturePort) -> Result<Socket, ListenError> {
    let failed = |source| ListenError::Listen { port: port.number(), source };
    let opened = pod.run(|| match bind(port, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port.number()))) {
        // IPv6 is absent from the kernel, or disabled in this pod.
        Err(error) if lacks_ipv6(&error) => {
            bind(port, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.number())))
        }
        result => result,
    });
    let socket = opened?.map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    Ok(socket)
}

/// Takes over a listening socket for `port` that another process opened with [`listen`].
///
/// # Errors
/// When the descriptor is not such a socket.
pub fn adopt(descriptor: OwnedFd, port: CapturePort) -> Result<Socket, ListenError> {
    let socket = Socket::from(descriptor);
    let adopted = check(&socket, port).and_then(|()| {
        socket.set_cloexec(true)?;
        socket.set_nonblocking(true)?;
        set_inherited(&socket, port)
    });
    adopted.map_err(|source| ListenError::Adopt { port: port.number(), source })?;
    Ok(socket)
}

/// Why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The pod's namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// It cannot be opened.
    #[error("cannot listen on port {port} in the pod: check that no process of the pod has taken it")]
    Listen {
        /// The port.
        port: u16,
        /// The cause.
        source: io::Error,
    },
    /// It cannot be taken over.
    #[error("the descriptor handed over for port {port} is not a listening socket on that port")]
    Adopt {
        /// The port.
        port: u16,
        /// The cause.
        source: io::Error,
    },
}

fn bind(port: CapturePort, address: SocketAddr) -> io::Result<Socket> {
    let socket =
        Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    // Accepted connections inherit it. Under TPROXY their local port is the application's, which
    // could otherwise not start to listen while they are open.
    socket.set_reuse_address(true)?;
    set_inherited(&socket, port)?;
    if is_transparent(port) {
        // One flag in the kernel: on an IPv6 socket it holds for IPv4 connections, too.
        match address {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
    }
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Options for the connections that will be accepted: they have them from the listening socket, which
/// saves five system calls for each.
fn set_inherited(socket: &Socket, port: CapturePort) -> io::Result<()> {
    match port {
        CapturePort::InboundHbone => socket.set_tcp_notsent_lowat(UNSENT)?,
        // Its clients are the pod's own processes.
        CapturePort::Outbound => keep_unpaced(socket)?,
        CapturePort::InboundPlaintext => {}
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&KEEPALIVE)
}

/// TPROXY gives packets only to transparent sockets; redirected ones need no such right.
fn is_transparent(port: CapturePort) -> bool {
    match port {
        CapturePort::InboundPlaintext | CapturePort::InboundHbone => true,
        CapturePort::Outbound => false,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL))
}

fn check(socket: &Socket, port: CapturePort) -> io::Result<()> {
    let bound = socket.local_addr()?.as_socket().map(|address| address.port());
    let fits = socket.is_listener()? && socket.r#type()? == Type::STREAM && bound == Some(port.number());
    fits.then_some(()).ok_or_else(|| Errno::EINVAL.into())
}
