//! Ends: of streams by reset, of the connection by GOAWAY; and the PING that finds out whether the
//! peer is there.

use super::error::{ConnectionError, Reason};
use super::streams::{MAX_STREAM_ID, StreamId, Streams};
use super::{Codec, Kind, Role};

/// How far the connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Running,
    /// A server said that it will go, but still takes what was under way when it said so.
    Announced,
    /// The final GOAWAY is sent: no new streams, the open ones go on.
    Leaving,
    /// We ended it.
    Closed,
    /// The peer made us end it.
    Failed(ConnectionError),
}

/// The PING between the two GOAWAYs of a server; [`Codec::ping`] with the same payload is answered
/// as well.
const SHUTDOWN_PING: [u8; 8] = *b"shutdown";

impl Codec {
    /// Gives a stream up: RST_STREAM. Without effect on a stream that is gone.
    pub fn reset(&mut self, stream: StreamId, reason: Reason) {
        match self.streams.get(stream) {
            None => {}
            // Both sides have ended: for the peer the stream is gone.
            Some(state) if state.is_closed() => self.drop_stream(stream),
            Some(_) => self.reset_stream(stream, reason),
        }
    }

    /// Sends a PING; its answer is a [`Pong`](super::Event::Pong).
    pub fn ping(&mut self, payload: [u8; 8]) {
        if self.is_over() {
            return;
        }
        self.pings_unanswered = self.pings_unanswered.saturating_add(1);
        self.write(Kind::Ping, 0, 0, &payload);
    }

    /// Lets the open streams finish and takes no new ones. The shell closes the connection when
    /// [`open_streams`](Self::open_streams) is 0, [`awaits_peer`](Self::awaits_peer) is false and the
    /// output written, or when it waited enough.
    pub fn shutdown(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        match self.role {
            // RFC 9113 §6.8: a server that shuts down gracefully sends a GOAWAY "with the last stream
            // identifier set to 2^31-1", and after at least one round trip the real one, so that no
            // request under way is lost. The answer to a PING says that the round trip is over.
            Role::Server => {
                self.phase = Phase::Announced;
                self.write_goaway(MAX_STREAM_ID, Reason::NoError);
                self.write(Kind::Ping, 0, 0, &SHUTDOWN_PING);
            }
            // A server opens no streams (push is off): there is nothing to wait for.
            Role::Client => {
                self.phase = Phase::Leaving;
                self.write_goaway(0, Reason::NoError);
            }
        }
    }

    /// Ends the connection and all its streams; the shell writes the output and closes it.
    pub fn close(&mut self, reason: Reason) {
        if !self.is_over() {
            self.finish(Phase::Closed, reason);
        }
    }

    /// Ends the connection because of the peer.
    pub(super) fn fail(&mut self, error: ConnectionError) {
        if let ConnectionError::Flood { flood } = error {
            self.stats.flood = Some(flood);
        }
        self.finish(Phase::Failed(error), error.reason());
    }

    /// The peer answered the PING between the two GOAWAYs. False if none is unanswered.
    pub(super) fn finish_announcement(&mut self, payload: [u8; 8]) -> bool {
        if self.phase != Phase::Announced || payload != SHUTDOWN_PING {
            return false;
        }
        self.phase = Phase::Leaving;
        self.write_goaway(self.last_accepted, Reason::NoError);
        true
    }

    /// Whether a stream of the peer may still be under way that it opened before it knew of
    /// [`shutdown`](Self::shutdown): to close the connection now would lose it.
    pub fn awaits_peer(&self) -> bool {
        self.phase == Phase::Announced && self.peer_goaway.is_none()
    }

    /// Whether no stream will ever be opened again.
    pub(super) fn is_leaving(&self) -> bool {
        self.phase != Phase::Running || self.peer_goaway.is_some()
    }

    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closed | Phase::Failed(_))
    }

    /// Without streams, every later call for one is without effect.
    fn finish(&mut self, phase: Phase, reason: Reason) {
        self.phase = phase;
        self.write_goaway(self.last_accepted, reason);
        self.streams = Streams::default();
        self.events.clear();
    }

    /// RFC 9113 §6.8.
    fn write_goaway(&mut self, last_stream: u32, reason: Reason) {
        let payload = (u64::from(last_stream) << 32 | u64::from(reason.code())).to_be_bytes();
        self.write(Kind::GoAway, 0, 0, &payload);
    }

    /// Resets a stream and remembers that frames of it may still come.
    pub(super) fn reset_stream(&mut self, stream: StreamId, reason: Reason) {
        self.drop_stream(stream);
        self.write_reset(stream.get(), reason);
    }

    pub(super) fn write_reset(&mut self, stream: u32, reason: Reason) {
        self.stats.resets_sent += 1;
        self.streams.remember_reset(stream);
        self.reply(Kind::RstStream, 0, stream, &reason.code().to_be_bytes());
    }

    /// Forgets a stream, and events of it that nobody took yet; what the application held of it fills
    /// the connection's window no longer.
    pub(super) fn drop_stream(&mut self, stream: StreamId) {
        self.events.retain(|event| event.stream() != Some(stream));
        if let Some(state) = self.streams.remove(stream) {
            self.release_connection(state.unreleased);
        }
    }
}
