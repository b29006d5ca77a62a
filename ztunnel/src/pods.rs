//! The pods of this node that the agent captures: which there should be, and bringing it about.
//!
//! `plan` says what to do; [`PodManager`] does it: opens namespaces and listeners, hands them to
//! the workers, installs and removes redirections. Rules stay when the agent goes; they leave only
//! with the pod's enrolment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_identity::manager::{CertificateManager, Issuer};
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::WorkloadUid;
use metrics::gauge;
use serde::Serialize;
use tokio::sync::oneshot;
use tracing::{info, warn};

use crate::capture::marks::MarkStore;
use crate::capture::netns::NetworkNamespace;
use crate::capture::{self, Backend};
use crate::pods::enroll::{EnrollFailure, enroll};
use crate::pods::plan::{Step, Wanted, plan, wanted};
use crate::pods::registry::Registry;
use crate::state::SnapshotReader;
use crate::worker::{Command, WorkerHandle};

mod enroll;
mod plan;
pub mod registry;

/// Settings of the manager.
#[derive(Debug, Clone)]
pub struct PodSettings {
    /// This node.
    pub node: String,
    /// What installs the redirection.
    pub backend: Backend,
    /// Whether pods may name their network namespace.
    pub allow_netns_annotation: bool,
    /// Where marks are kept.
    pub marks: MarkStore,
    /// Where captured namespaces are listed.
    pub registry: Registry,
}

/// Owns every captured pod.
pub struct PodManager<I: Issuer> {
    settings: PodSettings,
    certificates: Arc<CertificateManager<I>>,
    workers: Arc<[WorkerHandle]>,
    pods: BTreeMap<WorkloadUid, Managed>,
}

/// A pod under management.
struct Managed {
    wanted: Wanted,
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

/// A pod, for the configuration dump.
#[derive(Debug, Serialize)]
pub struct PodStatus {
    /// The workload.
    pub workload: String,
    /// Its network namespace.
    pub network_namespace: PathBuf,
    /// captured, leaving or failed.
    pub state: &'static str,
    /// Why it failed.
    pub error: Option<String>,
}

impl<I: Issuer> PodManager<I> {
    /// A manager without pods.
    pub fn new(
        settings: PodSettings,
        certificates: Arc<CertificateManager<I>>,
        workers: Arc<[WorkerHandle]>,
    ) -> Self {
        Self { settings, certificates, workers, pods: BTreeMap::new() }
    }

    /// Follows the snapshots until the writer is gone. `on_change` is told after every round.
    pub async fn run(mut self, mut snapshots: SnapshotReader, mut on_change: impl FnMut(Vec<PodStatus>)) {
        let mut upkeep = tokio::time::interval(UPKEEP);
        loop {
            tokio::select! {
                // Neither arm loses anything when the other is taken.
                more = snapshots.changed() => if !more { return },
                _ = upkeep.tick() => self.finish_leaving().await,
            }
            if let Some(snapshot) = snapshots.load() {
                self.reconcile(&snapshot);
                on_change(self.statuses());
            }
        }
    }

    fn reconcile(&mut self, snapshot: &Snapshot) {
        let wanted = wanted(snapshot, &self.settings.node, self.settings.allow_netns_annotation);
        let identities: BTreeSet<_> = wanted.values().map(|pod| pod.identity.clone()).collect();
        identities.iter().for_each(|id| self.certificates.track(id));
        let known = self.pods.iter().map(|(uid, pod)| (uid, (&pod.wanted, pod.state.phase()))).collect();
        for step in plan(&known, &wanted, snapshot) {
            self.take(step);
        }
        // Pods on their way out still serve open connections with their certificate.
        let in_use = self.pods.values().map(|pod| pod.wanted.identity.clone());
        self.certificates.keep_only(&identities.into_iter().chain(in_use).collect());
        self.count();
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Capture(uid, wanted) => self.capture(uid, wanted),
            Step::Release(uid) => self.release(uid),
            Step::Forget(uid) => self.forget(&uid),
        }
    }

    fn capture(&mut self, uid: WorkloadUid, wanted: Wanted) {
        let certificate = self.certificates.subscribe(&wanted.identity);
        let failed_before = self.pods.get(&uid).is_some_and(|pod| matches!(pod.state, PodState::Failed(_)));
        let state = match enroll(&self.settings, &uid, &wanted, &certificate, &self.workers) {
            Ok(netns) => {
                info!(workload = %uid, netns = %wanted.network_namespace.display(), "pod captured");
                PodState::Captured(netns)
            }
            Err(failure) => {
                if !failed_before {
                    warn!(workload = %uid, error = %failure, "pod not captured: trying again");
                }
                PodState::Failed(failure)
            }
        };
        self.pods.insert(uid, Managed { wanted, state });
    }

    fn release(&mut self, uid: WorkloadUid) {
        let Some(Managed { wanted, state }) = self.pods.remove(&uid) else { return };
        let state = match state {
            PodState::Captured(netns) => self.stop_capturing(&uid, netns),
            leaving @ PodState::Leaving(_) => leaving,
            PodState::Failed(_) => return,
        };
        self.pods.insert(uid, Managed { wanted, state });
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

    /// Removes what is left of pods whose last connection has ended.
    async fn finish_leaving(&mut self) {
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
            let Some(Managed { state: PodState::Leaving(netns), wanted }) = self.pods.remove(&uid) else {
                continue;
            };
            if let Err(error) = self.clear(&netns, &wanted) {
                warn!(workload = %uid, %error, "the pod's rules could not be removed: trying again");
                self.pods.insert(uid, Managed { wanted, state: PodState::Leaving(netns) });
                continue;
            }
            info!(workload = %uid, "pod left the mesh");
            self.tell_workers(|| Command::Remove(uid.clone()));
        }
    }

    fn clear(&self, netns: &NetworkNamespace, wanted: &Wanted) -> Result<(), EnrollFailure> {
        capture::remove(netns)?;
        self.settings.marks.forget(&wanted.pod_uid)?;
        self.settings.registry.forget(&wanted.network_namespace)?;
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

    fn statuses(&self) -> Vec<PodStatus> {
        let status = |(uid, pod): (&WorkloadUid, &Managed)| PodStatus {
            workload: uid.to_string(),
            network_namespace: pod.wanted.network_namespace.clone(),
            state: match &pod.state {
                PodState::Captured(_) => "captured",
                PodState::Leaving(_) => "leaving",
                PodState::Failed(_) => "failed",
            },
            error: match &pod.state {
                PodState::Failed(failure) => Some(failure.to_string()),
                PodState::Captured(_) | PodState::Leaving(_) => None,
            },
        };
        self.pods.iter().map(status).collect()
    }

    fn count(&self) {
        let failed = self.pods.values().filter(|pod| matches!(pod.state, PodState::Failed(_))).count();
        gauge!("workload_manager_active_proxy_count").set((self.pods.len() - failed) as f64);
        gauge!("workload_manager_pending_proxy_count").set(failed as f64);
    }
}

impl PodState {
    fn phase(&self) -> plan::Phase {
        match self {
            Self::Captured(_) => plan::Phase::Captured,
            Self::Leaving(_) => plan::Phase::Leaving,
            Self::Failed(_) => plan::Phase::Failed,
        }
    }
}

/// How often pods that failed are tried again, and pods on their way out are looked at.
const UPKEEP: Duration = Duration::from_secs(1);
