//! Which of the expiring counters somebody holds, and how many there may be.
//!
//! The exporter ends a counter that has not changed for a while, and its handles then count nowhere. A
//! connection may be quiet for longer than that. So the handles given out here are remembered for as
//! long as they live, and [`Held::touch`] makes the exporter see a change of each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use metrics::{Counter, CounterFn, Key};

use super::Settings;

/// The expiring counters that the exporter has.
#[derive(Debug)]
pub(super) struct Held {
    max_series: usize,
    idle_expiry: Duration,
    series: Mutex<HashMap<Key, Series>>,
    /// When histograms were asked for last, each by a hash of its key.
    histograms: Mutex<HashMap<u64, Instant>>,
}

#[derive(Debug)]
struct Series {
    handle: Weak<Handle>,
    /// When it was last known to be held.
    held: Instant,
}

/// What all holders of one series share.
#[derive(Debug)]
struct Handle(Counter);

impl Held {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings { idle_expiry, max_series } = settings;
        Self { max_series, idle_expiry, series: Mutex::default(), histograms: Mutex::default() }
    }

    /// The counter of this key, made by `register` unless somebody holds it; nothing if there are too
    /// many.
    ///
    /// The exporter may end an unused series between being asked for it and seeing the change that is
    /// made to it here at once. What this one handle counts is lost then. That is well below a
    /// microsecond in the life of a series; to exclude it, workers would have to wait for scrapes.
    pub(super) fn counter(
        &self,
        key: &Key,
        now: Instant,
        register: impl FnOnce(&Key) -> Counter,
    ) -> Option<Counter> {
        let mut series = self.lock();
        let known = series.get(key);
        if let Some(handle) = known.and_then(|series| series.handle.upgrade()) {
            return Some(Counter::from_arc(handle));
        }
        if known.is_none() && series.len() >= self.max_series {
            return None;
        }
        // A retained key shares its labels with the exporter's copies.
        let key = key.to_retained();
        let handle = Arc::new(Handle(register(&key)));
        handle.touch();
        series.insert(key, Series { handle: Arc::downgrade(&handle), held: now });
        Some(Counter::from_arc(handle))
    }

    /// Whether there is room for the histogram of this key, or it is there already. Who records in one asks for it again
    /// before the exporter ends it.
    pub(super) fn has_room_for_histogram(&self, key: &Key, now: Instant) -> bool {
        let mut histograms = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        if histograms.len() >= self.max_series && !histograms.contains_key(&key.get_hash()) {
            return false;
        }
        histograms.insert(key.get_hash(), now);
        true
    }

    /// Makes a change to the counters that are held, and forgets those that the exporter ends.
    pub(super) fn touch(&self, now: Instant) {
        let mut histograms = self.histograms.lock().unwrap_or_else(PoisonError::into_inner);
        histograms.retain(|_, asked| now.duration_since(*asked) <= 2 * self.idle_expiry);
        drop(histograms);
        self.lock().retain(|_, series| match series.handle.upgrade() {
            Some(handle) => {
                handle.touch();
                series.held = now;
                true
            }
            None => now.duration_since(series.held) <= self.idle_expiry,
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Series>> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handle {
    /// Adding nothing is a change to the exporter, which counts changes and does not compare values.
    fn touch(&self) {
        self.0.increment(0);
    }
}

impl Drop for Handle {
    /// Begins the idle time, so that series which are held together end together.
    fn drop(&mut self) {
        self.touch();
    }
}

impl CounterFn for Handle {
    fn increment(&self, value: u64) {
        self.0.increment(value);
    }

    fn absolute(&self, value: u64) {
        self.0.absolute(value);
    }
}
