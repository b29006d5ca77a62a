//! What a peer may do for nothing: budgets against floods.
//!
//! Every kind of frame that costs us more than it carries has a budget per connection. Useful work
//! earns some of it back, and an answer to one of our PINGs (which the peer cannot send before we
//! ask) restores all of it: with the keepalive of a tunnel that is once in ten seconds. So a budget
//! is a rate without a clock here, and a tunnel of many days does not wear out.

use std::fmt;

use super::error::ConnectionError;

/// Kinds of floods; each ends the connection with ENHANCE_YOUR_CALM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flood {
    /// Streams reset before they were answered, or reset by us because of what the peer did.
    RapidReset,
    /// CONTINUATION frames of one header block.
    Continuation,
    /// A header block larger than our SETTINGS allow.
    HeaderBlock,
    /// A header list that grows far beyond our SETTINGS in decompression.
    HeaderList,
    /// SETTINGS frames, or entries of one.
    Settings,
    /// PING frames.
    Ping,
    /// DATA frames without payload.
    EmptyData,
    /// WINDOW_UPDATE frames beyond what the data we sent can ask for.
    WindowUpdate,
    /// Frames that have no effect: PRIORITY, unknown types, frames for streams that are gone.
    Ignored,
    /// Replies that the peer provokes but does not read.
    UnreadReplies,
}

impl Flood {
    /// A name for metric labels.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RapidReset => "rapid_reset",
            Self::Continuation => "continuation",
            Self::HeaderBlock => "header_block",
            Self::HeaderList => "header_list",
            Self::Settings => "settings",
            Self::Ping => "ping",
            Self::EmptyData => "empty_data",
            Self::WindowUpdate => "window_update",
            Self::Ignored => "ignored",
            Self::UnreadReplies => "unread_replies",
        }
    }
}

impl fmt::Display for Flood {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Streams given up before they were answered (CVE-2023-44487), and stream errors that the peer
/// provokes (CVE-2025-8671). Ten seconds of 200 streams that time out after one second fit in.
pub const MAX_RAPID_RESETS: u32 = 2_000;

/// CONTINUATION frames of one header block (CVE-2024-27316). A block of 64 KiB takes four at the
/// smallest frame size.
pub const MAX_CONTINUATIONS: u32 = 16;

/// SETTINGS frames (CVE-2019-9515). Peers send one or two in a connection's life.
pub const MAX_SETTINGS: u32 = 64;

/// Entries of one SETTINGS frame. Fewer than ten settings are defined.
pub const MAX_SETTINGS_ENTRIES: usize = 64;

/// PING frames (CVE-2019-9512). Peers that measure bandwidth send one for each burst of data; a DATA
/// frame earns one back.
pub const MAX_PINGS: u32 = 512;

/// DATA frames without payload and END_STREAM (CVE-2019-9518). No peer has a reason for one.
pub const MAX_EMPTY_DATA: u32 = 128;

/// WINDOW_UPDATE frames (CVE-2019-9511: one octet of window at a time makes us send one octet at a
/// time). Data that we send earns updates back, see `Floods::data_sent`.
pub const MAX_WINDOW_UPDATES: u32 = 16_384;

/// Frames without effect.
pub const MAX_IGNORED: u32 = 4_096;

/// Octets of replies (acknowledgements, resets, window updates, responses) that may wait in the
/// output (CVE-2019-9517). Two hundred responses at once are about a quarter of it.
pub const MAX_UNREAD_REPLIES: usize = 256 * 1024;

/// A header list that reaches this multiple of SETTINGS_MAX_HEADER_LIST_SIZE ends the connection;
/// one that merely exceeds the setting is answered with 431.
pub const HEADER_LIST_BOMB_FACTOR: usize = 4;

/// Octets of sent data that earn one WINDOW_UPDATE: some peers announce every 4 KiB, for the stream
/// and for the connection.
const OCTETS_PER_WINDOW_UPDATE: usize = 1024;

/// The budgets of one connection.
#[derive(Debug)]
pub(super) struct Floods {
    resets: u32,
    settings: u32,
    pings: u32,
    empty_data: u32,
    window_updates: u32,
    ignored: u32,
}

impl Floods {
    pub(super) fn new() -> Self {
        Self {
            resets: MAX_RAPID_RESETS,
            settings: MAX_SETTINGS,
            pings: MAX_PINGS,
            empty_data: MAX_EMPTY_DATA,
            window_updates: MAX_WINDOW_UPDATES,
            ignored: MAX_IGNORED,
        }
    }

    /// The peer answered a PING of ours: time has passed.
    pub(super) fn restore(&mut self) {
        *self = Self::new();
    }

    pub(super) fn rapid_reset(&mut self) -> Result<(), ConnectionError> {
        spend(&mut self.resets, Flood::RapidReset)
    }

    pub(super) fn settings(&mut self) -> Result<(), ConnectionError> {
        spend(&mut self.settings, Flood::Settings)
    }

    pub(super) fn ping(&mut self) -> Result<(), ConnectionError> {
        spend(&mut self.pings, Flood::Ping)
    }

    pub(super) fn empty_data(&mut self) -> Result<(), ConnectionError> {
        spend(&mut self.empty_data, Flood::EmptyData)
    }

    pub(super) fn window_update(&mut self) -> Result<(), ConnectionError> {
        spend(&mut self.window_updates, Flood::WindowUpdate)
    }

    pub(super) fn ignored(&mut self) -> Result<(), ConnectionError> {
        spend(&mut self.ignored, Flood::Ignored)
    }

    /// A stream was answered: it was worth its HEADERS, and a reset that crosses its end.
    pub(super) fn answered(&mut self) {
        earn(&mut self.resets, 1, MAX_RAPID_RESETS);
        earn(&mut self.ignored, 1, MAX_IGNORED);
    }

    /// DATA with payload arrived.
    pub(super) fn data_received(&mut self) {
        earn(&mut self.pings, 1, MAX_PINGS);
    }

    /// DATA was sent. A frame that did not fill the peer's window is worth the two updates that an
    /// eager peer answers it with; one that did is worth its octets only, so that window dribbled
    /// out octet by octet never pays for itself.
    pub(super) fn data_sent(&mut self, octets: usize, window_left: bool) {
        let frame = if window_left { 2 } else { 0 };
        earn(
            &mut self.window_updates,
            frame + (octets / OCTETS_PER_WINDOW_UPDATE) as u32,
            MAX_WINDOW_UPDATES,
        );
    }
}

fn spend(budget: &mut u32, flood: Flood) -> Result<(), ConnectionError> {
    *budget = budget.checked_sub(1).ok_or(ConnectionError::Flood { flood })?;
    Ok(())
}

fn earn(budget: &mut u32, amount: u32, max: u32) {
    *budget = budget.saturating_add(amount).min(max);
}
