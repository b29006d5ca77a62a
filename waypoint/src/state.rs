//! What the data path decides by: one immutable snapshot, replaced whole.
//!
//! Until control has sent everything once there is none, and whoever needs one waits.

use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::http::WaypointSnapshot;
use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio::time::timeout;

/// The reading side, for every worker.
#[derive(Clone)]
pub struct SnapshotReader {
    current: Arc<ArcSwapOption<WaypointSnapshot>>,
    versions: watch::Receiver<u64>,
}

/// The writing side: one owner.
pub struct SnapshotWriter {
    current: Arc<ArcSwapOption<WaypointSnapshot>>,
    versions: watch::Sender<u64>,
}

/// A store without a snapshot.
pub fn store() -> (SnapshotWriter, SnapshotReader) {
    let current = Arc::new(ArcSwapOption::empty());
    let (sender, receiver) = watch::channel(0);
    let reader = SnapshotReader { current: Arc::clone(&current), versions: receiver };
    (SnapshotWriter { current, versions: sender }, reader)
}

impl SnapshotWriter {
    /// Puts a snapshot in force and wakes everybody who waits.
    pub fn publish(&mut self, snapshot: Arc<WaypointSnapshot>) {
        self.current.store(Some(snapshot));
        self.versions.send_modify(|version| *version += 1);
    }
}

impl SnapshotReader {
    /// The snapshot in force.
    pub fn load(&self) -> Option<Arc<WaypointSnapshot>> {
        self.current.load_full()
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
