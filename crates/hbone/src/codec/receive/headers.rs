//! What the peer's header blocks do: requests to a server, responses to a client.

use crate::codec::block::Block;
use crate::codec::error::{ConnectionError, Reason};
use crate::codec::fields::{Fields, Malformed};
use crate::codec::floods::{Flood, HEADER_LIST_BOMB_FACTOR};
use crate::codec::streams::{Known, Side, Stream, StreamId};
use crate::codec::{Codec, Event, Phase, Role, flag};

impl Codec {
    /// Decodes every block, whatever becomes of its stream: the state of compression depends on it
    /// (RFC 9113 §4.3).
    pub(super) fn on_headers(&mut self, block: &Block<'_>) -> Result<(), ConnectionError> {
        let max_size = self.local.max_header_list_size;
        let mut fields = Fields::new(max_size);
        self.decoder
            .decode(&block.octets, |name, value| fields.push(name, value))
            .map_err(|cause| ConnectionError::Compression { cause })?;
        if fields.size() > HEADER_LIST_BOMB_FACTOR * max_size as usize {
            return Err(ConnectionError::Flood { flood: Flood::HeaderList });
        }
        match self.role {
            Role::Server if self.streams.is_new(block.stream) => {
                self.on_request(block.stream, block.ends, fields)
            }
            Role::Server | Role::Client => self.on_stream_headers(block.stream, block.ends, fields),
        }
    }

    fn on_request(&mut self, id: u32, ends: bool, fields: Fields) -> Result<(), ConnectionError> {
        self.streams.mark_used(id);
        let Some(stream) = StreamId::new(id) else { return Ok(()) };
        // RFC 9113 §5.1.2: a stream beyond the limit is refused with a code that lets the client try
        // again. Closed streams whose payload the application still holds have a limit as well.
        let full =
            self.streams.open() >= self.stream_limit() || self.streams.len() >= 2 * self.stream_limit();
        if full || self.phase == Phase::Leaving {
            self.stats.streams_refused += 1;
            return self.reject(stream, Reason::RefusedStream);
        }
        if fields.size() > self.local.max_header_list_size as usize {
            self.refuse_large_head(stream, ends);
            return Ok(());
        }
        match fields.request() {
            // RFC 9113 §8.1.1: a malformed request is an error of its stream.
            Err(Malformed(_)) => self.reject(stream, Reason::ProtocolError),
            Ok(head) => {
                let remote = if ends { Side::Ended } else { Side::Open };
                self.streams.insert(stream, Stream { remote, ..self.new_stream() });
                self.last_accepted = id;
                self.stats.streams_opened += 1;
                self.events.push_back(Event::Request { stream, head });
                if ends {
                    self.events.push_back(Event::End { stream });
                }
                Ok(())
            }
        }
    }

    /// Resets a stream that the shell was never told of.
    fn reject(&mut self, stream: StreamId, reason: Reason) -> Result<(), ConnectionError> {
        self.floods.rapid_reset()?;
        self.write_reset(stream.get(), reason);
        Ok(())
    }

    /// RFC 9113 §10.5.1: "A server that receives a larger field block than it is willing to handle
    /// can send an HTTP 431 (Request Header Fields Too Large) status code".
    fn refuse_large_head(&mut self, stream: StreamId, ends: bool) {
        self.stats.header_lists_refused += 1;
        self.answer(stream, flag::END_STREAM, 431, &[]);
        if !ends {
            self.write_reset(stream.get(), Reason::NoError);
        }
    }

    /// A block on a stream that was opened earlier.
    fn on_stream_headers(&mut self, id: u32, ends: bool, fields: Fields) -> Result<(), ConnectionError> {
        let (remote, tunnel) = match self.streams.find(id) {
            Known::Idle => {
                return Err(ConnectionError::protocol("HEADERS came for a stream that cannot be opened"));
            }
            Known::Reset => return self.floods.ignored(),
            Known::Forgotten => {
                return Err(ConnectionError::stream_closed("HEADERS came for a closed stream"));
            }
            Known::Present(stream) => (stream.remote, stream.tunnel),
        };
        match (self.role, remote) {
            (Role::Client, Side::Silent) => self.on_response(id, ends, fields),
            // Trailers of an answer that is not a tunnel (RFC 9113 §8.1).
            (Role::Client, Side::Open) if ends && !tunnel => {
                self.on_stream_ends(id);
                Ok(())
            }
            // RFC 9113 §5.1, half-closed (remote).
            (_, Side::Ended) => self.stream_error(id, Reason::StreamClosed),
            // RFC 9113 §8.5: "Frame types other than DATA or stream management frames (RST_STREAM,
            // WINDOW_UPDATE, and PRIORITY) MUST NOT be sent on a connected stream and MUST be treated
            // as a stream error".
            (_, Side::Silent | Side::Open) => self.stream_error(id, Reason::ProtocolError),
        }
    }

    fn on_response(&mut self, id: u32, ends: bool, fields: Fields) -> Result<(), ConnectionError> {
        if fields.size() > self.local.max_header_list_size as usize {
            self.stats.header_lists_refused += 1;
            return self.stream_error(id, Reason::EnhanceYourCalm);
        }
        match fields.response() {
            Err(Malformed(_)) => self.stream_error(id, Reason::ProtocolError),
            // RFC 9113 §8.1: "A HEADERS frame with the END_STREAM flag set that carries an
            // informational status code is malformed".
            Ok((..200, _)) if ends => self.stream_error(id, Reason::ProtocolError),
            Ok((..200, _)) => self.floods.ignored(),
            Ok((status, headers)) => {
                let Some(stream) = StreamId::new(id) else { return Ok(()) };
                if let Some(state) = self.streams.get_mut(stream) {
                    state.remote = Side::Open;
                    state.tunnel = (200..300).contains(&status);
                }
                self.floods.answered();
                self.events.push_back(Event::Response { stream, status, headers });
                if ends {
                    self.on_stream_ends(id);
                }
                Ok(())
            }
        }
    }
}
