//! What a gate does to requests, and what it remembers of them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

/// Whether requests pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// They do.
    #[default]
    Open,
    /// Connections are refused, and those that were open are cut.
    Refused,
    /// Nothing is answered, and what was being answered stalls.
    Hanging,
}

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// `GET` and so on.
    pub method: String,
    /// Without the query.
    pub path: String,
    /// As it was sent.
    pub query: String,
    /// The status of the answer.
    pub code: u16,
    /// Whether it came when its namespace was being deleted, in which nobody may create anything, or when what
    /// its sender may do was being taken away.
    pub comes_too_late: bool,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    pub(super) way: watch::Sender<Way>,
    /// Watches end when it changes.
    pub(super) cut: watch::Sender<()>,
    settings: Mutex<Settings>,
}

#[derive(Debug, Default)]
struct Settings {
    expiring: usize,
    throttled: usize,
    retry_after: u64,
    delay: Duration,
    hidden: Option<String>,
    is_dismissed: bool,
    passed: Vec<Passed>,
}

impl Faults {
    pub(super) fn set_expiring(&self, count: usize) {
        self.settings().expiring = count;
    }

    pub(super) fn set_throttled(&self, count: usize, retry_after: u64) {
        let mut settings = self.settings();
        (settings.throttled, settings.retry_after) = (count, retry_after);
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        self.settings().delay = delay;
    }

    pub(super) fn set_hidden(&self, group: Option<&str>) {
        self.settings().hidden = group.map(str::to_owned);
    }

    pub(super) fn hidden(&self) -> Option<String> {
        self.settings().hidden.clone()
    }

    pub(super) fn delay(&self) -> Duration {
        self.settings().delay
    }

    /// Whether this request is to be told to wait, and how long.
    pub(super) fn take_throttled(&self) -> Option<u64> {
        let mut settings = self.settings();
        settings.throttled = settings.throttled.checked_sub(1)?;
        Some(settings.retry_after)
    }

    /// Whether this request is to be told that its revision is gone.
    pub(super) fn take_expired(&self, query: &str) -> bool {
        let resumes = |option: &str| query.split('&').any(|pair| pair.starts_with(option));
        let mut settings = self.settings();
        if settings.expiring == 0 || !resumes("watch=") && !resumes("continue=") {
            return false;
        }
        settings.expiring -= 1;
        true
    }

    pub(super) fn dismiss(&self) {
        self.settings().is_dismissed = true;
    }

    pub(super) fn note(&self, mut passed: Passed) {
        let mut settings = self.settings();
        passed.comes_too_late |= settings.is_dismissed;
        settings.passed.push(passed);
    }

    pub(super) fn passed(&self) -> Vec<Passed> {
        self.settings().passed.clone()
    }

    fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
