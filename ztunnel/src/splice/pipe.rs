//! Pipes that carry octets from socket to socket inside the kernel, and one worker's store of them.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll};

use ambit_hbone::socket::Socket;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

/// A pipe. What is in it when it is dropped is lost, as its connection is.
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    filled: usize,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Where the limit on pipes is lower, the default of 64 KiB has to do.
        let _smaller = fcntl_setpipe_size(&writer, CAPACITY);
        Ok(Self { reader, writer, filled: 0 })
    }

    /// Octets in it.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    /// Takes octets from a socket; only while it is empty.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Socket) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.filled, 0, "a full pipe could not be told from an empty socket");
        let filled = from.poll_splice_into(cx, &self.writer, CAPACITY);
        if let Poll::Ready(Ok(filled)) = filled {
            self.filled = filled;
        }
        filled
    }

    /// Gives octets to a socket.
    pub(super) fn poll_drain(&mut self, cx: &mut Context<'_>, to: &Socket) -> Poll<io::Result<usize>> {
        let drained = to.poll_splice_from(cx, &self.reader, self.filled);
        if let Poll::Ready(Ok(drained)) = drained {
            self.filled -= drained;
        }
        drained
    }
}

/// Empty pipes of one worker. Clones share them.
#[derive(Clone, Default)]
pub struct PipePool {
    free: Rc<RefCell<Vec<Pipe>>>,
}

impl PipePool {
    /// A pipe with nothing in it.
    pub(super) fn take(&self) -> io::Result<Pipe> {
        self.free.borrow_mut().pop().map_or_else(Pipe::new, Ok)
    }

    /// Takes an empty pipe back; beyond a few they are closed.
    pub(super) fn give(&self, pipe: Pipe) {
        let mut free = self.free.borrow_mut();
        if pipe.filled == 0 && free.len() < MAX_FREE {
            free.push(pipe);
        }
    }

    /// Pipes that are not in use.
    #[cfg(test)]
    pub(super) fn free(&self) -> usize {
        self.free.borrow().len()
    }
}

/// Octets that one pipe holds: what one turn of a connection moves. Within what the kernel lets any
/// process have (`fs.pipe-max-size`, 1 MiB).
const CAPACITY: usize = 256 * 1024;

/// Empty pipes that a worker keeps; each is two descriptors.
const MAX_FREE: usize = 8;
