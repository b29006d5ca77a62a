//! The families, their series and values.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, SharedString, Unit};

use super::{EXPIRING, Settings, render};

/// Upper bounds of every histogram's buckets, in seconds: all histograms here measure how long
/// something on a network takes.
pub(super) const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How long a full family is left alone before it is searched for expired series again: the search
/// looks at every series.
const FULL_SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// Says that series were refused.
const REFUSED: &str = "ambit_metrics_series_refused_total";

/// All metrics of a process.
#[derive(Debug)]
pub(super) struct Registry {
    settings: Settings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    families: BTreeMap<String, Family>,
    help: BTreeMap<String, SharedString>,
    refused: u64,
    searched_full: Option<Instant>,
}

/// All series of one name, by their labels as written: `a="1",b="2"`.
#[derive(Debug)]
pub(super) enum Family {
    Counter(BTreeMap<String, CounterSeries>),
    Gauge(BTreeMap<String, Arc<AtomicU64>>),
    Histogram(BTreeMap<String, Arc<HistogramValue>>),
}

#[derive(Debug)]
pub(super) struct CounterSeries {
    pub(super) value: Arc<AtomicU64>,
    /// The value when last looked at, and since when it has been that.
    seen: (u64, Instant),
}

impl Registry {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, state: Mutex::default() }
    }

    /// Removes the series that have expired.
    pub(super) fn expire(&self, now: Instant) {
        self.lock().expire(now, self.settings.idle_expiry);
    }

    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let state = self.lock();
        for (name, family) in &state.families {
            render::family(&mut text, name, state.help.get(name).map(AsRef::as_ref), family);
        }
        if state.refused > 0 {
            render::refused(&mut text, REFUSED, state.refused);
        }
        text
    }

    fn counter(&self, key: &Key, now: Instant) -> Counter {
        let mut state = self.lock();
        let labels = render::labels(key);
        if !state.has_room(key.name(), &labels, now, &self.settings) {
            return Counter::noop();
        }
        let empty = || Family::Counter(BTreeMap::new());
        match state.families.entry(key.name().into()).or_insert_with(empty) {
            Family::Counter(series) => {
                let new = || CounterSeries { value: Arc::default(), seen: (0, now) };
                Counter::from_arc(Arc::clone(&series.entry(labels).or_insert_with(new).value))
            }
            // Two kinds under one name cannot both be shown; the first one stays.
            Family::Gauge(_) | Family::Histogram(_) => Counter::noop(),
        }
    }

    fn gauge(&self, key: &Key, now: Instant) -> Gauge {
        let mut state = self.lock();
        let labels = render::labels(key);
        if !state.has_room(key.name(), &labels, now, &self.settings) {
            return Gauge::noop();
        }
        let empty = || Family::Gauge(BTreeMap::new());
        match state.families.entry(key.name().into()).or_insert_with(empty) {
            Family::Gauge(series) => Gauge::from_arc(Arc::clone(series.entry(labels).or_default())),
            Family::Counter(_) | Family::Histogram(_) => Gauge::noop(),
        }
    }

    fn histogram(&self, key: &Key, now: Instant) -> Histogram {
        let mut state = self.lock();
        let labels = render::labels(key);
        if !state.has_room(key.name(), &labels, now, &self.settings) {
            return Histogram::noop();
        }
        let empty = || Family::Histogram(BTreeMap::new());
        match state.families.entry(key.name().into()).or_insert_with(empty) {
            Family::Histogram(series) => Histogram::from_arc(Arc::clone(series.entry(labels).or_default())),
            Family::Counter(_) | Family::Gauge(_) => Histogram::noop(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn expire(&mut self, now: Instant, idle_expiry: Duration) {
        let expiring = |name: &String| EXPIRING.iter().any(|prefix| name.starts_with(prefix));
        for (_, family) in self.families.iter_mut().filter(|(name, _)| expiring(name)) {
            if let Family::Counter(series) = family {
                series.retain(|_, series| !series.has_expired(now, idle_expiry));
            }
        }
    }

    fn has_room(&mut self, name: &str, labels: &str, now: Instant, settings: &Settings) -> bool {
        let full = |state: &Self| {
            state
                .families
                .get(name)
                .is_some_and(|family| family.len() >= settings.max_series && !family.contains(labels))
        };
        if !full(self) {
            return true;
        }
        if self.searched_full.is_none_or(|last| now.duration_since(last) >= FULL_SEARCH_INTERVAL) {
            self.searched_full = Some(now);
            self.expire(now, settings.idle_expiry);
        }
        let refused = full(self);
        self.refused += u64::from(refused);
        !refused
    }
}

impl Family {
    fn len(&self) -> usize {
        match self {
            Self::Counter(series) => series.len(),
            Self::Gauge(series) => series.len(),
            Self::Histogram(series) => series.len(),
        }
    }

    fn contains(&self, labels: &str) -> bool {
        match self {
            Self::Counter(series) => series.contains_key(labels),
            Self::Gauge(series) => series.contains_key(labels),
            Self::Histogram(series) => series.contains_key(labels),
        }
    }
}

impl CounterSeries {
    fn has_expired(&mut self, now: Instant, idle_expiry: Duration) -> bool {
        let value = self.value.load(Ordering::Relaxed);
        if value != self.seen.0 {
            self.seen = (value, now);
        }
        // Handles are made under the registry's lock, so one owner means that nobody holds any.
        Arc::strong_count(&self.value) == 1 && now.duration_since(self.seen.1) > idle_expiry
    }
}

/// The value of one histogram series.
#[derive(Debug, Default)]
pub(super) struct HistogramValue {
    /// How many values fell between a bound and the one before; the last counts what lies above all.
    pub(super) counts: [AtomicU64; BUCKETS.len() + 1],
    /// The sum of all values, as the bits of an `f64`.
    pub(super) sum: AtomicU64,
}

impl HistogramFn for HistogramValue {
    fn record(&self, value: f64) {
        let bucket = BUCKETS.iter().position(|bound| value <= *bound).unwrap_or(BUCKETS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        metrics::GaugeFn::increment(&self.sum, value);
    }
}

/// Connects the `metrics` facade to a registry.
#[derive(Debug)]
pub(super) struct Recorder(pub(super) Arc<Registry>);

impl metrics::Recorder for Recorder {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.0.lock().help.insert(name.as_str().into(), help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.0.lock().help.insert(name.as_str().into(), help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.0.lock().help.insert(name.as_str().into(), help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.0.counter(key, Instant::now())
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.0.gauge(key, Instant::now())
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.0.histogram(key, Instant::now())
    }
}

#[cfg(test)]
mod tests;
