//! When to look at the node's processes. Pure: the time is passed in.
//!
//! At once when something has changed, then at growing intervals while pods are without a namespace,
//! and rarely when none is: a sandbox that was replaced must be noticed also where no CNI plugin
//! tells of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// When the next look is due.
#[derive(Debug)]
pub(super) struct Schedule {
    next: Instant,
    interval: Duration,
    /// The pods without a namespace, and how far control says they are.
    missing: BTreeMap<Arc<str>, Stage>,
    is_looking: bool,
}

/// How far a pod is that has no namespace so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It is scheduled; its processes are to come.
    Scheduled,
    /// It has an address, so it has a sandbox.
    Addressed,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self { next: now, interval: FIRST, missing: BTreeMap::new(), is_looking: false }
    }

    /// Says which pods are without a namespace. When these are others, or further, a look is due.
    pub(super) fn missing(&mut self, missing: BTreeMap<Arc<str>, Stage>, now: Instant) {
        let is_news = missing.iter().any(|(uid, stage)| self.missing.get(uid) != Some(stage));
        self.missing = missing;
        if is_news {
            self.hurry(now);
        }
    }

    /// Something has changed that a look would show.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.next = now;
        self.interval = FIRST;
    }

    /// Whether to look now. A look that was taken up must be [`done`](Self::done) before the next.
    pub(super) fn take_up(&mut self, now: Instant) -> bool {
        let is_due = !self.is_looking && self.next <= now;
        if is_due {
            self.is_looking = true;
            self.next = now + if self.missing.is_empty() { STEADY } else { self.interval };
            self.interval = (2 * self.interval).min(LONGEST);
        }
        is_due
    }

    /// A look is over.
    pub(super) fn done(&mut self) {
        self.is_looking = false;
    }
}

/// The first interval: a sandbox takes about a second from its pod's schedule to its process.
const FIRST: Duration = Duration::from_millis(500);

/// The longest interval while pods are without a namespace.
const LONGEST: Duration = Duration::from_secs(8);

/// The interval while none is.
const STEADY: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    /// When looks are taken up within a minute, in milliseconds, if each is over at once.
    fn looks(schedule: &mut Schedule, start: Instant) -> Vec<u64> {
        let mut looks = Vec::new();
        for millis in (0..60_000).step_by(100) {
            if schedule.take_up(start + Duration::from_millis(millis)) {
                looks.push(millis);
                schedule.done();
            }
        }
        looks
    }

    fn missing(stage: Stage) -> BTreeMap<Arc<str>, Stage> {
        [("a".into(), stage)].into()
    }

    #[test]
    fn a_pod_is_looked_for_at_growing_intervals_and_nothing_in_particular_rarely() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        assert_eq!(looks(&mut schedule, start), [0, 15_000, 30_000, 45_000]);
        let later = start + Duration::from_secs(60);
        schedule.missing(missing(Stage::Scheduled), later);
        let expected = [0, 500, 1500, 3500, 7500, 15_500, 23_500, 31_500, 39_500, 47_500, 55_500];
        assert_eq!(looks(&mut schedule, later), expected);
    }

    #[test]
    fn news_of_a_pod_bring_a_look_forward_and_the_same_again_does_not() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        schedule.missing(missing(Stage::Scheduled), start);
        looks(&mut schedule, start);
        let later = start + Duration::from_secs(60);
        schedule.missing(missing(Stage::Scheduled), later);
        assert!(!schedule.take_up(later));
        schedule.missing(missing(Stage::Addressed), later);
        assert!(schedule.take_up(later));
    }

    #[test]
    fn looks_do_not_overlap() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        assert!(schedule.take_up(start));
        schedule.hurry(start);
        assert!(!schedule.take_up(start), "one is under way");
        schedule.done();
        assert!(schedule.take_up(start), "and the next follows it");
    }
}
