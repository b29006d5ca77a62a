//! Where a captured connection wanted to go.
//!
//! Deciding where it does go is not done here.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;

use socket2::SockRef;

use super::rules::CapturePort;

/// The destination that the application asked for on a connection accepted on port 15001. `client` is
/// where it was accepted from: its family is the connection's.
///
/// # Errors
/// When the connection was not redirected, and conntrack knows nothing of it.
pub fn outbound(connection: &impl AsFd, client: SocketAddr) -> Result<SocketAddr, OriginalDstError> {
    translated(&SockRef::from(connection), client).map_err(|source| OriginalDstError { source })
}

/// The destination that the client asked for on a connection accepted on port 15006 or 15008.
///
/// # Errors
/// When the connection is gone.
pub fn inbound(connection: &impl AsFd) -> Result<SocketAddr, OriginalDstError> {
    let socket = SockRef::from(connection);
    let destination = local_address(&socket).and_then(|local| {
        // nftables (TPROXY) leaves the destination as it was; iptables translates it to the port.
        if local.port() == CapturePort::InboundPlaintext.number() {
            translated(&socket, local)
        } else {
            Ok(local)
        }
    });
    destination.map_err(|source| OriginalDstError { source })
}

/// The kernel does not tell where a connection wanted to go.
#[derive(Debug, thiserror::Error)]
#[error(
    "the original destination of a connection is unknown: it was not captured by this pod's rules, or it is gone"
)]
pub struct OriginalDstError {
    /// The cause.
    source: io::Error,
}

/// As conntrack has it, for a connection with this address at either end. On a dual-stack socket an
/// IPv4 connection is asked for as IPv4.
fn translated(socket: &SockRef<'_>, end: SocketAddr) -> io::Result<SocketAddr> {
    let original = if end.is_ipv4() { socket.original_dst_v4()? } else { socket.original_dst_v6()? };
    plain(original.as_socket())
}

fn local_address(socket: &SockRef<'_>) -> io::Result<SocketAddr> {
    plain(socket.local_addr()?.as_socket())
}

/// IPv4 is never written as IPv4-mapped IPv6 in the mesh.
fn plain(address: Option<SocketAddr>) -> io::Result<SocketAddr> {
    let address = address.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
    Ok(SocketAddr::new(address.ip().to_canonical(), address.port()))
}
