//! Endpoints that do not answer, as connections found out: others are taken first for a while.
//!
//! Control learns of a node that is lost when Kubernetes does, after most of a minute. Until then every
//! connection that meets one of its endpoints would wait, and be lost where its client waits less long.
//! What is kept here is only a preference: where no other endpoint is left, a suspect is taken all the same.
//!
//! Whether a suspect has come back is asked in the background, not with connections of clients. What is silent to one
//! client may answer another, where a NetworkPolicy says so: suspicions are kept for each client apart, a captured pod or
//! a waypoint, and none outlives [`SUSPECTED_FOR`].

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ambit_mesh::workload::WorkloadUid;
use metrics::{counter, describe_counter, describe_gauge, gauge};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// The suspects of one client, shared by the workers that serve it.
#[derive(Debug, Default)]
pub struct Suspects {
    held: Mutex<HashMap<WorkloadUid, Instant>>,
    /// How many, for those who ask whether there are any at all: each connection.
    count: AtomicUsize,
    /// There was no room for one more.
    is_full: AtomicBool,
}

/// What came of asking a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An answer, of whatever sort.
    Answered,
    /// Nothing.
    Silent,
    /// Nobody can ask any more.
    Nobody,
}

impl Suspects {
    /// An endpoint did not answer. Who is told of a suspicion that is new has to follow it up.
    pub fn note(self: &Arc<Self>, endpoint: &WorkloadUid) -> Option<Suspicion> {
        let mut held = self.held();
        if held.contains_key(endpoint) {
            return None;
        }
        if held.len() >= MAX_SUSPECTS {
            counter!(REFUSED).increment(1);
            if !self.is_full.swap(true, Ordering::Relaxed) {
                warn!(%endpoint, limit = MAX_SUSPECTS, "more endpoints are silent than can be remembered");
            }
            return None;
        }
        let since = Instant::now();
        held.insert(endpoint.clone(), since);
        self.count.store(held.len(), Ordering::Relaxed);
        gauge!(SUSPECTS).increment(1.0);
        info!(%endpoint, "an endpoint is silent, and others are taken first: is its node reachable?");
        Some(Suspicion { suspects: Arc::clone(self), endpoint: endpoint.clone(), since })
    }

    /// It did answer.
    pub fn clear(&self, endpoint: &WorkloadUid) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut held = self.held();
        if held.remove(endpoint).is_some() {
            self.removed(&held);
            info!(%endpoint, "an endpoint that was silent answers");
        }
    }

    /// Those of now.
    pub fn current(&self) -> Vec<WorkloadUid> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        self.held().keys().cloned().collect()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<WorkloadUid, Instant>> {
        // It is whole after every step.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn removed(&self, held: &HashMap<WorkloadUid, Instant>) {
        self.count.store(held.len(), Ordering::Relaxed);
        self.is_full.store(false, Ordering::Relaxed);
        gauge!(SUSPECTS).decrement(1.0);
    }
}

/// One endpoint under suspicion, until it answers, or this is dropped.
#[derive(Debug)]
pub struct Suspicion {
    suspects: Arc<Suspects>,
    endpoint: WorkloadUid,
    since: Instant,
}

impl Suspicion {
    /// Asks the endpoint until it answers, somebody else has heard of it, or the suspicion is too old. A question is
    /// given up after [`PATIENCE`].
    pub async fn follow_up<F: Future<Output = Asked>>(self, mut ask: impl FnMut() -> F) {
        while self.is_held() && self.since.elapsed() < SUSPECTED_FOR {
            match timeout(PATIENCE, ask()).await {
                Ok(Asked::Answered) => return self.suspects.clear(&self.endpoint),
                Ok(Asked::Nobody) => return,
                Ok(Asked::Silent) | Err(_) => sleep(BETWEEN).await,
            }
        }
    }

    /// Not where it was cleared; one that is suspected again is somebody else's to follow up.
    fn is_held(&self) -> bool {
        self.suspects.held().get(&self.endpoint) == Some(&self.since)
    }
}

impl Drop for Suspicion {
    fn drop(&mut self) {
        let mut held = self.suspects.held();
        if held.get(&self.endpoint) == Some(&self.since) {
            held.remove(&self.endpoint);
            self.suspects.removed(&held);
        }
    }
}

/// Says what the metric means.
pub(crate) fn describe() {
    describe_gauge!(
        SUSPECTS,
        "Endpoints that were silent to a client, so that others are taken first for it."
    );
    describe_counter!(REFUSED, "Endpoints that were silent and not remembered, because too many were.");
}

const SUSPECTS: &str = "ambit_suspected_endpoints";
const REFUSED: &str = "ambit_suspicions_refused_total";

/// The longest that others are taken first because of what one connection met. Kubernetes knows of a lost node before.
const SUSPECTED_FOR: Duration = Duration::from_secs(60);

/// How long one question waits: TCP has sent its SYN three times by then.
const PATIENCE: Duration = Duration::from_millis(3500);

/// The pause between two questions.
const BETWEEN: Duration = Duration::from_secs(1);

/// Every connection looks at all of them.
const MAX_SUSPECTS: usize = 256;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn uid(name: &str) -> WorkloadUid {
        WorkloadUid(name.into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspect_is_one_until_it_answers_a_question() {
        let suspects = Arc::<Suspects>::default();
        let suspicion = suspects.note(&uid("a")).unwrap();
        assert!(suspects.note(&uid("a")).is_none(), "it is followed up already");
        assert_eq!(suspects.current(), [uid("a")]);
        let start = Instant::now();
        let mut asked = 0;
        suspicion
            .follow_up(|| {
                asked += 1;
                ready(if asked == 3 { Asked::Answered } else { Asked::Silent })
            })
            .await;
        assert_eq!((asked, start.elapsed()), (3, BETWEEN * 2));
        assert!(suspects.current().is_empty());
        assert!(suspects.note(&uid("a")).is_some(), "it may be silent again");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_no_answer_and_no_suspicion_lasts() {
        let suspects = Arc::<Suspects>::default();
        let suspicion = suspects.note(&uid("a")).unwrap();
        let following = tokio::spawn(suspicion.follow_up(pending));
        sleep(SUSPECTED_FOR - Duration::from_secs(1)).await;
        assert_eq!(suspects.current(), [uid("a")]);
        following.await.unwrap();
        assert!(suspects.current().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_cleared_meanwhile_is_left_alone_also_when_it_is_suspected_again() {
        let suspects = Arc::<Suspects>::default();
        let first = tokio::spawn(suspects.note(&uid("a")).unwrap().follow_up(pending));
        sleep(BETWEEN).await;
        suspects.clear(&uid("a"));
        assert!(suspects.current().is_empty());
        let again = suspects.note(&uid("a")).unwrap();
        first.await.unwrap();
        assert_eq!(suspects.current(), [uid("a")]);
        drop(again);
        assert!(suspects.current().is_empty(), "nobody asks any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicion_of_which_nobody_can_ask_is_dropped() {
        let suspects = Arc::<Suspects>::default();
        suspects.note(&uid("a")).unwrap().follow_up(|| ready(Asked::Nobody)).await;
        assert!(suspects.current().is_empty());
    }

    #[tokio::test]
    async fn there_is_a_bound() {
        let suspects = Arc::<Suspects>::default();
        let held: Vec<_> =
            (0..=MAX_SUSPECTS).map_while(|index| suspects.note(&uid(&index.to_string()))).collect();
        assert_eq!(held.len(), MAX_SUSPECTS);
    }
}
