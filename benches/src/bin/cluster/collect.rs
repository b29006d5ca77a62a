//! What the load pods have recorded, brought together on the controller's clock.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use kube::Client;
use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::outcome::{Log, Outcome};
use crate::reach::{self, Member, Offset};
use crate::window::Seen;

/// Between two looks at what has been recorded.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Follows the records of some load pods from a moment on.
pub(crate) struct Collector {
    client: Client,
    clock: Clock,
    tails: Vec<Tail>,
    /// What a reader of the figures should know.
    notes: Vec<String>,
}

#[derive(Debug)]
struct Tail {
    pod: Member,
    offset: Offset,
    boot: u64,
    next: u64,
    peers: Vec<Arc<str>>,
    outcomes: Vec<Outcome>,
}

/// How long to watch after an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    pub(crate) at_least: Duration,
    /// Ends when nothing has failed for so long,
    pub(crate) quiet: Duration,
    /// or here.
    pub(crate) at_most: Duration,
}

impl Collector {
    /// Begins with what is recorded from now on.
    ///
    /// # Errors
    /// When a pod does not answer.
    pub(crate) async fn start(client: &Client, clock: Clock, pods: &[Member]) -> Result<Self> {
        let started = reach::with_each(client, pods, move |client, pod| async move {
            let offset = reach::offset(&client, &pod, clock).await?;
            // What is older than this run of the scenario is of no interest.
            let log: Log = reach::read(&client, &pod, &format!("/log?from={}", u64::MAX)).await?;
            Ok(Tail { pod, offset, boot: log.boot, next: log.first, peers: Vec::new(), outcomes: Vec::new() })
        });
        let tails = started.await.into_iter().collect::<Result<_>>()?;
        Ok(Self { client: client.clone(), clock, tails, notes: Vec::new() })
    }

    /// Fetches what is new. A pod that does not answer is asked again the next time.
    pub(crate) async fn fetch(&mut self) {
        let pods: Vec<Member> = self.tails.iter().map(|tail| tail.pod.clone()).collect();
        let positions: Vec<(Member, u64)> =
            self.tails.iter().map(|tail| (tail.pod.clone(), tail.next)).collect();
        let logs = reach::with_each(&self.client, &pods, move |client, pod| {
            let from = positions.iter().find(|(of, _)| *of == pod).map_or(0, |(_, next)| *next);
            async move { reach::read::<Log>(&client, &pod, &format!("/log?from={from}")).await }
        });
        for (tail, log) in self.tails.iter_mut().zip(logs.await) {
            let note = log.map_or_else(|error| Some(format!("{error:#}")), |log| tail.add(log));
            if let Some(note) = note.filter(|note| !self.notes.contains(note)) {
                self.notes.push(note);
            }
        }
    }

    /// Watches until it is quiet, counted from a moment of [`Clock`].
    pub(crate) async fn watch(&mut self, since_us: u64, watch: Watch) {
        let ends = |us: u64, time: Duration| us + time.as_micros() as u64;
        loop {
            self.fetch().await;
            let now_us = self.clock.now_us();
            let last = self.last_failure_us().unwrap_or(since_us);
            let is_quiet = now_us >= ends(last, watch.quiet) && now_us >= ends(since_us, watch.at_least);
            if is_quiet || now_us >= ends(since_us, watch.at_most) {
                return;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether nothing fails for a while, within a time.
    pub(crate) async fn settle(&mut self, quiet: Duration, at_most: Duration) -> bool {
        let from = Instant::now();
        let from_us = self.clock.now_us();
        loop {
            self.fetch().await;
            let last = self.last_failure_us().unwrap_or(0).max(from_us);
            if self.clock.now_us() >= last + quiet.as_micros() as u64 {
                return true;
            }
            if from.elapsed() >= at_most {
                return false;
            }
            sleep(LOOK_EVERY).await;
        }
    }

    fn last_failure_us(&self) -> Option<u64> {
        let of_one = |tail: &Tail| {
            let failed = tail.outcomes.iter().filter(|outcome| outcome.failure.is_some());
            failed.map(|outcome| tail.offset.ours(outcome.ended_us())).max()
        };
        self.tails.iter().filter_map(of_one).max()
    }

    /// All that was recorded, with times relative to a moment of [`Clock`].
    pub(crate) fn seen(&self, from_us: u64) -> Vec<Seen> {
        let relative = |us: u64| (us as f64 - from_us as f64) / 1e3;
        let of_one = |(client, tail): (usize, &Tail)| {
            let seen = |outcome: &Outcome| Seen {
                client,
                began_ms: relative(tail.offset.ours(outcome.began_us)),
                ended_ms: relative(tail.offset.ours(outcome.ended_us())),
                kind: outcome.kind,
                failure: outcome.failure,
                peer: outcome.peer.and_then(|peer| tail.peers.get(usize::from(peer)).cloned()),
            };
            tail.outcomes.iter().map(seen).collect::<Vec<_>>()
        };
        self.tails.iter().enumerate().flat_map(of_one).collect()
    }

    /// How far the pods' clocks may be from ours, after correction, at most.
    pub(crate) fn uncertain_ms(&self) -> f64 {
        self.tails.iter().map(|tail| tail.offset.uncertain_us).max().unwrap_or(0) as f64 / 1e3
    }

    /// What went wrong with the records themselves.
    pub(crate) fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}

impl Tail {
    /// Takes a part in; says what is missing.
    fn add(&mut self, log: Log) -> Option<String> {
        if log.boot != self.boot {
            // It was asked for the numbers of its predecessor; its own begin at 0.
            self.boot = log.boot;
            self.next = 0;
            return Some(format!("{} has started again: some of what it recorded is lost", self.pod.name));
        }
        let dropped = log.first.saturating_sub(self.next);
        self.next = log.first + log.outcomes.len() as u64;
        self.peers = log.peers.into_iter().map(Arc::from).collect();
        self.outcomes.extend(log.outcomes);
        (dropped > 0).then(|| format!("{} has dropped {dropped} records", self.pod.name))
    }
}
