//! The task that owns a tunnel's connection: reads, decrypts, encrypts, writes, and ends it.
//!
//! One poll is one turn: first what the peer sent (bounded, so that one tunnel does not starve the
//! worker), then everything that flows and the codec want to send, in one encryption and as few
//! writes as the kernel takes.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::buffer::{Buffer, BufferPool};
use crate::codec::Reason;
use crate::socket::Socket;
use crate::tls::TlsSession;
use crate::tunnel::{BACKLOG_LIMIT, Closing, Core, Secured, TunnelEnd};

/// How a silent peer is found out.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// A PING goes out this often.
    pub interval: Duration,
    /// The tunnel ends when nothing at all came for this long after a PING.
    pub timeout: Duration,
}

impl Default for Keepalive {
    /// Istio's values: a PING every 10 s, 20 s to answer.
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), timeout: Duration::from_secs(20) }
    }
}

/// Drives one tunnel until it is over. Spawn it on the worker that made it; its output says why the
/// tunnel ended.
pub struct Driver {
    core: Rc<RefCell<Core>>,
    socket: Rc<Socket>,
    session: TlsSession,
    /// Octets of the largest packet that the kernel makes of what is written ([`Socket::burst`]).
    burst: usize,
    keepalive: Keepalive,
    timer: Pin<Box<Sleep>>,
    /// When the unanswered PING went out.
    pinged: Option<Instant>,
}

impl Driver {
    pub(super) fn new(core: Rc<RefCell<Core>>, secured: Secured, keepalive: Keepalive) -> Self {
        let Secured { socket, session, .. } = secured;
        let timer = Box::pin(sleep(keepalive.interval));
        Self { core, burst: socket.burst(), socket, session, keepalive, timer, pinged: None }
    }

    fn turn(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Result<(), TunnelEnd> {
        self.poll_keepalive(core, cx)?;
        let outcome = self.read_turn(core, cx);
        if let Err(TunnelEnd::Protocol(_)) = &outcome {
            // The GOAWAY that says what was wrong is already in the codec's output, and is the last word.
            core.more_follows = false;
            let _ = self.write_turn(core, cx);
        }
        outcome?;
        self.write_turn(core, cx)?;
        self.check_closing(core, cx)
    }

    fn read_turn(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Result<(), TunnelEnd> {
        // What came behind the handshake was decrypted with it.
        self.dispatch(core)?;
        for _ in 0..READS_PER_TURN {
            match self.read_once(core, cx)? {
                Poll::Ready(()) => {}
                Poll::Pending => {
                    self.settle(&core.buffers);
                    return Ok(());
                }
            }
        }
        // There may be more: let the other tasks of the worker run first.
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn read_once(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Result<Poll<()>, TunnelEnd> {
        if self.socket.poll_readable(cx).map_err(TunnelEnd::Io)?.is_pending() {
            return Ok(Poll::Pending);
        }
        self.borrow_wire(&core.buffers);
        let read = match self.socket.poll_read(cx, self.session.wire().spare(MIN_READ)) {
            Poll::Ready(read) => read.map_err(TunnelEnd::Io)?,
            Poll::Pending => return Ok(Poll::Pending),
        };
        if read == 0 {
            return Err(orderly_if_idle(core));
        }
        self.session.wire().fill(read);
        self.pinged = None;
        core.heard += 1;
        attach_memory(self.session.plaintext(), &core.buffers);
        let peer_closed = match self.session.receive() {
            Ok(peer_closed) => peer_closed,
            Err(error) => {
                // Lets the alert out before the connection closes.
                let _ = self.write_out(cx, 0);
                return Err(TunnelEnd::Tls(error));
            }
        };
        self.dispatch(core)?;
        if peer_closed {
            return Err(orderly_if_idle(core));
        }
        Ok(Poll::Ready(()))
    }

    fn dispatch(&mut self, core: &mut Core) -> Result<(), TunnelEnd> {
        let plaintext = self.session.plaintext();
        if plaintext.is_empty() {
            return Ok(());
        }
        let outcome = core.dispatch(plaintext.filled());
        plaintext.consume(plaintext.len());
        outcome.map_err(TunnelEnd::Protocol)
    }

    fn write_turn(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Result<(), TunnelEnd> {
        // A write that leaves a small packet behind costs the way of a packet more, at both ends; what
        // follows in a moment can have it with it.
        let more_follows = std::mem::take(&mut core.more_follows);
        let mut waits_for_more = false;
        loop {
            self.encrypt_output(core)?;
            let held = if more_follows { self.session.ciphertext().len() % self.burst } else { 0 };
            if !self.write_out(cx, held)? {
                break;
            }
            // What did not fit before goes now: nobody else would ask for it.
            if core.codec.output().is_empty() {
                waits_for_more = held > 0;
                break;
            }
        }
        core.backlog = self.session.ciphertext().len();
        detach_memory(self.session.ciphertext(), &core.buffers);
        if core.may_send() {
            core.blocked.drain(..).for_each(std::task::Waker::wake);
        }
        if waits_for_more {
            // The next turn, which comes after the flows', sends it in any case.
            cx.waker().wake_by_ref();
        }
        Ok(())
    }

    /// Encrypts what flows and codec left, unless enough waits already.
    fn encrypt_output(&mut self, core: &mut Core) -> Result<(), TunnelEnd> {
        if core.codec.output().is_empty() || self.session.ciphertext().len() >= BACKLOG_LIMIT {
            return Ok(());
        }
        attach_memory(self.session.ciphertext(), &core.buffers);
        let output = core.codec.output();
        let octets = output.len();
        self.session.encrypt(output).map_err(TunnelEnd::Tls)?;
        core.codec.consume_output(octets);
        core.unsent_frames = 0;
        if let Some(memory) = core.codec.take_buffer() {
            core.buffers.give(memory);
        }
        Ok(())
    }

    /// Writes all but the last `held` octets, until the kernel takes no more. True when it took them.
    fn write_out(&mut self, cx: &mut Context<'_>, held: usize) -> Result<bool, TunnelEnd> {
        let ciphertext = self.session.ciphertext();
        while ciphertext.len() > held {
            let due = ciphertext.len() - held;
            match self.socket.poll_write(cx, &ciphertext.filled()[..due]).map_err(TunnelEnd::Io)? {
                Poll::Ready(n) => ciphertext.consume(n),
                Poll::Pending => return Ok(false),
            }
        }
        Ok(true)
    }

    fn check_closing(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Result<(), TunnelEnd> {
        let end = match core.closing {
            Closing::No => return Ok(()),
            Closing::Draining
                if core.streams.is_empty()
                    && !core.codec.awaits_peer()
                    && self.session.ciphertext().is_empty() =>
            {
                core.codec.close(Reason::NoError);
                TunnelEnd::Closed
            }
            Closing::Draining => return Ok(()),
            Closing::Now(reason) => {
                core.codec.close(reason);
                TunnelEnd::Ended
            }
        };
        self.write_turn(core, cx)?;
        self.session.close();
        self.write_out(cx, 0)?;
        Err(end)
    }

    fn poll_keepalive(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Result<(), TunnelEnd> {
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if let Some(since) = self.pinged
                && now.duration_since(since) >= self.keepalive.timeout
            {
                return Err(TunnelEnd::Unresponsive { seconds: self.keepalive.timeout.as_secs() });
            }
            // Also while the peer is heard: the answer renews what the codec allows the peer.
            if self.pinged.is_none() {
                core.codec.ping(KEEPALIVE_PAYLOAD);
                self.pinged = Some(now);
            }
            self.timer.as_mut().reset(now + self.keepalive.interval);
        }
        Ok(())
    }

    /// Room for a read worth its system call, in memory of the worker's.
    fn borrow_wire(&mut self, buffers: &BufferPool) {
        let wire = self.session.wire();
        if !wire.has_piece() {
            let rest = std::mem::replace(wire, Buffer::with_memory(buffers.take()));
            wire.extend(rest.filled());
        }
    }

    /// Gives memory back when nothing is left to read; an unfinished record moves to memory of its
    /// own size, so that a peer that dribbles pins little.
    fn settle(&mut self, buffers: &BufferPool) {
        detach_memory(self.session.plaintext(), buffers);
        let wire = self.session.wire();
        let rest = Buffer::with_filled(wire.filled());
        let mut drained = std::mem::replace(wire, rest);
        drained.consume(drained.len());
        detach_memory(&mut drained, buffers);
    }
}

/// Lends a buffer memory of the worker's, unless it has some.
fn attach_memory(buffer: &mut Buffer, buffers: &BufferPool) {
    if !buffer.has_memory() {
        *buffer = Buffer::with_memory(buffers.take());
    }
}

/// Takes a drained buffer's memory back.
fn detach_memory(buffer: &mut Buffer, buffers: &BufferPool) {
    if let Some(memory) = buffer.take_memory() {
        buffers.give(memory);
    }
}

impl Future for Driver {
    type Output = Rc<TunnelEnd>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let core = Rc::clone(&this.core);
        let core = &mut *core.borrow_mut();
        if !core.driver.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            core.driver = Some(cx.waker().clone());
        }
        match this.turn(core, cx) {
            Ok(()) => Poll::Pending,
            Err(end) => {
                core.finish(end);
                Poll::Ready(core.end().map(Rc::clone).unwrap_or_else(|| Rc::new(TunnelEnd::Ended)))
            }
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // A driver that is dropped before its end (the worker is going away) must not leave flows
        // waiting for it.
        if let Ok(mut core) = self.core.try_borrow_mut()
            && core.end().is_none()
        {
            core.finish(TunnelEnd::Ended);
        }
    }
}

/// The end of the peer's connection is orderly only when no stream depends on it.
fn orderly_if_idle(core: &Core) -> TunnelEnd {
    if core.codec.open_streams() == 0 { TunnelEnd::Closed } else { TunnelEnd::PeerClosed }
}

/// Reads of one turn before the worker's other tasks get theirs.
const READS_PER_TURN: usize = 4;

/// Room worth asking the kernel to fill: two full TLS records.
const MIN_READ: usize = 32 * 1024;

/// Any eight octets (RFC 9113 §6.7).
pub(super) const KEEPALIVE_PAYLOAD: [u8; 8] = *b"ambit/ka";
