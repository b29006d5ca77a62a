//! The streams of a connection: their states, and which identifiers were used.
//!
//! ```text
//! server:  (idle) --HEADERS--> received --respond--> tunnel --END_STREAM of each side--> closed
//! client:  (idle) --open-----> sent ----2xx--------> tunnel --END_STREAM of each side--> closed
//!          RST_STREAM of either side: closed at once
//! ```
//! A closed stream stays in the table while the application holds payload of it, because that still
//! fills the connection's window; it no longer counts as open.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::num::NonZeroU32;

use super::window::{MAX_WINDOW, ReceiveWindow, SendWindow};

/// The identifier of a stream; odd, since only clients open streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(NonZeroU32);

impl StreamId {
    pub(super) fn new(id: u32) -> Option<Self> {
        NonZeroU32::new(id).map(Self)
    }

    /// The number on the wire.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// RFC 9113 §5.1.1: stream identifiers have 31 bits.
pub(super) const MAX_STREAM_ID: u32 = MAX_WINDOW;

/// Streams that we reset and whose frames may still be under way; the oldest are forgotten. More
/// than are open on any tunnel of ours at a time.
pub const MAX_REMEMBERED_RESETS: usize = 512;

#[derive(Debug)]
pub(super) struct Stream {
    pub(super) send: SendWindow,
    pub(super) receive: ReceiveWindow,
    /// Payload that the application holds; octets.
    pub(super) unreleased: usize,
    /// What we may still send.
    pub(super) local: Side,
    /// What the peer may still send.
    pub(super) remote: Side,
    /// A 2xx was sent or received: DATA is payload of the tunnel.
    pub(super) tunnel: bool,
}

/// One direction of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Its (final) HEADERS are still to come.
    Silent,
    Open,
    /// After END_STREAM.
    Ended,
}

impl Stream {
    pub(super) fn is_closed(&self) -> bool {
        self.local == Side::Ended && self.remote == Side::Ended
    }
}

/// What is known of a stream that a frame of the peer names.
pub(super) enum Known<'s> {
    Present(&'s mut Stream),
    /// We reset it: frames of it may have been under way.
    Reset,
    /// It was closed some time ago, in whatever way.
    Forgotten,
    /// It was never opened.
    Idle,
}

#[derive(Debug, Default)]
pub(super) struct Streams {
    table: HashMap<u32, Stream, BuildHasherDefault<IdHasher>>,
    /// Streams of the table that are not closed.
    open: usize,
    /// The highest identifier in use; 0 before the first.
    highest: u32,
    reset: VecDeque<u32>,
}

impl Streams {
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Streams in the table, those included that are closed but hold payload.
    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The identifier that our next stream takes.
    pub(super) fn next_own(&self) -> Option<StreamId> {
        let id = if self.highest == 0 { 1 } else { self.highest + 2 };
        StreamId::new(id).filter(|id| id.get() <= MAX_STREAM_ID)
    }

    /// Whether `id` is one that a client may open next (RFC 9113 §5.1.1).
    pub(super) fn is_new(&self, id: u32) -> bool {
        id > self.highest && is_of_client(id)
    }

    /// RFC 9113 §5.1.1: using an identifier closes all lower ones that were idle.
    pub(super) fn mark_used(&mut self, id: u32) {
        self.highest = self.highest.max(id);
    }

    pub(super) fn insert(&mut self, id: StreamId, stream: Stream) {
        self.mark_used(id.get());
        self.open += usize::from(!stream.is_closed());
        self.table.insert(id.get(), stream);
    }

    pub(super) fn get(&self, id: StreamId) -> Option<&Stream> {
        self.table.get(&id.get())
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut Stream> {
        self.table.get_mut(&id.get())
    }

    pub(super) fn find(&mut self, id: u32) -> Known<'_> {
        if id > self.highest || !is_of_client(id) {
            return Known::Idle;
        }
        match self.table.get_mut(&id) {
            Some(stream) => Known::Present(stream),
            None if self.reset.contains(&id) => Known::Reset,
            None => Known::Forgotten,
        }
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.table.values_mut()
    }

    /// Identifiers above `last`, in ascending order.
    pub(super) fn above(&self, last: u32) -> Vec<StreamId> {
        let mut ids: Vec<_> =
            self.table.keys().filter(|id| **id > last).filter_map(|id| StreamId::new(*id)).collect();
        ids.sort_unstable();
        ids
    }

    /// One side sent END_STREAM.
    pub(super) fn end_side(&mut self, id: StreamId, side: impl FnOnce(&mut Stream) -> &mut Side) {
        let Some(stream) = self.table.get_mut(&id.get()) else { return };
        let was_closed = stream.is_closed();
        *side(stream) = Side::Ended;
        if stream.is_closed() && !was_closed {
            self.open -= 1;
            if stream.unreleased == 0 {
                self.table.remove(&id.get());
            }
        }
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<Stream> {
        let stream = self.table.remove(&id.get())?;
        self.open -= usize::from(!stream.is_closed());
        Some(stream)
    }

    pub(super) fn remember_reset(&mut self, id: u32) {
        if self.reset.len() == MAX_REMEMBERED_RESETS {
            self.reset.pop_front();
        }
        self.reset.push_back(id);
    }

    /// Nothing more can be under way of a stream that we reset.
    pub(super) fn forget_reset(&mut self, id: u32) {
        self.reset.retain(|known| *known != id);
    }
}

/// RFC 9113 §5.1.1: clients open streams with odd identifiers; servers open none here.
fn is_of_client(id: u32) -> bool {
    id % 2 == 1
}

/// Spreads identifiers by one multiplication. A peer can choose identifiers that collide, but no
/// more of them than the table may hold.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.write_u32(u32::from(*octet));
        }
    }

    fn write_u32(&mut self, id: u32) {
        /// 2^64 divided by the golden ratio.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(SPREAD);
    }
}
