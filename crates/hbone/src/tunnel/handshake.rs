//! From a TCP connection to a verified TLS connection, on either side.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use crate::buffer::BufferPool;
use crate::socket::Socket;
use crate::tls::{TlsError, TlsSession};
use crate::tunnel::PeerCertificates;

/// A connection whose handshake is complete on this side. What the peer sent behind the handshake waits
/// in its session; so does a client's last flight, which goes out with the first frames of its
/// [`Tunnel`](super::Tunnel), or never.
pub struct Secured {
    pub(crate) socket: Rc<Socket>,
    pub(crate) session: TlsSession,
    pub(crate) peer_certificates: PeerCertificates,
}

impl Secured {
    /// The peer's certificates, leaf first: verified against the roots, not yet against who was
    /// expected.
    pub fn peer_certificates(&self) -> &PeerCertificates {
        &self.peer_certificates
    }
}

/// Why no secured connection came about.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// TCP did not connect.
    #[error("TCP connection failed: {0}")]
    Connect(#[source] std::io::Error),
    /// TCP broke during the handshake.
    #[error("connection lost during the TLS handshake: {0}")]
    Io(#[source] std::io::Error),
    /// The peer closed during the handshake; with TLS 1.3 this is also how a server refuses a
    /// client's certificate without saying so.
    #[error("the peer closed the connection during the TLS handshake")]
    Closed,
    /// TLS refused, or was refused.
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] TlsError),
    /// The peer did not agree to HTTP/2.
    #[error("the peer does not speak HTTP/2 (ALPN h2): is it an HBONE endpoint?")]
    Alpn,
}

/// Waits for a connecting socket, then runs the handshake.
///
/// # Errors
/// See [`HandshakeError`]. Deadlines are the caller's.
pub async fn connect(
    socket: Socket,
    session: TlsSession,
    buffers: &BufferPool,
) -> Result<Secured, HandshakeError> {
    socket.connected().await.map_err(HandshakeError::Connect)?;
    handshake(socket, session, buffers).await
}

/// Runs the handshake of a connected socket, as the client or the server that `session` is.
///
/// # Errors
/// See [`HandshakeError`]. Deadlines are the caller's.
pub async fn handshake(
    socket: Socket,
    mut session: TlsSession,
    buffers: &BufferPool,
) -> Result<Secured, HandshakeError> {
    poll_fn(|cx| poll_exchange(cx, &socket, &mut session, buffers)).await?;
    if session.alpn_protocol() != Some(b"h2") {
        return Err(HandshakeError::Alpn);
    }
    let peer_certificates = session.peer_certificates().to_vec();
    Ok(Secured { socket: Rc::new(socket), session, peer_certificates })
}

fn poll_exchange(
    cx: &mut Context<'_>,
    socket: &Socket,
    session: &mut TlsSession,
    buffers: &BufferPool,
) -> Poll<Result<(), HandshakeError>> {
    loop {
        let outcome = session.receive();
        // The last flight waits for the driver, which sends the first frames with it; who finds the
        // peer to be somebody else never sends it.
        if outcome.is_ok() && !session.is_handshaking() {
            return Poll::Ready(Ok(()));
        }
        while !session.ciphertext().is_empty() {
            match socket.poll_write(cx, session.ciphertext().filled()) {
                Poll::Ready(Ok(n)) => session.ciphertext().consume(n),
                Poll::Ready(Err(error)) => {
                    // The peer may have gone because of what we are about to report.
                    let error = outcome.map_or_else(HandshakeError::Tls, |_| HandshakeError::Io(error));
                    return Poll::Ready(Err(error));
                }
                // An alert that does not fit is not worth waiting for.
                Poll::Pending => match outcome {
                    Ok(_) => return Poll::Pending,
                    Err(error) => return Poll::Ready(Err(HandshakeError::Tls(error))),
                },
            }
        }
        if outcome.map_err(HandshakeError::Tls)? {
            return Poll::Ready(Err(HandshakeError::Closed));
        }
        let n = ready!(poll_fill(cx, socket, session, buffers)).map_err(HandshakeError::Io)?;
        if n == 0 {
            return Poll::Ready(Err(HandshakeError::Closed));
        }
    }
}

/// Reads through a borrowed piece and keeps only what came: a peer that stalls in the middle of a
/// handshake pins little.
fn poll_fill(
    cx: &mut Context<'_>,
    socket: &Socket,
    session: &mut TlsSession,
    buffers: &BufferPool,
) -> Poll<std::io::Result<usize>> {
    ready!(socket.poll_readable(cx))?;
    let mut piece = buffers.take();
    let read = socket.poll_read(cx, &mut piece[..HANDSHAKE_READ]);
    if let Poll::Ready(Ok(n)) = read {
        session.wire().extend(&piece[..n]);
    }
    buffers.give(piece);
    read
}

/// A flight of a handshake with a certificate chain; rustls refuses handshake messages over 64 KiB.
const HANDSHAKE_READ: usize = 16 * 1024;
