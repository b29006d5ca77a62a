//! What the data path decides by: one immutable snapshot, replaced whole.
//!
//! Until control has sent everything once there is none, and whoever needs one waits.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ambit_mesh::http::WaypointSnapshot;
use arc_swap::ArcSwapOption;
use metrics::counter;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

/// The reading side, for every worker.
#[derive(Clone)]
pub struct SnapshotReader {
    current: Arc<ArcSwapOption<WaypointSnapshot>>,
    replaced: Arc<Mutex<Replaced>>,
    versions: watch::Receiver<u64>,
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader").field("versions", &self.versions).finish_non_exhaustive()
    }
}

/// The writing side: one owner.
pub struct SnapshotWriter {
    current: Arc<ArcSwapOption<WaypointSnapshot>>,
    replaced: Arc<Mutex<Replaced>>,
    versions: watch::Sender<u64>,
}

/// Snapshots that are in force no more, and since when; the newest comes last.
type Replaced = VecDeque<(Instant, Arc<WaypointSnapshot>)>;

/// So many are kept. They share what they have in common.
const MOST_REPLACED: usize = 1_024;

/// A store without a snapshot.
pub fn store() -> (SnapshotWriter, SnapshotReader) {
    let current = Arc::new(ArcSwapOption::empty());
    let (sender, receiver) = watch::channel(0);
    let replaced = Arc::default();
    let reader =
        SnapshotReader { current: Arc::clone(&current), replaced: Arc::clone(&replaced), versions: receiver };
    (SnapshotWriter { current, replaced, versions: sender }, reader)
}

impl SnapshotWriter {
    /// Has what was in force before no meaning any more: it was of an earlier run.
    pub fn forget_replaced(&mut self) {
        let old = std::mem::take(&mut *self.replaced.lock().unwrap_or_else(PoisonError::into_inner));
        drop(old);
    }

    /// Puts a snapshot in force and wakes everybody who waits.
    pub fn publish(&mut self, snapshot: Arc<WaypointSnapshot>) {
        // It is kept before it is replaced: who finds the new one finds this one, too.
        if let Some(before) = self.current.load_full() {
            let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
            replaced.push_back((Instant::now(), before));
            let first = (replaced.len() > MOST_REPLACED).then(|| replaced.pop_front());
            drop(replaced);
            if first.is_some() {
                counter!("ambit_configurations_forgotten_early_total").increment(1);
            }
            // What it alone held is freed without the lock.
            drop(first);
        }
        self.current.store(Some(snapshot));
        self.versions.send_modify(|version| *version += 1);
    }
}

impl SnapshotReader {
    /// The snapshot in force.
    pub fn load(&self) -> Option<Arc<WaypointSnapshot>> {
        self.current.load_full()
    }

    /// Snapshots that were in force until so long ago, at most, and when each was replaced; the newest first.
    pub fn replaced_within(&self, time: Duration) -> Vec<(Instant, Arc<WaypointSnapshot>)> {
        let replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        replaced.iter().rev().take_while(|(at, _)| at.elapsed() <= time).cloned().collect()
    }

    /// Forgets those that were replaced longer ago.
    pub fn forget_replaced(&self, time: Duration) {
        let mut replaced = self.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        let old = replaced.iter().take_while(|(at, _)| at.elapsed() > time).count();
        let old: Replaced = replaced.drain(..old).collect();
        drop(replaced);
        drop(old);
    }

    /// The snapshot in force, or the first one, which is waited for so long.
    pub async fn first(&self, limit: Duration) -> Option<Arc<WaypointSnapshot>> {
        if let Some(snapshot) = self.load() {
            return Some(snapshot);
        }
        let mut versions = self.versions.clone();
        let _ = timeout(limit, versions.wait_for(|version| *version > 0)).await;
        self.load()
    }

    /// A reader of its own, for which only what comes from now on is a change.
    pub fn from_now(&self) -> Self {
        let mut reader = self.clone();
        reader.versions.mark_unchanged();
        reader
    }

    /// Waits until the snapshot in force is another than when this was last called on this reader.
    /// False when there will be no other.
    pub async fn changed(&mut self) -> bool {
        self.versions.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use ambit_mesh::http::{GatewayName, Myself, WaypointState};
    use ambit_mesh::workload::WorkloadUid;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn what_goes_before_its_time_is_counted() {
        let gateway = GatewayName { namespace: "shop".into(), name: "waypoint".into() };
        let workload = WorkloadUid("Kubernetes//Pod/shop/waypoint".into());
        let snapshot = WaypointState::new(Myself { gateway, workload }).snapshot();
        let (mut writer, reader) = store();
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            // The first replaces nothing.
            for _ in 0..=MOST_REPLACED {
                writer.publish(Arc::clone(&snapshot));
            }
            let rendered = recorder.handle().render();
            assert!(!rendered.contains("forgotten_early"), "within the limit: {rendered}");
            writer.publish(snapshot);
        });
        let rendered = recorder.handle().render();
        assert!(rendered.contains("ambit_configurations_forgotten_early_total 1\n"), "{rendered}");
        assert_eq!(reader.replaced_within(Duration::from_secs(3600)).len(), MOST_REPLACED);
    }
}
