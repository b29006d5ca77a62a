//! What the data path decides by: what control sends, and until control has sent everything once,
//! the last good configuration of an earlier run.
//!
//! The two are never merged. What was read from disk is published as it is and replaced whole, so
//! that nothing of it stays that control does not send.

use std::sync::Arc;
use std::time::SystemTime;

use ambit_mesh::snapshot::State;
use ambit_runtime::readiness::Ready;
use ambit_xds::client::{Batch, Client};
use tokio::sync::mpsc;
use tracing::info;

use crate::last_good::{Keeper, LastGood};
use crate::state::SnapshotWriter;

/// The writer of the snapshots: it decides which configuration is in force.
pub struct Configuration {
    received: State,
    in_force: Source,
    writer: SnapshotWriter,
    ready: Ready,
    keeper: Keeper,
}

/// Where the configuration in force is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// There is none: connections wait.
    Nowhere,
    /// An earlier run.
    Disk,
    /// Control.
    Control,
}

impl Configuration {
    /// None so far. `ready` is told of the first one, and `keeper` is given each that control sends.
    pub fn new(writer: SnapshotWriter, ready: Ready, keeper: Keeper) -> Self {
        Self { received: State::default(), in_force: Source::Nowhere, writer, ready, keeper }
    }

    /// Puts in force what an earlier run left, if that is any good.
    pub fn take_up(&mut self, last_good: &LastGood, now: SystemTime) {
        if let Some(snapshot) = last_good.take_up(now) {
            self.writer.publish(snapshot);
            self.in_force = Source::Disk;
            self.ready.ready();
        }
    }

    /// Follows control until the future is dropped.
    pub async fn follow(mut self, client: Client) {
        // Everything is subscribed to: there is no demand.
        let (_, no_demand) = mpsc::channel(1);
        let never = client.run(no_demand, move |batch| self.apply(batch)).await;
        match never {}
    }

    /// Takes in what control sends, and puts it in force once it is complete.
    pub fn apply(&mut self, batch: Batch) {
        self.received.apply(batch.changes);
        if !batch.synced {
            return;
        }
        let snapshot = self.received.snapshot();
        self.writer.publish(Arc::clone(&snapshot));
        self.ready.ready();
        self.keeper.keep(snapshot);
        if self.in_force != Source::Control {
            info!(before = ?self.in_force, "serving by the configuration from control");
            self.in_force = Source::Control;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::Future;
    use std::os::unix::fs::MetadataExt;
    use std::pin::Pin;

    use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope};
    use ambit_mesh::snapshot::{Change, Snapshot};
    use ambit_runtime::readiness::Readiness;
    use tempfile::TempDir;

    use super::*;
    use crate::last_good::{Owner, keeper};
    use crate::state::{SnapshotReader, store};

    /// An agent's configuration, and what is seen of it.
    struct Agent {
        configuration: Configuration,
        writing: Pin<Box<dyn Future<Output = ()>>>,
        snapshots: SnapshotReader,
        readiness: Readiness,
    }

    impl Agent {
        fn start(directory: &TempDir) -> Self {
            let (writer, snapshots) = store();
            let readiness = Readiness::default();
            let (keeper, writing) = keeper(last_good(directory));
            let ready = readiness.register("configuration from control");
            let mut configuration = Configuration::new(writer, ready, keeper);
            configuration.take_up(&last_good(directory), SystemTime::now());
            Self { configuration, writing: Box::pin(writing), snapshots, readiness }
        }

        fn names(&self) -> Option<Vec<String>> {
            self.snapshots.load().map(|snapshot| names(&snapshot))
        }

        async fn end(self) {
            drop(self.configuration);
            self.writing.await;
        }
    }

    fn last_good(directory: &TempDir) -> LastGood {
        let owner = Owner {
            cluster_id: "Kubernetes".to_owned(),
            node: "n1".to_owned(),
            trust_domain: "cluster.local".parse().unwrap(),
        };
        LastGood::new(directory.path(), owner)
    }

    fn names(snapshot: &Snapshot) -> Vec<String> {
        snapshot.policies().map(|policy| policy.name.name.to_string()).collect()
    }

    fn batch(synced: bool, policies: &[&str]) -> Batch {
        Batch { changes: policies.iter().map(|name| policy(name)).collect(), synced }
    }

    fn policy(name: &str) -> Change {
        Change::Policy(Arc::new(AuthorizationPolicy {
            name: PolicyName { namespace: "shop".into(), name: name.into() },
            scope: PolicyScope::Namespace,
            action: Action::Deny,
            rules: Vec::new(),
            dry_run: false,
        }))
    }

    fn some(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[tokio::test]
    async fn what_control_no_longer_sends_goes_with_its_first_full_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Agent::start(&directory);
        first.configuration.apply(batch(true, &["stale", "stays"]));
        first.end().await;

        let mut second = Agent::start(&directory);
        assert_eq!(second.names(), some(&["stale", "stays"]), "in force at once");
        second.readiness.ready().await;
        second.configuration.apply(batch(false, &["new"]));
        assert_eq!(second.names(), some(&["stale", "stays"]), "until control has sent everything");
        second.configuration.apply(batch(true, &["stays"]));
        assert_eq!(second.names(), some(&["new", "stays"]));
        second.end().await;

        assert_eq!(Agent::start(&directory).names(), some(&["new", "stays"]));
    }

    #[tokio::test]
    async fn half_of_a_configuration_is_neither_used_nor_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&directory);
        agent.configuration.apply(batch(false, &["half"]));
        assert_eq!((agent.names(), agent.readiness.pending().len()), (None, 1));
        agent.end().await;
        assert_eq!(Agent::start(&directory).names(), None);
    }

    #[tokio::test]
    async fn an_agent_that_ends_before_control_answers_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Agent::start(&directory);
        first.configuration.apply(batch(true, &["kept"]));
        first.end().await;
        let inode = || fs::metadata(directory.path().join("last-good")).unwrap().ino();
        let before = inode();
        let mut second = Agent::start(&directory);
        second.configuration.apply(batch(false, &[]));
        second.end().await;
        assert_eq!(inode(), before, "not written again");
        assert_eq!(Agent::start(&directory).names(), some(&["kept"]));
    }
}
