//! What the codec tells its shell.

use super::error::Reason;
use super::fields::{Headers, RequestHead};
use super::streams::StreamId;

/// Something that the peer did.
///
/// After [`End`](Self::End) no more data comes on a stream; after [`Reset`](Self::Reset) nothing at
/// all, and every call for it is without effect. Both can come: a peer that has sent all it had may
/// still give up what we send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// To a server: a valid request. It is answered with [`respond`](super::Codec::respond) or
    /// [`refuse`](super::Codec::refuse).
    Request {
        /// The stream.
        stream: StreamId,
        /// What is asked for.
        head: RequestHead,
    },
    /// To a client: the final answer. Only with a 2xx is there a tunnel.
    Response {
        /// The stream.
        stream: StreamId,
        /// The status code, 200 to 999.
        status: u16,
        /// The header fields.
        headers: Headers,
    },
    /// Payload, as much as there was; never empty. It fills the windows until
    /// [`release`](super::Codec::release).
    Data {
        /// The stream.
        stream: StreamId,
        /// The payload.
        payload: &'a [u8],
    },
    /// The peer has sent all it had (END_STREAM).
    End {
        /// The stream.
        stream: StreamId,
    },
    /// The stream is over before its end: reset by the peer, refused by its GOAWAY, or reset by the
    /// codec because the peer broke the protocol on it.
    Reset {
        /// The stream.
        stream: StreamId,
        /// Why. REFUSED_STREAM: the peer did not process the request, it may be sent again.
        reason: Reason,
    },
    /// [`send_capacity`](super::Codec::send_capacity) may have become positive.
    Writable {
        /// Of this stream, or of all.
        stream: Option<StreamId>,
    },
    /// To a client: [`streams_available`](super::Codec::streams_available) was 0 and no longer is,
    /// by what the peer did.
    StreamsAvailable,
    /// The peer takes no new streams. The [`Reset`](Self::Reset) of each stream that it did not
    /// process follows.
    GoAway {
        /// The last stream it processed or will process; 0 for none.
        last_stream: u32,
        /// Why.
        reason: Reason,
    },
    /// The answer to a [`ping`](super::Codec::ping).
    Pong {
        /// The payload of the ping.
        payload: [u8; 8],
    },
}

impl Event<'_> {
    /// The stream that the event is about; `None` for one of the connection.
    #[must_use]
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::Request { stream, .. }
            | Self::Response { stream, .. }
            | Self::Data { stream, .. }
            | Self::End { stream }
            | Self::Reset { stream, .. } => Some(*stream),
            Self::Writable { stream } => *stream,
            Self::StreamsAvailable | Self::GoAway { .. } | Self::Pong { .. } => None,
        }
    }
}
