//! Asks the node's kernel who is at the other end of a connection: the kubelet, which is a process of
//! root in the node's own network, or somebody else.
//!
//! The kernel is asked about one connection by its addresses and ports (sock_diag(7)), answers in the
//! same system call and looks only at sockets of the namespace that the question comes from. Whether
//! the answer makes the connection a probe is decided in [`ambit_mesh::policy::probe`].

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ambit_mesh::policy::NodeSocket;
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::netlink::{Message, Refused, Socket, read_u32};
use super::netns::NamespaceError;
use super::node::NodeNetwork;

/// Asks about sockets of the node's network.
pub struct NodeSockets(Socket);

/// Why the node cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The node's namespace cannot be entered.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refuses.
    #[error(transparent)]
    Kernel(#[from] Refused),
}

impl NodeSockets {
    /// Opens the way to the node's kernel. It stays in the node's network, whichever thread uses it.
    ///
    /// # Errors
    /// When the namespace cannot be entered, or the kernel does not tell of sockets.
    pub fn open(node: &NodeNetwork) -> Result<Self, AskError> {
        Ok(Self(node.run(|| Socket::open(SockProtocol::NetlinkSockDiag))??))
    }

    /// The socket of the node that is `local` and connected to `remote`, if there is one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn find(&self, local: SocketAddr, remote: SocketAddr) -> Result<Option<NodeSocket>, AskError> {
        let mut found = None;
        match self.0.ask(&question(local, remote), |body| found = read(body)) {
            Ok(()) => Ok(found),
            Err(refused) if refused.is(&[Errno::ENOENT]) => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }
}

// linux/sock_diag.h, linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_NOCOOKIE: [u8; 8] = [0xff; 8];
const ALL_STATES: [u8; 4] = [0xff; 4];
/// linux/tcp_states.h: ESTABLISHED, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK, CLOSING.
const CONNECTED: [u8; 6] = [1, 4, 5, 8, 9, 11];
/// IANA protocol number of TCP.
const TCP: u8 = 6;

/// struct inet_diag_req_v2: family, protocol, extensions, padding, states; then struct
/// inet_diag_sockid: ports and addresses in network order, interface, cookie.
fn question(local: SocketAddr, remote: SocketAddr) -> Message {
    let family = u8::try_from(if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })
        .expect("address families are 8 bits");
    let mut body = vec![family, TCP, 0, 0];
    body.extend(ALL_STATES);
    body.extend(local.port().to_be_bytes());
    body.extend(remote.port().to_be_bytes());
    for address in [local.ip(), remote.ip()] {
        let mut octets = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        octets.resize(16, 0);
        body.extend(octets);
    }
    body.extend([0; 4]);
    body.extend(INET_DIAG_NOCOOKIE);
    Message::new(format!("tell of the socket {local} connected to {remote}"), SOCK_DIAG_BY_FAMILY, 0, &body)
}

/// struct inet_diag_msg: family, state, timer, retransmissions; struct inet_diag_sockid of 48 octets;
/// expiry, receive queue, send queue, uid, inode.
fn read(body: &[u8]) -> Option<NodeSocket> {
    let [family, state] = *body.get(..2)? else { return None };
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let address = |at: usize| -> Option<IpAddr> {
        match i32::from(family) {
            libc::AF_INET => {
                let octets: [u8; 4] = body.get(at..at + 4)?.try_into().ok()?;
                Some(Ipv4Addr::from(octets).into())
            }
            libc::AF_INET6 => {
                let octets: [u8; 16] = body.get(at..at + 16)?.try_into().ok()?;
                Some(Ipv6Addr::from(octets).to_canonical())
            }
            _ => None,
        }
    };
    let (uid, inode) = (read_u32(body, 64)?, read_u32(body, 68)?);
    Some(NodeSocket {
        local: SocketAddr::new(address(8)?, port(4)?),
        remote: SocketAddr::new(address(24)?, port(6)?),
        is_connected: CONNECTED.contains(&state),
        // A socket that its process has closed has no inode.
        owner: (inode != 0).then_some(uid),
    })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn the_kernel_tells_whose_a_connection_is_and_only_of_that_one() {
        let node = NodeSockets::open(&NodeNetwork::open(None).unwrap()).unwrap();
        for address in ["127.0.0.1:0", "[::1]:0", "[::ffff:127.0.0.1]:0"] {
            let server = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
            let (accepted, peer) = server.accept().unwrap();
            let canonical =
                |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
            let (local, remote) = (canonical(peer), canonical(accepted.local_addr().unwrap()));
            let found = node.find(local, remote).unwrap().unwrap();
            let owner = Some(geteuid().as_raw());
            assert_eq!(found, NodeSocket { local, remote, is_connected: true, owner }, "{address}");

            // The listener is not an answer to a question about a connection that does not exist.
            let elsewhere = SocketAddr::new(local.ip(), local.port() ^ 1);
            let listening = node.find(remote, elsewhere).unwrap();
            assert!(listening.is_none_or(|socket| !socket.is_connected), "{address}: {listening:?}");
            assert_eq!(node.find(elsewhere, remote).unwrap(), None, "{address}");

            // What is left of a connection that was closed is nobody's: the kernel says root.
            drop(client);
            let closed = node.find(local, remote).unwrap();
            assert!(closed.is_none_or(|socket| socket.owner.is_none()), "{address}: {closed:?}");
        }
    }
}
