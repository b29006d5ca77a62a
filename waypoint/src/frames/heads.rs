//! The heads of frames in a stream of octets, however it is cut into pieces.

/// What a frame's head says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) length: u32,
}

#[derive(Debug)]
pub(super) struct Heads {
    /// Octets of the preface or of a payload that are still to come.
    skipped: usize,
    head: [u8; HEAD],
    filled: usize,
    /// The kind of the frame whose payload is still to come.
    kind: Option<u8>,
    frames: u64,
}

impl Heads {
    /// Frames behind so many octets of something else.
    pub(super) fn behind(octets: usize) -> Self {
        Self { skipped: octets, head: [0; HEAD], filled: 0, kind: None, frames: 0 }
    }

    /// The next head in `octets`, of which everything up to it is taken.
    pub(super) fn next(&mut self, octets: &mut &[u8]) -> Option<Head> {
        loop {
            let skipped = self.skipped.min(octets.len());
            *octets = &octets[skipped..];
            self.skipped -= skipped;
            if octets.is_empty() {
                return None;
            }
            let taken = (HEAD - self.filled).min(octets.len());
            self.head[self.filled..self.filled + taken].copy_from_slice(&octets[..taken]);
            self.filled += taken;
            *octets = &octets[taken..];
            if self.filled < HEAD {
                continue;
            }
            self.filled = 0;
            self.frames += 1;
            let [high, middle, low, kind, flags, ..] = self.head;
            let length = u32::from_be_bytes([0, high, middle, low]);
            self.skipped = length as usize;
            self.kind = Some(kind);
            return Some(Head { kind, flags, length });
        }
    }

    /// Whether the octets so far end in the middle of a frame that is of another kind.
    pub(super) fn is_within_other_than(&self, kind: u8) -> bool {
        self.filled > 0 || (self.skipped > 0 && self.kind.is_some_and(|within| within != kind))
    }

    /// Whether the octets so far end behind a whole frame.
    pub(super) fn is_between_frames(&self) -> bool {
        self.frames > 0 && self.filled == 0 && self.skipped == 0
    }

    /// Frames whose heads have come.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }
}

/// RFC 9113 §4.1; octets.
const HEAD: usize = 9;
