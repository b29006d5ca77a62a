//! Carries octets between two plain sockets: passthrough out of a pod, and plaintext into one.
//!
//! Half-close is kept; anything but two orderly ends becomes a reset on both sides. Memory is
//! borrowed from the worker when a socket is readable and given back when its octets are gone.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use ambit_hbone::buffer::{Buffer, BufferPool};
use ambit_hbone::relay::{IdleLimits, Stop};
use ambit_hbone::socket::Socket;
use tokio::time::{Instant, Sleep, sleep};

/// How a plain connection ended, and what it carried.
#[derive(Debug)]
pub struct SpliceEnd<S> {
    /// Octets from the downstream socket (who connected to us) to the upstream one.
    pub to_upstream: u64,
    /// Octets from the upstream socket to the downstream one.
    pub to_downstream: u64,
    /// Why it ended.
    pub cause: SpliceCause<S>,
}

/// Why a plain connection ended.
#[derive(Debug)]
pub enum SpliceCause<S> {
    /// Both directions ended in good order.
    Finished,
    /// The socket of who connected to us failed.
    Downstream(std::io::Error),
    /// The socket we connected failed.
    Upstream(std::io::Error),
    /// It was silent for longer than its limits allow.
    Idle,
    /// Its owner stopped it.
    Stopped(S),
}

/// Relays until both directions have ended or something stops it.
pub async fn splice<S>(
    downstream: Socket,
    upstream: Socket,
    buffers: BufferPool,
    limits: IdleLimits,
    stop: Stop<S>,
) -> SpliceEnd<S> {
    Splice {
        downstream,
        upstream,
        buffers,
        limits,
        stop,
        to_upstream: Direction::default(),
        to_downstream: Direction::default(),
        idle: Box::pin(sleep(limits.open)),
        carried_at_timer: 0,
    }
    .await
}

struct Splice<S> {
    downstream: Socket,
    upstream: Socket,
    buffers: BufferPool,
    limits: IdleLimits,
    stop: Stop<S>,
    to_upstream: Direction,
    to_downstream: Direction,
    idle: Pin<Box<Sleep>>,
    carried_at_timer: u64,
}

/// One direction: what was read and not yet written, and whether more will come.
#[derive(Default)]
struct Direction {
    pending: Buffer,
    carried: u64,
    read_ended: bool,
    ended: bool,
}

enum Failed {
    Reading(std::io::Error),
    Writing(std::io::Error),
}

impl Direction {
    /// Moves what can be moved now; `Ready` once this direction has ended.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        buffers: &BufferPool,
    ) -> Poll<Result<(), Failed>> {
        let mut budget = TURN_BUDGET;
        while !self.ended {
            while !self.pending.is_empty() {
                match to.poll_write(cx, self.pending.filled()) {
                    Poll::Ready(Ok(n)) => {
                        self.pending.consume(n);
                        self.carried += n as u64;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Writing(error))),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if self.read_ended {
                to.shutdown_write();
                self.ended = true;
                break;
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                self.settle(buffers);
                return Poll::Pending;
            }
            match self.poll_fill(cx, from, buffers) {
                Poll::Ready(Ok(0)) => self.read_ended = true,
                Poll::Ready(Ok(_)) => budget -= 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Reading(error))),
                Poll::Pending => {
                    self.settle(buffers);
                    return Poll::Pending;
                }
            }
        }
        self.settle(buffers);
        Poll::Ready(Ok(()))
    }

    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        from: &Socket,
        buffers: &BufferPool,
    ) -> Poll<std::io::Result<usize>> {
        if from.poll_readable(cx)?.is_pending() {
            return Poll::Pending;
        }
        if !self.pending.has_memory() {
            self.pending = Buffer::with_memory(buffers.take());
        }
        let read = from.poll_read(cx, self.pending.spare(1));
        if let Poll::Ready(Ok(n)) = read {
            self.pending.fill(n);
        }
        read
    }

    fn settle(&mut self, buffers: &BufferPool) {
        if let Some(memory) = self.pending.take_memory() {
            buffers.give(memory);
        }
    }
}

impl<S> Splice<S> {
    fn poll_cause(&mut self, cx: &mut Context<'_>) -> Poll<SpliceCause<S>> {
        if let Poll::Ready(reason) = self.stop.poll_stopped(cx) {
            return Poll::Ready(SpliceCause::Stopped(reason));
        }
        let (down, up) = (&self.downstream, &self.upstream);
        let forward = self.to_upstream.poll(cx, down, up, &self.buffers);
        let back = self.to_downstream.poll(cx, up, down, &self.buffers);
        match (forward, back) {
            (Poll::Ready(Err(Failed::Reading(error))), _) | (_, Poll::Ready(Err(Failed::Writing(error)))) => {
                Poll::Ready(SpliceCause::Downstream(error))
            }
            (Poll::Ready(Err(Failed::Writing(error))), _) | (_, Poll::Ready(Err(Failed::Reading(error)))) => {
                Poll::Ready(SpliceCause::Upstream(error))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(SpliceCause::Finished),
            (Poll::Ready(Ok(())) | Poll::Pending, Poll::Pending) | (Poll::Pending, Poll::Ready(Ok(()))) => {
                self.poll_idle(cx)
            }
        }
    }

    fn poll_idle(&mut self, cx: &mut Context<'_>) -> Poll<SpliceCause<S>> {
        while self.idle.as_mut().poll(cx).is_ready() {
            let carried = self.to_upstream.carried + self.to_downstream.carried;
            if carried == self.carried_at_timer {
                return Poll::Ready(SpliceCause::Idle);
            }
            self.carried_at_timer = carried;
            let limit = self.idle_limit();
            self.idle.as_mut().reset(Instant::now() + limit);
        }
        Poll::Pending
    }

    fn idle_limit(&self) -> Duration {
        if self.to_upstream.ended || self.to_downstream.ended {
            self.limits.half_closed
        } else {
            self.limits.open
        }
    }
}

impl<S> Unpin for Splice<S> {}

impl<S> Future for Splice<S> {
    type Output = SpliceEnd<S>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let Poll::Ready(cause) = this.poll_cause(cx) else { return Poll::Pending };
        if !matches!(cause, SpliceCause::Finished) {
            this.downstream.reset_on_close();
            this.upstream.reset_on_close();
        }
        Poll::Ready(SpliceEnd {
            to_upstream: this.to_upstream.carried,
            to_downstream: this.to_downstream.carried,
            cause,
        })
    }
}

/// Reads of one direction in one turn before the worker's other tasks get theirs.
const TURN_BUDGET: usize = 2;
