//! Waiting for what another process will do.
//!
//! The one place of the harness that sleeps: between two looks at something that offers no event
//! of its own, such as a listening socket of another process. What it waits for is always stated.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// How long a step may take that is expected to take milliseconds, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(20);

const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// Looks until `probe` answers, and returns its answer and how long that took.
///
/// # Errors
/// When `within` is over: what was waited for, and the last answer of `probe`.
pub fn until<T>(
    what: impl Display,
    within: Duration,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(answer) => return Ok((answer, start.elapsed())),
            Err(reason) if start.elapsed() >= within => {
                return Err(anyhow!("waited {within:?} for {what}: {reason:#}"));
            }
            Err(_) => thread::sleep(BETWEEN_LOOKS),
        }
    }
}

/// The same for a probe that itself waits for answers.
///
/// # Errors
/// When `within` is over: what was waited for, and the last answer of `probe`.
pub async fn until_answered<T>(
    what: impl Display,
    within: Duration,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<(T, Duration)> {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(answer) => return Ok((answer, start.elapsed())),
            Err(reason) if start.elapsed() >= within => {
                return Err(anyhow!("waited {within:?} for {what}: {reason:#}"));
            }
            Err(_) => tokio::time::sleep(BETWEEN_LOOKS).await,
        }
    }
}

/// Looks until `probe` is true.
///
/// # Errors
/// When `within` is over.
pub fn until_true(what: impl Display, within: Duration, mut probe: impl FnMut() -> bool) -> Result<Duration> {
    until(what, within, || if probe() { Ok(()) } else { Err(anyhow!("not so far")) }).map(|(_, took)| took)
}

/// Waits for the next of moments that are `apart`, for work at a steady rate. Who is late does not hurry
/// to make up for it.
pub fn pace(next: &mut Instant, apart: Duration) {
    let now = Instant::now();
    if let Some(rest) = next.checked_duration_since(now) {
        thread::sleep(rest);
    }
    *next = (*next).max(now) + apart;
}

/// Sees to it that `holds` is true at every look for a whole span, for claims of the form "never".
///
/// # Errors
/// As soon as it is not: what was claimed, and after which time it failed.
pub fn throughout(what: impl Display, span: Duration, mut holds: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < span {
        if let Err(reason) = holds() {
            return Err(anyhow!("{what} failed after {:?}: {reason:#}", start.elapsed()));
        }
        thread::sleep(BETWEEN_LOOKS);
    }
    Ok(())
}
