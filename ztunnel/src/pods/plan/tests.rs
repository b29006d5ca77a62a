use ambit_mesh::snapshot::{Change, State};
use ambit_mesh::workload::{Locality, NetworkMode, PodBinding, Workload, WorkloadStatus, WorkloadType};

use super::*;

fn uid(name: &str) -> WorkloadUid {
    WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into())
}

fn pod(name: &str, node: &str, protocol: TunnelProtocol) -> Workload {
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
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: Default::default(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
        pod: Some(Box::new(PodBinding {
            pod_uid: format!("uid-{name}").into(),
            network_namespace: None,
            probe_ports: BTreeSet::new(),
            exclusions: CaptureExclusions::default(),
        })),
    }
}

/// The pod with another binding.
fn bound(mut pod: Workload, change: impl FnOnce(&mut PodBinding)) -> Workload {
    change(pod.pod.as_mut().unwrap());
    pod
}

fn identity(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()
}

fn snapshot(pods: impl IntoIterator<Item = Workload>) -> Arc<Snapshot> {
    let mut state = State::default();
    state.apply(pods.into_iter().map(|pod| Change::Workload(Arc::new(pod))));
    state.snapshot()
}

fn id(inode: u64) -> NetworkNamespaceId {
    NetworkNamespaceId { device: 4, inode }
}

/// What was found: the inodes of namespaces by the names of pods.
fn places(snapshot: &Snapshot, found: &[(&str, u64)]) -> BTreeMap<WorkloadUid, Wanted> {
    let find = |pod_uid: &str| {
        let name = pod_uid.strip_prefix("uid-").unwrap_or(pod_uid);
        let place = found.iter().find(|(of, _)| *of == name);
        place.map(|(_, inode)| id(*inode)).ok_or(Unbound::NotFound)
    };
    wanted(snapshot, "n1", &Places { annotations_count: false, find: &find })
}

fn held(name: &str, inode: u64) -> Held {
    Held {
        pod_uid: format!("uid-{name}").into(),
        identity: identity(name),
        exclusions: CaptureExclusions::default(),
        probe_ports: BTreeSet::new(),
        place: Place::Found(id(inode)),
    }
}

#[test]
fn the_enrolled_pods_of_this_node_are_wanted_where_they_were_found() {
    let named = |name: &str| Some(format!("/run/netns/{name}").into());
    let snapshot = snapshot([
        pod("here", "n1", TunnelProtocol::Hbone),
        pod("elsewhere", "n2", TunnelProtocol::Hbone),
        pod("outside", "n1", TunnelProtocol::None),
        bound(pod("forged", "n1", TunnelProtocol::Hbone), |pod| pod.network_namespace = named("here")),
    ]);
    let found = places(&snapshot, &[("here", 20), ("elsewhere", 21), ("outside", 22)]);
    let expected = [(uid("forged"), Err(Unbound::NotFound)), (uid("here"), Ok(Place::Found(id(20))))];
    let found: Vec<_> = found.into_iter().map(|(uid, pod)| (uid, pod.place)).collect();
    assert_eq!(found, expected, "an annotation counts only where it is allowed");

    let find = |_: &str| Err(Unbound::NotFound);
    let named_where_allowed = wanted(&snapshot, "n1", &Places { annotations_count: true, find: &find });
    assert_eq!(named_where_allowed[&uid("forged")].place, Ok(Place::Named("/run/netns/here".into())));
}

#[test]
fn workloads_that_say_they_are_the_same_pod_are_not_captured() {
    let snapshot = snapshot([
        pod("static", "n1", TunnelProtocol::Hbone),
        bound(pod("forged", "n1", TunnelProtocol::Hbone), |pod| pod.pod_uid = "uid-static".into()),
    ]);
    let wanted = places(&snapshot, &[("static", 20)]);
    let shared = Unbound::Shared { workloads: vec![uid("forged"), uid("static")] };
    for name in ["static", "forged"] {
        assert_eq!(wanted[&uid(name)].place, Err(shared.clone()), "{name}");
    }
    assert_eq!(plan(&BTreeMap::new(), &wanted, &snapshot), []);
    let (uid, captured) = (uid("static"), held("static", 20));
    let known = BTreeMap::from([(&uid, (&captured, Phase::Captured))]);
    assert_eq!(plan(&known, &wanted, &snapshot), [], "the one that was captured before stays so");
}

#[test]
fn each_pod_takes_the_step_that_its_state_and_the_snapshot_call_for() {
    let enrolled = pod("a", "n1", TunnelProtocol::Hbone);
    let unenrolled = pod("a", "n1", TunnelProtocol::None);
    let again = bound(pod("a", "n1", TunnelProtocol::Hbone), |pod| pod.pod_uid = "uid-b".into());
    let again_outside = bound(pod("a", "n1", TunnelProtocol::None), |pod| pod.pod_uid = "uid-b".into());
    let excluding = CaptureExclusions { inbound_ports: [22].into(), ..CaptureExclusions::default() };
    let excluded = bound(pod("a", "n1", TunnelProtocol::Hbone), |pod| pod.exclusions = excluding.clone());
    let now = held("a", 20);
    let elsewhere = held("a", 19);
    let capture = |held: &Held| Step::Capture(uid("a"), held.clone());
    let forget = || Step::Forget(uid("a"));
    let (captured, leaving, failed) = (Phase::Captured, Phase::Leaving, Phase::Failed);
    let b = Held { pod_uid: "uid-b".into(), ..held("a", 21) };
    let found: &[(&str, u64)] = &[("a", 20), ("b", 21)];
    for (rule, known, pod, found, expected) in [
        ("a new pod is captured", None, Some(&enrolled), found, vec![capture(&now)]),
        ("one that is not found waits", None, Some(&enrolled), &[], vec![]),
        ("a captured pod stays", Some((&now, captured)), Some(&enrolled), found, vec![]),
        ("also while it is not found", Some((&now, captured)), Some(&enrolled), &[], vec![]),
        ("a failed pod is tried again", Some((&now, failed)), Some(&enrolled), found, vec![capture(&now)]),
        ("a leaving pod may come back", Some((&now, leaving)), Some(&enrolled), &[], vec![capture(&now)]),
        (
            "another namespace is another sandbox",
            Some((&elsewhere, captured)),
            Some(&enrolled),
            found,
            vec![forget(), capture(&now)],
        ),
        (
            "another UID is another pod",
            Some((&now, captured)),
            Some(&again),
            found,
            vec![forget(), capture(&b)],
        ),
        ("also when it is not enrolled", Some((&now, captured)), Some(&again_outside), found, vec![forget()]),
        (
            "what is left alone may change",
            Some((&now, captured)),
            Some(&excluded),
            found,
            vec![Step::Redirect(uid("a"), Held { exclusions: excluding.clone(), ..now.clone() })],
        ),
        (
            "an unenrolled pod is released",
            Some((&now, captured)),
            Some(&unenrolled),
            found,
            vec![Step::Release(uid("a"))],
        ),
        ("and only once", Some((&now, leaving)), Some(&unenrolled), found, vec![]),
        ("a deleted pod is forgotten", Some((&now, captured)), None, found, vec![forget()]),
    ] {
        let snapshot = snapshot(pod.cloned());
        let uid = uid("a");
        let known = known.map(|known| (&uid, known)).into_iter().collect();
        assert_eq!(plan(&known, &places(&snapshot, found), &snapshot), expected, "{rule}");
    }
}

#[test]
fn control_knows_a_pod_by_its_uid() {
    let snapshot = snapshot([
        pod("in", "n1", TunnelProtocol::Hbone),
        pod("out", "n1", TunnelProtocol::None),
        pod("elsewhere", "n2", TunnelProtocol::Hbone),
    ]);
    for (pod_uid, expected) in [
        ("uid-in", Standing::Enrolled(uid("in"))),
        ("uid-out", Standing::NotEnrolled),
        ("uid-elsewhere", Standing::Unknown),
        ("uid-nobody", Standing::Unknown),
    ] {
        assert_eq!(standing(&snapshot, "n1", pod_uid), expected, "{pod_uid}");
    }
}
