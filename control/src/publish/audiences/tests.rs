//! What is sent to a waypoint is enough: it decides as it would if it were sent the whole mesh.

use std::fs;

use ambit_mesh::address::{Network, NetworkAddress};
use ambit_mesh::http::{
    Client, GatewayName, Head, HttpChange, Myself, Outcome, WaypointSnapshot, WaypointState, decide_by,
};
use ambit_mesh::policy::Peer;
use ambit_mesh::snapshot::Change;
use ambit_mesh::workload::WorkloadUid;
use ambit_xds::resources::Viewer;
use http::{HeaderMap, Method};

use super::*;
use crate::translate::tests::{cases, inputs, settings};
use crate::translate::translate;

const ENTANGLED: &str = include_str!("entangled.yaml");

const INSTANCE: &str = "Kubernetes//Pod/instance";

/// What is decided of everything that could be asked of a waypoint.
fn decisions(translated: &Translated, snapshot: &WaypointSnapshot) -> Vec<String> {
    let services = translated.services.values().flat_map(|service| {
        let ports = service.ports.iter().map(|port| port.service_port);
        let at = service.addresses.iter().map(|address| address.ip);
        ports.flat_map(move |port| {
            at.clone()
                .map(move |ip| format!("{}:{port}", NetworkAddress { network: Network::default(), ip }.ip))
        })
    });
    let workloads = translated.workloads.values();
    let workloads = workloads.flat_map(|workload| workload.addresses.iter().map(|ip| format!("{ip}:8080")));
    let identity = "spiffe://cluster.local/ns/shop/sa/web".parse().expect("an identity");
    let client = Client { peer: Peer::Verified(identity), ip: "10.9.9.9".parse().expect("an address") };
    let (method, headers) = (Method::GET, HeaderMap::new());
    let mut decided = Vec::new();
    for authority in services.chain(workloads) {
        let Ok(destination) = snapshot.destination(&authority.parse().expect("an authority")) else {
            continue;
        };
        decided.push(format!("{authority}: {destination:?}"));
        decided.push(format!(
            "{authority}: {:?}",
            snapshot.connection_choices(&destination, &client, Some("a.example"))
        ));
        for (target, pick) in [("/", 0), ("/", 1), ("/v2/a", 0), ("/admin", 0), ("/api/x?y=z", 0)] {
            let head = Head { method: &method, authority: "shop.example", target, headers: &headers };
            let decision = decide_by(snapshot, &destination, &client, &head, |backends| {
                (!backends.is_empty()).then(|| pick.min(backends.len() - 1))
            });
            if let Outcome::Forward(forward) = &decision.outcome {
                let upstream = snapshot.upstream_choices(&forward.backend);
                decided.push(format!("{authority}{target}: {upstream:?}"));
            }
            decided.push(format!("{authority}{target}: {decision:?}"));
        }
    }
    decided
}

/// Where what is decided leads, and whether an endpoint has to know who asks.
fn endpoints(audiences: &Audiences, viewer: &Viewer, snapshot: &WaypointSnapshot) -> Vec<String> {
    let Viewer::Waypoint(waypoint) = viewer else { return Vec::new() };
    let mine = audiences.services.iter().filter(|(_, waypoints)| waypoints.contains(waypoint));
    let mesh = snapshot.mesh();
    let endpoints =
        mine.flat_map(|(service, _)| mesh.endpoints(service).iter().map(move |found| (service, found)));
    endpoints
        .map(|(service, endpoint)| {
            let workload = mesh.workload(&endpoint.workload.uid).expect("an endpoint is a workload");
            format!("{service}: {} {}", workload.uid, mesh.policies_for(workload).name_clients())
        })
        .collect()
}

#[test]
fn a_waypoint_decides_by_what_it_is_sent_as_by_the_whole_mesh() {
    let (mut compared, mut left_out, mut all) = (0, 0, 0);
    let recorded = cases().into_iter().map(|case| {
        let text = fs::read_to_string(case.join("in.yaml")).unwrap();
        (case.display().to_string(), text)
    });
    for (case, text) in recorded.chain([("entangled.yaml".to_owned(), ENTANGLED.to_owned())]) {
        let mut translated = translate(&inputs([("in.yaml", text)]), &settings());
        for waypoint in translated.waypoints.clone() {
            let Some(like) = translated.workloads.values().next() else { continue };
            let instance = Workload {
                uid: WorkloadUid(INSTANCE.into()),
                addresses: Vec::new(),
                services: [(waypoint.clone(), Vec::new())].into_iter().collect(),
                waypoint: None,
                ..Workload::clone(like)
            };
            translated.workloads.insert(instance.uid.clone(), Arc::new(instance));
            let audiences = Audiences::of(&translated);
            let viewer = Viewer::Waypoint(waypoint.clone());
            let name = waypoint.hostname.split('.').next().expect("a name");
            let gateway = GatewayName { namespace: waypoint.namespace.clone(), name: name.into() };
            let myself = Myself { gateway, workload: WorkloadUid(INSTANCE.into()) };
            let snapshot = |is_for: &dyn Fn(Audience) -> bool| {
                let mut state = WaypointState::new(myself.clone());
                let of = &translated;
                let http = &of.for_waypoints;
                let mut changes: Vec<Change> = Vec::new();
                changes.extend(
                    of.workloads
                        .values()
                        .filter(|it| is_for(audiences.workload(it)))
                        .cloned()
                        .map(Change::Workload),
                );
                changes.extend(
                    of.services
                        .values()
                        .filter(|it| is_for(audiences.service(it)))
                        .cloned()
                        .map(Change::Service),
                );
                changes.extend(
                    of.policies
                        .values()
                        .filter(|it| is_for(audiences.policy(it)))
                        .cloned()
                        .map(Change::Policy),
                );
                let routes = http.routes.values().filter(|it| is_for(audiences.route(it))).cloned();
                changes.extend(routes.map(|it| Change::Http(HttpChange::Route(it))));
                let policies = http.policies.values().filter(|it| is_for(audiences.http_policy(it))).cloned();
                changes.extend(policies.map(|it| Change::Http(HttpChange::Policy(it))));
                let subsets = http.subsets.values().filter(|it| is_for(audiences.subset(it))).cloned();
                changes.extend(subsets.map(|it| Change::Http(HttpChange::Subset(it))));
                let count = changes.len();
                state.apply(changes);
                (state.snapshot(), count)
            };
            let (whole, total) = snapshot(&|_| true);
            let (sent, count) = snapshot(&|audience| audience.includes(&viewer));
            let expected = decisions(&translated, &whole);
            assert_eq!(decisions(&translated, &sent), expected, "{} {waypoint}", case);
            assert_eq!(
                endpoints(&audiences, &viewer, &sent),
                endpoints(&audiences, &viewer, &whole),
                "{} {waypoint}",
                case
            );
            compared += expected.len();
            left_out += total - count;
            all += total;
        }
    }
    assert!(compared > 50, "{compared} decisions");
    assert!(left_out * 4 > all, "{left_out} of {all} resources were left out");
}
