//! Carries octets between an application's socket and a tunnel stream, both ways at once.
//!
//! Half-close is kept in both directions. Anything but two orderly ends becomes a reset on both
//! sides: a truncated transfer never looks like a clean end.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use crate::buffer::BufferPool;
use crate::codec::Reason;
use crate::socket::Socket;
use crate::tunnel::{Core, TunnelEnd, TunnelStream};

/// How long a connection may be silent.
#[derive(Clone, Copy, Debug)]
pub struct IdleLimits {
    /// With both directions open.
    pub open: Duration,
    /// After one direction has ended.
    pub half_closed: Duration,
}

/// How a relayed connection ended, and what it carried.
#[derive(Debug)]
pub struct RelayEnd<S> {
    /// Octets read from the application and sent into the tunnel.
    pub from_application: u64,
    /// Octets delivered to the application.
    pub to_application: u64,
    /// Why it ended.
    pub cause: RelayCause<S>,
}

/// Why a relayed connection ended.
#[derive(Debug)]
pub enum RelayCause<S> {
    /// Both directions ended in good order.
    Finished,
    /// The application's socket failed.
    Application(std::io::Error),
    /// The peer reset the stream.
    Reset(Reason),
    /// The tunnel ended under it.
    TunnelLost(Rc<TunnelEnd>),
    /// Nothing was carried for longer than its [`IdleLimits`] allow.
    Idle,
    /// Its owner stopped it.
    Stopped(S),
}

/// Stops a relay from outside, with a reason. The relay polls it at no cost.
#[derive(Debug)]
pub struct Stop<S> {
    state: Rc<StopState<S>>,
}

struct StopState<S> {
    reason: Cell<Option<S>>,
    waker: RefCell<Option<Waker>>,
}

impl<S> fmt::Debug for StopState<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StopState").field("waker", &self.waker).finish_non_exhaustive()
    }
}

impl<S> Clone for Stop<S> {
    fn clone(&self) -> Self {
        Self { state: Rc::clone(&self.state) }
    }
}

impl<S> Default for Stop<S> {
    fn default() -> Self {
        Self { state: Rc::new(StopState { reason: Cell::new(None), waker: RefCell::new(None) }) }
    }
}

impl<S> Stop<S> {
    /// Asks the relay to end. The first reason counts.
    pub fn stop(&self, reason: S) {
        let earlier = self.state.reason.take();
        self.state.reason.set(Some(earlier.unwrap_or(reason)));
        if let Some(waker) = self.state.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The reason, once there is one.
    pub fn poll_stopped(&self, cx: &Context<'_>) -> Poll<S> {
        if let Some(reason) = self.state.reason.take() {
            return Poll::Ready(reason);
        }
        let mut waker = self.state.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Relays until both directions have ended or something stops it.
///
/// The caller has attached nothing yet: payload that arrived before is delivered first.
pub async fn relay<S>(
    stream: TunnelStream,
    application: Rc<Socket>,
    limits: IdleLimits,
    stop: Stop<S>,
) -> RelayEnd<S> {
    Relay::new(stream, application, limits, stop).await
}

struct Relay<S> {
    stream: TunnelStream,
    application: Rc<Socket>,
    limits: IdleLimits,
    stop: Stop<S>,
    from_application: u64,
    to_application: u64,
    /// The application sent FIN, and so did we into the tunnel.
    application_ended: bool,
    /// The peer ended, and so did we towards the application.
    tunnel_ended: bool,
    idle: Pin<Box<Sleep>>,
    /// What had been carried when the idle timer was last set.
    carried_at_timer: u64,
}

impl<S> Unpin for Relay<S> {}

impl<S> Relay<S> {
    fn new(stream: TunnelStream, application: Rc<Socket>, limits: IdleLimits, stop: Stop<S>) -> Self {
        if let Some(state) = stream.core.borrow_mut().streams.get_mut(&stream.id) {
            state.application = Some(Rc::clone(&application));
        }
        Self {
            from_application: stream.early,
            stream,
            application,
            limits,
            stop,
            to_application: 0,
            application_ended: false,
            tunnel_ended: false,
            idle: Box::pin(sleep(limits.open)),
            carried_at_timer: 0,
        }
    }

    fn poll_cause(&mut self, cx: &mut Context<'_>) -> Poll<RelayCause<S>> {
        if let Poll::Ready(reason) = self.stop.poll_stopped(cx) {
            return Poll::Ready(RelayCause::Stopped(reason));
        }
        let core = Rc::clone(&self.stream.core);
        let core = &mut *core.borrow_mut();
        if let Err(cause) = self.deliver(core, cx).and_then(|()| self.collect(core, cx)) {
            return Poll::Ready(cause);
        }
        if self.application_ended && self.tunnel_ended {
            return Poll::Ready(RelayCause::Finished);
        }
        self.poll_idle(cx)
    }

    /// From the tunnel to the application: what the driver could not hand over directly.
    fn deliver(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Result<(), RelayCause<S>> {
        let end = core.end().map(Rc::clone);
        let id = self.stream.id;
        let Some(state) = core.streams.get_mut(&id) else {
            return Err(RelayCause::Reset(Reason::Cancel));
        };
        state.set_waker(cx.waker());
        if let Some(error) = state.application_error.take() {
            return Err(RelayCause::Application(error));
        }
        while !state.pending.is_empty() {
            match self.application.poll_write(cx, state.pending.filled()) {
                Poll::Ready(Ok(n)) => {
                    state.pending.consume(n);
                    state.delivered += n as u64;
                    core.codec.release(id, n);
                }
                Poll::Ready(Err(error)) => return Err(RelayCause::Application(error)),
                Poll::Pending => break,
            }
        }
        self.to_application = state.delivered;
        if state.pending.is_empty() {
            // Memory of a burst is not kept for a connection that may idle for hours.
            drop(state.pending.take_memory());
            if state.ended && !self.tunnel_ended {
                // Where the application ended before, the close that follows says the same.
                if !self.application_ended {
                    self.application.shutdown_write();
                }
                self.tunnel_ended = true;
                self.arm_idle(self.limits.half_closed);
            }
        }
        // Checked after delivery: what had arrived in full before a reset is not held back.
        match state.reset {
            // RFC 9113 §8.1: the peer has said all and reads no more.
            Some(Reason::NoError) if state.ended => {
                return if self.tunnel_ended { Err(RelayCause::Finished) } else { Ok(()) };
            }
            Some(reason) => return Err(RelayCause::Reset(reason)),
            None => {}
        }
        // Once both sides have said all, the tunnel may go: a peer that drains closes it in the same
        // breath, and what is left to deliver is here.
        if let Some(end) = end.filter(|_| !(state.ended && self.application_ended)) {
            return Err(RelayCause::TunnelLost(end));
        }
        if !core.codec.output().is_empty() {
            core.wake_driver();
        }
        Ok(())
    }

    /// From the application into the tunnel, straight into the codec's output.
    fn collect(&mut self, core: &mut Core, cx: &mut Context<'_>) -> Result<(), RelayCause<S>> {
        let id = self.stream.id;
        let mut budget = READ_BUDGET;
        while !self.application_ended {
            if budget == 0 {
                core.more_follows = true;
                cx.waker().wake_by_ref();
                break;
            }
            if !core.may_send() {
                core.wait_to_send(cx.waker());
                break;
            }
            if core.codec.send_capacity(id) == 0 {
                if let Some(state) = core.streams.get_mut(&id) {
                    state.wants_window = true;
                }
                break;
            }
            match self.application.poll_readable(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Err(RelayCause::Application(error)),
                Poll::Pending => break,
            }
            match self.read_into(core, cx, budget) {
                Poll::Ready(Ok(0)) => {
                    core.codec.end(id);
                    self.application_ended = true;
                    self.arm_idle(self.limits.half_closed);
                }
                Poll::Ready(Ok(n)) => {
                    self.from_application += n as u64;
                    budget = budget.saturating_sub(n);
                }
                Poll::Ready(Err(error)) => return Err(RelayCause::Application(error)),
                Poll::Pending => break,
            }
            core.wake_driver();
        }
        Ok(())
    }

    fn read_into(&self, core: &mut Core, cx: &mut Context<'_>, max: usize) -> Poll<std::io::Result<usize>> {
        core.lend_piece();
        let id = self.stream.id;
        let max = max.min(core.codec.output_spare().saturating_sub(FRAME_ROOM));
        let slot = core.codec.data_slot(id, max);
        let read = self.application.poll_read(cx, slot);
        let n = match &read {
            Poll::Ready(Ok(n)) => *n,
            Poll::Ready(Err(_)) | Poll::Pending => 0,
        };
        core.codec.commit_data(id, n, false);
        core.unsent_frames += usize::from(n > 0);
        if core.codec.output().is_empty()
            && let Some(memory) = core.codec.take_buffer()
        {
            core.buffers.give(memory);
        }
        read
    }

    fn arm_idle(&mut self, limit: Duration) {
        self.carried_at_timer = self.from_application + self.to_application;
        self.idle.as_mut().reset(Instant::now() + limit);
    }

    /// The timer is set again only when it fires: silence is noticed after one to two limits, and a
    /// busy connection never reads the clock for it.
    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<RelayCause<S>> {
        while self.idle.as_mut().poll(cx).is_ready() {
            if self.from_application + self.to_application == self.carried_at_timer {
                return Poll::Ready(RelayCause::Idle);
            }
            let half_closed = self.application_ended || self.tunnel_ended;
            self.arm_idle(if half_closed { self.limits.half_closed } else { self.limits.open });
        }
        Poll::Pending
    }
}

impl<S> Future for Relay<S> {
    type Output = RelayEnd<S>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(cause) = this.poll_cause(cx) else { return Poll::Pending };
        match cause {
            RelayCause::Finished => this.stream.finished = true,
            RelayCause::Application(_) => {
                // RFC 9113 §8.5: "A TCP connection error is signaled with RST_STREAM. A proxy treats
                // any error in the TCP connection [...] as a stream error of type CONNECT_ERROR."
                this.stream.give_up(Reason::ConnectError);
                this.application.reset_on_close();
            }
            RelayCause::Reset(_) | RelayCause::TunnelLost(_) | RelayCause::Idle | RelayCause::Stopped(_) => {
                this.application.reset_on_close();
            }
        }
        Poll::Ready(RelayEnd {
            from_application: this.from_application,
            to_application: this.to_application,
            cause,
        })
    }
}

/// Octets kept free behind a slot for its frame header, so that the codec stays within its piece.
const FRAME_ROOM: usize = 64;

/// Octets that one connection may move in one poll before others get their turn.
const READ_BUDGET: usize = BufferPool::PIECE / 2;
