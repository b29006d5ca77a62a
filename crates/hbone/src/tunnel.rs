//! A tunnel: one TLS connection that carries many CONNECT streams, on one worker.
//!
//! [`Tunnel`] is the handle that flows share; its [`Driver`] is the one task that reads, decrypts,
//! encrypts and writes. Flows put what they have to send into the codec's output and wake the
//! driver, which runs after them: everything a turn of the worker produced is one encryption and one
//! write. Payload from the peer goes straight from the driver to the application's socket; a flow
//! wakes only when that socket is full or the stream changes state.
//!
//! Nothing here is `Send`: a tunnel never leaves its worker. Who may connect to whom is decided
//! elsewhere; the certificates are verified before a `Tunnel` exists ([`handshake()`]).

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustls::pki_types::CertificateDer;

use crate::buffer::BufferPool;
use crate::codec::{Codec, ConnectRequest, OpenError, Reason, RequestHead, Stats, StreamId};
use crate::socket::Socket;

mod dispatch;
mod driver;
mod handshake;
mod octets;
mod stream;

use driver::KEEPALIVE_PAYLOAD;
pub use driver::{Driver, Keepalive};
pub use handshake::{HandshakeError, Secured, connect, handshake};
pub(crate) use stream::StreamState;
pub use stream::{Response, StreamError, TunnelStream};

/// A handle on a tunnel. Clones share it; the driver ends it.
#[derive(Clone)]
pub struct Tunnel {
    core: Rc<RefCell<Core>>,
}

/// What the driver and the flows of one tunnel share.
pub(crate) struct Core {
    pub(crate) codec: Codec,
    pub(crate) streams: HashMap<StreamId, StreamState>,
    pub(crate) buffers: BufferPool,
    /// Requests that nobody has taken yet. Bounded by the stream limit of the codec's settings.
    incoming: VecDeque<(StreamId, RequestHead)>,
    incoming_waker: Option<Waker>,
    driver: Option<Waker>,
    /// Frames that flows put into the output since the driver last took it.
    pub(crate) unsent_frames: usize,
    /// A flow stopped in the middle of bulk that its application sends, and reads on in its next turn.
    pub(crate) more_follows: bool,
    /// How often the peer was heard.
    heard: u64,
    /// How often it had been heard when it was last asked for a sign of life.
    asked_after: Option<u64>,
    /// Ciphertext that the peer's TCP window does not take at the moment.
    backlog: usize,
    /// Flows that wait for the backlog to shrink.
    blocked: Vec<Waker>,
    closing: Closing,
    end: Option<Rc<TunnelEnd>>,
    local: Option<SocketAddr>,
}

/// How far a tunnel is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    /// Takes new streams.
    No,
    /// Finishes what it has; one side said GOAWAY.
    Draining,
    /// Ends now, with this reason on the wire.
    Now(Reason),
}

/// Why a tunnel is over.
#[derive(Debug, thiserror::Error)]
pub enum TunnelEnd {
    /// Every stream had ended and one side had asked to close.
    #[error("the tunnel was closed in good order")]
    Closed,
    /// The peer closed the TCP or TLS connection while streams were open.
    #[error("the peer closed the tunnel's connection")]
    PeerClosed,
    /// The socket failed.
    #[error("the tunnel's connection failed: {0}")]
    Io(#[source] std::io::Error),
    /// TLS failed.
    #[error("the tunnel's encryption failed: {0}")]
    Tls(#[source] crate::tls::TlsError),
    /// The peer broke HTTP/2, or went beyond a limit.
    #[error("the peer broke the tunnel's protocol: {0}")]
    Protocol(#[source] crate::codec::ConnectionError),
    /// The peer did not answer a PING.
    #[error("the peer did not answer within {seconds} s: is its node reachable?")]
    Unresponsive {
        /// How long was waited.
        seconds: u64,
    },
    /// We ended it: a limit of ours, a certificate too old, or the end of a drain.
    #[error("the tunnel was ended by this proxy")]
    Ended,
}

impl Tunnel {
    /// Puts a tunnel on a secured connection. The driver must be spawned on the same worker.
    pub fn new(secured: Secured, codec: Codec, buffers: BufferPool, keepalive: Keepalive) -> (Self, Driver) {
        let core = Rc::new(RefCell::new(Core {
            codec,
            streams: HashMap::new(),
            buffers,
            incoming: VecDeque::new(),
            incoming_waker: None,
            driver: None,
            unsent_frames: 0,
            more_follows: false,
            heard: 0,
            asked_after: None,
            backlog: 0,
            blocked: Vec::new(),
            closing: Closing::No,
            end: None,
            local: secured.socket.local_addr().ok(),
        }));
        let driver = Driver::new(Rc::clone(&core), secured, keepalive);
        (Self { core }, driver)
    }

    /// Our end of its TCP connection, if the kernel said so when it began.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.core.borrow().local
    }

    /// Opens a stream: the CONNECT goes out with this turn's write.
    ///
    /// # Errors
    /// When the tunnel is over, going away, or full.
    pub fn open(&self, request: &ConnectRequest<'_>) -> Result<TunnelStream, OpenError> {
        let mut core = self.core.borrow_mut();
        if core.end.is_some() || core.closing != Closing::No {
            return Err(OpenError::GoingAway);
        }
        let id = core.codec.open(request)?;
        core.streams.insert(id, StreamState::default());
        core.wake_driver();
        drop(core);
        Ok(TunnelStream::new(Rc::clone(&self.core), id))
    }

    /// The next request of the peer; `None` once the tunnel is over.
    pub async fn next_request(&self) -> Option<(RequestHead, TunnelStream)> {
        let (id, head) = poll_fn(|cx| self.core.borrow_mut().poll_incoming(cx)).await?;
        Some((head, TunnelStream::new(Rc::clone(&self.core), id)))
    }

    /// How many more streams could be opened now.
    pub fn streams_available(&self) -> usize {
        let core = self.core.borrow();
        match (&core.end, core.closing) {
            (None, Closing::No) => core.codec.streams_available(),
            (Some(_), _) | (None, Closing::Draining | Closing::Now(_)) => 0,
        }
    }

    /// Streams that are open.
    pub fn open_streams(&self) -> usize {
        self.core.borrow().streams.len()
    }

    /// Whether it will never take another stream.
    pub fn is_leaving(&self) -> bool {
        let core = self.core.borrow();
        core.end.is_some() || core.closing != Closing::No
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.core.borrow().end.is_some()
    }

    /// Lets open streams finish, takes no new ones, then closes.
    pub fn shutdown(&self) {
        let mut core = self.core.borrow_mut();
        if core.closing == Closing::No {
            core.closing = Closing::Draining;
            core.codec.shutdown();
            core.wake_driver();
        }
    }

    /// Ends the tunnel and every stream of it.
    pub fn close(&self, reason: Reason) {
        let mut core = self.core.borrow_mut();
        core.closing = Closing::Now(reason);
        core.wake_driver();
    }

    /// The codec's counters.
    pub fn stats(&self) -> Stats {
        self.core.borrow().codec.stats()
    }
}

impl Tunnel {
    /// How often the peer was heard. What it says in between may be anything.
    pub fn heard(&self) -> u64 {
        self.core.borrow().heard
    }

    /// Asks the peer for a sign of life, unless it was asked since it was last heard.
    pub fn ping(&self) {
        let mut core = self.core.borrow_mut();
        let heard = core.heard;
        if core.asked_after.replace(heard) == Some(heard) {
            return;
        }
        core.codec.ping(KEEPALIVE_PAYLOAD);
        core.wake_driver();
    }
}

impl TunnelStream {
    /// The tunnel that it is a stream of.
    pub fn tunnel(&self) -> Tunnel {
        Tunnel { core: Rc::clone(&self.core) }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = self.core.borrow();
        f.debug_struct("Tunnel")
            .field("streams", &core.streams.len())
            .field("closing", &core.closing)
            .field("end", &core.end)
            .finish_non_exhaustive()
    }
}

impl Core {
    /// Whether a flow may read its application now: little enough waits for the peer's TCP window,
    /// and the turn's output has room for a frame worth its header. Otherwise the driver goes first.
    pub(crate) fn may_send(&self) -> bool {
        self.backlog < BACKLOG_LIMIT
            && self.unsent_frames < FRAMES_PER_WRITE
            && self.codec.output().len() + MIN_SLOT <= BufferPool::PIECE
    }

    /// Gives the codec a piece of the worker's memory, unless it has one. Small frames alone live in
    /// memory of their size.
    pub(crate) fn lend_piece(&mut self) {
        if self.codec.output_spare() + self.codec.output().len() < BufferPool::PIECE {
            let unused = self.codec.lend_buffer(self.buffers.take());
            self.buffers.give(unused);
        }
    }

    /// Wakes the task when [`Self::may_send`] holds again.
    pub(crate) fn wait_to_send(&mut self, waker: &Waker) {
        if !self.blocked.iter().any(|known| known.will_wake(waker)) {
            self.blocked.push(waker.clone());
        }
    }

    pub(crate) fn wake_driver(&self) {
        if let Some(driver) = &self.driver {
            driver.wake_by_ref();
        }
    }

    pub(crate) fn end(&self) -> Option<&Rc<TunnelEnd>> {
        self.end.as_ref()
    }

    fn poll_incoming(&mut self, cx: &Context<'_>) -> Poll<Option<(StreamId, RequestHead)>> {
        if let Some(request) = self.incoming.pop_front() {
            return Poll::Ready(Some(request));
        }
        if self.end.is_some() {
            return Poll::Ready(None);
        }
        self.incoming_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends every stream and everyone who waits. Called once, by the driver.
    fn finish(&mut self, end: TunnelEnd) {
        self.end = Some(Rc::new(end));
        self.incoming.clear();
        let streams = self.streams.values_mut().filter_map(|stream| stream.waker.take());
        let wakers: Vec<Waker> =
            streams.chain(self.blocked.drain(..)).chain(self.incoming_waker.take()).collect();
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// The certificates a handshake ended with, leaf first.
pub type PeerCertificates = Vec<CertificateDer<'static>>;

/// Frames of flows that share one write. More would save little, and would keep the peer waiting
/// for the first while the last is read: with all connections in one batch the two ends of a tunnel
/// take turns instead of working at the same time.
const FRAMES_PER_WRITE: usize = 16;

/// Room in the output for which reading an application is worth its system call: a full TLS record,
/// with frame headers to spare.
const MIN_SLOT: usize = 16 * 1024 + 64;

/// Encrypted octets queued for one peer before its flows stop reading; two pieces of a worker's
/// memory.
const BACKLOG_LIMIT: usize = 2 * BufferPool::PIECE;

/// How a socket comes to a flow: shared with the driver, which writes to it directly.
pub type SharedSocket = Rc<Socket>;
