//! The pods of this node that the agent captures: which there should be, and bringing it about.
//!
//! `plan` says what to do; [`PodManager`] does it: opens namespaces and listeners, hands them to
//! the workers, installs and removes redirections. Rules stay when the agent goes; they leave only
//! with the pod's enrolment.
//!
//! A pod's network namespace is found by its UID: `found` has what the CNI plugin tells (`arrival`)
//! and what the node's processes show (`scan`, which `cgroup` and `processes` read). In directory
//! mode pods name it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_identity::manager::{CertificateManager, Issuer};
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::WorkloadUid;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::capture::marks::MarkStore;
use crate::capture::netns::{NetworkNamespace, NetworkNamespaceId};
use crate::capture::node::NodeNetwork;
use crate::capture::{self, Backend};
use crate::handover::{Parting, Predecessors, Visit};
use crate::pods::arrival::CniEvent;
use crate::pods::cni::Waiting;
use crate::pods::enroll::{EnrollFailure, enroll, redirect};
use crate::pods::found::Found;
use crate::pods::plan::{Held, Place, Places, Step, Unbound, Wanted, known_pods, plan, wanted};
use crate::pods::registry::Registry;
use crate::pods::scan::{HostProc, Look, Scanner};
use crate::pods::schedule::{Schedule, Stage};
use crate::state::SnapshotReader;
use crate::worker::{Command, WorkerHandle};

pub mod arrival;
pub mod cgroup;
mod cni;
mod enroll;
mod found;
mod plan;
mod processes;
pub mod registry;
pub mod scan;
mod schedule;
mod status;
mod succession;

pub use status::PodStatus;
pub use succession::TakeError;

/// Settings of the manager.
#[derive(Debug, Clone)]
pub struct PodSettings {
    /// This node.
    pub node: String,
    /// Its own network, which is no pod's.
    pub node_network: Arc<NodeNetwork>,
    /// What installs the redirection.
    pub backend: Backend,
    /// How namespaces of pods are found.
    pub finding: Finding,
    /// How long a pod that starts may wait until control has told of it.
    pub arrival_wait: Duration,
    /// Where marks are kept.
    pub marks: MarkStore,
    /// Where captured namespaces are listed.
    pub registry: Registry,
}

/// How the network namespaces of pods are found.
#[derive(Debug, Clone)]
pub enum Finding {
    /// Directory mode: pods name them, and whoever writes pods is trusted with the node.
    Annotations,
    /// By the CNI plugin, and by the node's processes where they may be looked at.
    Uid(Option<HostProc>),
}

/// Owns every captured pod.
pub struct PodManager<I: Issuer> {
    settings: PodSettings,
    certificates: Arc<CertificateManager<I>>,
    workers: Arc<[WorkerHandle]>,
    pods: BTreeMap<WorkloadUid, Managed>,
    /// Pods that should be captured and cannot be found.
    unbound: BTreeMap<WorkloadUid, Wanted>,
    found: Found<NetworkNamespace>,
    /// Pods whose sandbox may have ended: the next look at their processes decides.
    unsure: BTreeSet<Arc<str>>,
    /// Pods that wait for control to tell of them before they start.
    waiting: Vec<Waiting>,
    scanner: Option<Scanner>,
    schedule: Schedule,
    /// Earlier agents that still finish connections of these pods.
    predecessors: Predecessors,
    /// Pods that were taken over and have the rules of the agent before.
    inherited: BTreeSet<WorkloadUid>,
}

/// A pod under management.
struct Managed {
    held: Held,
    state: PodState,
}

/// How far a pod is.
enum PodState {
    /// Its connections are captured and served.
    Captured(Arc<NetworkNamespace>),
    /// No new connections are captured; open ones go on.
    Leaving(Arc<NetworkNamespace>),
    /// It could not be captured; tried again.
    Failed(EnrollFailure),
}

/// What has happened.
enum Event {
    Snapshot,
    NoMoreSnapshots,
    Upkeep,
    Cni(CniEvent),
    Look(Look),
    Successor(Visit),
}

impl<I: Issuer> PodManager<I> {
    /// A manager without pods.
    ///
    /// # Errors
    /// When the thread that looks for pods cannot be started.
    pub fn new(
        settings: PodSettings,
        certificates: Arc<CertificateManager<I>>,
        workers: Arc<[WorkerHandle]>,
    ) -> io::Result<Self> {
        let scanner = match &settings.finding {
            Finding::Uid(Some(host_proc)) => Some(Scanner::start(host_proc.clone())?),
            Finding::Uid(None) | Finding::Annotations => None,
        };
        Ok(Self {
            settings,
            certificates,
            workers,
            pods: BTreeMap::new(),
            unbound: BTreeMap::new(),
            found: Found::default(),
            unsure: BTreeSet::new(),
            waiting: Vec::new(),
            scanner,
            schedule: Schedule::new(Instant::now()),
            predecessors: Predecessors::default(),
            inherited: BTreeSet::new(),
        })
    }

    /// Follows the snapshots until a successor has taken the pods over, and answers the CNI plugin.
    /// `on_change` is told after every round. Cancelling it loses nothing. `None` when the writer of the
    /// snapshots is gone.
    pub async fn run(
        &mut self,
        snapshots: &mut SnapshotReader,
        cni: &mut mpsc::Receiver<CniEvent>,
        successors: &mut mpsc::Receiver<Visit>,
        mut on_change: impl FnMut(Vec<PodStatus>),
    ) -> Option<Parting> {
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            let event = tokio::select! {
                // No arm loses anything when another is taken.
                more = snapshots.changed() => if more { Event::Snapshot } else { Event::NoMoreSnapshots },
                _ = upkeep.tick() => Event::Upkeep,
                Some(event) = cni.recv() => Event::Cni(event),
                Some(look) = next_look(&mut self.scanner) => Event::Look(look),
                Some(visit) = successors.recv() => Event::Successor(visit),
            };
            let snapshot = snapshots.load();
            match event {
                Event::NoMoreSnapshots => return None,
                Event::Snapshot => {}
                Event::Upkeep => self.finish_leaving().await,
                Event::Cni(event) => self.on_cni(event, snapshot.as_deref()),
                Event::Look(look) => self.on_look(look),
                Event::Successor(visit) => {
                    if let Some(parting) = self.hand_over(visit).await {
                        // From here on the pods are none of this process's business. Those that start
                        // are told to ask again, and find the successor.
                        self.waiting.clear();
                        self.unbound.clear();
                        self.pods.clear();
                        self.count();
                        on_change(self.statuses());
                        return Some(parting);
                    }
                }
            }
            if let Some(snapshot) = &snapshot {
                self.reconcile(snapshot);
            }
            self.answer_waiting(snapshot.as_deref());
            self.look_if_due();
            on_change(self.statuses());
        }
    }

    fn reconcile(&mut self, snapshot: &Snapshot) {
        let found = &self.found;
        let find = |pod_uid: &str| match (found.namespace(pod_uid), found.contested(pod_uid)) {
            (Some((id, _)), _) => Ok(id),
            (None, Some(contested)) => Err(Unbound::Contested(contested.to_string())),
            (None, None) => Err(Unbound::NotFound),
        };
        let annotations_count = matches!(self.settings.finding, Finding::Annotations);
        let places = Places { annotations_count, find: &find };
        let wanted = wanted(snapshot, &self.settings.node, &places);
        let identities: BTreeSet<_> = wanted.values().map(|pod| pod.identity.clone()).collect();
        identities.iter().for_each(|id| self.certificates.track(id));
        let known = self.pods.iter().map(|(uid, pod)| (uid, (&pod.held, pod.state.phase()))).collect();
        for step in plan(&known, &wanted, snapshot) {
            self.take(step);
        }
        self.renew_inherited();
        self.note_unbound(wanted);
        // Pods on their way out still serve open connections with their certificate.
        let in_use = self.pods.values().map(|pod| pod.held.identity.clone());
        self.certificates.keep_only(&identities.into_iter().chain(in_use).collect());
        self.found.prune(&known_pods(snapshot, &self.settings.node));
        self.count();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Capture(uid, held) => self.capture(uid, held),
            Step::Redirect(uid, held) => self.redirect(&uid, held),
            Step::Release(uid) => self.release(uid),
            Step::Forget(uid) => self.forget(&uid),
        }
    }

    fn capture(&mut self, uid: WorkloadUid, held: Held) {
        let certificate = self.certificates.subscribe(&held.identity);
        let before = self.pods.remove(&uid).map(|pod| pod.state);
        let failed_before = matches!(before, Some(PodState::Failed(_)));
        let netns = match before {
            Some(PodState::Leaving(netns) | PodState::Captured(netns)) => Ok(netns),
            Some(PodState::Failed(_)) | None => self.namespace(&held),
        };
        let enrolled = netns.and_then(|netns| {
            enroll(&self.settings, &uid, &held, &netns, &certificate, &self.workers).map(|()| netns)
        });
        let state = match enrolled {
            Ok(netns) => {
                info!(workload = %uid, pod = %held.pod_uid, netns = %netns.path().display(), "pod captured");
                PodState::Captured(netns)
            }
            Err(failure) => {
                if !failed_before {
                    warn!(workload = %uid, pod = %held.pod_uid, error = %failure, "pod not captured: trying again");
                }
                PodState::Failed(failure)
            }
        };
        self.pods.insert(uid, Managed { held, state });
    }

    fn namespace(&self, held: &Held) -> Result<Arc<NetworkNamespace>, EnrollFailure> {
        let netns = match &held.place {
            Place::Named(path) => Arc::new(NetworkNamespace::open(path)?),
            Place::Found(id) => {
                let found = self.found.namespace(&held.pod_uid).filter(|(found, _)| found == id);
                Arc::clone(found.ok_or(EnrollFailure::Lost)?.1)
            }
        };
        if netns.id() == self.settings.node_network.id() {
            return Err(EnrollFailure::Node);
        }
        Ok(netns)
    }

    /// Other ports or ranges are left alone: the rules are replaced under open connections.
    fn redirect(&mut self, uid: &WorkloadUid, changed: Held) {
        let Some(Managed { held, state: PodState::Captured(netns) }) = self.pods.get_mut(uid) else { return };
        match redirect(&self.settings, uid, &changed, netns) {
            Ok(()) => {
                info!(workload = %uid, "the pod's redirection was changed");
                *held = changed;
            }
            Err(error) => {
                warn!(workload = %uid, %error, "the pod's rules could not be changed: trying again");
            }
        }
    }

    fn release(&mut self, uid: WorkloadUid) {
        let Some(Managed { held, state }) = self.pods.remove(&uid) else { return };
        let state = match state {
            PodState::Captured(netns) => self.stop_capturing(&uid, netns),
            leaving @ PodState::Leaving(_) => leaving,
            PodState::Failed(_) => return,
        };
        self.pods.insert(uid, Managed { held, state });
    }

    fn stop_capturing(&self, uid: &WorkloadUid, netns: Arc<NetworkNamespace>) -> PodState {
        if let Err(error) = capture::stop_capturing(&netns) {
            warn!(workload = %uid, %error, "the pod's redirection could not be stopped: trying again");
            return PodState::Captured(netns);
        }
        info!(workload = %uid, "pod released: open connections go on until they end");
        self.tell_workers(|| Command::Release(uid.clone()));
        PodState::Leaving(netns)
    }

    /// The pod does not exist any more. Its rules end with its namespace; should that live on, it
    /// stays closed.
    fn forget(&mut self, uid: &WorkloadUid) {
        if self.pods.remove(uid).is_some() {
            info!(workload = %uid, "pod gone");
            self.tell_workers(|| Command::Remove(uid.clone()));
        }
    }

    /// Keeps what could not be found, to be shown, and to be looked for.
    fn note_unbound(&mut self, wanted: BTreeMap<WorkloadUid, Wanted>) {
        let is_unbound = |uid: &WorkloadUid, pod: &Wanted| pod.place.is_err() && !self.pods.contains_key(uid);
        let unbound: BTreeMap<_, _> = wanted.into_iter().filter(|(uid, pod)| is_unbound(uid, pod)).collect();
        for (uid, pod) in &unbound {
            if let Err(reason @ (Unbound::Contested(_) | Unbound::Shared { .. })) = &pod.place
                && self.unbound.get(uid) != Some(pod)
            {
                warn!(workload = %uid, pod = %pod.pod_uid, %reason, "pod not captured");
            }
        }
        let stage = |pod: &Wanted| if pod.has_address { Stage::Addressed } else { Stage::Scheduled };
        let missing = unbound.values().map(|pod| (Arc::clone(&pod.pod_uid), stage(pod))).collect();
        self.schedule.missing(missing, Instant::now());
        self.unbound = unbound;
    }

    fn look_if_due(&mut self) {
        if let Some(scanner) = &self.scanner
            && self.schedule.take_up(Instant::now())
        {
            scanner.ask(self.unbound.values().map(|pod| Arc::clone(&pod.pod_uid)).collect());
        }
    }

    fn on_look(&mut self, look: Look) {
        self.schedule.done();
        self.found.see(&look.sight, look.opened);
        let over: Vec<Arc<str>> = std::mem::take(&mut self.unsure)
            .into_iter()
            .filter(|uid| self.found.namespace(uid).is_none())
            .collect();
        over.iter().for_each(|pod_uid| self.forget_pod(pod_uid));
    }

    fn forget_pod(&mut self, pod_uid: &str) {
        let is_it = |pod: &Managed| *pod.held.pod_uid == *pod_uid;
        let uids: Vec<_> =
            self.pods.iter().filter(|(_, pod)| is_it(pod)).map(|(uid, _)| uid.clone()).collect();
        uids.iter().for_each(|uid| self.forget(uid));
    }

    /// Removes what is left of pods whose last connection has ended.
    async fn finish_leaving(&mut self) {
        // Which connections an earlier agent has open is not known here.
        if self.predecessors.any_runs() {
            return;
        }
        let leaving: Vec<WorkloadUid> = self
            .pods
            .iter()
            .filter(|(_, pod)| matches!(pod.state, PodState::Leaving(_)))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in leaving {
            if self.open_connections(&uid).await > 0 {
                continue;
            }
            let Some(Managed { state: PodState::Leaving(netns), held }) = self.pods.remove(&uid) else {
                continue;
            };
            if let Err(error) = self.clear(&netns, &held) {
                warn!(workload = %uid, %error, "the pod's rules could not be removed: trying again");
                self.pods.insert(uid, Managed { held, state: PodState::Leaving(netns) });
                continue;
            }
            info!(workload = %uid, "pod left the mesh");
            self.tell_workers(|| Command::Remove(uid.clone()));
        }
    }

    fn clear(&self, netns: &NetworkNamespace, held: &Held) -> Result<(), EnrollFailure> {
        capture::remove(netns)?;
        self.settings.marks.forget(&held.pod_uid)?;
        match &held.place {
            Place::Named(path) => self.settings.registry.forget(path)?,
            Place::Found(_) => {}
        }
        Ok(())
    }

    async fn open_connections(&self, uid: &WorkloadUid) -> usize {
        let mut total = 0;
        for worker in self.workers.iter() {
            let (answer, counted) = oneshot::channel();
            worker.send(Command::CountFlows(uid.clone(), answer));
            // A worker that is gone has no connections.
            total += counted.await.unwrap_or(0);
        }
        total
    }

    fn tell_workers(&self, command: impl Fn() -> Command) {
        self.workers.iter().for_each(|worker| worker.send(command()));
    }

    /// Whether a namespace is the node's own or the agent's.
    fn is_no_pods(&self, namespace: NetworkNamespaceId) -> bool {
        namespace == self.settings.node_network.id()
    }
}

/// The next look at the node's processes; never, if none are made.
async fn next_look(scanner: &mut Option<Scanner>) -> Option<Look> {
    match scanner {
        Some(scanner) => scanner.look().await,
        None => std::future::pending().await,
    }
}

/// How often pods that failed are tried again, and pods on their way out are looked at.
const UPKEEP: Duration = Duration::from_secs(1);
