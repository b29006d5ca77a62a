//! What processes print: kept line by line, awaited, and shown when a scenario fails.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Everything one process printed, on both its outputs.
#[derive(Debug)]
pub struct Log {
    name: String,
    lines: Mutex<Vec<String>>,
    grew: Condvar,
}

/// Logs of every process of this sandbox, in the order they started.
static ALL: Mutex<Vec<Arc<Log>>> = Mutex::new(Vec::new());

impl Log {
    /// A new log, known to [`tails`].
    pub fn open(name: impl Into<String>) -> Arc<Self> {
        let log = Arc::new(Self { name: name.into(), lines: Mutex::default(), grew: Condvar::new() });
        lock(&ALL).push(Arc::clone(&log));
        log
    }

    /// Reads an output to its end on a thread of its own.
    pub fn follow(self: &Arc<Self>, output: impl Read + Send + 'static) {
        let log = Arc::clone(self);
        thread::spawn(move || {
            let mut reader = BufReader::new(output);
            let mut line = Vec::new();
            while matches!(reader.read_until(b'\n', &mut line), Ok(read) if read > 0) {
                log.push(String::from_utf8_lossy(&line).trim_end().to_owned());
                line.clear();
            }
        });
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    /// How many lines there are: a place from which to wait for the next ones.
    pub fn position(&self) -> usize {
        lock(&self.lines).len()
    }

    /// Waits for a line at or after `from` that `matches`.
    ///
    /// # Errors
    /// When none comes `within` the time.
    pub fn wait_from(&self, from: usize, within: Duration, matches: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + within;
        let mut seen = from;
        let mut lines = lock(&self.lines);
        loop {
            if let Some(line) = lines.iter().skip(seen).find(|line| matches(line)) {
                return Ok(line.clone());
            }
            seen = lines.len().max(from);
            let Some(left) = deadline.checked_duration_since(Instant::now()) else {
                bail!("{} printed no such line within {within:?}", self.name);
            };
            lines = self.grew.wait_timeout(lines, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn push(&self, line: String) {
        lock(&self.lines).push(line);
        self.grew.notify_all();
    }
}

/// The last lines of every log, for the report of a failure.
pub fn tails(lines: usize) -> String {
    tails_of("", lines)
}

/// The same of the logs whose names begin with `prefix`.
pub fn tails_of(prefix: &str, lines: usize) -> String {
    let mut report = String::new();
    for log in lock(&ALL).iter().filter(|log| log.name.starts_with(prefix)) {
        let all = lock(&log.lines);
        let skipped = all.len().saturating_sub(lines);
        report.push_str(&format!("--- {} ({} lines)\n", log.name, all.len()));
        for line in all.iter().skip(skipped) {
            report.push_str(line);
            report.push('\n');
        }
    }
    report
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_whether_it_came_before_or_comes_after() {
        let log = Log::open("example");
        log.push("ready".to_owned());
        assert_eq!(log.wait_from(0, Duration::ZERO, |line| line == "ready").unwrap(), "ready");
        let place = log.position();
        assert!(log.wait_from(place, Duration::ZERO, |line| line == "ready").is_err());
        log.follow(std::io::Cursor::new("again\nready\n"));
        assert_eq!(log.wait_from(place, Duration::from_secs(5), |line| line == "ready").unwrap(), "ready");
    }
}
