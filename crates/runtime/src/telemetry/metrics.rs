//! The metrics of this process, in Prometheus' text format.
//!
//! Code records through the `metrics` facade (`metrics::counter!`, `gauge!`, `histogram!`);
//! `metrics-exporter-prometheus` keeps the values and writes them out. What is added here is when a
//! series ends: a counter of a family in `EXPIRING` is removed when it has not changed for
//! [`Settings::idle_expiry`] **and nobody holds a handle of it** (docs/adr/005).
//!
//! For Prometheus, a removed series that comes back is a counter that was reset: the value starts
//! again at 0, and `rate()` and `increase()` allow for it. They cannot see a step from nothing to the
//! first value of a series, so whoever records something large and late takes its handle early, and
//! the series is there at 0 until then.

use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

mod held;
mod process;
mod recorder;

use recorder::Recorder;

/// Prefixes of the families of counters whose series end: those with a series per pair of workloads.
/// All others have labels from closed sets and stay.
const EXPIRING: &[&str] = &["istio_tcp_", "istio_request", "istio_response_"];

/// The same of histograms.
const EXPIRING_HISTOGRAMS: &[&str] = &["istio_request", "istio_response_"];

/// How often series end and samples of histograms are summed up when nobody reads the metrics.
const UPKEEP: Duration = Duration::from_secs(30);

/// How the metrics are kept.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a series of a family in `EXPIRING` stays after its last change.
    pub idle_expiry: Duration,
    /// Series of the families in `EXPIRING` together, and as many histograms; what comes beyond is not recorded, and counted
    /// in `ambit_metrics_series_refused_total`.
    pub max_series: usize,
}

impl Default for Settings {
    /// Ten minutes, and room for 5000 pairs of workloads. That is some 30 MB at most, and 100 MB while
    /// they are read: a pair has four series of 1.5 kB, and the exporter copies all labels to render.
    fn default() -> Self {
        Self { idle_expiry: Duration::from_secs(600), max_series: 20_000 }
    }
}

/// Installs the metrics of this process, with `istio_build` for this component.
///
/// # Errors
/// When the process has them already, or can have no more threads.
pub fn install(component: &'static str, settings: Settings) -> Result<Metrics, InstallError> {
    let metrics = Metrics::new(settings);
    metrics::set_global_recorder(Arc::clone(&metrics.recorder)).map_err(|_| InstallError::Twice)?;
    process::describe(component);
    super::tcp::describe();
    super::http::describe();
    crate::suspects::describe();
    let recorder = Arc::clone(&metrics.recorder);
    thread::Builder::new().name("metrics".into()).spawn(move || keep_up(&recorder))?;
    Ok(metrics)
}

/// Runs for as long as the process lives, as its recorder does.
fn keep_up(recorder: &Recorder) {
    loop {
        thread::sleep(UPKEEP);
        recorder.keep_up();
    }
}

/// The metrics of this process. Clones share them.
#[derive(Clone, Debug)]
pub struct Metrics {
    recorder: Arc<Recorder>,
}

impl Metrics {
    fn new(settings: Settings) -> Self {
        Self { recorder: Arc::new(Recorder::new(settings)) }
    }

    /// All of them in Prometheus' text format, version 0.0.4: families by name, the series of one in
    /// no order. It also removes what has expired.
    pub fn render(&self) -> String {
        process::update();
        self.recorder.render()
    }
}

/// Why metrics could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The process has metrics.
    #[error("metrics are installed already: install them once per process")]
    Twice,
    /// No thread could be started.
    #[error("cannot start the thread that keeps up the metrics: check the limit of tasks")]
    Thread(#[from] io::Error),
}

#[cfg(test)]
impl Metrics {
    /// Metrics of a test, apart from those of the process.
    pub(super) fn detached(settings: Settings) -> Self {
        Self::new(settings)
    }

    /// Records what `record` does on this thread.
    pub(super) fn record_here<T>(&self, record: impl FnOnce() -> T) -> T {
        metrics::with_local_recorder(&self.recorder, record)
    }
}
