//! What the codec's events mean for the streams of a tunnel.

use crate::codec::{ConnectionError, Event, StreamId};
use crate::tunnel::{Closing, Core, Response, StreamState};

impl Core {
    /// Feeds decrypted octets to the codec and acts on every event.
    ///
    /// # Errors
    /// When the peer broke the protocol; the GOAWAY is in the codec's output.
    pub(super) fn dispatch(&mut self, plaintext: &[u8]) -> Result<(), ConnectionError> {
        let mut input = plaintext;
        while let Some(event) = self.codec.receive(&mut input)? {
            self.on_event(event);
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event<'_>) {
        match event {
            Event::Data { stream, payload } => self.deliver(stream, payload),
            Event::Request { stream, head } => {
                self.streams.insert(stream, StreamState::default());
                self.incoming.push_back((stream, head));
                if let Some(waker) = self.incoming_waker.take() {
                    waker.wake();
                }
            }
            Event::Response { stream, status, headers } => {
                self.on_stream(stream, |state| state.response = Some(Response { status, headers }));
            }
            Event::End { stream } => self.on_stream(stream, |state| state.ended = true),
            Event::Reset { stream, reason } => self.on_stream(stream, |state| state.reset = Some(reason)),
            Event::Writable { stream: Some(stream) } => {
                if let Some(state) = self.streams.get_mut(&stream).filter(|state| state.wants_window) {
                    state.wants_window = false;
                    state.wake();
                }
            }
            Event::Writable { stream: None } => {
                for state in self.streams.values_mut().filter(|state| state.wants_window) {
                    state.wants_window = false;
                    state.wake();
                }
            }
            Event::GoAway { .. } => {
                if self.closing == Closing::No {
                    self.closing = Closing::Draining;
                }
            }
            Event::Pong { .. } | Event::StreamsAvailable => {}
        }
    }

    /// Hands payload to the application; keeps what it does not take now.
    fn deliver(&mut self, id: StreamId, payload: &[u8]) {
        let Some(stream) = self.streams.get_mut(&id) else {
            // The flow is gone and its reset is on the way: the octets only count for the window.
            self.codec.release(id, payload.len());
            return;
        };
        let mut taken = 0;
        if let Some(application) = stream.application.as_ref().filter(|_| stream.pending.is_empty()) {
            match application.write_now(payload) {
                Ok(n) => taken = n,
                Err(error) => stream.application_error = Some(error),
            }
        }
        if taken > 0 {
            stream.delivered += taken as u64;
            self.codec.release(id, taken);
        }
        if taken < payload.len() {
            stream.pending.extend(&payload[taken..]);
            stream.wake();
        }
    }

    fn on_stream(&mut self, id: StreamId, change: impl FnOnce(&mut StreamState)) {
        if let Some(state) = self.streams.get_mut(&id) {
            change(state);
            state.wake();
        }
    }
}
