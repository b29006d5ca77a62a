//! Octets that wait to be written, in memory that is initialised once.
//!
//! The memory is a `Vec` whose length is its high-water mark; two cursors say what of it is in use.
//! An application's socket is read straight into it, behind room for a frame header, without zeroing
//! and without unsafe code.

use super::frame::{FRAME_HEAD, FrameHead, Kind};
use super::streams::StreamId;

#[derive(Debug, Default)]
pub(super) struct Output {
    memory: Vec<u8>,
    start: usize,
    end: usize,
    slot: Option<Slot>,
    replies: Replies,
}

/// Room behind `end` that was handed out and not committed yet. Any other write takes it back.
#[derive(Clone, Copy, Debug)]
struct Slot {
    stream: StreamId,
    length: usize,
}

/// Memory is made in steps of this when none was lent: enough for a preface or a few replies.
const SMALL: usize = 512;

/// Memory with this much room is not enlarged for a larger DATA frame: one full frame of the default
/// size (RFC 9113 §6.5.2), and one TLS record.
const ENOUGH_FOR_DATA: usize = 16 * 1024;

impl Output {
    pub(super) fn waiting(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    pub(super) fn consume(&mut self, octets: usize) {
        assert!(octets <= self.end - self.start, "consumed more output than there is");
        self.start += octets;
        self.replies.consumed += octets as u64;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            self.slot = None;
            self.replies.clear();
        }
    }

    /// The memory, when nothing is in it.
    pub(super) fn take_memory(&mut self) -> Option<Vec<u8>> {
        if self.start != self.end || self.memory.is_empty() {
            return None;
        }
        self.slot = None;
        Some(std::mem::take(&mut self.memory))
    }

    /// Works in `memory` from now on, with what waits moved there; returns the memory that is not
    /// used: the earlier one, or `memory` if that is not larger and something waits.
    pub(super) fn lend_memory(&mut self, mut memory: Vec<u8>) -> Vec<u8> {
        let waiting = self.end - self.start;
        if waiting > 0 && memory.len() <= self.memory.len() {
            return memory;
        }
        memory[..waiting].copy_from_slice(&self.memory[self.start..self.end]);
        self.start = 0;
        self.end = waiting;
        self.slot = None;
        std::mem::replace(&mut self.memory, memory)
    }

    /// Octets that could be written without more memory.
    pub(super) fn spare(&self) -> usize {
        // What was written out counts: `room` moves the rest there.
        self.memory.len() - (self.end - self.start)
    }

    /// Writes a frame that the peer did not ask for.
    pub(super) fn frame(&mut self, head: FrameHead, payload: &[u8]) {
        debug_assert_eq!(head.length, payload.len());
        let room = self.room(FRAME_HEAD + payload.len());
        room[..FRAME_HEAD].copy_from_slice(&head.octets());
        room[FRAME_HEAD..].copy_from_slice(payload);
        self.end += FRAME_HEAD + payload.len();
    }

    /// Writes a frame that the peer can provoke, and counts it until it is written out.
    pub(super) fn reply(&mut self, head: FrameHead, payload: &[u8]) {
        self.frame(head, payload);
        let octets = FRAME_HEAD + payload.len();
        self.replies.count(octets, self.end - self.start - octets);
    }

    pub(super) fn octets(&mut self, octets: &[u8]) {
        self.room(octets.len()).copy_from_slice(octets);
        self.end += octets.len();
    }

    /// An upper bound of the replies that wait; octets.
    pub(super) fn replies_waiting(&self) -> usize {
        self.replies.waiting()
    }

    /// Room for the payload of a DATA frame of at most `max` octets. It counts only once it is
    /// [committed](Self::commit_data).
    pub(super) fn data_slot(&mut self, stream: StreamId, max: usize) -> &mut [u8] {
        let spare = (self.memory.len() - self.end).saturating_sub(FRAME_HEAD);
        let length = if spare >= ENOUGH_FOR_DATA { max.min(spare) } else { max };
        self.room(FRAME_HEAD + length);
        self.slot = Some(Slot { stream, length });
        &mut self.memory[self.end + FRAME_HEAD..][..length]
    }

    /// Makes the first `octets` of the stream's slot a DATA frame.
    pub(super) fn commit_data(&mut self, stream: StreamId, octets: usize, flags: u8) {
        let fits = self.slot.take().is_some_and(|slot| slot.stream == stream && octets <= slot.length);
        assert!(fits, "DATA was committed that is not in the slot handed out last");
        let head = FrameHead { length: octets, kind: Kind::Data, flags, stream: stream.get() };
        self.memory[self.end..][..FRAME_HEAD].copy_from_slice(&head.octets());
        self.end += FRAME_HEAD + octets;
    }

    pub(super) fn abort_data(&mut self) {
        self.slot = None;
    }

    /// `octets` of memory behind what waits, still to be taken into use.
    fn room(&mut self, octets: usize) -> &mut [u8] {
        self.slot = None;
        // Moving what waits to the front costs no more than what was already written out.
        if self.memory.len() < self.end + octets && self.start >= self.end - self.start {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let needed = self.end + octets;
        if self.memory.len() < needed {
            self.memory.resize(needed.next_power_of_two().max(SMALL), 0);
        }
        &mut self.memory[self.end..needed]
    }
}

/// Counts the replies in the output without marking where they are: those before a mark are
/// forgotten when everything before the mark is written out.
#[derive(Debug, Default)]
struct Replies {
    before_mark: usize,
    behind_mark: usize,
    /// Where the mark stands, counted from the connection's first octet.
    mark: u64,
    consumed: u64,
}

impl Replies {
    /// A reply of `octets`, with `ahead` octets to be written before it.
    fn count(&mut self, octets: usize, ahead: usize) {
        if self.consumed >= self.mark {
            self.before_mark = self.behind_mark;
            self.behind_mark = 0;
            self.mark = self.consumed + ahead as u64;
        }
        self.behind_mark += octets;
    }

    /// Everything is written out.
    fn clear(&mut self) {
        self.before_mark = 0;
        self.behind_mark = 0;
    }

    fn waiting(&self) -> usize {
        if self.consumed >= self.mark { self.behind_mark } else { self.before_mark + self.behind_mark }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(id: u32) -> StreamId {
        StreamId::new(id).unwrap()
    }

    fn ping() -> (FrameHead, [u8; 8]) {
        (FrameHead { length: 8, kind: Kind::Ping, flags: 0, stream: 0 }, [7; 8])
    }

    #[test]
    fn a_slot_becomes_a_frame_or_nothing() {
        let mut output = Output::default();
        output.data_slot(stream(1), 5).copy_from_slice(b"hello");
        output.abort_data();
        assert_eq!(output.waiting(), b"");
        output.data_slot(stream(1), 100)[..5].copy_from_slice(b"hello");
        output.commit_data(stream(1), 5, 1);
        assert_eq!(output.waiting(), b"\0\0\x05\0\x01\0\0\0\x01hello");
    }

    #[test]
    #[should_panic(expected = "not in the slot handed out last")]
    fn a_slot_that_was_written_over_is_never_sent() {
        let mut output = Output::default();
        output.data_slot(stream(1), 5).copy_from_slice(b"hello");
        let (head, payload) = ping();
        output.frame(head, &payload);
        output.commit_data(stream(1), 5, 0);
    }

    #[test]
    #[should_panic(expected = "not in the slot handed out last")]
    fn a_slot_is_of_one_stream() {
        let mut output = Output::default();
        output.data_slot(stream(1), 5).copy_from_slice(b"hello");
        output.commit_data(stream(3), 5, 0);
    }

    #[test]
    fn lent_memory_is_used_as_long_as_data_fits_well() {
        let mut output = Output::default();
        assert!(output.lend_memory(vec![0; 64 * 1024]).is_empty());
        for _ in 0..3 {
            let octets = output.data_slot(stream(1), 1 << 20).len();
            output.commit_data(stream(1), octets.min(20_000), 0);
        }
        assert_eq!(output.memory.len(), 64 * 1024, "memory grew although a whole frame fitted");
        assert!(output.take_memory().is_none());
        assert!(!output.lend_memory(vec![0; 10]).is_empty(), "memory in use was replaced by less");
        output.consume(output.waiting().len());
        assert_eq!(output.take_memory().map(|memory| memory.len()), Some(64 * 1024));
        assert!(output.take_memory().is_none());
    }

    #[test]
    fn larger_memory_takes_what_waits_along() {
        let mut output = Output::default();
        let (head, payload) = ping();
        output.frame(head, &payload);
        output.frame(head, &payload);
        output.consume(3);
        let before = output.waiting().to_vec();
        let returned = output.lend_memory(vec![0; 64 * 1024]);
        assert!(returned.len() < 64 * 1024 && !returned.is_empty(), "the small memory comes back");
        assert_eq!(output.waiting(), before);
        assert_eq!(output.spare(), 64 * 1024 - before.len());
    }

    #[test]
    fn replies_count_until_they_are_written() {
        let mut output = Output::default();
        let (head, payload) = ping();
        for _ in 0..10 {
            output.reply(head, &payload);
        }
        assert_eq!(output.replies_waiting(), 170);
        output.data_slot(stream(1), 1000);
        output.commit_data(stream(1), 1000, 0);
        output.consume(170);
        for _ in 0..10 {
            output.reply(head, &payload);
            output.data_slot(stream(1), 1000);
            output.commit_data(stream(1), 1000, 0);
            output.consume(1000);
            assert!((17..=10 * 17 + 170).contains(&output.replies_waiting()));
        }
        output.consume(output.waiting().len());
        assert_eq!(output.replies_waiting(), 0);
    }
}
