//! Draining: telling many tasks that the program, or a part of it, ends, and waiting until they
//! have ended.
//!
//! ```text
//! Running --drain(timeout)--> Draining { deadline } --deadline--> Forced
//! ```
//!
//! A task holds a [`DrainWatch`] for as long as it has work in flight and drops it when done. While
//! draining it takes no new work and finishes what it has; when forced it ends at once. What
//! starts a drain is not decided here: see [`crate::shutdown`].

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// How long tasks get to write their last line after the deadline, before the trigger gives up on
/// them. They have been told to end at once, so this is time to run, not time to finish.
const FORCED_GRACE: Duration = Duration::from_secs(1);

/// Makes a trigger and its first watch; tasks get clones of the watch.
pub fn channel() -> (DrainTrigger, DrainWatch) {
    let (sender, receiver) = watch::channel(Phase::Running);
    (DrainTrigger { phase: sender }, DrainWatch { phase: receiver })
}

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    Draining { deadline: Instant },
    Forced,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every watch was dropped in time: nothing was cut off.
    Complete,
    /// The deadline passed first: what was left has been cut off.
    Forced,
}

/// The side that starts a drain. Dropping it without [`drain`](Self::drain) forces the end of
/// everything that watches, since nobody is left who could ask for it.
#[derive(Debug)]
pub struct DrainTrigger {
    phase: watch::Sender<Phase>,
}

impl DrainTrigger {
    /// Starts draining, and returns when every watch is dropped or shortly after `within` has passed.
    pub async fn drain(self, within: Duration) -> Drained {
        self.phase.send_replace(Phase::Draining { deadline: Instant::now() + within });
        if timeout(within, self.phase.closed()).await.is_ok() {
            return Drained::Complete;
        }
        self.phase.send_replace(Phase::Forced);
        // Whether or not the rest ended within the grace, something was cut off.
        let _ended = timeout(FORCED_GRACE, self.phase.closed()).await;
        Drained::Forced
    }
}

/// The side of a task with work in flight. The drain is complete only when every clone is dropped.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    phase: watch::Receiver<Phase>,
}

impl DrainWatch {
    /// Waits until no new work may be taken; returns when work in flight must have ended.
    pub async fn draining(&mut self) -> Instant {
        match self.phase.wait_for(|phase| *phase != Phase::Running).await.as_deref() {
            Ok(Phase::Draining { deadline }) => *deadline,
            Ok(Phase::Running | Phase::Forced) | Err(_) => Instant::now(),
        }
    }

    /// Waits until work in flight must end at once.
    pub async fn forced(&mut self) {
        // An error means that the trigger is gone, which forces the end as well.
        let _forced_or_gone = self.phase.wait_for(|phase| *phase == Phase::Forced).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITHIN: Duration = Duration::from_secs(25);

    #[tokio::test(start_paused = true)]
    async fn a_drain_completes_when_the_last_watch_is_dropped() {
        let (trigger, watch) = channel();
        let mut clone = watch.clone();
        let task = tokio::spawn(async move { clone.draining().await });
        drop(watch);
        let start = Instant::now();
        assert_eq!(trigger.drain(WITHIN).await, Drained::Complete);
        assert_eq!(start.elapsed(), Duration::ZERO);
        assert_eq!(task.await.unwrap() - start, WITHIN);
    }

    #[tokio::test(start_paused = true)]
    async fn what_outlives_the_deadline_is_forced() {
        let (trigger, mut watch) = channel();
        let start = Instant::now();
        let task = tokio::spawn(async move {
            let deadline = watch.draining().await;
            watch.forced().await;
            (deadline, Instant::now())
        });
        assert_eq!(trigger.drain(WITHIN).await, Drained::Forced);
        let (deadline, forced_at) = task.await.unwrap();
        assert_eq!(deadline - start, WITHIN);
        assert!(forced_at >= deadline);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ignores_the_force_delays_the_end_by_the_grace_alone() {
        let (trigger, _watch) = channel();
        let start = Instant::now();
        assert_eq!(trigger.drain(WITHIN).await, Drained::Forced);
        assert_eq!(start.elapsed(), WITHIN + FORCED_GRACE);
    }

    #[tokio::test]
    async fn a_dropped_trigger_forces_the_end() {
        let (trigger, mut watch) = channel();
        drop(trigger);
        watch.draining().await;
        watch.forced().await;
    }
}
