//! Time in microseconds since 1970 that never steps: the system's clock once, and the time since.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Set at the start of the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    started_us: u64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_us: micros(since_1970) }
    }

    pub(crate) fn now_us(self) -> u64 {
        self.started_us + micros(self.started.elapsed())
    }

    /// Tells processes apart that ran in the same pod.
    pub(crate) fn boot(self) -> u64 {
        self.started_us
    }
}

fn micros(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
