//! One direction of a plain connection: how octets move from one socket to the other.
//!
//! What comes in small pieces is copied through the worker's memory. As soon as a read brings much, the
//! octets go through a pipe instead, which hands the kernel's pages on without copying them. Both are
//! borrowed when there is something to read and given back when it is gone.

use std::io;
use std::task::{Context, Poll};

use ambit_hbone::buffer::Buffer;
use ambit_hbone::socket::Socket;
use tracing::debug;

use super::Memory;
use super::pipe::Pipe;

/// What was read and not yet written, and whether more will come.
#[derive(Default)]
pub(super) struct Direction {
    /// Octets written so far.
    pub(super) carried: u64,
    /// The reader's end of file was handed on.
    pub(super) ended: bool,
    read_ended: bool,
    way: Way,
    pending: Buffer,
    pipe: Option<Pipe>,
}

/// How octets move next.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Copied,
    Spliced,
}

/// Which side of a direction failed.
pub(super) enum Failed {
    /// The socket that is read.
    Reading(io::Error),
    /// The socket that is written.
    Writing(io::Error),
}

impl Direction {
    /// Moves what can be moved now; `Ready` once this direction has ended.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        memory: &Memory,
    ) -> Poll<Result<(), Failed>> {
        let moved = self.poll_move(cx, from, to, memory);
        self.settle(memory);
        moved
    }

    fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        from: &Socket,
        to: &Socket,
        memory: &Memory,
    ) -> Poll<Result<(), Failed>> {
        let mut budget = TURN_BUDGET;
        while !self.ended {
            match self.poll_write(cx, to) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Writing(error))),
                Poll::Pending => return Poll::Pending,
            }
            if self.read_ended {
                to.shutdown_write();
                self.ended = true;
                break;
            }
            if budget == 0 {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            match self.poll_read(cx, from, memory) {
                Poll::Ready(Ok(0)) => self.read_ended = true,
                Poll::Ready(Ok(_)) => budget -= 1,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failed::Reading(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything that waits.
    fn poll_write(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let Poll::Ready(written) = to.poll_write(cx, self.pending.filled()) else { return Poll::Pending };
            let written = written?;
            self.pending.consume(written);
            self.carried += written as u64;
        }
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.filled() > 0) {
            let Poll::Ready(moved) = pipe.poll_drain(cx, to) else { return Poll::Pending };
            self.carried += moved? as u64;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once, by the way that fits what came last.
    fn poll_read(&mut self, cx: &mut Context<'_>, from: &Socket, memory: &Memory) -> Poll<io::Result<usize>> {
        if from.poll_readable(cx)?.is_pending() {
            return Poll::Pending;
        }
        match self.way {
            Way::Copied => self.poll_copy(cx, from, memory),
            Way::Spliced => self.poll_splice(cx, from, memory),
        }
    }

    fn poll_copy(&mut self, cx: &mut Context<'_>, from: &Socket, memory: &Memory) -> Poll<io::Result<usize>> {
        if !self.pending.has_memory() {
            self.pending = Buffer::with_memory(memory.buffers.take());
        }
        let read = from.poll_read(cx, self.pending.spare(1));
        if let Poll::Ready(Ok(read)) = read {
            self.pending.fill(read);
            if read >= MUCH {
                self.way = Way::Spliced;
            }
        }
        read
    }

    fn poll_splice(
        &mut self,
        cx: &mut Context<'_>,
        from: &Socket,
        memory: &Memory,
    ) -> Poll<io::Result<usize>> {
        let pipe = match self.pipe.take().map_or_else(|| memory.pipes.take(), Ok) {
            Ok(pipe) => self.pipe.insert(pipe),
            Err(error) => {
                debug!(%error, "no pipe to carry a connection without copying: copied instead");
                self.way = Way::Copied;
                return self.poll_copy(cx, from, memory);
            }
        };
        let filled = pipe.poll_fill(cx, from);
        if let Poll::Ready(Ok(filled)) = filled
            && filled < LITTLE
        {
            self.way = Way::Copied;
        }
        filled
    }

    fn settle(&mut self, memory: &Memory) {
        if let Some(piece) = self.pending.take_memory() {
            memory.buffers.give(piece);
        }
        if let Some(pipe) = self.pipe.take_if(|pipe| pipe.filled() == 0) {
            memory.pipes.give(pipe);
        }
    }
}

/// Reads of one direction in one turn before the worker's other tasks get theirs.
const TURN_BUDGET: usize = 2;

/// Octets of one read from which on a pipe costs less than copying.
const MUCH: usize = 32 * 1024;

/// Octets of one read below which copying costs less than a pipe.
const LITTLE: usize = 4 * 1024;
