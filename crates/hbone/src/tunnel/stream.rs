//! One CONNECT stream as its flow sees it.

use std::cell::RefCell;
use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::buffer::Buffer;
use crate::codec::{Headers, Reason, StreamId};
use crate::socket::Socket;
use crate::tunnel::{Core, TunnelEnd};

/// What the driver keeps of one stream.
#[derive(Default)]
pub(crate) struct StreamState {
    /// Where payload goes as it arrives, once the flow relays.
    pub(crate) application: Option<Rc<Socket>>,
    /// Payload that the application does not take yet. Bounded by the stream's flow-control window,
    /// which is given back only for what was delivered.
    pub(crate) pending: Buffer,
    /// Octets delivered to the application.
    pub(crate) delivered: u64,
    /// The peer sent END_STREAM.
    pub(crate) ended: bool,
    /// The peer reset the stream.
    pub(crate) reset: Option<Reason>,
    /// The application's socket refused what the driver wrote.
    pub(crate) application_error: Option<std::io::Error>,
    /// The answer to our CONNECT.
    pub(crate) response: Option<Response>,
    /// The flow sleeps until the peer opens its window.
    pub(crate) wants_window: bool,
    /// The flow's task.
    pub(crate) waker: Option<Waker>,
}

impl StreamState {
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub(crate) fn set_waker(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// A stream in the hands of its flow. Dropping it resets what has not ended.
pub struct TunnelStream {
    pub(crate) core: Rc<RefCell<Core>>,
    pub(crate) id: StreamId,
    /// Both directions ended in good order: nothing to reset.
    pub(crate) finished: bool,
    /// Octets of the application that were sent before a relay took over.
    pub(crate) early: u64,
    /// The owner has sent END_STREAM.
    pub(crate) sent_all: bool,
    /// The owner has seen the peer's END_STREAM.
    pub(crate) received_all: bool,
}

/// The peer's answer to a CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// HTTP status: 200 means that the tunnel is open.
    pub status: u16,
    /// Its header fields.
    pub headers: Headers,
}

/// Why a stream did not come about.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StreamError {
    /// The peer reset it.
    #[error("the peer reset the stream: {reason}")]
    Reset {
        /// The HTTP/2 error code.
        reason: Reason,
    },
    /// The tunnel ended under it.
    #[error("{0}")]
    TunnelLost(Rc<TunnelEnd>),
}

impl TunnelStream {
    pub(crate) fn new(core: Rc<RefCell<Core>>, id: StreamId) -> Self {
        Self { core, id, finished: false, early: 0, sent_all: false, received_all: false }
    }

    /// Sends octets of the application behind our CONNECT, before its answer: all, or nothing and
    /// false where the peer's window has no room for them. Whoever calls it keeps them, in case the
    /// peer does not take the stream.
    pub fn send_early(&mut self, octets: &[u8]) -> bool {
        let mut core = self.core.borrow_mut();
        let sent = core.codec.send_early(self.id, octets);
        if sent {
            core.wake_driver();
            self.early += octets.len() as u64;
        }
        sent
    }

    /// Sends octets of the application once the CONNECT was answered with 200, as the peer's window
    /// takes them.
    ///
    /// # Errors
    /// When the stream or its tunnel ends first.
    pub async fn send_all(&mut self, mut octets: &[u8]) -> Result<(), StreamError> {
        while !octets.is_empty() {
            let sent = poll_fn(|cx| self.poll_send(cx, octets)).await?;
            self.early += sent as u64;
            octets = &octets[sent..];
        }
        Ok(())
    }

    fn poll_send(&self, cx: &Context<'_>, octets: &[u8]) -> Poll<Result<usize, StreamError>> {
        let core = &mut *self.core.borrow_mut();
        let Some(stream) = core.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(StreamError::Reset { reason: Reason::Cancel }));
        };
        if let Some(reason) = stream.reset {
            return Poll::Ready(Err(StreamError::Reset { reason }));
        }
        if let Some(end) = &core.end {
            return Poll::Ready(Err(StreamError::TunnelLost(Rc::clone(end))));
        }
        let slot = core.codec.data_slot(self.id, octets.len());
        if slot.is_empty() {
            stream.set_waker(cx.waker());
            stream.wants_window = true;
            return Poll::Pending;
        }
        let sent = slot.len();
        slot.copy_from_slice(&octets[..sent]);
        core.codec.commit_data(self.id, sent, false);
        core.wake_driver();
        Poll::Ready(Ok(sent))
    }

    /// Waits for the answer to our CONNECT.
    ///
    /// # Errors
    /// When the stream or its tunnel ends first.
    pub async fn response(&mut self) -> Result<Response, StreamError> {
        poll_fn(|cx| self.poll_response(cx)).await
    }

    fn poll_response(&mut self, cx: &Context<'_>) -> Poll<Result<Response, StreamError>> {
        let core = &mut *self.core.borrow_mut();
        let Some(stream) = core.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(StreamError::Reset { reason: Reason::Cancel }));
        };
        if let Some(response) = stream.response.take() {
            return Poll::Ready(Ok(response));
        }
        if let Some(reason) = stream.reset {
            return Poll::Ready(Err(StreamError::Reset { reason }));
        }
        if let Some(end) = &core.end {
            return Poll::Ready(Err(StreamError::TunnelLost(Rc::clone(end))));
        }
        stream.set_waker(cx.waker());
        Poll::Pending
    }

    /// Waits until the peer gives the stream up: it was reset, or its tunnel ended. Data and an
    /// orderly end do not count.
    pub async fn abandoned(&self) -> StreamError {
        poll_fn(|cx| self.poll_abandoned(cx)).await
    }

    fn poll_abandoned(&self, cx: &Context<'_>) -> Poll<StreamError> {
        let core = &mut *self.core.borrow_mut();
        let Some(stream) = core.streams.get_mut(&self.id) else {
            return Poll::Ready(StreamError::Reset { reason: Reason::Cancel });
        };
        if let Some(reason) = stream.reset {
            return Poll::Ready(StreamError::Reset { reason });
        }
        if let Some(end) = &core.end {
            return Poll::Ready(StreamError::TunnelLost(Rc::clone(end)));
        }
        stream.set_waker(cx.waker());
        Poll::Pending
    }

    /// Answers the peer's CONNECT with 200: from here on the stream carries payload.
    pub fn accept(&mut self, headers: &[(&str, &str)]) {
        let mut core = self.core.borrow_mut();
        core.codec.respond(self.id, 200, headers);
        core.wake_driver();
    }

    /// Answers the peer's request with an error and ends the stream.
    pub fn refuse(mut self, status: u16, headers: &[(&str, &str)]) {
        let mut core = self.core.borrow_mut();
        core.codec.refuse(self.id, status, headers);
        core.wake_driver();
        drop(core);
        self.finished = true;
    }

    /// Resets the stream, with a reason for the peer.
    pub(crate) fn give_up(&mut self, reason: Reason) {
        let mut core = self.core.borrow_mut();
        core.codec.reset(self.id, reason);
        core.wake_driver();
        drop(core);
        self.finished = true;
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        let mut core = self.core.borrow_mut();
        core.streams.remove(&self.id);
        if !self.finished && core.end.is_none() {
            // RFC 9113 §8.1: who has said all asks the peer to say no more, which is no error.
            let reason = if self.sent_all { Reason::NoError } else { Reason::Cancel };
            core.codec.reset(self.id, reason);
        }
        // A tunnel that drains ends with its last stream: the driver must look.
        core.wake_driver();
    }
}

impl fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelStream")
            .field("id", &self.id)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
