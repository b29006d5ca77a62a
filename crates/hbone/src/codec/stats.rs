//! Counters of a connection, for metrics.

use super::floods::Flood;

/// What happened on a connection since its begin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Frames that arrived.
    pub frames_received: u64,
    /// Frames put into the output.
    pub frames_sent: u64,
    /// Payload of DATA frames that arrived; octets.
    pub data_received: u64,
    /// Payload of DATA frames put into the output; octets.
    pub data_sent: u64,
    /// Streams opened, by whichever side.
    pub streams_opened: u64,
    /// Requests refused because too many streams were open, or the connection was going away.
    pub streams_refused: u64,
    /// Requests whose header list was larger than our SETTINGS allow.
    pub header_lists_refused: u64,
    /// Streams that the peer reset.
    pub resets_received: u64,
    /// Streams that we reset.
    pub resets_sent: u64,
    /// DATA for streams that were gone; octets.
    pub data_discarded: u64,
    /// The flood that ended the connection.
    pub flood: Option<Flood>,
}
