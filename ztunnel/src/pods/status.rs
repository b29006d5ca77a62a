//! What is shown of the pods: in the configuration dump and as metrics.

use std::path::PathBuf;

use ambit_identity::manager::Issuer;
use ambit_mesh::workload::WorkloadUid;
use metrics::gauge;
use serde::Serialize;

use super::plan::{Phase, Wanted};
use super::{Managed, PodManager, PodState};

/// A pod, for the configuration dump.
#[derive(Debug, Serialize)]
pub struct PodStatus {
    /// The workload.
    pub workload: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The path by which its network namespace was opened, if it was.
    pub network_namespace: Option<PathBuf>,
    /// pending, captured, leaving or failed.
    pub state: &'static str,
    /// Why it is pending or failed.
    pub error: Option<String>,
}

impl<I: Issuer> PodManager<I> {
    pub(super) fn statuses(&self) -> Vec<PodStatus> {
        let managed = self.pods.iter().map(|(uid, pod)| pod.status(uid));
        let unbound = self.unbound.iter().map(|(uid, pod)| pending(uid, pod));
        managed.chain(unbound).collect()
    }

    pub(super) fn count(&self) {
        let failed = self.pods.values().filter(|pod| matches!(pod.state, PodState::Failed(_))).count();
        gauge!("workload_manager_active_proxy_count").set((self.pods.len() - failed) as f64);
        gauge!("workload_manager_pending_proxy_count").set((failed + self.unbound.len()) as f64);
        gauge!("ambit_pods_not_found").set(self.unbound.len() as f64);
    }
}

impl Managed {
    fn status(&self, uid: &WorkloadUid) -> PodStatus {
        let (state, netns, error) = match &self.state {
            PodState::Captured(netns) => ("captured", Some(netns), None),
            PodState::Leaving(netns) => ("leaving", Some(netns), None),
            PodState::Failed(failure) => ("failed", None, Some(failure.to_string())),
        };
        PodStatus {
            workload: uid.to_string(),
            pod_uid: self.held.pod_uid.to_string(),
            network_namespace: netns.map(|netns| netns.path().to_owned()),
            state,
            error,
        }
    }
}

fn pending(uid: &WorkloadUid, pod: &Wanted) -> PodStatus {
    PodStatus {
        workload: uid.to_string(),
        pod_uid: pod.pod_uid.to_string(),
        network_namespace: None,
        state: "pending",
        error: pod.place.as_ref().err().map(ToString::to_string),
    }
}

impl PodState {
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Captured(_) => Phase::Captured,
            Self::Leaving(_) => Phase::Leaving,
            Self::Failed(_) => Phase::Failed,
        }
    }
}
