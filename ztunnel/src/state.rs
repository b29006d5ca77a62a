//! The mesh as the data path sees it: one immutable snapshot, replaced whole.
//!
//! Readers load it without waiting for the writer. Until the first full snapshot there is none, and
//! whoever needs one waits.

use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::snapshot::Snapshot;
use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// The reading side, for every worker.
#[derive(Clone)]
pub struct SnapshotReader {
    current: Arc<ArcSwapOption<Snapshot>>,
    versions: watch::Receiver<u64>,
}

/// The writing side: one owner.
pub struct SnapshotWriter {
    current: Arc<ArcSwapOption<Snapshot>>,
    versions: watch::Sender<u64>,
    /// Snapshots that were replaced and that a reader may still hold. They are freed here: to free
    /// a mesh of 100,000 workloads takes longer than a worker may pause.
    replaced: Vec<Arc<Snapshot>>,
}

/// A store without a snapshot.
pub fn store() -> (SnapshotWriter, SnapshotReader) {
    let current = Arc::new(ArcSwapOption::empty());
    let (sender, receiver) = watch::channel(0);
    let reader = SnapshotReader { current: Arc::clone(&current), versions: receiver };
    (SnapshotWriter { current, versions: sender, replaced: Vec::new() }, reader)
}

impl SnapshotWriter {
    /// Makes `snapshot` what every reader loads from now on.
    pub fn publish(&mut self, snapshot: Arc<Snapshot>) {
        self.replaced.extend(self.current.swap(Some(snapshot)));
        self.versions.send_modify(|version| *version += 1);
        self.free_replaced();
    }

    /// Frees those replaced snapshots that no reader holds any more. Returns whether there are others.
    pub fn free_replaced(&mut self) -> bool {
        // None is handed out any more, so that a count of one stays one.
        self.replaced.retain(|snapshot| Arc::strong_count(snapshot) > 1);
        !self.replaced.is_empty()
    }
}

impl SnapshotReader {
    /// The current snapshot; `None` before the first.
    pub fn load(&self) -> Option<Arc<Snapshot>> {
        self.current.load_full()
    }

    /// The first snapshot for which `found` gives a value, and that value; `None` if there is none
    /// within `limit`.
    pub async fn wait_for<T>(
        &self,
        limit: Duration,
        mut found: impl FnMut(&Snapshot) -> Option<T>,
    ) -> Option<(Arc<Snapshot>, T)> {
        // The common case takes no part in the notifications, which all workers share.
        if let Some(snapshot) = self.load()
            && let Some(value) = found(&snapshot)
        {
            return Some((snapshot, value));
        }
        let deadline = Instant::now() + limit;
        let mut versions = self.versions.clone();
        loop {
            versions.mark_unchanged();
            if let Some(snapshot) = self.load()
                && let Some(value) = found(&snapshot)
            {
                return Some((snapshot, value));
            }
            // The writer is gone, or time is up.
            timeout_at(deadline, versions.changed()).await.ok()?.ok()?;
        }
    }

    /// Waits for the next snapshot. `false` when there will be none.
    pub async fn changed(&mut self) -> bool {
        self.versions.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope};
    use ambit_mesh::snapshot::{Change, State};

    use super::*;

    #[tokio::test]
    async fn a_replaced_snapshot_is_freed_by_the_writer_when_no_reader_holds_it() {
        let (mut writer, reader) = store();
        let first = Arc::new(Snapshot::default());
        let freed = Arc::downgrade(&first);
        writer.publish(first);
        let held = reader.load();
        writer.publish(Arc::new(Snapshot::default()));
        assert!(writer.free_replaced(), "a reader holds it");
        drop(held);
        assert!(freed.upgrade().is_some(), "the reader has not freed it");
        assert!(!writer.free_replaced());
        assert!(freed.upgrade().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_read_before_the_first_snapshot() {
        let (mut writer, reader) = store();
        assert!(reader.load().is_none());
        assert!(reader.wait_for(Duration::from_secs(5), |_| Some(())).await.is_none());
        writer.publish(State::default().snapshot());
        assert!(reader.wait_for(Duration::ZERO, |_| Some(())).await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_reader_sees_the_snapshot_that_has_what_it_needs() {
        let (mut writer, reader) = store();
        let waiting = reader.wait_for(Duration::from_secs(5), |snapshot| {
            let policies = snapshot.counts().policies;
            (policies >= 3).then_some(policies)
        });
        let publishing = async {
            let mut state = State::default();
            for number in 0..3 {
                state.apply([Change::Policy(Arc::new(policy(number)))]);
                writer.publish(state.snapshot());
                tokio::task::yield_now().await;
            }
        };
        let (found, ()) = tokio::join!(waiting, publishing);
        assert_eq!(found.map(|(_, policies)| policies), Some(3));
    }

    fn policy(number: usize) -> AuthorizationPolicy {
        AuthorizationPolicy {
            name: PolicyName { namespace: "shop".into(), name: format!("policy-{number}").into() },
            scope: PolicyScope::Namespace,
            action: Action::Deny,
            rules: Vec::new(),
            dry_run: false,
        }
    }
}
