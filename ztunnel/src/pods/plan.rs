//! What to do about which pod: a pure comparison of what is captured with what should be.
//!
//! What is captured stays so until control says that the pod left the mesh or is gone, or its
//! namespace turns out to be another. That a pod cannot be found for a moment releases nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use ambit_mesh::identity::SpiffeId;
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::{CaptureExclusions, TunnelProtocol, WorkloadUid};

use crate::capture::netns::NetworkNamespaceId;

/// A pod as it should be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The pod's UID: another one under the same name is another pod.
    pub(super) pod_uid: Arc<str>,
    /// Who it is.
    pub(super) identity: SpiffeId,
    /// What is left alone.
    pub(super) exclusions: CaptureExclusions,
    /// What its kubelet calls.
    pub(super) probe_ports: BTreeSet<u16>,
    /// Whether it has an address by now.
    pub(super) has_address: bool,
    /// Its network namespace, or why that is not known.
    pub(super) place: Result<Place, Unbound>,
}

/// Where a network namespace is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Directory mode: at the path of the annotation.
    Named(PathBuf),
    /// In the table of what was found on this node.
    Found(NetworkNamespaceId),
}

/// Why a pod that should be captured has no namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unbound {
    /// Nothing of it was seen on the node so far.
    #[error(
        "its network namespace is not known: no process of the pod was found on this node, and no CNI plugin has told of it"
    )]
    NotFound,
    /// Another pod's, too.
    #[error("{0}")]
    Contested(String),
    /// Another workload says that it is this pod.
    #[error(
        "the workloads {} say that they are the same pod: none of them is captured until that ends",
        list(workloads)
    )]
    Shared {
        /// All of them.
        workloads: Vec<WorkloadUid>,
    },
}

/// A pod under management.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Held {
    /// Its UID.
    pub(super) pod_uid: Arc<str>,
    /// Who it is.
    pub(super) identity: SpiffeId,
    /// What is left alone.
    pub(super) exclusions: CaptureExclusions,
    /// What its kubelet calls.
    pub(super) probe_ports: BTreeSet<u16>,
    /// Where it is.
    pub(super) place: Place,
}

/// How far a pod under management is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Captured.
    Captured,
    /// On its way out.
    Leaving,
    /// Not captured, although it should be.
    Failed,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Capture it, or try again.
    Capture(WorkloadUid, Held),
    /// Capture something else of it than so far.
    Redirect(WorkloadUid, Held),
    /// It is no longer enrolled: take no new connections, let open ones finish.
    Release(WorkloadUid),
    /// It does not exist any more.
    Forget(WorkloadUid),
}

/// How namespaces are known.
pub(super) struct Places<'a> {
    /// Directory mode: pods may name them.
    pub(super) annotations_count: bool,
    /// What was found of a pod, by its UID.
    pub(super) find: &'a dyn Fn(&str) -> Result<NetworkNamespaceId, Unbound>,
}

/// The pods of `node` that should be captured: those that are enrolled.
pub(super) fn wanted(snapshot: &Snapshot, node: &str, places: &Places<'_>) -> BTreeMap<WorkloadUid, Wanted> {
    let claims = claims(snapshot, node);
    let enrolled =
        snapshot.pods_on(node).iter().filter(|workload| workload.tunnel_protocol == TunnelProtocol::Hbone);
    enrolled
        .filter_map(|workload| {
            let pod = workload.pod.as_deref()?;
            let named = pod.network_namespace.clone().filter(|_| places.annotations_count);
            let place = match (claims.get(&pod.pod_uid), named) {
                (Some(workloads), _) if workloads.len() > 1 => {
                    Err(Unbound::Shared { workloads: workloads.clone() })
                }
                (_, Some(path)) => Ok(Place::Named(path)),
                (_, None) => (places.find)(&pod.pod_uid).map(Place::Found),
            };
            let wanted = Wanted {
                pod_uid: Arc::clone(&pod.pod_uid),
                identity: workload.identity.clone(),
                exclusions: pod.exclusions.clone(),
                probe_ports: pod.probe_ports.clone(),
                has_address: !workload.addresses.is_empty(),
                place,
            };
            Some((workload.uid.clone(), wanted))
        })
        .collect()
}

/// The workloads of `node` that say that they are a pod, by the pod's UID.
fn claims(snapshot: &Snapshot, node: &str) -> BTreeMap<Arc<str>, Vec<WorkloadUid>> {
    let mut claims: BTreeMap<Arc<str>, Vec<WorkloadUid>> = BTreeMap::new();
    for workload in snapshot.pods_on(node) {
        if let Some(pod) = &workload.pod {
            claims.entry(Arc::clone(&pod.pod_uid)).or_default().push(workload.uid.clone());
        }
    }
    claims
}

/// What control says of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing: it does not know the pod, or has not told so far.
    Unknown,
    /// It is not in the mesh.
    NotEnrolled,
    /// It is.
    Enrolled(WorkloadUid),
}

/// What control says of the pod with this UID.
pub(super) fn standing(snapshot: &Snapshot, node: &str, pod_uid: &str) -> Standing {
    let is_it = |pod: &&Arc<ambit_mesh::workload::Workload>| {
        pod.pod.as_ref().is_some_and(|binding| *binding.pod_uid == *pod_uid)
    };
    let mut standing = Standing::Unknown;
    for pod in snapshot.pods_on(node).iter().filter(is_it) {
        match pod.tunnel_protocol {
            TunnelProtocol::Hbone => return Standing::Enrolled(pod.uid.clone()),
            TunnelProtocol::None => standing = Standing::NotEnrolled,
        }
    }
    standing
}

/// The UIDs of all pods of `node` that control knows.
pub(super) fn known_pods(snapshot: &Snapshot, node: &str) -> BTreeSet<Arc<str>> {
    snapshot.pods_on(node).iter().filter_map(|pod| Some(Arc::clone(&pod.pod.as_ref()?.pod_uid))).collect()
}

/// Steps from what is known to what is wanted, those that free something first.
pub(super) fn plan(
    known: &BTreeMap<&WorkloadUid, (&Held, Phase)>,
    wanted: &BTreeMap<WorkloadUid, Wanted>,
    snapshot: &Snapshot,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (uid, (held, phase)) in known {
        let uid = *uid;
        match (wanted.get(uid), phase) {
            (Some(wanted), _) if !held.is(wanted) => steps.push(Step::Forget(uid.clone())),
            (Some(_), _) => {}
            (None, _) if !is_still_there(held, uid, snapshot) => steps.push(Step::Forget(uid.clone())),
            (None, Phase::Captured | Phase::Failed) => steps.push(Step::Release(uid.clone())),
            (None, Phase::Leaving) => {}
        }
    }
    for (uid, wanted) in wanted {
        let held = known.get(uid).filter(|(held, _)| held.is(wanted));
        match held {
            Some((held, Phase::Captured)) if held.is_redirected_as(wanted) => {}
            Some((held, Phase::Captured)) => {
                steps.push(Step::Redirect(uid.clone(), Held::new(wanted, &held.place)));
            }
            // The namespace that it was captured in, or was to be, is still its own.
            Some((held, Phase::Leaving | Phase::Failed)) => {
                steps.push(Step::Capture(uid.clone(), Held::new(wanted, &held.place)));
            }
            None => {
                let Ok(place) = &wanted.place else { continue };
                steps.push(Step::Capture(uid.clone(), Held::new(wanted, place)));
            }
        }
    }
    steps
}

impl Held {
    fn new(wanted: &Wanted, place: &Place) -> Self {
        Self {
            pod_uid: Arc::clone(&wanted.pod_uid),
            identity: wanted.identity.clone(),
            exclusions: wanted.exclusions.clone(),
            probe_ports: wanted.probe_ports.clone(),
            place: place.clone(),
        }
    }

    fn is_redirected_as(&self, wanted: &Wanted) -> bool {
        self.exclusions == wanted.exclusions && self.probe_ports == wanted.probe_ports
    }

    /// Whether it is the pod that is wanted, as far as is known.
    fn is(&self, wanted: &Wanted) -> bool {
        let is_elsewhere = wanted.place.as_ref().is_ok_and(|place| *place != self.place);
        self.pod_uid == wanted.pod_uid && self.identity == wanted.identity && !is_elsewhere
    }
}

/// Whether a pod that is no longer wanted exists.
fn is_still_there(held: &Held, uid: &WorkloadUid, snapshot: &Snapshot) -> bool {
    let binding = snapshot.workload(uid).and_then(|workload| workload.pod.as_deref());
    binding.is_some_and(|pod| pod.pod_uid == held.pod_uid)
}

fn list(workloads: &[WorkloadUid]) -> String {
    workloads.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
