//! What control says of the mesh as a whole: that it is being uninstalled.
//!
//! Whoever deletes everything at once deletes the agent's account before the agent can ask. Control, whose
//! watches outlive its own account, has told it by then.

use std::future::pending;

use tokio::sync::watch;

use crate::configuration::Source;
use crate::state::SnapshotReader;

/// Hears it.
pub struct Witness {
    snapshots: SnapshotReader,
    source: watch::Receiver<Source>,
}

impl Witness {
    /// By what control sends, of which `source` says whether it is in force.
    pub fn new(snapshots: SnapshotReader, source: watch::Receiver<Source>) -> Self {
        Self { snapshots, source }
    }

    /// Waits until control says so. What was read from disk is of another day, and says nothing.
    pub async fn until_uninstalling(mut self) {
        if self.source.wait_for(|source| *source == Source::Control).await.is_err() {
            return pending().await;
        }
        while !self.is_uninstalling() {
            if !self.snapshots.changed().await {
                return pending().await;
            }
        }
    }

    fn is_uninstalling(&self) -> bool {
        let snapshot = self.snapshots.load();
        snapshot.is_some_and(|snapshot| snapshot.mesh().is_some_and(|mesh| mesh.is_being_uninstalled()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use ambit_mesh::mesh::Mesh;
    use ambit_mesh::snapshot::{Change, State};
    use tokio::time::timeout;

    use super::*;
    use crate::state::store;

    #[tokio::test(start_paused = true)]
    async fn only_what_control_says_now_is_heard() {
        let says = |uninstalling| {
            let mut state = State::default();
            state.apply([Change::Mesh(Arc::new(Mesh::default().being_uninstalled(uninstalling)))]);
            state.snapshot()
        };
        let (mut writer, snapshots) = store();
        let (in_force, source) = watch::channel(Source::Disk);
        let mut heard = Box::pin(Witness::new(snapshots, source).until_uninstalling());
        let mut hears = async || timeout(Duration::from_secs(60), &mut heard).await.is_ok();
        writer.publish(says(true));
        assert!(!hears().await, "what an earlier run was told");
        writer.publish(says(false));
        in_force.send_replace(Source::Control);
        assert!(!hears().await, "control says that it stays");
        writer.publish(says(true));
        assert!(hears().await);
    }
}
