//! HTTP/1 on a [`Wire`]: heads and bodies in, heads and bodies out, both directions at once.
//!
//! pingora's HTTP/1 sessions read and write through one `&mut`, so that a peer that answers while it
//! reads could stall both, and they drop trailers; see docs/adr/008. What a head means is decided in
//! [`crate::head`].

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use tokio::io::AsyncWrite;

use crate::head::{BodyLength, Refusal};
use crate::wire::Wire;

mod body;
mod write;

pub use body::BodyReader;
pub use write::{BodyWriter, Framing, request_head, response_head};

/// A connection whose reading and writing side are used at the same time, by one task.
#[derive(Clone, Debug)]
pub struct Shared {
    wire: Rc<RefCell<Wire>>,
}

/// Why a message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is malformed.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// It ended in the middle.
    #[error("the connection ended in the middle of a message")]
    Truncated,
}

impl Shared {
    /// Shares a connection between its two sides.
    pub fn new(wire: Wire) -> Self {
        Self { wire: Rc::new(RefCell::new(wire)) }
    }

    /// The connection again, once nobody else has a side of it.
    pub fn into_wire(self) -> Option<Wire> {
        Rc::try_unwrap(self.wire).ok().map(RefCell::into_inner)
    }

    /// Reads a head by `parse`; `None` when the connection ends before its first octet.
    ///
    /// # Errors
    /// When it is malformed or cut off. Deadlines are the caller's; cancelling loses nothing.
    pub async fn head<T>(
        &self,
        parse: impl Fn(&[u8]) -> Result<Option<(usize, T)>, Refusal>,
    ) -> Result<Option<T>, ReadError> {
        loop {
            {
                let mut wire = self.wire.borrow_mut();
                if let Some((taken, head)) = parse(wire.unread())? {
                    wire.consume(taken);
                    return Ok(Some(head));
                }
            }
            if self.fill().await? == 0 {
                let nothing = self.wire.borrow().unread().is_empty();
                return if nothing { Ok(None) } else { Err(ReadError::Truncated) };
            }
        }
    }

    /// Waits until something has come; false at the end.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn readable(&self) -> io::Result<bool> {
        if !self.wire.borrow().unread().is_empty() {
            return Ok(true);
        }
        Ok(self.fill().await? > 0)
    }

    /// Reads more behind what waits.
    pub(crate) async fn fill(&self) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.wire.borrow_mut().poll_fill(cx)).await
    }

    /// Writes all of `octets`.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn write_all(&self, mut octets: &[u8]) -> io::Result<()> {
        while !octets.is_empty() {
            let written = std::future::poll_fn(|cx| self.poll_write(cx, octets)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            octets = &octets[written..];
        }
        Ok(())
    }

    fn poll_write(&self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.wire.borrow_mut()).poll_write(cx, octets)
    }

    /// Says that nothing more is written.
    pub async fn shutdown(&self) -> io::Result<()> {
        std::future::poll_fn(|cx| Pin::new(&mut *self.wire.borrow_mut()).poll_shutdown(cx)).await
    }

    /// What waits, without an end to it: for a protocol that takes the connection over.
    ///
    /// # Errors
    /// When the connection failed.
    pub async fn next_octets(&self) -> io::Result<Bytes> {
        if self.wire.borrow().unread().is_empty() {
            self.fill().await?;
        }
        let mut wire = self.wire.borrow_mut();
        let octets = wire.unread().len();
        Ok(wire.consume(octets))
    }
}

/// A piece of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Octets.
    Data(Bytes),
    /// The trailers, behind which nothing follows.
    Trailers(HeaderMap),
}
