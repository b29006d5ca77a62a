//! SETTINGS (RFC 9113 §6.5): ours, and what the peer said.

use super::Role;
use super::error::ConnectionError;
use super::window::{DEFAULT_WINDOW, MAX_WINDOW};
use crate::hpack;

/// What we tell the peer, and hold it to.
///
/// A value outside of the range that the protocol gives it is brought to the nearest bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The largest payload of a frame that we accept; octets, 2^14 to 2^24-1.
    pub max_frame_size: u32,
    /// What the peer may send on a stream before the application takes it; octets, up to 2^31-1.
    pub stream_window: u32,
    /// The same for all streams together; octets, 65,535 to 2^31-1. It has to exceed the stream's,
    /// or one slow stream holds up all others.
    pub connection_window: u32,
    /// The largest header list we accept, each field counted with 32 octets more than its text; octets.
    pub max_header_list_size: u32,
    /// Of a server: streams that the client may have open. Of a client: streams it opens at most,
    /// whatever the peer allows.
    pub max_concurrent_streams: u32,
    /// The dynamic table that the peer's header compression may use; octets.
    pub header_table_size: u32,
}

impl Settings {
    /// Of the side that opens tunnels; Istio's values.
    pub const CLIENT: Self = Self {
        max_frame_size: 1024 * 1024,
        stream_window: 4 * 1024 * 1024,
        connection_window: 16 * 1024 * 1024,
        max_header_list_size: 16 * 1024,
        max_concurrent_streams: 100,
        header_table_size: hpack::DEFAULT_TABLE_SIZE,
    };

    /// Of the side that accepts tunnels; Istio's values.
    pub const SERVER: Self =
        Self { max_header_list_size: 64 * 1024, max_concurrent_streams: 200, ..Self::CLIENT };

    pub(super) fn bounded(self) -> Self {
        Self {
            max_frame_size: self.max_frame_size.clamp(MIN_MAX_FRAME_SIZE, MAX_MAX_FRAME_SIZE),
            stream_window: self.stream_window.min(MAX_WINDOW),
            connection_window: self.connection_window.clamp(DEFAULT_WINDOW, MAX_WINDOW),
            ..self
        }
    }

    /// The payload of the SETTINGS frame that opens the connection.
    pub(super) fn payload(&self, role: Role) -> Vec<u8> {
        let of_role = match role {
            // RFC 9113 §6.5.2: a client that wants no push says so; the limit on streams would be
            // one on pushed streams.
            Role::Client => (id::ENABLE_PUSH, 0),
            Role::Server => (id::MAX_CONCURRENT_STREAMS, self.max_concurrent_streams),
        };
        let entries = [
            (id::HEADER_TABLE_SIZE, self.header_table_size),
            of_role,
            (id::INITIAL_WINDOW_SIZE, self.stream_window),
            (id::MAX_FRAME_SIZE, self.max_frame_size),
            (id::MAX_HEADER_LIST_SIZE, self.max_header_list_size),
        ];
        entries
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect()
    }
}

/// What the peer's SETTINGS say, as far as it concerns us. Its table size does not: our encoder uses
/// no table.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerSettings {
    pub(super) initial_window: u32,
    pub(super) max_frame_size: usize,
    /// `None` before the peer said anything, and if it set no limit.
    pub(super) max_concurrent_streams: Option<u32>,
    pub(super) max_header_list_size: Option<u32>,
}

impl Default for PeerSettings {
    /// RFC 9113 §6.5.2: the values before any SETTINGS.
    fn default() -> Self {
        Self {
            initial_window: DEFAULT_WINDOW,
            max_frame_size: MIN_MAX_FRAME_SIZE as usize,
            max_concurrent_streams: None,
            max_header_list_size: None,
        }
    }
}

impl PeerSettings {
    /// What holds after a SETTINGS frame with this payload.
    ///
    /// RFC 9113 §6.5.3: values are processed in their order; only the last of each has an effect, so
    /// that all of them are taken over at once.
    pub(super) fn updated(mut self, payload: &[u8], we_are: Role) -> Result<Self, ConnectionError> {
        let (entries, _) = payload.as_chunks::<6>();
        for [i1, i0, value @ ..] in entries {
            self.set(u16::from_be_bytes([*i1, *i0]), u32::from_be_bytes(*value), we_are)?;
        }
        Ok(self)
    }

    fn set(&mut self, id: u16, value: u32, we_are: Role) -> Result<(), ConnectionError> {
        match id {
            id::ENABLE_PUSH => return check_push(value, we_are),
            id::MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = Some(value),
            id::INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                return Err(ConnectionError::flow_control("SETTINGS_INITIAL_WINDOW_SIZE exceeds 2^31-1"));
            }
            id::INITIAL_WINDOW_SIZE => self.initial_window = value,
            id::MAX_FRAME_SIZE if !(MIN_MAX_FRAME_SIZE..=MAX_MAX_FRAME_SIZE).contains(&value) => {
                return Err(ConnectionError::protocol("SETTINGS_MAX_FRAME_SIZE is out of bounds"));
            }
            id::MAX_FRAME_SIZE => self.max_frame_size = value as usize,
            id::MAX_HEADER_LIST_SIZE => self.max_header_list_size = Some(value),
            // RFC 9113 §6.5.2: an endpoint ignores settings that it does not know.
            _ => {}
        }
        Ok(())
    }
}

/// RFC 9113 §6.5.2: anything but 0 or 1 is an error, and so is 1 from a server.
fn check_push(value: u32, we_are: Role) -> Result<(), ConnectionError> {
    match (value, we_are) {
        (0, _) | (1, Role::Server) => Ok(()),
        (1.., _) => Err(ConnectionError::protocol("SETTINGS_ENABLE_PUSH has a value that is not allowed")),
    }
}

/// Identifiers (RFC 9113 §6.5.2).
mod id {
    pub(super) const HEADER_TABLE_SIZE: u16 = 1;
    pub(super) const ENABLE_PUSH: u16 = 2;
    pub(super) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(super) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(super) const MAX_FRAME_SIZE: u16 = 5;
    pub(super) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// RFC 9113 §6.5.2: the bounds of SETTINGS_MAX_FRAME_SIZE; octets.
const MIN_MAX_FRAME_SIZE: u32 = 1 << 14;
const MAX_MAX_FRAME_SIZE: u32 = (1 << 24) - 1;
