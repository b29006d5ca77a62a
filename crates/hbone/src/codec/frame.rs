//! The nine octets before every frame (RFC 9113 §4.1) and what they may say.

use super::error::ConnectionError;

/// RFC 9113 §4.1: octets of a frame header.
pub(super) const FRAME_HEAD: usize = 9;

/// A frame header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    /// Octets of the payload.
    pub(super) length: usize,
    pub(super) kind: Kind,
    pub(super) flags: u8,
    /// 0 stands for the connection.
    pub(super) stream: u32,
}

/// Frame types (RFC 9113 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Data,
    Headers,
    Priority,
    RstStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// RFC 9113 §4.1: "Implementations MUST ignore and discard frames of unknown types."
    Unknown(u8),
}

/// Flags (RFC 9113 §6); those of different frame types share values.
pub(super) mod flag {
    pub(crate) const END_STREAM: u8 = 0x1;
    pub(crate) const ACK: u8 = 0x1;
    pub(crate) const END_HEADERS: u8 = 0x4;
    pub(crate) const PADDED: u8 = 0x8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

impl FrameHead {
    pub(super) fn parse(octets: [u8; FRAME_HEAD]) -> Self {
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = octets;
        Self {
            length: u32::from_be_bytes([0, l2, l1, l0]) as usize,
            kind: Kind::from(kind),
            flags,
            // RFC 9113 §4.1: the reserved bit "MUST be ignored when receiving".
            stream: u32::from_be_bytes([s3, s2, s1, s0]) & 0x7fff_ffff,
        }
    }

    pub(super) fn octets(&self) -> [u8; FRAME_HEAD] {
        let [_, l2, l1, l0] = (self.length as u32).to_be_bytes();
        let [s3, s2, s1, s0] = self.stream.to_be_bytes();
        [l2, l1, l0, self.kind.octet(), self.flags, s3, s2, s1, s0]
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// What can be judged without knowing any stream: sizes, and whether a stream is named.
    ///
    /// RFC 9113 §4.2 lets some sizes be errors of the stream only; §5.4.1 lets an endpoint treat
    /// them as errors of the connection, and a peer that cannot count deserves no better.
    pub(super) fn check(&self, max_frame_size: usize) -> Result<(), ConnectionError> {
        if self.length > max_frame_size {
            return Err(ConnectionError::frame_size("a frame exceeds SETTINGS_MAX_FRAME_SIZE"));
        }
        self.check_stream()?;
        let right_size = match self.kind {
            Kind::Priority => self.length == 5,
            Kind::RstStream | Kind::WindowUpdate => self.length == 4,
            Kind::Ping => self.length == 8,
            Kind::GoAway => self.length >= 8,
            // RFC 9113 §6.5: an acknowledgement carries nothing.
            Kind::Settings if self.has(flag::ACK) => self.length == 0,
            Kind::Settings => self.length.is_multiple_of(6),
            Kind::Data | Kind::Headers | Kind::PushPromise | Kind::Continuation | Kind::Unknown(_) => true,
        };
        if right_size {
            Ok(())
        } else {
            Err(ConnectionError::frame_size("a frame's length does not fit its type"))
        }
    }

    fn check_stream(&self) -> Result<(), ConnectionError> {
        match (self.kind, self.stream) {
            (Kind::Settings | Kind::Ping | Kind::GoAway, 1..) => {
                Err(ConnectionError::protocol("SETTINGS, PING or GOAWAY names a stream"))
            }
            (Kind::Data | Kind::Headers | Kind::Priority | Kind::RstStream | Kind::Continuation, 0) => {
                Err(ConnectionError::protocol("a frame that needs a stream names none"))
            }
            // RFC 9113 §6.6: push is off (we say so as a client), and no client may send one.
            (Kind::PushPromise, _) => Err(ConnectionError::protocol("PUSH_PROMISE was sent")),
            (Kind::Settings | Kind::Ping | Kind::GoAway, 0)
            | (Kind::Data | Kind::Headers | Kind::Priority | Kind::RstStream | Kind::Continuation, 1..)
            | (Kind::WindowUpdate | Kind::Unknown(_), _) => Ok(()),
        }
    }
}

impl Kind {
    fn octet(self) -> u8 {
        match self {
            Self::Data => 0,
            Self::Headers => 1,
            Self::Priority => 2,
            Self::RstStream => 3,
            Self::Settings => 4,
            Self::PushPromise => 5,
            Self::Ping => 6,
            Self::GoAway => 7,
            Self::WindowUpdate => 8,
            Self::Continuation => 9,
            Self::Unknown(octet) => octet,
        }
    }
}

impl From<u8> for Kind {
    fn from(octet: u8) -> Self {
        match octet {
            0 => Self::Data,
            1 => Self::Headers,
            2 => Self::Priority,
            3 => Self::RstStream,
            4 => Self::Settings,
            5 => Self::PushPromise,
            6 => Self::Ping,
            7 => Self::GoAway,
            8 => Self::WindowUpdate,
            9 => Self::Continuation,
            octet => Self::Unknown(octet),
        }
    }
}
