//! A CONNECT stream as octets in and octets out, for an owner that speaks a protocol inside it.
//!
//! The alternative to [`crate::relay`], which joins a stream with a socket and never looks at what it
//! carries. The peer's window is given back as the owner takes, so that what waits here is bounded by
//! it. One task owns a stream: reading and writing share the waker that the driver calls.

use std::rc::Rc;
use std::task::{Context, Poll};

use crate::codec::Reason;
use crate::tunnel::stream::{StreamError, TunnelStream};

impl TunnelStream {
    /// Takes payload that has arrived: `Ok(0)` for a `room` that is not empty means that the peer has
    /// ended in good order.
    ///
    /// # Errors
    /// When the peer reset the stream or its tunnel is gone, after everything that had arrived before.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<Result<usize, StreamError>> {
        let core = &mut *self.core.borrow_mut();
        let Some(stream) = core.streams.get_mut(&self.id) else {
            return Poll::Ready(Err(StreamError::Reset { reason: Reason::Cancel }));
        };
        if !stream.pending.is_empty() {
            let taken = stream.pending.len().min(room.len());
            room[..taken].copy_from_slice(&stream.pending.filled()[..taken]);
            stream.pending.consume(taken);
            if stream.pending.is_empty() {
                // Memory of a burst is not kept for a stream that may idle for hours.
                drop(stream.pending.take_memory());
            }
            stream.delivered += taken as u64;
            core.codec.release(self.id, taken);
            if !core.codec.output().is_empty() {
                core.wake_driver();
            }
            return Poll::Ready(Ok(taken));
        }
        if stream.ended {
            self.received_all = true;
            self.finished |= self.sent_all;
            return Poll::Ready(Ok(0));
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

    /// Sends a part of `octets`, as much as the peer's window and the tunnel's buffers take now.
    ///
    /// # Errors
    /// When the peer reset the stream or its tunnel is gone.
    pub fn poll_transmit(&mut self, cx: &mut Context<'_>, octets: &[u8]) -> Poll<Result<usize, StreamError>> {
        let core = &mut *self.core.borrow_mut();
        if !core.may_send() {
            core.wait_to_send(cx.waker());
            return self.fate(core).map_or(Poll::Pending, |error| Poll::Ready(Err(error)));
        }
        if let Some(error) = self.fate(core) {
            return Poll::Ready(Err(error));
        }
        if core.codec.send_capacity(self.id) == 0 {
            if let Some(stream) = core.streams.get_mut(&self.id) {
                stream.set_waker(cx.waker());
                stream.wants_window = true;
            }
            return Poll::Pending;
        }
        core.lend_piece();
        let max = octets.len().min(core.codec.output_spare().saturating_sub(FRAME_ROOM));
        let slot = core.codec.data_slot(self.id, max);
        let sent = slot.len();
        slot.copy_from_slice(&octets[..sent]);
        core.codec.commit_data(self.id, sent, false);
        core.unsent_frames += usize::from(sent > 0);
        core.wake_driver();
        Poll::Ready(Ok(sent))
    }

    /// Says that nothing more is sent (END_STREAM). What the peer sends can still be taken.
    pub fn end(&mut self) {
        if self.sent_all {
            return;
        }
        let mut core = self.core.borrow_mut();
        if self.fate(&core).is_none() {
            core.codec.end(self.id);
            core.wake_driver();
        }
        drop(core);
        self.sent_all = true;
        self.finished |= self.received_all;
    }

    /// Ends both directions at once, as an error that the peer can tell from an end.
    pub fn abort(mut self) {
        self.give_up(Reason::ConnectError);
    }

    /// Why nothing can be sent any more.
    fn fate(&self, core: &super::Core) -> Option<StreamError> {
        let Some(stream) = core.streams.get(&self.id) else {
            return Some(StreamError::Reset { reason: Reason::Cancel });
        };
        if let Some(reason) = stream.reset {
            return Some(StreamError::Reset { reason });
        }
        core.end.as_ref().map(|end| StreamError::TunnelLost(Rc::clone(end)))
    }
}

/// Octets kept free behind a slot for its frame header, so that the codec stays within its piece.
const FRAME_ROOM: usize = 64;
