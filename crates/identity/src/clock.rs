//! The wall clock that certificates are measured with, and waiting by it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::sleep;

/// Waits are cut to this length, so that a step of the clock or a suspended machine is noticed.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Tells the time of day.
#[derive(Clone)]
pub struct WallClock(Arc<dyn Fn() -> SystemTime + Send + Sync>);

impl WallClock {
    /// A clock that reads `now`.
    pub fn new(now: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time of day.
    pub fn now(&self) -> SystemTime {
        (self.0)()
    }

    /// Returns when the clock has reached `at`.
    pub async fn reaches(&self, at: SystemTime) {
        while let Some(left) = at.duration_since(self.now()).ok().filter(|left| !left.is_zero()) {
            sleep(left.min(LOOK_AGAIN)).await;
        }
    }
}

impl Default for WallClock {
    /// The system's.
    fn default() -> Self {
        Self::new(SystemTime::now)
    }
}

impl fmt::Debug for WallClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WallClock").field(&self.now()).finish()
    }
}
