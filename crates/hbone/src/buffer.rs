//! Byte buffers that cost nothing when idle.
//!
//! A [`Buffer`] is a cursor over memory that was initialised once, so that reading into it and
//! encrypting into it need neither zeroing nor unsafe code. A [`BufferPool`] belongs to one worker:
//! who is readable or has something to write borrows memory from it and gives it back when drained.

use std::cell::RefCell;
use std::rc::Rc;

/// Octets waiting between two steps: filled at the end, consumed from the front.
#[derive(Debug, Default)]
pub struct Buffer {
    /// Initialised up to its length; only `start..end` has meaning.
    memory: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer over memory from a pool.
    pub fn with_memory(memory: Vec<u8>) -> Self {
        Self { memory, start: 0, end: 0 }
    }

    /// A copy of `octets` in memory of just their size.
    pub fn with_filled(octets: &[u8]) -> Self {
        Self { memory: octets.to_vec(), start: 0, end: octets.len() }
    }

    /// What was filled and not yet consumed.
    pub fn filled(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    /// [`Self::filled`], to be changed in place.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    /// Octets filled and not yet consumed.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// All room behind what is filled, at least `min` octets of it.
    pub fn spare(&mut self, min: usize) -> &mut [u8] {
        if self.memory.len() - self.end < min {
            self.make_room(min);
        }
        &mut self.memory[self.end..]
    }

    /// Takes the first `n` octets of [`Self::spare`] as filled.
    pub fn fill(&mut self, n: usize) {
        debug_assert!(self.end + n <= self.memory.len(), "filled more than there was room for");
        self.end += n;
    }

    /// Appends a copy of `octets`.
    pub fn extend(&mut self, octets: &[u8]) {
        self.spare(octets.len())[..octets.len()].copy_from_slice(octets);
        self.fill(octets.len());
    }

    /// Drops the first `n` filled octets.
    pub fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len(), "consumed more than was filled");
        self.start += n;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Gives the memory back once everything is consumed; until then `None`.
    pub fn take_memory(&mut self) -> Option<Vec<u8>> {
        if !self.is_empty() || self.memory.is_empty() {
            return None;
        }
        Some(std::mem::take(&mut self.memory))
    }

    /// Whether a whole piece of a pool's memory is attached.
    pub fn has_piece(&self) -> bool {
        self.memory.len() >= BufferPool::PIECE
    }

    /// Whether memory is attached.
    pub fn has_memory(&self) -> bool {
        !self.memory.is_empty()
    }

    fn make_room(&mut self, min: usize) {
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let needed = self.end + min;
        if self.memory.len() < needed {
            self.memory.resize(needed, 0);
        }
    }
}

/// Memory for one worker's buffers. Not shared between threads.
#[derive(Clone, Debug)]
pub struct BufferPool {
    free: Rc<RefCell<Vec<Vec<u8>>>>,
}

impl BufferPool {
    /// Octets of each piece of memory. Measured: one read or one encryption of a turn rarely needs
    /// more, and TLS makes at most 16 KiB of it one record.
    pub const PIECE: usize = 256 * 1024;

    /// Free pieces that a worker keeps; more are returned to the allocator.
    pub const MAX_FREE: usize = 16;

    /// An empty pool.
    pub fn new() -> Self {
        Self { free: Rc::new(RefCell::new(Vec::new())) }
    }

    /// Memory of [`Self::PIECE`] octets.
    pub fn take(&self) -> Vec<u8> {
        self.free.borrow_mut().pop().unwrap_or_else(|| vec![0; Self::PIECE])
    }

    /// Gives memory back. What grew beyond a piece is freed.
    pub fn give(&self, memory: Vec<u8>) {
        let mut free = self.free.borrow_mut();
        if memory.len() == Self::PIECE && free.len() < Self::MAX_FREE {
            free.push(memory);
        }
    }

    /// Free pieces at the moment.
    pub fn free(&self) -> usize {
        self.free.borrow().len()
    }
}

impl Default for BufferPool {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_is_consumed_in_order_across_growth() {
        let mut buffer = Buffer::with_memory(vec![0; 4]);
        buffer.extend(b"abcd");
        buffer.consume(2);
        buffer.extend(b"efghij");
        assert_eq!(buffer.filled(), b"cdefghij");
        assert!(buffer.take_memory().is_none(), "memory was given back while octets wait");
        buffer.consume(8);
        assert!(buffer.take_memory().is_some());
        assert!(!buffer.has_memory());
    }

    #[test]
    fn the_pool_keeps_a_bounded_number_of_equal_pieces() {
        let pool = BufferPool::new();
        let pieces: Vec<_> = (0..BufferPool::MAX_FREE + 4).map(|_| pool.take()).collect();
        pieces.into_iter().for_each(|piece| pool.give(piece));
        pool.give(vec![0; BufferPool::PIECE * 2]);
        assert_eq!(pool.free(), BufferPool::MAX_FREE);
    }
}
