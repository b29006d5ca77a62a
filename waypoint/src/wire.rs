//! One connection as every protocol sees it: a stream of a tunnel, or a plain TCP connection.
//!
//! What was read ahead to tell protocols apart, or to judge a head, waits here and is read first. It
//! is what pingora's sessions ask of a stream, without a socket of its own: digests are empty, and
//! the identifier is ours. pingora wants its streams `Send + Sync`; a tunnel never leaves its worker,
//! so that the wrapper around it checks at run time what the types cannot say: every runtime here has
//! one thread.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use ambit_hbone::codec::Reason;
use ambit_hbone::tunnel::{StreamError, Tunnel, TunnelStream};
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use metrics::counter;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use send_wrapper::SendWrapper;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::frames::{FrameWatch, PeerRole, Progress};

/// One connection.
pub struct Wire {
    transport: Transport,
    unread: BytesMut,
    /// Of HTTP/2 alone.
    frames: Option<Box<FrameWatch>>,
    local: Option<SocketAddr>,
    id: i32,
}

enum Transport {
    Tunnel(SendWrapper<TunnelStream>),
    Plain(TcpStream),
}

impl Wire {
    /// A stream of a tunnel, which has been answered with 200.
    pub fn of_tunnel(stream: TunnelStream) -> Self {
        let local = stream.tunnel().local_addr();
        Self::new(Transport::Tunnel(SendWrapper::new(stream)), local)
    }

    /// A plain connection.
    pub fn of_plain(stream: TcpStream) -> Self {
        let local = stream.local_addr().ok();
        Self::new(Transport::Plain(stream), local)
    }

    fn new(transport: Transport, local: Option<SocketAddr>) -> Self {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Self { transport, unread: BytesMut::new(), frames: None, local, id }
    }

    /// From here on this is HTTP/2: what the peer sends is counted, and a flood is an error of reading.
    pub fn watch_frames(&mut self, peer: PeerRole) -> Progress {
        let watch = FrameWatch::new(peer, Instant::now());
        let progress = watch.progress();
        self.frames = Some(Box::new(watch));
        progress
    }

    /// Sends what goes before anything else.
    fn poll_owed(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(Ok(())) };
        loop {
            let owed = frames.owed();
            if owed.is_empty() {
                return Poll::Ready(Ok(()));
            }
            frames.paid(ready!(poll_send(&mut self.transport, cx, owed))?);
        }
    }

    fn poll_take(&mut self, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return poll_transport(&mut self.transport, cx, room);
        }
        let octets = self.unread.len().min(room.remaining());
        room.put_slice(&self.unread.split_to(octets));
        if self.unread.is_empty() {
            self.unread = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }

    /// What was read and not consumed.
    pub fn unread(&self) -> &[u8] {
        &self.unread
    }

    /// Takes `octets` of what was read.
    pub fn consume(&mut self, octets: usize) -> Bytes {
        self.unread.split_to(octets).freeze()
    }

    /// Reads more behind what waits: how much, 0 at the end.
    ///
    /// # Errors
    /// When the connection failed.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut room = ReadBuf::new(scratch);
            ready!(poll_transport(&mut self.transport, cx, &mut room))?;
            if self.unread.is_empty() {
                // What was read before is handed out: an idle connection keeps no memory.
                self.unread = BytesMut::new();
            }
            self.unread.extend_from_slice(room.filled());
            Poll::Ready(Ok(room.filled().len()))
        })
    }

    /// The same as a future. Cancelling it loses nothing.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn fill(&mut self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(cx)).await
    }

    /// Whether an idle connection can be used: nothing has come, neither octets nor an end.
    pub fn is_quiet(&mut self) -> bool {
        if !self.unread.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        self.poll_fill(&mut cx).is_pending()
    }

    /// Our end of the TCP connection, which is the tunnel's if it is a stream of one.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.local
    }

    /// The tunnel that it is a stream of, if it is one.
    pub fn tunnel(&self) -> Option<Tunnel> {
        match &self.transport {
            Transport::Tunnel(stream) => Some(stream.tunnel()),
            Transport::Plain(_) => None,
        }
    }

    /// Whether the stream's tunnel or connection was cut by us on purpose: the far end sees an error.
    pub fn abort(self) {
        match self.transport {
            Transport::Tunnel(stream) => stream.take().abort(),
            Transport::Plain(stream) => {
                // Closing with this option set sends a reset; without it, an orderly end.
                let _ = socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
            }
        }
    }

    /// Ends our side and waits for the peer's end, so that the last octets are not overtaken by a
    /// reset. Nothing that still comes is of interest.
    pub async fn close(mut self) {
        let _ = std::future::poll_fn(|cx| Pin::new(&mut self).poll_shutdown(cx)).await;
        let draining = async {
            while matches!(self.fill().await, Ok(octets) if octets > 0) {
                self.unread.clear();
            }
        };
        let _ = tokio::time::timeout(LINGER, draining).await;
    }
}

/// One octet is enough for a peer that goes on.
const LINGER: std::time::Duration = std::time::Duration::from_secs(5);

/// Octets asked for at once.
const READ: usize = 16 * 1024;

thread_local! {
    /// A worker's room to read into: what waits keeps memory of its own size alone.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// pingora tells connections apart by it.
static NEXT_ID: AtomicI32 = AtomicI32::new(1);

fn poll_transport(
    transport: &mut Transport,
    cx: &mut Context<'_>,
    room: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    match transport {
        Transport::Plain(stream) => Pin::new(stream).poll_read(cx, room),
        Transport::Tunnel(stream) => {
            let read = ready!(stream.poll_receive(cx, room.initialize_unfilled()));
            room.advance(read.map_err(lost)?);
            Poll::Ready(Ok(()))
        }
    }
}

fn poll_send(transport: &mut Transport, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
    match transport {
        Transport::Plain(stream) => Pin::new(stream).poll_write(cx, octets),
        Transport::Tunnel(stream) => stream.poll_transmit(cx, octets).map_err(lost),
    }
}

/// `ConnectionReset` is what the application did, `ConnectionAborted` what somebody on the way did to it.
fn lost(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::TunnelLost(_) | StreamError::Reset { reason: Reason::Cancel } => {
            io::ErrorKind::ConnectionAborted
        }
        StreamError::Reset { .. } => io::ErrorKind::ConnectionReset,
    };
    io::Error::new(kind, error.to_string())
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Whoever waits to read has nothing to write: what cannot be sent now goes before what is written next.
        let _ = this.poll_owed(cx);
        let before = room.filled().len();
        ready!(this.poll_take(cx, room))?;
        if let Some(frames) = &mut this.frames
            && let Err(flood) = frames.received(&room.filled()[before..], Instant::now())
        {
            counter!("ambit_floods_total", "kind" => flood.name()).increment(1);
            return Poll::Ready(Err(io::Error::other(flood)));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_owed(cx))?;
        let written = ready!(poll_send(&mut this.transport, cx, octets))?;
        if let Some(frames) = &mut this.frames {
            frames.sent(&octets[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The driver writes at the end of this turn; the kernel by itself.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tunnel(stream) => {
                stream.end();
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire")
            .field("id", &self.id)
            .field("unread", &self.unread.len())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Shutdown for Wire {
    async fn shutdown(&mut self) {
        let _ = std::future::poll_fn(|cx| Pin::new(&mut *self).poll_shutdown(cx)).await;
    }
}

impl UniqueID for Wire {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl Ssl for Wire {}

impl GetTimingDigest for Wire {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Wire {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Wire {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

#[async_trait]
impl Peek for Wire {
    /// pingora's own looks for a preface wait for 24 octets that may never come: protocols are told
    /// apart before a session is made.
    async fn try_peek(&mut self, _: &mut [u8]) -> io::Result<bool> {
        Ok(false)
    }
}
