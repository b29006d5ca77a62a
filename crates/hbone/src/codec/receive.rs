//! What the peer's frames do. Header blocks are in [`headers`].

use super::closing::Phase;
use super::error::{ConnectionError, Reason};
use super::floods::{Flood, MAX_UNREAD_REPLIES};
use super::parser::{DataExtent, Item};
use super::streams::{Known, Side, StreamId};
use super::window::DEFAULT_WINDOW;
use super::{Codec, Event, Kind, Role, flag};

mod headers;

impl Codec {
    /// The next event. Consumes from `input` what it read; `None` when all of it is used up.
    ///
    /// # Errors
    /// The peer broke the protocol or went beyond a limit: the connection is over. A GOAWAY that
    /// says so is in the output, and every further call returns the same error.
    pub fn receive<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ConnectionError> {
        match self.phase {
            Phase::Failed(error) => Err(error),
            Phase::Closed => {
                *input = &[];
                Ok(None)
            }
            Phase::Running | Phase::Announced | Phase::Leaving => {
                self.next_event(input).inspect_err(|error| self.fail(*error))
            }
        }
    }

    fn next_event<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, ConnectionError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if self.output.replies_waiting() > MAX_UNREAD_REPLIES {
                return Err(ConnectionError::Flood { flood: Flood::UnreadReplies });
            }
            let Some(item) = self.parser.next(input)? else { return Ok(None) };
            if let Item::Data { stream, payload } = item {
                if let Some(event) = self.on_data(stream, payload) {
                    return Ok(Some(event));
                }
                continue;
            }
            self.on_item(item)?;
            self.tell_of_available_streams();
        }
    }

    fn on_item(&mut self, item: Item<'_>) -> Result<(), ConnectionError> {
        match item {
            Item::DataBegins { stream, extent } => self.on_data_begins(stream, extent),
            Item::Data { stream, payload } => {
                self.on_data(stream, payload);
                Ok(())
            }
            Item::StreamEnds { stream } => {
                self.on_stream_ends(stream);
                Ok(())
            }
            Item::Headers(block) => self.on_headers(&block),
            Item::Reset { stream, reason } => self.on_reset(stream, reason),
            Item::Settings(payload) => self.on_settings(&payload),
            Item::SettingsAck => self.on_settings_ack(),
            Item::Ping(payload) => self.on_ping(payload),
            Item::PingAck(payload) => self.on_ping_ack(payload),
            Item::GoAway { last_stream, reason } => self.on_goaway(last_stream, reason),
            Item::WindowUpdate { stream: 0, increment } => self.on_connection_window(increment),
            Item::WindowUpdate { stream, increment } => self.on_stream_window(stream, increment),
            Item::Ignored => self.floods.ignored(),
        }
    }

    /// Accounts for a DATA frame in both windows, also when its stream is gone (RFC 9113 §6.9: "A
    /// receiver that receives a flow-controlled frame MUST always account for its contribution
    /// against the connection flow-control window").
    fn on_data_begins(&mut self, id: u32, extent: DataExtent) -> Result<(), ConnectionError> {
        self.receive_window
            .receive(extent.flow_controlled, 0)
            .map_err(|_| ConnectionError::flow_control("DATA exceeds the connection's window"))?;
        if extent.flow_controlled > extent.overhead {
            self.floods.data_received();
        } else if !extent.ends {
            self.floods.empty_data()?;
        }
        self.release_connection(extent.overhead);

        let grace = self.stream_window_grace();
        let fault = match self.streams.find(id) {
            Known::Idle => {
                return Err(ConnectionError::protocol("DATA came for a stream that was never opened"));
            }
            Known::Reset => None,
            Known::Forgotten => return self.refuse_frame(id),
            Known::Present(stream) => match stream.remote {
                Side::Silent => Some(Reason::ProtocolError),
                Side::Ended => Some(Reason::StreamClosed),
                Side::Open => stream
                    .receive
                    .receive(extent.flow_controlled, grace)
                    .err()
                    .map(|_| Reason::FlowControlError),
            },
        };
        if let Some(reason) = fault {
            return self.stream_error(id, reason);
        }
        if extent.overhead > 0 {
            self.release_padding(id, extent.overhead);
        }
        Ok(())
    }

    /// RFC 9113 §6.9.2: until the peer has acknowledged our SETTINGS it may use the default window.
    fn stream_window_grace(&self) -> u32 {
        if self.settings_acknowledged { 0 } else { DEFAULT_WINDOW.saturating_sub(self.local.stream_window) }
    }

    fn release_padding(&mut self, id: u32, octets: usize) {
        let Known::Present(stream) = self.streams.find(id) else { return };
        if let Some(increment) = stream.receive.release(octets) {
            self.reply(Kind::WindowUpdate, 0, id, &increment.to_be_bytes());
        }
    }

    /// Payload; of a stream that is gone it only fills the connection's window, for no time at all.
    fn on_data<'a>(&mut self, id: u32, payload: &'a [u8]) -> Option<Event<'a>> {
        let stream = StreamId::new(id)?;
        let Some(state) = self.streams.get_mut(stream) else {
            self.stats.data_discarded += payload.len() as u64;
            self.release_connection(payload.len());
            return None;
        };
        state.unreleased += payload.len();
        self.stats.data_received += payload.len() as u64;
        Some(Event::Data { stream, payload })
    }

    /// The peer's half of a stream is over, if the stream is still there.
    fn on_stream_ends(&mut self, id: u32) {
        let Some(stream) = StreamId::new(id) else { return };
        if self.streams.get(stream).is_some_and(|state| state.remote == Side::Open) {
            self.streams.end_side(stream, |state| &mut state.remote);
            self.events.push_back(Event::End { stream });
        }
    }

    fn on_reset(&mut self, id: u32, reason: Reason) -> Result<(), ConnectionError> {
        let unanswered = match self.streams.find(id) {
            Known::Idle => {
                return Err(ConnectionError::protocol("RST_STREAM came for a stream that was never opened"));
            }
            // The peer gave it up as well, before it knew; nothing more comes of it.
            Known::Reset => {
                self.streams.forget_reset(id);
                return Ok(());
            }
            Known::Forgotten => return self.floods.ignored(),
            // Everything had been said; the application may take what it holds.
            Known::Present(stream) if stream.is_closed() => return self.floods.ignored(),
            Known::Present(stream) => stream.local == Side::Silent,
        };
        self.stats.resets_received += 1;
        if unanswered {
            self.floods.rapid_reset()?;
        }
        if let Some(stream) = StreamId::new(id) {
            self.drop_stream(stream);
            self.events.push_back(Event::Reset { stream, reason });
        }
        Ok(())
    }

    fn on_settings(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        self.floods.settings()?;
        let updated = self.peer.updated(payload, self.role)?;
        let delta = i64::from(updated.initial_window) - i64::from(self.peer.initial_window);
        for stream in self.streams.values_mut() {
            // RFC 9113 §6.9.2: a change that makes any window exceed the maximum is an error of the
            // connection.
            stream.send.shift(delta).map_err(|_| {
                ConnectionError::flow_control("SETTINGS_INITIAL_WINDOW_SIZE overflows a window")
            })?;
        }
        self.peer = updated;
        self.reply(Kind::Settings, flag::ACK, 0, &[]);
        if delta > 0 {
            self.events.push_back(Event::Writable { stream: None });
        }
        Ok(())
    }

    fn on_settings_ack(&mut self) -> Result<(), ConnectionError> {
        if self.settings_acknowledged {
            return self.floods.ignored();
        }
        self.settings_acknowledged = true;
        self.decoder.set_limit(self.local.header_table_size);
        Ok(())
    }

    fn on_ping(&mut self, payload: [u8; 8]) -> Result<(), ConnectionError> {
        self.floods.ping()?;
        self.reply(Kind::Ping, flag::ACK, 0, &payload);
        Ok(())
    }

    fn on_ping_ack(&mut self, payload: [u8; 8]) -> Result<(), ConnectionError> {
        if self.finish_announcement(payload) {
            return Ok(());
        }
        if self.pings_unanswered == 0 {
            return self.floods.ignored();
        }
        self.pings_unanswered -= 1;
        self.floods.restore();
        self.events.push_back(Event::Pong { payload });
        Ok(())
    }

    fn on_goaway(&mut self, last_stream: u32, reason: Reason) -> Result<(), ConnectionError> {
        self.floods.ignored()?;
        // RFC 9113 §6.8: "Endpoints MUST NOT increase the value they send in the last stream
        // identifier".
        if self.peer_goaway.is_some_and(|earlier| last_stream > earlier) {
            return Err(ConnectionError::protocol("a GOAWAY takes streams back in"));
        }
        self.peer_goaway = Some(last_stream);
        self.events.push_back(Event::GoAway { last_stream, reason });
        // The identifier counts streams of the receiver's: a server has none.
        if self.role == Role::Client {
            for stream in self.streams.above(last_stream) {
                self.drop_stream(stream);
                self.events.push_back(Event::Reset { stream, reason: Reason::RefusedStream });
            }
        }
        Ok(())
    }

    fn on_connection_window(&mut self, increment: u32) -> Result<(), ConnectionError> {
        self.floods.window_update()?;
        // RFC 9113 §6.9: an increment of 0 is an error, of the connection if it is its window.
        if increment == 0 {
            return Err(ConnectionError::protocol("the connection's WINDOW_UPDATE adds nothing"));
        }
        let opened = self
            .send_window
            .grow(increment)
            .map_err(|_| ConnectionError::flow_control("the connection's window exceeds 2^31-1"))?;
        if opened {
            self.events.push_back(Event::Writable { stream: None });
        }
        Ok(())
    }

    fn on_stream_window(&mut self, id: u32, increment: u32) -> Result<(), ConnectionError> {
        self.floods.window_update()?;
        let grown = match self.streams.find(id) {
            Known::Idle => {
                return Err(ConnectionError::protocol(
                    "WINDOW_UPDATE came for a stream that was never opened",
                ));
            }
            // RFC 9113 §5.1: it may have been under way when the stream closed.
            Known::Reset | Known::Forgotten => return Ok(()),
            Known::Present(_) if increment == 0 => return self.stream_error(id, Reason::ProtocolError),
            Known::Present(stream) => stream.send.grow(increment),
        };
        match grown {
            Ok(true) => self.events.push_back(Event::Writable { stream: StreamId::new(id) }),
            Ok(false) => {}
            // RFC 9113 §6.9.1.
            Err(_) => return self.stream_error(id, Reason::FlowControlError),
        }
        Ok(())
    }

    /// Resets a stream on which the peer broke the protocol (RFC 9113 §5.4.2). That costs us a reset
    /// as if the peer had sent it, and counts like one.
    fn stream_error(&mut self, id: u32, reason: Reason) -> Result<(), ConnectionError> {
        self.floods.rapid_reset()?;
        if let Some(stream) = StreamId::new(id) {
            self.reset_stream(stream, reason);
            self.events.push_back(Event::Reset { stream, reason });
        }
        Ok(())
    }

    /// RFC 9113 §5.1: a frame on a stream that closed too long ago to be under way.
    fn refuse_frame(&mut self, id: u32) -> Result<(), ConnectionError> {
        self.floods.ignored()?;
        self.write_reset(id, Reason::StreamClosed);
        Ok(())
    }

    fn tell_of_available_streams(&mut self) {
        if self.starved && self.streams_available() > 0 {
            self.starved = false;
            self.events.push_back(Event::StreamsAvailable);
        }
    }
}
