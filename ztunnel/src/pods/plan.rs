//! What to do about which pod: a pure comparison of what is captured with what should be.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use ambit_mesh::identity::SpiffeId;
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::{TunnelProtocol, WorkloadUid};

/// A pod as it should be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The pod's UID: another one under the same name is another pod.
    pub pod_uid: Arc<str>,
    /// Its network namespace.
    pub network_namespace: PathBuf,
    /// Who it is.
    pub identity: SpiffeId,
}

/// How far a known pod is.
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
    Capture(WorkloadUid, Wanted),
    /// It is no longer enrolled: take no new connections, let open ones finish.
    Release(WorkloadUid),
    /// It does not exist any more.
    Forget(WorkloadUid),
}

/// The pods of `node` that should be captured: enrolled, and bound to a namespace.
pub(super) fn wanted(
    snapshot: &Snapshot,
    node: &str,
    allow_netns_annotation: bool,
) -> BTreeMap<WorkloadUid, Wanted> {
    if !allow_netns_annotation {
        return BTreeMap::new();
    }
    let enrolled =
        snapshot.pods_on(node).iter().filter(|workload| workload.tunnel_protocol == TunnelProtocol::Hbone);
    enrolled
        .filter_map(|workload| {
            let pod = workload.pod.as_ref()?;
            let wanted = Wanted {
                pod_uid: Arc::clone(&pod.pod_uid),
                network_namespace: pod.network_namespace.clone()?,
                identity: workload.identity.clone(),
            };
            Some((workload.uid.clone(), wanted))
        })
        .collect()
}

/// Steps from what is known to what is wanted, those that free something first.
pub(super) fn plan(
    known: &BTreeMap<&WorkloadUid, (&Wanted, Phase)>,
    wanted: &BTreeMap<WorkloadUid, Wanted>,
    snapshot: &Snapshot,
) -> Vec<Step> {
    let mut steps = Vec::new();
    for (uid, (captured, phase)) in known {
        match (wanted.get(*uid), phase) {
            // Another pod under the same name, or another namespace: the old one is gone.
            (Some(wanted), _) if wanted != *captured => steps.push(Step::Forget((*uid).clone())),
            (Some(_), _) => {}
            (None, _) if snapshot.workload(uid).is_none() => steps.push(Step::Forget((*uid).clone())),
            (None, Phase::Captured | Phase::Failed) => steps.push(Step::Release((*uid).clone())),
            (None, Phase::Leaving) => {}
        }
    }
    for (uid, wanted) in wanted {
        let captured = matches!(known.get(uid), Some((captured, Phase::Captured)) if *captured == wanted);
        if !captured {
            steps.push(Step::Capture(uid.clone(), wanted.clone()));
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use ambit_mesh::snapshot::{Change, State};
    use ambit_mesh::workload::{Locality, NetworkMode, PodBinding, Workload, WorkloadStatus, WorkloadType};

    use super::*;

    fn uid(name: &str) -> WorkloadUid {
        WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into())
    }

    fn pod(name: &str, node: &str, protocol: TunnelProtocol, netns: Option<&str>) -> Workload {
        Workload {
            uid: uid(name),
            name: name.into(),
            namespace: "shop".into(),
            cluster_id: "Kubernetes".into(),
            network: Default::default(),
            addresses: Vec::new(),
            hostname: None,
            identity: identity(name),
            tunnel_protocol: protocol,
            node: node.into(),
            network_mode: NetworkMode::Standard,
            workload_type: WorkloadType::Pod,
            workload_name: name.into(),
            canonical_name: name.into(),
            canonical_revision: "latest".into(),
            waypoint: None,
            network_gateway: None,
            application_tunnel: None,
            authorization_policies: Default::default(),
            status: WorkloadStatus::Healthy,
            locality: Locality::default(),
            capacity: 1,
            services: Default::default(),
            pod: netns.map(|path| PodBinding {
                pod_uid: format!("uid-{name}").into(),
                network_namespace: Some(path.into()),
            }),
        }
    }

    fn identity(name: &str) -> SpiffeId {
        format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()
    }

    fn snapshot(pods: impl IntoIterator<Item = Workload>) -> Arc<Snapshot> {
        let mut state = State::default();
        state.apply(pods.into_iter().map(|pod| Change::Workload(Arc::new(pod))));
        state.snapshot()
    }

    fn should_be(name: &str, netns: &str) -> Wanted {
        Wanted {
            pod_uid: format!("uid-{name}").into(),
            network_namespace: netns.into(),
            identity: identity(name),
        }
    }

    #[test]
    fn only_enrolled_pods_of_this_node_with_a_namespace_are_wanted() {
        let snapshot = snapshot([
            pod("here", "n1", TunnelProtocol::Hbone, Some("/run/netns/here")),
            pod("elsewhere", "n2", TunnelProtocol::Hbone, Some("/run/netns/elsewhere")),
            pod("outside", "n1", TunnelProtocol::None, Some("/run/netns/outside")),
            pod("unbound", "n1", TunnelProtocol::Hbone, None),
        ]);
        let expected = BTreeMap::from([(uid("here"), should_be("here", "/run/netns/here"))]);
        assert_eq!(wanted(&snapshot, "n1", true), expected);
        assert!(wanted(&snapshot, "n1", false).is_empty(), "the annotation counts only where it is allowed");
    }

    #[test]
    fn each_pod_takes_the_step_that_its_state_and_the_snapshot_call_for() {
        let enrolled = pod("a", "n1", TunnelProtocol::Hbone, Some("/run/netns/a"));
        let unenrolled = pod("a", "n1", TunnelProtocol::None, Some("/run/netns/a"));
        let now = should_be("a", "/run/netns/a");
        let before = should_be("a", "/run/netns/old");
        let capture = || Step::Capture(uid("a"), now.clone());
        for (rule, known, pod, expected) in [
            ("a new pod is captured", None, Some(&enrolled), vec![capture()]),
            ("a captured pod stays", Some((&now, Phase::Captured)), Some(&enrolled), vec![]),
            ("a failed pod is tried again", Some((&now, Phase::Failed)), Some(&enrolled), vec![capture()]),
            ("a leaving pod may come back", Some((&now, Phase::Leaving)), Some(&enrolled), vec![capture()]),
            (
                "another namespace is another pod",
                Some((&before, Phase::Captured)),
                Some(&enrolled),
                vec![Step::Forget(uid("a")), capture()],
            ),
            (
                "an unenrolled pod is released",
                Some((&now, Phase::Captured)),
                Some(&unenrolled),
                vec![Step::Release(uid("a"))],
            ),
            ("and only once", Some((&now, Phase::Leaving)), Some(&unenrolled), vec![]),
            ("a deleted pod is forgotten", Some((&now, Phase::Captured)), None, vec![Step::Forget(uid("a"))]),
        ] {
            let snapshot = snapshot(pod.cloned());
            let uid = uid("a");
            let known = known.map(|known| (&uid, known)).into_iter().collect();
            assert_eq!(plan(&known, &wanted(&snapshot, "n1", true), &snapshot), expected, "{rule}");
        }
    }
}
