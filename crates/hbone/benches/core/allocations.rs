//! Counts what is asked of the allocator.
//!
//! It sees what Rust allocates: the cryptography library, which is C, has its own way to the heap
//! and does not use it for a record.
#![expect(unsafe_code, reason = "an allocator is an unsafe trait; this one only counts and passes on")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Sub;
use std::sync::atomic::{AtomicU64, Ordering};

#[global_allocator]
static COUNTING: Counting = Counting { count: AtomicU64::new(0), octets: AtomicU64::new(0) };

struct Counting {
    count: AtomicU64,
    octets: AtomicU64,
}

/// How often memory was asked for, and for how much. Memory that grows counts once more, as a whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocations {
    pub(crate) count: u64,
    pub(crate) octets: u64,
}

impl Allocations {
    /// Since the program began.
    pub(crate) fn so_far() -> Self {
        let Counting { count, octets } = &COUNTING;
        Self { count: count.load(Ordering::Relaxed), octets: octets.load(Ordering::Relaxed) }
    }
}

impl Sub for Allocations {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, octets: self.octets - earlier.octets }
    }
}

impl Counting {
    fn add(&self, octets: usize) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller keeps to the contract of the same method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.add(layout.size());
        // SAFETY: the caller keeps to the contract of the same method.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        self.add(new_size);
        // SAFETY: the caller keeps to the contract of the same method.
        unsafe { System.realloc(memory, layout, new_size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps to the contract of the same method.
        unsafe { System.dealloc(memory, layout) }
    }
}
