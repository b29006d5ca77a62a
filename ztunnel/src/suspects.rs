//! Endpoints that do not answer, as connections found out: others are taken first for a while.
//!
//! Control learns of a node that is lost when Kubernetes does, after most of a minute. Until then every
//! connection that meets one of its endpoints would wait, and be lost where its client waits less long.
//! What is kept here is only a preference: where no other endpoint is left, a suspect is taken all the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use ambit_mesh::workload::WorkloadUid;
use tokio::time::Instant;

/// The suspects of one worker.
#[derive(Debug, Default)]
pub struct Suspects {
    until: RefCell<HashMap<WorkloadUid, Instant>>,
}

impl Suspects {
    /// An endpoint did not answer.
    pub fn note(&self, endpoint: &WorkloadUid) {
        self.until.borrow_mut().insert(endpoint.clone(), Instant::now() + SUSPECTED_FOR);
    }

    /// It did answer.
    pub fn clear(&self, endpoint: &WorkloadUid) {
        let mut until = self.until.borrow_mut();
        if !until.is_empty() {
            until.remove(endpoint);
        }
    }

    /// Those of now.
    pub fn current(&self) -> Vec<WorkloadUid> {
        let mut until = self.until.borrow_mut();
        if until.is_empty() {
            return Vec::new();
        }
        let now = Instant::now();
        until.retain(|_, until| *until > now);
        until.keys().cloned().collect()
    }
}

/// For so long others are taken first. Then one connection finds out again.
const SUSPECTED_FOR: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspect_is_one_for_a_while_or_until_it_answers() {
        let uid = |name: &str| WorkloadUid(name.into());
        let suspects = Suspects::default();
        suspects.note(&uid("a"));
        tokio::time::advance(SUSPECTED_FOR / 2).await;
        suspects.note(&uid("b"));
        suspects.note(&uid("c"));
        suspects.clear(&uid("c"));
        let mut current = suspects.current();
        current.sort();
        assert_eq!(current, [uid("a"), uid("b")]);
        tokio::time::advance(SUSPECTED_FOR / 2).await;
        assert_eq!(suspects.current(), [uid("b")]);
        tokio::time::advance(SUSPECTED_FOR).await;
        assert!(suspects.current().is_empty());
    }
}
