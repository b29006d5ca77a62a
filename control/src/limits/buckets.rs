//! Token buckets, one for each key: how often somebody may do something.
//!
//! Pure: the clock's reading is an argument. A bucket is kept as the moment at which it will be full
//! again, so that one that is full need not be kept at all.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Keys that are told apart; the rest share one bucket. A key and its moment are some 50 octets.
const KEYS: usize = 10_000;

/// How often full buckets are looked for, at most: that looks at all of them.
const PRUNE_EVERY: Duration = Duration::from_secs(1);

/// How often something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// So many times at once, after a pause.
    pub burst: u32,
    /// And then once in this time.
    pub every: Duration,
}

/// A bucket for each key.
#[derive(Debug)]
pub struct Buckets<K> {
    rate: Rate,
    full_at: HashMap<K, Instant>,
    /// Of all keys that have no bucket of their own.
    others_full_at: Option<Instant>,
    pruned: Option<Instant>,
}

impl<K: Eq + Hash + Clone> Buckets<K> {
    /// All of them full.
    pub fn new(rate: Rate) -> Self {
        Self { rate, full_at: HashMap::new(), others_full_at: None, pruned: None }
    }

    /// Takes one token out of the bucket of `key`; `false` when it is empty.
    pub fn admit(&mut self, key: &K, now: Instant) -> bool {
        self.make_room(key, now);
        let has_room = self.full_at.len() < KEYS;
        let full_at = match self.full_at.get_mut(key) {
            Some(full_at) => full_at,
            None if has_room => self.full_at.entry(key.clone()).or_insert(now),
            None => self.others_full_at.get_or_insert(now),
        };
        let next = (*full_at).max(now) + self.rate.every;
        let is_admitted = next.duration_since(now) <= self.rate.every * self.rate.burst;
        if is_admitted {
            *full_at = next;
        }
        is_admitted
    }

    /// Forgets the buckets that are full, if another one would be too many.
    fn make_room(&mut self, key: &K, now: Instant) {
        let was_just_done = self.pruned.is_some_and(|pruned| now.duration_since(pruned) < PRUNE_EVERY);
        if self.full_at.len() < KEYS || was_just_done || self.full_at.contains_key(key) {
            return;
        }
        self.full_at.retain(|_, full_at| *full_at > now);
        self.pruned = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 3, every: Duration::from_millis(100) };

    #[test]
    fn a_burst_and_then_a_steady_rate() {
        let start = Instant::now();
        let mut buckets = Buckets::new(RATE);
        let rows = [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (99, false),
            (100, true),
            (100, false),
            (350, true),
            (350, true),
            (350, false),
            (10_000, true),
            (10_000, true),
            (10_000, true),
            (10_000, false),
        ];
        for (at, expected) in rows {
            let now = start + Duration::from_millis(at);
            assert_eq!(buckets.admit(&"node-1", now), expected, "after {at} ms");
        }
    }

    #[test]
    fn an_empty_bucket_is_nobody_elses() {
        let now = Instant::now();
        let mut buckets = Buckets::new(RATE);
        assert_eq!((0..10).filter(|_| buckets.admit(&"node-1", now)).count(), 3);
        assert_eq!((0..10).filter(|_| buckets.admit(&"node-2", now)).count(), 3);
    }

    #[test]
    fn keys_beyond_the_limit_share_a_bucket_until_others_are_full() {
        let start = Instant::now();
        let mut buckets = Buckets::new(RATE);
        for key in 0..KEYS {
            assert!(buckets.admit(&key, start));
        }
        let admitted = (KEYS..KEYS + 10).filter(|key| buckets.admit(key, start)).count();
        assert_eq!((admitted, buckets.full_at.len()), (3, KEYS));
        let later = start + PRUNE_EVERY;
        assert!((KEYS..KEYS + 10).all(|key| buckets.admit(&key, later)));
        assert_eq!(buckets.full_at.len(), 10);
    }
}
