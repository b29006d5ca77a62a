//! All that a load pod remembers: the latest outcomes, numbered, and the names of who answered.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Clock;
use crate::outcome::{Failure, Kind, Log, Outcome};

/// So many outcomes are kept for a controller that does not fetch them. At 200 a second a pod, which is
/// more than the load has by default, it may stay away for a quarter of an hour.
const LIMIT: usize = 200_000;
/// In one part, so that an answer stays of some megabytes.
const PART: usize = 50_000;

/// Shared by all tasks of a load pod.
#[derive(Debug)]
pub(super) struct Recorder {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the first outcome that is still there.
    first: u64,
    outcomes: VecDeque<Outcome>,
    peers: Vec<String>,
    numbers: HashMap<String, u16>,
}

impl Recorder {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// The number of a pod that answered.
    pub(super) fn peer(&self, name: &str) -> Option<u16> {
        let mut state = self.state();
        if let Some(number) = state.numbers.get(name) {
            return Some(*number);
        }
        let number = u16::try_from(state.peers.len()).ok()?;
        state.peers.push(name.to_owned());
        state.numbers.insert(name.to_owned(), number);
        Some(number)
    }

    /// Records a request that ends now.
    pub(super) fn record(&self, began_us: u64, kind: Kind, failure: Option<Failure>, peer: Option<u16>) {
        let took_us = self.clock.now_us().saturating_sub(began_us);
        let mut state = self.state();
        state.outcomes.push_back(Outcome { began_us, took_us, kind, failure, peer });
        if state.outcomes.len() > LIMIT {
            state.outcomes.pop_front();
            state.first += 1;
        }
    }

    /// What was recorded from a number on. One that is not reached yet stands for the next one.
    pub(super) fn log(&self, from: u64) -> Log {
        let state = self.state();
        let first = from.clamp(state.first, state.first + state.outcomes.len() as u64);
        let skip = usize::try_from(first - state.first).unwrap_or(usize::MAX);
        let outcomes = state.outcomes.iter().skip(skip).take(PART).copied().collect();
        Log { boot: self.clock.boot(), first, peers: state.peers.clone(), outcomes }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A task that panicked while it held the lock left whole entries: none is made in two steps.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_that_comes_back_gets_what_is_new() {
        let recorder = Recorder::new(Clock::start());
        let began = recorder.clock().now_us();
        let peer = recorder.peer("server-1");
        assert_eq!(recorder.peer("server-1"), peer);
        recorder.record(began, Kind::New, None, peer);
        recorder.record(began, Kind::Open, Some(Failure::Reset), peer);
        let all = recorder.log(0);
        assert_eq!((all.first, all.outcomes.len(), all.peers), (0, 2, vec!["server-1".to_owned()]));
        let news = recorder.log(1);
        assert_eq!((news.first, news.outcomes[0].failure), (1, Some(Failure::Reset)));
        let nothing = recorder.log(u64::MAX);
        assert_eq!((nothing.first, nothing.outcomes.len()), (2, 0));
    }

    #[test]
    fn the_oldest_are_dropped_and_numbers_say_so() {
        let recorder = Recorder::new(Clock::start());
        for _ in 0..=LIMIT {
            recorder.record(0, Kind::New, None, None);
        }
        let log = recorder.log(0);
        assert_eq!((log.first, log.outcomes.len()), (1, PART));
    }
}
