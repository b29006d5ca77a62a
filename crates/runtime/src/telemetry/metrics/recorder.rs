//! Connects the `metrics` facade to the exporter.
//!
//! There are two of the latter, since an exporter has one idle time for all of its counters: one with
//! the counters that end, and one with everything else.

use std::borrow::Cow;
use std::io;
use std::time::Instant;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as Facade, SharedString, Unit,
};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};
use metrics_util::MetricKindMask;

use super::held::Held;
use super::{EXPIRING, EXPIRING_HISTOGRAMS, Settings};

/// Upper bounds of the buckets of every histogram without others, in seconds: they measure how long
/// something on a network takes.
const BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Upper bounds of the buckets of Istio's request durations, in milliseconds.
const MILLISECONDS: [f64; 19] = [
    0.5,
    1.0,
    5.0,
    10.0,
    25.0,
    50.0,
    100.0,
    250.0,
    500.0,
    1000.0,
    2500.0,
    5000.0,
    10_000.0,
    30_000.0,
    60_000.0,
    300_000.0,
    600_000.0,
    1_800_000.0,
    3_600_000.0,
];

/// Upper bounds of the buckets of sizes of requests and responses, in octets.
const OCTETS: [f64; 8] = [1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9];

/// Says that series were refused.
const REFUSED: &str = "ambit_metrics_series_refused_total";

/// All metrics of a process.
#[derive(Debug)]
pub(super) struct Recorder {
    lasting: PrometheusRecorder,
    expiring: PrometheusRecorder,
    held: Held,
    refused: Counter,
}

impl Recorder {
    pub(super) fn new(settings: Settings) -> Self {
        let lasting =
            PrometheusBuilder::new().set_buckets(&BUCKETS).expect("BUCKETS is not empty").build_recorder();
        let expiring = PrometheusBuilder::new()
            .idle_timeout(MetricKindMask::COUNTER | MetricKindMask::HISTOGRAM, Some(settings.idle_expiry))
            .set_buckets_for_metric(Matcher::Suffix("_milliseconds".into()), &MILLISECONDS)
            .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_bytes".into()), &OCTETS))
            .expect("neither is empty")
            .build_recorder();
        lasting.describe_counter(
            REFUSED.into(),
            None,
            "Series not recorded because there are too many.".into(),
        );
        let metadata = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));
        let refused = lasting.register_counter(&Key::from_static_name(REFUSED), &metadata);
        Self { lasting, expiring, held: Held::new(settings), refused }
    }

    /// Removes what has expired and writes out the rest.
    pub(super) fn render(&self) -> String {
        // The exporter ends series while it renders: those that are held change just before.
        self.held.touch(Instant::now());
        by_name(&(self.expiring.handle().render() + &self.lasting.handle().render()))
    }

    /// Does what rendering does to the values, for when nobody asks for them.
    pub(super) fn keep_up(&self) {
        self.held.touch(Instant::now());
        let _infallible = self.expiring.handle().render_to_write(&mut io::sink());
        self.lasting.handle().run_upkeep();
    }
}

/// Puts the families, each of which ends with an empty line, in order.
fn by_name(text: &str) -> String {
    let mut families: Vec<_> = text.split_terminator("\n\n").collect();
    // "# HELP name .." or "# TYPE name ..".
    families.sort_unstable_by_key(|family| family.split(' ').nth(2));
    families.iter().flat_map(|family| [family, "\n"]).collect()
}

impl Facade for Recorder {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        if expires(name.as_str()) {
            self.expiring.describe_counter(name, unit, help);
        } else {
            self.lasting.describe_counter(name, unit, help);
        }
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.lasting.describe_gauge(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        let recorder = if histogram_expires(name.as_str()) { &self.expiring } else { &self.lasting };
        recorder.describe_histogram(name, unit, help);
    }

    fn register_counter(&self, key: &Key, metadata: &Metadata<'_>) -> Counter {
        let key = escaped(key);
        if !expires(key.name()) {
            return self.lasting.register_counter(&key, metadata);
        }
        let register = |key: &Key| self.expiring.register_counter(key, metadata);
        self.held.counter(&key, Instant::now(), register).unwrap_or_else(|| {
            self.refused.increment(1);
            Counter::noop()
        })
    }

    fn register_gauge(&self, key: &Key, metadata: &Metadata<'_>) -> Gauge {
        self.lasting.register_gauge(&escaped(key), metadata)
    }

    fn register_histogram(&self, key: &Key, metadata: &Metadata<'_>) -> Histogram {
        let key = escaped(key);
        if !histogram_expires(key.name()) {
            return self.lasting.register_histogram(&key, metadata);
        }
        if !self.held.has_room_for_histogram(&key, Instant::now()) {
            self.refused.increment(1);
            return Histogram::noop();
        }
        self.expiring.register_histogram(&key, metadata)
    }
}

fn expires(name: &str) -> bool {
    EXPIRING.iter().any(|prefix| name.starts_with(prefix))
}

/// Histograms end where nobody keeps their handles for long: those of requests.
fn histogram_expires(name: &str) -> bool {
    EXPIRING_HISTOGRAMS.iter().any(|prefix| name.starts_with(prefix))
}

/// The key with the backslashes of its values doubled. The exporter takes a backslash before another
/// or before a quote for one that escapes it already, and so would write different values alike.
fn escaped(key: &Key) -> Cow<'_, Key> {
    if !key.labels().any(|label| label.value().contains('\\')) {
        return Cow::Borrowed(key);
    }
    let escaped = |label: &Label| Label::new(label.key().to_owned(), label.value().replace('\\', "\\\\"));
    Cow::Owned(Key::from_parts(key.name_shared(), key.labels().map(escaped).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
