//! What the data path decides by: what control sends, and until control has sent everything once,
//! the last good configuration of an earlier run.
//!
//! The two are never merged. What was read from disk is published as it is and replaced whole, so
//! that nothing of it stays that control does not send. One thing is not waited for and comes a little
//! later: what is said of the mesh as a whole. Until it comes, what was last said holds, or an address
//! of the mesh that nobody knows would for a moment count as one outside.
//!
//! A pod's policies and the pod that names them are resources of two types, which arrive one after
//! the other. A configuration in which a pod of this node names a policy that is not there waits for
//! it: in force, it would deny everything to that pod, and cut off who is connected.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ambit_mesh::mesh::Mesh;
use ambit_mesh::policy::PolicyName;
use ambit_mesh::snapshot::{Change, Snapshot, State};
use ambit_mesh::workload::TunnelProtocol;
use ambit_runtime::readiness::Ready;
use ambit_xds::client::{Batch, Client};
use ambit_xds::last_good::{Keeper, LastGood};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::state::SnapshotWriter;

/// For a policy that a pod names and that was not received. One edit's resources arrive within
/// milliseconds of each other; a policy that this proxy has rejected does not come at all, and what
/// is received meanwhile is held back with it.
const COMPLETION: Duration = Duration::from_millis(500);

/// How often replaced snapshots are looked at that were still in use.
const FREEING: Duration = Duration::from_secs(1);

/// The writer of the snapshots: it decides which configuration is in force.
pub struct Configuration {
    node: String,
    received: State,
    /// Policies that pods of this node name in the configuration in force and that are not in it:
    /// they were waited for in vain.
    missing: BTreeSet<PolicyName>,
    /// Until when what was received waits to become complete.
    held_until: Option<Instant>,
    in_force: watch::Sender<Source>,
    /// What an earlier run knew of the mesh as a whole, until the first full configuration.
    mesh_before: Option<Arc<Mesh>>,
    writer: SnapshotWriter,
    ready: Ready,
    keeper: Keeper<Snapshot>,
}

/// Where the configuration in force is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// There is none: connections wait.
    Nowhere,
    /// An earlier run.
    Disk,
    /// Control.
    Control,
}

impl Configuration {
    /// None so far, for the pods of `node`. `ready` is told of the first one, and `keeper` is given
    /// each that control sends.
    pub fn new(node: String, writer: SnapshotWriter, ready: Ready, keeper: Keeper<Snapshot>) -> Self {
        Self {
            node,
            received: State::default(),
            missing: BTreeSet::new(),
            held_until: None,
            in_force: watch::Sender::new(Source::Nowhere),
            mesh_before: None,
            writer,
            ready,
            keeper,
        }
    }

    /// Where the configuration in force is from, as that changes.
    pub fn source(&self) -> watch::Receiver<Source> {
        self.in_force.subscribe()
    }

    /// Puts in force what an earlier run left, if that is any good.
    pub fn take_up(&mut self, last_good: &LastGood, now: SystemTime) {
        if let Some(changes) = last_good.take_up(now) {
            let mut state = State::default();
            state.apply(changes);
            let snapshot = state.snapshot();
            // That it was being uninstalled is of another day.
            let mesh_before = snapshot.mesh().map(|mesh| Mesh::clone(mesh).being_uninstalled(false));
            self.mesh_before = mesh_before.map(Arc::new);
            self.writer.publish(snapshot);
            self.in_force.send_replace(Source::Disk);
            self.ready.ready();
        }
    }

    /// Follows control until the future is dropped.
    pub async fn follow(self, client: Client) {
        // Everything is subscribed to: there is no demand.
        let (_, no_demand) = mpsc::channel(1);
        let configuration = Mutex::new(self);
        let (held, mut holds) = watch::channel(None);
        let following = client.run(no_demand, |batch| {
            held.send_replace(lock(&configuration).apply(batch, Instant::now()));
        });
        tokio::select! {
            never = following => match never {},
            () = put_in_force_when_due(&configuration, &mut holds) => {}
            never = free_replaced(&configuration) => match never {},
        }
    }

    /// Takes in what control sends, and puts it in force once it is complete. If it is not, returns
    /// until when it may become so; then it is to be put in force as it is.
    pub fn apply(&mut self, batch: Batch, now: Instant) -> Option<Instant> {
        self.received.apply(batch.changes.into_iter().map(|change| own_bindings_only(change, &self.node)));
        if !batch.synced {
            return None;
        }
        if let Some(before) = self.mesh_before.take()
            && self.received.snapshot().mesh().is_none()
        {
            self.received.apply([Change::Mesh(before)]);
        }
        let snapshot = self.received.snapshot();
        let missing = self.missing_from(&snapshot);
        if missing.is_subset(&self.missing) {
            self.put_in_force(snapshot, missing);
        } else {
            self.held_until.get_or_insert(now + COMPLETION);
        }
        self.held_until
    }

    /// Puts in force what was received, complete or not: what is missing denies.
    fn stop_waiting(&mut self) {
        let snapshot = self.received.snapshot();
        let missing = self.missing_from(&snapshot);
        warn!(?missing, "policies that pods of this node name were not received: these pods are closed");
        self.put_in_force(snapshot, missing);
    }

    fn put_in_force(&mut self, snapshot: Arc<Snapshot>, missing: BTreeSet<PolicyName>) {
        self.missing = missing;
        self.held_until = None;
        self.writer.publish(Arc::clone(&snapshot));
        self.ready.ready();
        self.keeper.keep(snapshot);
        let before = self.in_force.send_replace(Source::Control);
        if before != Source::Control {
            info!(?before, "serving by the configuration from control");
        }
    }

    /// What pods of this node name and `snapshot` does not have. Nothing is decided here for pods of
    /// other nodes and for those that are not in the mesh.
    fn missing_from(&self, snapshot: &Snapshot) -> BTreeSet<PolicyName> {
        let pods = snapshot.pods_on(&self.node).iter();
        let enrolled = pods.filter(|pod| pod.tunnel_protocol == TunnelProtocol::Hbone);
        let named = enrolled.flat_map(|pod| pod.authorization_policies.iter());
        named.filter(|name| snapshot.policy(name).is_none()).cloned().collect()
    }
}

/// What binds a workload to a pod is of use on the pod's node alone. A mesh has many times more pods
/// than a node.
fn own_bindings_only(change: Change, node: &str) -> Change {
    match change {
        Change::Workload(mut workload) if workload.pod.is_some() && *workload.node != *node => {
            Arc::make_mut(&mut workload).pod = None;
            Change::Workload(workload)
        }
        Change::Workload(_)
        | Change::RemoveWorkload(_)
        | Change::Service(_)
        | Change::RemoveService(_)
        | Change::Policy(_)
        | Change::RemovePolicy(_)
        | Change::Mesh(_)
        | Change::RemoveMesh
        | Change::Http(_) => change,
    }
}

/// Ends each wait for a complete configuration when its time is over.
async fn put_in_force_when_due(
    configuration: &Mutex<Configuration>,
    holds: &mut watch::Receiver<Option<Instant>>,
) {
    loop {
        let held_until = *holds.borrow_and_update();
        let due = async {
            match held_until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        // Cancelling loses nothing: the wait begins anew with what has changed.
        tokio::select! {
            changed = holds.changed() => if changed.is_err() { return },
            () = due => {
                lock(configuration).stop_waiting();
                // Over: the next change says whether there is another.
                if holds.changed().await.is_err() { return }
            }
        }
    }
}

/// Frees what workers have let go of since. Not more than a second's changes are held in vain.
async fn free_replaced(configuration: &Mutex<Configuration>) -> Infallible {
    loop {
        tokio::time::sleep(FREEING).await;
        lock(configuration).writer.free_replaced();
    }
}

fn lock(configuration: &Mutex<Configuration>) -> MutexGuard<'_, Configuration> {
    configuration.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::Future;
    use std::os::unix::fs::MetadataExt;
    use std::pin::Pin;

    use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope};
    use ambit_mesh::snapshot::Snapshot;
    use ambit_runtime::readiness::Readiness;
    use ambit_xds::last_good::{Owner, keeper};
    use tempfile::TempDir;

    use super::*;
    use crate::samples::workload;
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
            let (keeper, writing) = keeper(last_good(directory), std::future::pending());
            let ready = readiness.register("configuration from control");
            let mut configuration = Configuration::new("n1".to_owned(), writer, ready, keeper);
            configuration.take_up(&last_good(directory), SystemTime::now());
            Self { configuration, writing: Box::pin(writing), snapshots, readiness }
        }

        fn receive(&mut self, batch: Batch) -> Option<Instant> {
            self.configuration.apply(batch, Instant::now())
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
            proxy: "n1".to_owned(),
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
        first.receive(batch(true, &["stale", "stays"]));
        first.end().await;

        let mut second = Agent::start(&directory);
        assert_eq!(second.names(), some(&["stale", "stays"]), "in force at once");
        second.readiness.ready().await;
        second.receive(batch(false, &["new"]));
        assert_eq!(second.names(), some(&["stale", "stays"]), "until control has sent everything");
        second.receive(batch(true, &["stays"]));
        assert_eq!(second.names(), some(&["new", "stays"]));
        second.end().await;

        assert_eq!(Agent::start(&directory).names(), some(&["new", "stays"]));
    }

    #[tokio::test]
    async fn the_mesh_as_a_whole_stays_known_until_control_tells_of_it_again() {
        let directory = tempfile::tempdir().unwrap();
        let told = |namespace: &str| Change::Mesh(Arc::new(Mesh::new([namespace.into()], [])));
        let known = |agent: &Agent| {
            let mesh = agent.snapshots.load()?.mesh().cloned()?;
            Some(mesh.enrolled_namespaces().iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let mut first = Agent::start(&directory);
        first.receive(batch(true, &["stays"]));
        assert_eq!(known(&first), None);
        first.receive(changes([told("before")]));
        first.end().await;

        let mut second = Agent::start(&directory);
        assert_eq!(known(&second), some(&["before"]));
        second.receive(batch(true, &["stays"]));
        assert_eq!(known(&second), some(&["before"]), "it was not waited for");
        second.receive(changes([told("now")]));
        assert_eq!(known(&second), some(&["now"]));
        second.receive(changes([Change::RemoveMesh]));
        assert_eq!(known(&second), None);
    }

    #[tokio::test]
    async fn half_of_a_configuration_is_neither_used_nor_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&directory);
        agent.receive(batch(false, &["half"]));
        assert_eq!((agent.names(), agent.readiness.pending().len()), (None, 1));
        agent.end().await;
        assert_eq!(Agent::start(&directory).names(), None);
    }

    #[tokio::test]
    async fn an_agent_that_ends_before_control_answers_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let mut first = Agent::start(&directory);
        first.receive(batch(true, &["kept"]));
        first.end().await;
        let inode = || fs::metadata(directory.path().join("last-good")).unwrap().ino();
        let before = inode();
        let mut second = Agent::start(&directory);
        second.receive(batch(false, &[]));
        second.end().await;
        assert_eq!(inode(), before, "not written again");
        assert_eq!(Agent::start(&directory).names(), some(&["kept"]));
    }

    fn pod() -> Change {
        Change::Workload(Arc::new(workload("web")))
    }

    fn changes(changes: impl IntoIterator<Item = Change>) -> Batch {
        Batch { changes: changes.into_iter().collect(), synced: true }
    }

    #[tokio::test]
    async fn what_binds_a_pod_of_another_node_is_not_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&directory);
        let mut elsewhere = workload("elsewhere");
        elsewhere.node = "n2".into();
        let own = workload("web");
        assert!(own.pod.is_some() && elsewhere.pod.is_some() && *own.node == *"n1");
        let names = [own.uid.clone(), elsewhere.uid.clone()];
        let both = [own, elsewhere].map(|workload| Change::Workload(Arc::new(workload)));
        agent.receive(batch(true, &["selecting"]));
        agent.receive(changes(both));
        let snapshot = agent.snapshots.load().unwrap();
        let is_bound = names.map(|uid| snapshot.workload(&uid).unwrap().pod.is_some());
        assert_eq!(is_bound, [true, false]);
        assert_eq!(snapshot.pods().count(), 1);
    }

    #[tokio::test]
    async fn a_pod_and_the_policy_it_names_come_into_force_together() {
        let directory = tempfile::tempdir().unwrap();
        let mut agent = Agent::start(&directory);
        agent.receive(batch(true, &["other"]));
        assert!(agent.receive(changes([pod()])).is_some(), "held");
        assert_eq!(agent.snapshots.load().unwrap().counts().workloads, 0, "not in force");
        assert_eq!(agent.receive(batch(true, &["selecting"])), None);
        assert_eq!(agent.snapshots.load().unwrap().counts().workloads, 1);
        assert_eq!(agent.names(), some(&["other", "selecting"]));

        // In whichever order the two are withdrawn.
        let gone = PolicyName { namespace: "shop".into(), name: "selecting".into() };
        assert!(agent.receive(changes([Change::RemovePolicy(gone)])).is_some(), "held");
        assert_eq!(agent.names(), some(&["other", "selecting"]));
        let mut unbound = workload("web");
        unbound.authorization_policies = Default::default();
        assert_eq!(agent.receive(changes([Change::Workload(Arc::new(unbound))])), None);
        assert_eq!(agent.names(), some(&["other"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_policy_that_never_comes_holds_up_one_change_and_for_a_bounded_time() {
        let directory = tempfile::tempdir().unwrap();
        let Agent { mut configuration, snapshots, .. } = Agent::start(&directory);
        let until = configuration.apply(changes([pod()]), Instant::now());
        let again = configuration.apply(batch(true, &["other"]), Instant::now() + COMPLETION / 2);
        assert!(until.is_some() && again == until, "what comes meanwhile does not prolong the wait");
        let configuration = Mutex::new(configuration);
        let (_held, mut holds) = watch::channel(until);
        let waiting = put_in_force_when_due(&configuration, &mut holds);
        tokio::select! {
            () = waiting => unreachable!("it waits for the next change"),
            found = snapshots.wait_for(2 * COMPLETION, |snapshot| Some(snapshot.counts().workloads)) => {
                assert_eq!(found.map(|(_, workloads)| workloads), Some(1));
            }
        }
        let mut configuration = configuration.into_inner().unwrap();
        assert_eq!(
            configuration.apply(batch(true, &["more"]), Instant::now()),
            None,
            "it was waited for before"
        );
        assert_eq!(snapshots.load().map(|snapshot| names(&snapshot)), some(&["more", "other"]));
    }
}
