//! Log output: where lines go, how they look and which are written.
//!
//! Lines go to standard output through a bounded queue and a thread, so that a reader who is slow or
//! has stopped never holds up a worker: then lines are dropped, counted in
//! `ambit_log_lines_dropped_total` and reported in the log itself. The access log's line is
//! [`super::access_log`]'s.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry};

mod levels;
mod queue;
mod text;

pub use levels::{InvalidLevel, Levels};
use queue::{Lines, Queue};

use crate::config::LogFormat;

/// Octets of log lines that wait to be written before lines are dropped.
const QUEUE_OCTETS: usize = 4 << 20;

/// Installs the log of this process.
///
/// # Errors
/// When the process has one already, or no thread can be started.
pub fn install(format: LogFormat, levels: Levels) -> Result<Logging, InstallError> {
    let queue = Arc::new(Queue::new(QUEUE_OCTETS));
    let (control, filter) = LogControl::detached(levels);
    tracing_subscriber::registry().with(layer(format, Arc::clone(&queue)).with_filter(filter)).try_init()?;
    let writer = Arc::clone(&queue);
    std::thread::Builder::new().name("log".into()).spawn(move || writer.write_to(io::stdout()))?;
    Ok(Logging { control, queue })
}

fn layer<S>(format: LogFormat, queue: Arc<Queue>) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(Lines(queue));
    match format {
        LogFormat::Text => lines.fmt_fields(text::TextFields).boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    }
}

/// The installed log. Keep it until the end of the program, then [`flush`](Self::flush).
#[derive(Debug)]
pub struct Logging {
    control: LogControl,
    queue: Arc<Queue>,
}

impl Logging {
    /// The handle that changes levels.
    pub fn control(&self) -> &LogControl {
        &self.control
    }

    /// Waits until what was logged is written, but no longer than `within`. It blocks the thread: the
    /// last thing a program does.
    pub fn flush(&self, within: Duration) {
        self.queue.flush(within);
    }
}

/// Changes what is logged while the program runs.
#[derive(Clone, Debug)]
pub struct LogControl {
    initial: Levels,
    current: Arc<std::sync::Mutex<Levels>>,
    filter: reload::Handle<Targets, Registry>,
}

impl LogControl {
    /// A control and the filter that it controls.
    pub(crate) fn detached(levels: Levels) -> (Self, reload::Layer<Targets, Registry>) {
        let (layer, filter) = reload::Layer::new(levels.to_targets());
        let current = Arc::new(std::sync::Mutex::new(levels.clone()));
        (Self { initial: levels, current, filter }, layer)
    }

    /// The levels that the program started with.
    pub fn initial(&self) -> &Levels {
        &self.initial
    }

    /// The levels now.
    pub fn levels(&self) -> Levels {
        self.lock().clone()
    }

    /// Changes the levels.
    pub fn set(&self, levels: Levels) {
        let mut current = self.lock();
        // It fails only when the subscriber is gone, and then there is nothing to filter.
        let _gone = self.filter.reload(levels.to_targets());
        *current = levels;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Levels> {
        self.current.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The log could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// There is one already.
    #[error("a log is installed already: install it once per process")]
    Installed(#[from] TryInitError),
    /// The thread that writes could not be started.
    #[error("cannot start the thread that writes the log: {0}: check the limits on processes and memory")]
    Thread(#[from] io::Error),
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use tracing::Level;

    use super::*;

    /// What `log` writes in this format and at these levels.
    fn written(format: LogFormat, levels: &str, log: impl FnOnce(&LogControl)) -> String {
        let queue = Arc::new(Queue::new(QUEUE_OCTETS));
        let (control, filter) = LogControl::detached(levels.parse().unwrap());
        let subscriber =
            tracing_subscriber::registry().with(layer(format, Arc::clone(&queue)).with_filter(filter));
        tracing::subscriber::with_default(subscriber, || log(&control));
        queue.waiting()
    }

    #[test]
    fn json_lines_are_flat_objects() {
        let text = written(LogFormat::Json, "info", |_| {
            tracing::event!(target: "access", Level::INFO, src.addr = "10.0.0.1:80", bytes_sent = 5_u64, "connection complete");
        });
        let line: Value = serde_json::from_str(&text).unwrap();
        assert!(line["timestamp"].is_string(), "{text}");
        for (key, value) in [
            ("level", "INFO".into()),
            ("target", "access".into()),
            ("message", "connection complete".into()),
            ("src.addr", "10.0.0.1:80".into()),
            ("bytes_sent", Value::from(5)),
        ] {
            assert_eq!(line[key], value, "{text}");
        }
    }

    #[test]
    fn lines_of_text_name_their_fields_and_speak_to_no_terminal() {
        let text = written(LogFormat::Text, "info", |_| {
            let forged = "a\u{1b}[2J\nb";
            let cause = io::Error::other("disk full");
            let error = InstallError::from(cause);
            tracing::info!(
                plain = "/a b?c=d", quoted = "say \"hi\"", forged, number = 5_u64, absent = None::<u64>, shown = %"x y",
                debugged = ?"x y", error = &error as &dyn std::error::Error, r#type = "t", "lost {forged}"
            );
        });
        let (_, line) = text.split_once("INFO").unwrap();
        let (_, fields) = line.split_once(": ").unwrap();
        assert_eq!(
            fields,
            "lost a\\u{1b}[2J\nb plain=\"/a b?c=d\" quoted=\"say \\\"hi\\\"\" forged=\"a\\u{1b}[2J\\nb\" number=5 shown=x y \
             debugged=\"x y\" error=cannot start the thread that writes the log: disk full: check the limits on \
             processes and memory: disk full type=\"t\"\n"
        );
    }

    #[test]
    fn a_changed_level_counts_from_the_next_line_on() {
        let text = written(LogFormat::Text, "info,access=off", |control| {
            for turn in 0..2 {
                tracing::debug!(turn, "detail");
                tracing::info!(target: "access", turn, "connection complete");
                control.set("debug".parse().unwrap());
            }
        });
        assert!(!text.contains("turn=0"), "{text}");
        assert_eq!(text.matches("turn=1").count(), 2, "{text}");
    }
}
