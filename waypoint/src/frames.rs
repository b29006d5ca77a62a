//! What a peer of HTTP/2 may do for nothing: budgets against floods, and against heads that never end.
//!
//! `h2` bounds header blocks and streams that are reset before they were taken. What it answers or keeps
//! for ever (PING, SETTINGS, WINDOW_UPDATE, streams that are reset once they were sent on) is counted here,
//! from the frames' heads alone. Pure: octets and times in, verdicts out.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

mod budget;
mod heads;

use budget::Budget;
use heads::{Head, Heads};

/// Kinds of floods; each ends its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flood {
    /// PING frames.
    #[error("a flood of PING frames")]
    Ping,
    /// SETTINGS frames.
    #[error("a flood of SETTINGS frames")]
    Settings,
    /// WINDOW_UPDATE frames beyond what the data we send can ask for.
    #[error("a flood of WINDOW_UPDATE frames")]
    WindowUpdate,
    /// Streams that are reset before they were answered.
    #[error("a flood of streams that are reset at once")]
    RapidReset,
    /// DATA frames without payload.
    #[error("a flood of empty DATA frames")]
    EmptyData,
    /// Frames without effect: PRIORITY, unknown types.
    #[error("a flood of frames without effect")]
    Ignored,
}

impl Flood {
    /// A name for metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Settings => "settings",
            Self::WindowUpdate => "window_update",
            Self::RapidReset => "rapid_reset",
            Self::EmptyData => "empty_data",
            Self::Ignored => "ignored",
        }
    }
}

/// Which side the peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerRole {
    /// It asks, and begins with a preface.
    Client,
    /// It answers.
    Server,
}

/// The frames of one connection, both ways.
#[derive(Debug)]
pub struct FrameWatch {
    received: Heads,
    sent: Heads,
    ping: Budget,
    settings: Budget,
    window_update: Budget,
    rapid_reset: Budget,
    empty_data: Budget,
    ignored: Budget,
    in_headers: bool,
    progress: Progress,
    farewell: Farewell,
}

/// The GOAWAY that asks a peer to begin no more streams.
#[derive(Debug, PartialEq, Eq)]
enum Farewell {
    Unsaid,
    /// What of it is still to be sent.
    Owed(&'static [u8]),
}

/// How far a peer is, for who looks whether it goes on. Shared with the connection's owner.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    mark: AtomicU64,
    empty_data: AtomicU32,
    is_ending: AtomicBool,
    flood: OnceLock<Flood>,
}

impl Progress {
    /// What the connection was ended for.
    pub fn flood(&self) -> Option<Flood> {
        self.0.flood.get().copied()
    }

    /// Changes with every frame. Odd while one other than DATA, or a header block, has begun and not ended.
    pub fn mark(&self) -> u64 {
        self.0.mark.load(Ordering::Relaxed)
    }

    /// Whether what a mark was taken of is still begun and not ended.
    pub fn is_stuck_at(&self, mark: u64) -> bool {
        mark % 2 == 1 && self.mark() == mark
    }

    /// Whether it is time for another connection: `h2` ends one, with all streams on it, for the 101st empty DATA
    /// frame of its life, and there are applications that send one with every answer.
    pub fn is_worn(&self) -> bool {
        self.0.empty_data.load(Ordering::Relaxed) >= WORN
    }

    /// Asks the peer to begin no more streams (RFC 9113 §6.8), as soon as the connection is polled. What it has begun
    /// before it hears of that is served: `h2` by itself says how far it looks one round trip later, when streams may
    /// still wait at the peer behind its answer to our PING.
    pub fn announce_end(&self) {
        self.0.is_ending.store(true, Ordering::Relaxed);
    }

    fn set(&self, frames: u64, is_open: bool) {
        self.0.mark.store(frames * 2 + u64::from(is_open), Ordering::Relaxed);
    }
}

impl FrameWatch {
    /// Watches a connection from its first octet on.
    pub fn new(peer: PeerRole, now: Instant) -> Self {
        let (received, sent) = match peer {
            PeerRole::Client => (Heads::behind(PREFACE), Heads::behind(0)),
            PeerRole::Server => (Heads::behind(0), Heads::behind(PREFACE)),
        };
        Self {
            received,
            sent,
            ping: Budget::new(PINGS, now),
            settings: Budget::new(SETTINGS, now),
            window_update: Budget::new(WINDOW_UPDATES, now),
            rapid_reset: Budget::new(RAPID_RESETS, now),
            empty_data: Budget::new(EMPTY_DATA, now),
            ignored: Budget::new(IGNORED, now),
            in_headers: false,
            progress: Progress::default(),
            farewell: Farewell::Unsaid,
        }
    }

    /// How far the peer is.
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Octets that the peer sent.
    ///
    /// # Errors
    /// When they are too much of one kind.
    pub fn received(&mut self, mut octets: &[u8], now: Instant) -> Result<(), Flood> {
        while let Some(head) = self.received.next(&mut octets) {
            self.charge(head, now).inspect_err(|flood| {
                let _ = self.progress.0.flood.set(*flood);
            })?;
        }
        let is_open = self.in_headers || self.received.is_within_other_than(DATA);
        self.progress.set(self.received.frames(), is_open);
        Ok(())
    }

    /// Octets that we sent: what they are worth.
    pub fn sent(&mut self, mut octets: &[u8]) {
        while let Some(head) = self.sent.next(&mut octets) {
            match head.kind {
                DATA => {
                    // Some peers announce every 4 KiB, for the stream and for the connection.
                    self.window_update.earn(2 + head.length / OCTETS_PER_WINDOW_UPDATE);
                    // Peers that measure bandwidth send one for each burst that they receive.
                    self.ping.earn(1);
                }
                // A stream was answered: it was worth its HEADERS.
                HEADERS => self.rapid_reset.earn(1),
                _ => {}
            }
        }
    }

    /// What is to be sent before anything else, now.
    pub fn owed(&mut self) -> &'static [u8] {
        let is_due = self.progress.0.is_ending.load(Ordering::Relaxed) && self.sent.is_between_frames();
        if self.farewell == Farewell::Unsaid && is_due {
            self.farewell = Farewell::Owed(&GOAWAY);
        }
        match self.farewell {
            Farewell::Unsaid => &[],
            Farewell::Owed(octets) => octets,
        }
    }

    /// So much of it was sent.
    pub fn paid(&mut self, octets: usize) {
        if let Farewell::Owed(owed) = &mut self.farewell {
            *owed = &owed[octets..];
        }
    }

    fn charge(&mut self, head: Head, now: Instant) -> Result<(), Flood> {
        let ends_headers = head.flags & END_HEADERS != 0;
        match head.kind {
            DATA if head.length > 0 => self.ping.earn(1),
            DATA if head.flags & END_STREAM == 0 => {
                self.progress.0.empty_data.fetch_add(1, Ordering::Relaxed);
                self.empty_data.spend(now, Flood::EmptyData)?;
            }
            DATA => {}
            HEADERS | CONTINUATION => self.in_headers = !ends_headers,
            RST_STREAM => self.rapid_reset.spend(now, Flood::RapidReset)?,
            SETTINGS_FRAME => self.settings.spend(now, Flood::Settings)?,
            PING => self.ping.spend(now, Flood::Ping)?,
            WINDOW_UPDATE => self.window_update.spend(now, Flood::WindowUpdate)?,
            _ => self.ignored.spend(now, Flood::Ignored)?,
        }
        Ok(())
    }
}

/// RFC 9113 §3.4; octets.
const PREFACE: usize = 24;

// RFC 9113 §6: types of frames, and flags.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS_FRAME: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// RFC 9113 §6.8: no stream beyond the last that there can be, for no error.
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];

/// CVE-2019-9512. At once, and a second.
const PINGS: (u32, u32) = (512, 16);

/// CVE-2019-9515. Peers send one or two in a connection's life, and acknowledge ours.
const SETTINGS: (u32, u32) = (64, 1);

/// CVE-2019-9511.
const WINDOW_UPDATES: (u32, u32) = (16_384, 1_024);

/// CVE-2023-44487. Ten seconds of 200 streams that time out after one fit in.
const RAPID_RESETS: (u32, u32) = (2_000, 200);

/// CVE-2019-9518. No peer has a reason for one.
const EMPTY_DATA: (u32, u32) = (128, 4);

/// Empty DATA frames after which a connection is left. Its streams may send as many again, and twice.
const WORN: u32 = 32;

/// Frames without effect.
const IGNORED: (u32, u32) = (4_096, 64);

/// Octets of sent data that earn one WINDOW_UPDATE.
const OCTETS_PER_WINDOW_UPDATE: u32 = 1024;

#[cfg(test)]
mod tests;
