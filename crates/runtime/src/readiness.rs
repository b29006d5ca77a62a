//! Readiness: what a program still waits for before it can do its work.
//!
//! Each part registers before the program starts, says when it is ready, and may take it back. What
//! a program answers to a probe is in [`crate::admin`].

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The parts that a program waits for. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    parts: Arc<watch::Sender<BTreeMap<&'static str, State>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Ready,
}

impl Readiness {
    /// Adds a part, pending until its handle says otherwise. The name is what an operator reads.
    pub fn register(&self, name: &'static str) -> Ready {
        let ready = Ready { name, parts: Arc::clone(&self.parts) };
        ready.set(State::Pending);
        ready
    }

    /// What is not ready, in the order of its names. Empty means ready.
    pub fn pending(&self) -> Vec<&'static str> {
        pending(&self.parts.borrow())
    }

    /// Waits until nothing is pending.
    pub async fn ready(&self) {
        let mut parts = self.parts.subscribe();
        // It fails only when the sender is gone, and `self` holds it.
        let _always = parts.wait_for(|parts| pending(parts).is_empty()).await;
    }
}

/// The handle of one part. Dropping it changes nothing: a part whose task ended before it was ready
/// stays pending, so that a program which failed half-way never looks ready.
#[derive(Debug)]
#[must_use = "the part stays pending until `ready` is called"]
pub struct Ready {
    name: &'static str,
    parts: Arc<watch::Sender<BTreeMap<&'static str, State>>>,
}

impl Ready {
    /// The part works.
    pub fn ready(&self) {
        self.set(State::Ready);
    }

    /// The part does not work any more.
    pub fn unready(&self) {
        self.set(State::Pending);
    }

    fn set(&self, state: State) {
        self.parts.send_if_modified(|parts| parts.insert(self.name, state) != Some(state));
    }
}

fn pending(parts: &BTreeMap<&'static str, State>) -> Vec<&'static str> {
    parts.iter().filter(|(_, state)| **state == State::Pending).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_means_that_every_part_is() {
        let readiness = Readiness::default();
        readiness.ready().await;

        let (xds, proxies) = (readiness.register("xds"), readiness.register("proxies"));
        assert_eq!(readiness.pending(), ["proxies", "xds"]);
        xds.ready();
        assert_eq!(readiness.pending(), ["proxies"]);

        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.ready().await }
        });
        proxies.ready();
        waiting.await.unwrap();

        xds.unready();
        assert_eq!(readiness.pending(), ["xds"]);
    }

    #[test]
    fn a_part_that_was_dropped_half_way_stays_pending() {
        let readiness = Readiness::default();
        drop(readiness.register("listener"));
        assert_eq!(readiness.pending(), ["listener"]);
    }
}
