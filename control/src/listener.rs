//! The TLS listener of xDS and certificates.
//!
//! Handshakes run beside each other, each with a deadline, so that a client that says nothing holds
//! up nobody. Who the client is, its token tells later; until then its address has limits.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use crate::telemetry;
use connection::Connection;
use places::{Place, Places};

mod connection;
mod places;

/// From accept to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Handshakes at a time; more clients wait in the listener's backlog.
const MAX_HANDSHAKES: usize = 128;

/// Connections that have shaken hands and that the server has not picked up yet.
const READY_QUEUE: usize = 16;

/// Connections that the kernel keeps waiting.
const BACKLOG: i32 = 1024;

/// How long to leave the listener alone after accept failed, as it does when the process is out of
/// descriptors: the cause does not go away by trying again at once.
const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(100);

/// The listener cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} (--xds-address)")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// Connections as the gRPC server takes them.
pub type Connections = ReceiverStream<io::Result<Connection>>;

/// Binds `address`. An unspecified IPv6 address takes IPv4 as well, and stands for IPv4 alone on a
/// host without IPv6. Call it inside a tokio runtime.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    listen(address).map_err(|source| BindError { address, source })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match Socket::new(Domain::for_address(address), Type::STREAM, None) {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            return listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
        }
        socket => socket?,
    };
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts and shakes hands until the connections are dropped.
pub fn accept(listener: TcpListener, config: Arc<ServerConfig>) -> Connections {
    let (ready, connections) = mpsc::channel(READY_QUEUE);
    // Ends when `connections` is dropped: the next send fails, and no permit is waited for.
    tokio::spawn(accept_all(listener, TlsAcceptor::from(config), ready));
    ReceiverStream::new(connections)
}

type Ready = mpsc::Sender<io::Result<Connection>>;

async fn accept_all(listener: TcpListener, acceptor: TlsAcceptor, ready: Ready) {
    let (handshakes_at_a_time, places) = (Arc::new(Semaphore::new(MAX_HANDSHAKES)), Places::default());
    let mut handshakes = JoinSet::new();
    loop {
        while handshakes.try_join_next().is_some() {}
        let Ok(handshaking) = handshakes_at_a_time.clone().acquire_owned().await else {
            return; // Nobody closes the semaphore.
        };
        // Cancelling loses nothing: a connection is taken from the backlog or stays there.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ready.closed() => return,
        };
        match accepted {
            Ok((stream, peer)) => match places.take(peer.ip()) {
                Some(place) => {
                    let (acceptor, ready) = (acceptor.clone(), ready.clone());
                    handshakes.spawn(handshake(
                        Accepted { stream, peer, place },
                        acceptor,
                        ready,
                        handshaking,
                    ));
                }
                None => {
                    telemetry::connection_refused();
                    tracing::debug!(%peer, "too many connections of this address");
                }
            },
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                sleep(PAUSE_AFTER_ERROR).await;
            }
        }
    }
}

/// A connection that has said nothing so far.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    place: Place,
}

async fn handshake(
    Accepted { stream, peer, place }: Accepted,
    acceptor: TlsAcceptor,
    ready: Ready,
    handshaking: OwnedSemaphorePermit,
) {
    // Messages are written whole, so waiting for more octets only delays them.
    let shaken = match stream.set_nodelay(true) {
        Ok(()) => timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await,
        Err(error) => Ok(Err(error)),
    };
    drop(handshaking);
    match shaken {
        Ok(Ok(stream)) => {
            // Fails only when the server is gone, and then nobody is to be served.
            let _ = ready.send(Ok(Connection::new(stream, place))).await;
        }
        Ok(Err(error)) => tracing::debug!(%peer, %error, "handshake failed"),
        Err(_) => tracing::debug!(%peer, ?HANDSHAKE_TIMEOUT, "handshake took too long"),
    }
}

#[cfg(test)]
mod tests;
