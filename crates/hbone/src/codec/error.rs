//! Error codes of HTTP/2 and the errors of the codec.

use std::fmt;

use super::floods::Flood;
use crate::hpack::HpackError;

/// An HTTP/2 error code (RFC 9113 §7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The end is not the result of an error.
    NoError,
    /// The peer broke the protocol.
    ProtocolError,
    /// The sender failed.
    InternalError,
    /// The peer sent more than its window.
    FlowControlError,
    /// SETTINGS were not acknowledged in time.
    SettingsTimeout,
    /// A frame came on a stream that was half-closed.
    StreamClosed,
    /// A frame has a size that is not allowed.
    FrameSizeError,
    /// The stream was refused before it was processed: it is safe to try again.
    RefusedStream,
    /// The stream is no longer needed.
    Cancel,
    /// The state of header compression is lost.
    CompressionError,
    /// The connection behind a CONNECT was reset or closed abnormally.
    ConnectError,
    /// The peer does what might generate excessive load.
    EnhanceYourCalm,
    /// The transport is not secure enough.
    InadequateSecurity,
    /// HTTP/1.1 is required.
    Http11Required,
    /// A code that RFC 9113 does not define.
    Other(u32),
}

impl Reason {
    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::NoError => 0,
            Self::ProtocolError => 1,
            Self::InternalError => 2,
            Self::FlowControlError => 3,
            Self::SettingsTimeout => 4,
            Self::StreamClosed => 5,
            Self::FrameSizeError => 6,
            Self::RefusedStream => 7,
            Self::Cancel => 8,
            Self::CompressionError => 9,
            Self::ConnectError => 10,
            Self::EnhanceYourCalm => 11,
            Self::InadequateSecurity => 12,
            Self::Http11Required => 13,
            Self::Other(code) => code,
        }
    }
}

impl From<u32> for Reason {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::NoError,
            1 => Self::ProtocolError,
            2 => Self::InternalError,
            3 => Self::FlowControlError,
            4 => Self::SettingsTimeout,
            5 => Self::StreamClosed,
            6 => Self::FrameSizeError,
            7 => Self::RefusedStream,
            8 => Self::Cancel,
            9 => Self::CompressionError,
            10 => Self::ConnectError,
            11 => Self::EnhanceYourCalm,
            12 => Self::InadequateSecurity,
            13 => Self::Http11Required,
            code => Self::Other(code),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::NoError => "NO_ERROR",
            Self::ProtocolError => "PROTOCOL_ERROR",
            Self::InternalError => "INTERNAL_ERROR",
            Self::FlowControlError => "FLOW_CONTROL_ERROR",
            Self::SettingsTimeout => "SETTINGS_TIMEOUT",
            Self::StreamClosed => "STREAM_CLOSED",
            Self::FrameSizeError => "FRAME_SIZE_ERROR",
            Self::RefusedStream => "REFUSED_STREAM",
            Self::Cancel => "CANCEL",
            Self::CompressionError => "COMPRESSION_ERROR",
            Self::ConnectError => "CONNECT_ERROR",
            Self::EnhanceYourCalm => "ENHANCE_YOUR_CALM",
            Self::InadequateSecurity => "INADEQUATE_SECURITY",
            Self::Http11Required => "HTTP_1_1_REQUIRED",
            Self::Other(code) => return write!(f, "error {code:#x}"),
        };
        f.write_str(name)
    }
}

/// Why the connection cannot go on. It is the peer's fault in every case, and the GOAWAY that says
/// so is in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The peer broke HTTP/2.
    #[error("the peer broke HTTP/2 ({reason}): {rule}")]
    Protocol {
        /// The error code that the peer was told.
        reason: Reason,
        /// What it did.
        rule: &'static str,
    },
    /// The peer's header compression is broken (RFC 9113 §4.3).
    #[error("a header block of the peer cannot be decoded: {cause}")]
    Compression {
        /// Why.
        #[source]
        cause: HpackError,
    },
    /// The peer did too much of something that costs more than it carries.
    #[error("the peer was cut off for a flood: {flood}")]
    Flood {
        /// Of what.
        flood: Flood,
    },
}

impl ConnectionError {
    pub(super) fn protocol(rule: &'static str) -> Self {
        Self::Protocol { reason: Reason::ProtocolError, rule }
    }

    pub(super) fn frame_size(rule: &'static str) -> Self {
        Self::Protocol { reason: Reason::FrameSizeError, rule }
    }

    pub(super) fn flow_control(rule: &'static str) -> Self {
        Self::Protocol { reason: Reason::FlowControlError, rule }
    }

    pub(super) fn stream_closed(rule: &'static str) -> Self {
        Self::Protocol { reason: Reason::StreamClosed, rule }
    }

    /// The error code of the GOAWAY.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Protocol { reason, .. } => *reason,
            Self::Compression { .. } => Reason::CompressionError,
            Self::Flood { .. } => Reason::EnhanceYourCalm,
        }
    }
}

/// Why no stream can be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// As many streams are open as the peer, or we, allow.
    #[error("all {limit} streams of the connection are in use")]
    NoStreams {
        /// How many are allowed.
        limit: usize,
    },
    /// One side said GOAWAY, or the connection failed.
    #[error("the connection is going away")]
    GoingAway,
    /// Every stream identifier was used.
    #[error("the connection has used all its stream identifiers")]
    Exhausted,
    /// The peer does not read: replies to it wait in the output.
    #[error("{queued} octets of replies wait for a peer that does not read")]
    Congested {
        /// Octets that wait, at least.
        queued: usize,
    },
    /// The header list is larger than the peer accepts.
    #[error("the header list has {size} octets, and the peer accepts {limit}")]
    HeadersTooLarge {
        /// Octets of the list (RFC 9113 §6.5.2).
        size: usize,
        /// What the peer's SETTINGS allow.
        limit: usize,
    },
    /// A field that HTTP/2 forbids.
    #[error("header {name:?} has a name or a value that HTTP/2 forbids")]
    InvalidHeader {
        /// Its name.
        name: String,
    },
    /// The authority is empty, or not visible ASCII.
    #[error("authority {authority:?} is not a host and port in visible ASCII")]
    InvalidAuthority {
        /// The authority.
        authority: String,
    },
}
