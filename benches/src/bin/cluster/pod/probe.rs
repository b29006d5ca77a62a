//! Repeats a request until it is answered, or until it is refused, and remembers since when.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::http1;
use crate::clock::Clock;
use crate::outcome::{Failure, Probed};

/// One attempt may not take longer.
const ATTEMPT: Duration = Duration::from_secs(1);
/// No probe runs longer than this, whatever became of the controller.
const LIMIT: Duration = Duration::from_secs(180);

/// What a probe waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// One answer.
    Answer,
    /// Refusals from some moment on: two without an answer between them. A timeout is none, since a busy
    /// node looks the same.
    Refusal,
}

impl FromStr for Want {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "answer" => Ok(Self::Answer),
            "refusal" => Ok(Self::Refusal),
            _ => Err(()),
        }
    }
}

/// The probes of a pod, of the latest order.
#[derive(Debug)]
pub(super) struct Probes {
    clock: Clock,
    running: Mutex<Running>,
}

#[derive(Debug, Default)]
struct Running {
    tasks: JoinSet<()>,
    results: Vec<Arc<Mutex<Probed>>>,
}

impl Probes {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, running: Mutex::default() }
    }

    /// Ends those that run, and begins one for each target.
    pub(super) fn start(&self, targets: &[SocketAddr], want: Want, every: Duration) {
        let mut running = lock(&self.running);
        // Those of the order before end with their set.
        *running = Running::default();
        for target in targets {
            let probed = Probed { target: target.to_string(), held_us: None, attempts: 0, failure: None };
            let probed = Arc::new(Mutex::new(probed));
            running.results.push(Arc::clone(&probed));
            running.tasks.spawn(probe(self.clock, *target, want, every, probed));
        }
    }

    pub(super) fn results(&self) -> Vec<Probed> {
        lock(&self.running).results.iter().map(|probed| lock(probed).clone()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Whoever panicked while it held the lock left whole values.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn probe(clock: Clock, target: SocketAddr, want: Want, every: Duration, probed: Arc<Mutex<Probed>>) {
    let end = Instant::now() + LIMIT;
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut progress = Progress::new(want);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(end) => return,
        }
        let began_us = clock.now_us();
        let failure = attempt(target).await.err();
        let held_us = progress.attempted(began_us, clock.now_us(), failure);
        let mut probed = lock(&probed);
        probed.attempts += 1;
        probed.failure = failure.or(probed.failure);
        probed.held_us = held_us;
        if held_us.is_some() {
            return;
        }
    }
}

async fn attempt(target: SocketAddr) -> Result<(), Failure> {
    let asked = async {
        let mut stream = TcpStream::connect(target).await.map_err(|error| http1::classify(&error))?;
        http1::ask(&mut stream, &mut Vec::new(), false).await.map(drop)
    };
    timeout(ATTEMPT, asked).await.unwrap_or(Err(Failure::TimedOut))
}

/// Whether what is wanted has been seen.
#[derive(Clone, Copy, Debug)]
struct Progress {
    want: Want,
    refused_us: Option<u64>,
}

impl Progress {
    fn new(want: Want) -> Self {
        Self { want, refused_us: None }
    }

    /// Since when it holds, if it does.
    fn attempted(&mut self, began_us: u64, ended_us: u64, failure: Option<Failure>) -> Option<u64> {
        match (self.want, failure) {
            (Want::Answer, None) => Some(ended_us),
            (Want::Answer, Some(_)) | (Want::Refusal, Some(Failure::TimedOut)) => None,
            (Want::Refusal, None) => {
                self.refused_us = None;
                None
            }
            (Want::Refusal, Some(_)) => {
                let before = self.refused_us;
                self.refused_us = before.or(Some(began_us));
                before
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_holds_from_its_end_on() {
        let mut progress = Progress::new(Want::Answer);
        assert_eq!(progress.attempted(1, 2, Some(Failure::Reset)), None);
        assert_eq!(progress.attempted(3, 4, None), Some(4));
    }

    #[test]
    fn one_refusal_between_answers_is_none() {
        let mut progress = Progress::new(Want::Refusal);
        for (began, failure, held) in [
            (1, Some(Failure::Reset), None),
            (2, None, None),
            (3, Some(Failure::Closed), None),
            (4, Some(Failure::TimedOut), None),
            (5, Some(Failure::Reset), Some(3)),
        ] {
            assert_eq!(progress.attempted(began, began + 1, failure), held, "{began}");
        }
    }
}
