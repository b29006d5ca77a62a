//! Payload: what may be sent and is sent, and what the application has taken.

use super::streams::{Side, StreamId};
use super::{Codec, Kind, flag};

impl Codec {
    /// How many octets may be sent on a stream now: what the windows of the stream and the
    /// connection leave. 0 when the stream is not a tunnel, ended, or gone.
    #[must_use]
    pub fn send_capacity(&self, stream: StreamId) -> usize {
        match self.streams.get(stream) {
            Some(state) if state.tunnel && state.local == Side::Open => {
                state.send.available().min(self.send_window.available())
            }
            Some(_) | None => 0,
        }
    }

    /// Sends payload behind a CONNECT that is not answered yet, all of it or nothing: false when the
    /// windows or the frame size are too small for it, or the stream is in another state.
    ///
    /// RFC 9113 §8.5 lets DATA follow the request. If the answer is not a 2xx, the peer drops it.
    pub fn send_early(&mut self, stream: StreamId, octets: &[u8]) -> bool {
        let capacity = match self.streams.get(stream) {
            Some(state) if !state.tunnel && state.local == Side::Open && state.remote == Side::Silent => {
                state.send.available().min(self.send_window.available()).min(self.peer.max_frame_size)
            }
            Some(_) | None => 0,
        };
        if octets.is_empty() || octets.len() > capacity {
            return false;
        }
        let slot = self.output.data_slot(stream, octets.len());
        if slot.len() < octets.len() {
            self.output.abort_data();
            return false;
        }
        slot.copy_from_slice(octets);
        self.commit_data(stream, octets.len(), false);
        true
    }

    /// Room in the output to read payload into, behind a reserved frame header: at most `max`
    /// octets, what the windows leave, and the peer's frame size; empty if there is no capacity.
    ///
    /// It has to be [committed](Self::commit_data) before anything else is written.
    pub fn data_slot(&mut self, stream: StreamId, max: usize) -> &mut [u8] {
        let room = max.min(self.send_capacity(stream)).min(self.peer.max_frame_size);
        if room == 0 {
            return &mut [];
        }
        self.output.data_slot(stream, room)
    }

    /// Sends the first `octets` of the slot, and with `end` nothing more after them. With 0 octets
    /// the slot is given back.
    ///
    /// # Panics
    /// If the last slot handed out is not the stream's, is smaller, or was written over: the octets
    /// would be lost or others sent. (A stream that is gone is no error, there is nobody to send to.)
    pub fn commit_data(&mut self, stream: StreamId, octets: usize, end: bool) {
        if octets == 0 {
            self.output.abort_data();
            if end {
                self.end(stream);
            }
            return;
        }
        let Some(state) = self.streams.get_mut(stream) else {
            self.output.abort_data();
            return;
        };
        self.output.commit_data(stream, octets, if end { flag::END_STREAM } else { 0 });
        state.send.consume(octets);
        self.send_window.consume(octets);
        let window_left = state.send.available().min(self.send_window.available()) > 0;
        self.stats.frames_sent += 1;
        self.stats.data_sent += octets as u64;
        self.floods.data_sent(octets, window_left);
        if end {
            self.streams.end_side(stream, |state| &mut state.local);
        }
    }

    /// Nothing more will be sent on the stream: an empty DATA frame with END_STREAM. Without effect
    /// before a request is answered, and on a stream that ended or is gone.
    pub fn end(&mut self, stream: StreamId) {
        if self.streams.get(stream).is_some_and(|state| state.local == Side::Open) {
            self.write(Kind::Data, flag::END_STREAM, stream.get(), &[]);
            self.streams.end_side(stream, |state| &mut state.local);
        }
    }

    /// The application took `octets` of a stream's payload: the peer may send as much again. It is
    /// told so when half of a window is free. Without effect on a stream that is gone; what it held
    /// was released with it.
    pub fn release(&mut self, stream: StreamId, octets: usize) {
        let Some(state) = self.streams.get_mut(stream) else { return };
        let octets = octets.min(state.unreleased);
        state.unreleased -= octets;
        // Nobody needs the window of a stream on which nothing more comes.
        let increment = if state.remote == Side::Open { state.receive.release(octets) } else { None };
        let forget = state.is_closed() && state.unreleased == 0;
        if let Some(increment) = increment {
            self.reply(Kind::WindowUpdate, 0, stream.get(), &increment.to_be_bytes());
        }
        if forget {
            self.streams.remove(stream);
        }
        self.release_connection(octets);
    }

    /// Octets that fill the connection's window no longer.
    pub(super) fn release_connection(&mut self, octets: usize) {
        if let Some(increment) = self.receive_window.release(octets) {
            self.reply(Kind::WindowUpdate, 0, 0, &increment.to_be_bytes());
        }
    }
}
