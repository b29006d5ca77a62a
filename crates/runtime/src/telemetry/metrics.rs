//! The metrics of this process, in Prometheus' text format.
//!
//! Code records through the `metrics` facade (`metrics::counter!`, `gauge!`, `histogram!`); this
//! module keeps the values and writes them out. It does so itself because a series here ends by a rule
//! of its own: a series of a family in [`EXPIRING`] is removed when it has not changed for
//! [`Settings::idle_expiry`] **and nobody holds a handle of it**. An exporter that looks at idleness
//! alone drops the series of a quiet long-lived connection, whose later bytes then count nowhere.
//!
//! For Prometheus, a removed series that comes back is a counter that was reset: `rate()` and
//! `increase()` stay right, the absolute value starts again at 0.

use std::sync::Arc;
use std::time::{Duration, Instant};

mod process;
mod registry;
mod render;

use registry::Registry;

/// Prefixes of the families whose series end: those with a series per pair of workloads. All others
/// have labels from closed sets and stay.
const EXPIRING: &[&str] = &["istio_tcp_"];

/// How the metrics are kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a series of a family in `EXPIRING` stays after its last change.
    pub idle_expiry: Duration,
    /// Series of one family; what comes beyond is not recorded, and counted in
    /// `ambit_metrics_series_refused_total`.
    pub max_series: usize,
}

impl Default for Settings {
    /// Ten minutes, and some 100 MB at most: a pair of workloads has five series of 800 octets each.
    fn default() -> Self {
        Self { idle_expiry: Duration::from_secs(600), max_series: 25_000 }
    }
}

/// Installs the metrics of this process, with `istio_build` for this component.
///
/// # Errors
/// When the process has them already.
pub fn install(component: &'static str, settings: Settings) -> Result<Metrics, InstallError> {
    let metrics = Metrics::new(settings);
    metrics::set_global_recorder(registry::Recorder(Arc::clone(&metrics.registry)))
        .map_err(|_| InstallError)?;
    process::describe(component);
    super::tcp::describe();
    Ok(metrics)
}

/// The metrics of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
}

impl Metrics {
    fn new(settings: Settings) -> Self {
        Self { registry: Arc::new(Registry::new(settings)) }
    }

    /// All of them in Prometheus' text format, version 0.0.4, families and series in order. It also
    /// removes what has expired.
    pub fn render(&self) -> String {
        process::update();
        self.registry.expire(Instant::now());
        self.registry.render()
    }
}

/// The process has metrics already.
#[derive(Debug, thiserror::Error)]
#[error("metrics are installed already: install them once per process")]
pub struct InstallError;

#[cfg(test)]
impl Metrics {
    /// Metrics of a test, apart from those of the process.
    pub(super) fn detached() -> Self {
        Self::new(Settings::default())
    }

    /// Records what `record` does on this thread.
    pub(super) fn record_here(&self, record: impl FnOnce()) {
        metrics::with_local_recorder(&registry::Recorder(Arc::clone(&self.registry)), record);
    }
}
