//! Heads that we send: CONNECT as a client, answers as a server.

use super::error::OpenError;
use super::fields::{is_authority, is_sendable, list_size};
use super::floods::MAX_UNREAD_REPLIES;
use super::streams::{Side, Stream, StreamId};
use super::window::{ReceiveWindow, SendWindow};
use super::{Codec, Kind, Reason, Role, flag};
use crate::hpack::{Block, StaticName};

/// A CONNECT (RFC 9113 §8.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectRequest<'r> {
    /// Where to: `:authority`, a host and a port.
    pub authority: &'r str,
    /// Further fields, with names in lower case.
    pub headers: &'r [(&'r str, &'r str)],
}

impl Codec {
    /// Opens a stream with a CONNECT. It carries payload from a [`Response`](super::Event::Response)
    /// of 2xx on.
    ///
    /// # Errors
    /// When the connection has no room, is going away (always, for a server), or the request is not
    /// one that HTTP/2 and the peer's SETTINGS allow; nothing is sent then.
    pub fn open(&mut self, request: &ConnectRequest<'_>) -> Result<StreamId, OpenError> {
        let id = self.next_stream()?;
        self.check_request(request)?;
        let stream = Stream { local: Side::Open, ..self.new_stream() };
        self.streams.insert(id, stream);
        self.stats.streams_opened += 1;
        self.starved = self.streams_available() == 0;

        let block = self.encode(|block| {
            block.known(StaticName::Method, b"CONNECT");
            block.known(StaticName::Authority, request.authority.as_bytes());
            fields(block, request.headers);
        });
        self.write_head(id, 0, &block, Self::write);
        Ok(id)
    }

    /// Answers a request with a 2xx: the stream is a tunnel from here on. Without effect on a stream
    /// that is gone or was answered.
    ///
    /// Fields that RFC 9113 §8.2 forbids are left out.
    pub fn respond(&mut self, stream: StreamId, status: u16, headers: &[(&str, &str)]) {
        debug_assert!((200..300).contains(&status), "a tunnel is answered with 2xx");
        let Some(state) = self.unanswered(stream) else { return };
        state.local = Side::Open;
        state.tunnel = true;
        self.answer(stream, 0, status, headers);
    }

    /// Answers a request with an error and ends the stream. Without effect on a stream that is gone
    /// or was answered.
    ///
    /// Fields that RFC 9113 §8.2 forbids are left out.
    pub fn refuse(&mut self, stream: StreamId, status: u16, headers: &[(&str, &str)]) {
        let Some(state) = self.unanswered(stream) else { return };
        let request_ended = state.remote == Side::Ended;
        self.answer(stream, flag::END_STREAM, status, headers);
        // RFC 9113 §8.1: a server may ask a client to stop sending a request whose answer is whole
        // by "a RST_STREAM with an error code of NO_ERROR".
        if request_ended {
            self.drop_stream(stream);
        } else {
            self.reset_stream(stream, Reason::NoError);
        }
    }

    fn next_stream(&self) -> Result<StreamId, OpenError> {
        if self.is_leaving() || self.role == Role::Server {
            return Err(OpenError::GoingAway);
        }
        let id = self.streams.next_own().ok_or(OpenError::Exhausted)?;
        if self.streams_available() == 0 {
            return Err(OpenError::NoStreams { limit: self.stream_limit() });
        }
        let queued = self.output.replies_waiting();
        if queued > MAX_UNREAD_REPLIES {
            return Err(OpenError::Congested { queued });
        }
        Ok(id)
    }

    fn check_request(&self, request: &ConnectRequest<'_>) -> Result<(), OpenError> {
        if !is_authority(request.authority) {
            return Err(OpenError::InvalidAuthority { authority: request.authority.to_owned() });
        }
        if let Some((name, _)) = request.headers.iter().find(|(name, value)| !is_sendable(name, value)) {
            return Err(OpenError::InvalidHeader { name: (*name).to_owned() });
        }
        let pseudo = [(":method", "CONNECT"), (":authority", request.authority)];
        let size = list_size(pseudo.iter().chain(request.headers).copied());
        match self.peer.max_header_list_size {
            Some(limit) if size > limit as usize => {
                Err(OpenError::HeadersTooLarge { size, limit: limit as usize })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// A stream of which neither side has sent its (final) HEADERS.
    pub(super) fn new_stream(&self) -> Stream {
        Stream {
            send: SendWindow::new(self.peer.initial_window),
            receive: ReceiveWindow::new(self.local.stream_window),
            unreleased: 0,
            local: Side::Silent,
            remote: Side::Silent,
            tunnel: false,
        }
    }

    fn unanswered(&mut self, stream: StreamId) -> Option<&mut Stream> {
        self.streams.get_mut(stream).filter(|state| state.local == Side::Silent)
    }

    /// Writes the head of an answer, also for requests that the shell is not told of.
    pub(super) fn answer(&mut self, stream: StreamId, flags: u8, status: u16, headers: &[(&str, &str)]) {
        self.floods.answered();
        let block = self.encode(|block| {
            match status {
                200 => block.status_ok(),
                status => block.known(StaticName::Status, status.to_string().as_bytes()),
            }
            fields(block, headers);
        });
        self.write_head(stream, flags, &block, Self::reply);
    }

    fn encode(&mut self, write: impl FnOnce(&mut Block<'_>)) -> Vec<u8> {
        /// Octets; most heads of a tunnel fit without growing.
        const USUAL_HEAD: usize = 512;
        let mut octets = Vec::with_capacity(USUAL_HEAD);
        write(&mut self.encoder.begin(&mut octets));
        octets
    }

    /// RFC 9113 §4.3: a block that exceeds the peer's frame size goes on in CONTINUATION frames.
    fn write_head(
        &mut self,
        stream: StreamId,
        flags: u8,
        block: &[u8],
        write: fn(&mut Self, Kind, u8, u32, &[u8]),
    ) {
        let (mut fragment, mut rest) = block.split_at(block.len().min(self.peer.max_frame_size));
        let mut kind = Kind::Headers;
        let mut flags = flags;
        loop {
            let last = if rest.is_empty() { flag::END_HEADERS } else { 0 };
            write(self, kind, flags | last, stream.get(), fragment);
            if rest.is_empty() {
                return;
            }
            (fragment, rest) = rest.split_at(rest.len().min(self.peer.max_frame_size));
            kind = Kind::Continuation;
            flags = 0;
        }
    }
}

fn fields(block: &mut Block<'_>, headers: &[(&str, &str)]) {
    for (name, value) in headers.iter().filter(|(name, value)| is_sendable(name, value)) {
        block.field(name.as_bytes(), value.as_bytes());
    }
}
