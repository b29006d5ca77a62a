//! A snapshot depends on what it holds and never on how it came to hold it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::fixtures::{
    at, endpoint, ip, policy, policy_name, service, service_name, snapshot, uid, workload,
};
use crate::policy::{Action, Clause, Match, PolicyNames, Rule, StringMatch};
use crate::workload::{NetworkMode, TunnelProtocol};

/// What a change is about: later changes of the same key replace earlier ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Workload(WorkloadUid),
    Service(ServiceName),
    Policy(PolicyName),
    Mesh,
}

fn key(change: &Change) -> Key {
    match change {
        Change::Workload(workload) => Key::Workload(workload.uid.clone()),
        Change::Service(service) => Key::Service(service.name.clone()),
        Change::Policy(policy) => Key::Policy(policy.name.clone()),
        Change::Mesh(_) | Change::RemoveMesh => Key::Mesh,
        Change::RemoveWorkload(uid) => Key::Workload(uid.clone()),
        Change::RemoveService(name) => Key::Service(name.clone()),
        Change::RemovePolicy(name) => Key::Policy(name.clone()),
        Change::Http(_) => panic!("it changes nothing of the mesh"),
    }
}

fn addresses() -> impl Strategy<Value = Vec<IpAddr>> {
    let address = prop::sample::select(vec!["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2", "fd00::1"]);
    prop::collection::vec(address.prop_map(ip), 0..3)
}

fn workloads() -> impl Strategy<Value = Change> {
    let kind = prop::sample::select(vec!["Pod", "WorkloadEntry"]);
    let serves = prop::collection::vec(any::<bool>(), 2);
    (kind, 0..3_u8, addresses(), any::<bool>(), any::<bool>(), serves, 0..3_u8).prop_map(
        |(kind, index, addresses, hbone, own_network, serves, node)| {
            let services = ["web", "cart"].into_iter().zip(serves).filter(|(_, serves)| *serves);
            Change::from(Workload {
                uid: WorkloadUid(format!("Kubernetes//{kind}/shop/{index}").into()),
                addresses,
                tunnel_protocol: if hbone { TunnelProtocol::Hbone } else { TunnelProtocol::None },
                network_mode: if own_network { NetworkMode::Standard } else { NetworkMode::HostNetwork },
                services: services.map(|(name, _)| (service_name("shop", name), Vec::new())).collect(),
                node: format!("node-{node}").into(),
                pod: workload("any", &[]).pod.filter(|_| node > 0),
                ..workload("any", &[])
            })
        },
    )
}

fn changes() -> impl Strategy<Value = Change> {
    let service_names = prop::sample::select(vec![("shop", "web"), ("shop", "cart"), ("other", "web")]);
    let services = (service_names.clone(), addresses()).prop_map(|((namespace, name), addresses)| {
        let addresses = addresses.into_iter().map(|ip| NetworkAddress { ip, ..at("10.0.0.1") }).collect();
        Change::from(Service { addresses, ..service(namespace, name, &[]) })
    });
    let scopes = vec![PolicyScope::Global, PolicyScope::Namespace, PolicyScope::WorkloadSelector];
    let actions = vec![Action::Allow, Action::Deny];
    let policies = (prop::sample::select(scopes), prop::sample::select(actions), any::<bool>(), 0..3_u8)
        .prop_map(|(scope, action, dry_run, index)| {
            Change::from(AuthorizationPolicy {
                scope,
                dry_run,
                ..policy(&format!("p{index}"), action, Vec::new())
            })
        });
    let meshes = prop::sample::select(vec!["shop", "bank"])
        .prop_map(|namespace| Change::Mesh(Arc::new(Mesh::new([namespace.into()], []))));
    prop_oneof![
        1 => meshes,
        1 => Just(Change::RemoveMesh),
        6 => workloads(),
        3 => services,
        3 => policies,
        3 => workloads().prop_map(|change| removal(&change)),
        1 => service_names.prop_map(|(namespace, name)| Change::RemoveService(service_name(namespace, name))),
        1 => (0..3_u8).prop_map(|index| Change::RemovePolicy(policy_name("shop", &format!("p{index}")))),
    ]
}

fn removal(change: &Change) -> Change {
    match key(change) {
        Key::Workload(uid) => Change::RemoveWorkload(uid),
        Key::Service(name) => Change::RemoveService(name),
        Key::Policy(name) => Change::RemovePolicy(name),
        Key::Mesh => Change::RemoveMesh,
    }
}

/// The changes that still stand at the end.
fn standing(changes: &[Change]) -> Vec<Change> {
    let last: BTreeMap<_, _> = changes.iter().map(|change| (key(change), change.clone())).collect();
    let puts = |change: &Change| match change {
        Change::Workload(_) | Change::Service(_) | Change::Policy(_) | Change::Mesh(_) => true,
        Change::RemoveWorkload(_)
        | Change::RemoveService(_)
        | Change::RemovePolicy(_)
        | Change::RemoveMesh
        | Change::Http(_) => false,
    };
    last.into_values().filter(puts).collect()
}

proptest! {
    #[test]
    fn one_change_at_a_time_gives_what_building_anew_gives(
        changes in prop::collection::vec(changes(), 0..30),
        published in prop::collection::vec(any::<bool>(), 30),
    ) {
        let mut state = State::default();
        let mut seen = Vec::new();
        for (change, publish) in changes.iter().zip(published) {
            state.apply([change.clone()]);
            if publish {
                seen.push((state.snapshot(), format!("{:?}", state.snapshot())));
            }
        }
        prop_assert_eq!(state.snapshot(), snapshot(standing(&changes)));
        for (snapshot, then) in seen {
            prop_assert_eq!(format!("{snapshot:?}"), then, "a published snapshot has changed");
        }
    }

    #[test]
    fn the_order_of_arrival_does_not_matter(
        (changes, shuffled) in prop::collection::vec(changes(), 0..20)
            .prop_map(|changes| standing(&changes))
            .prop_flat_map(|changes| (Just(changes.clone()), Just(changes).prop_shuffle())),
    ) {
        prop_assert_eq!(snapshot(changes), snapshot(shuffled));
    }

    #[test]
    fn removing_everything_leaves_nothing_and_adding_it_again_restores_it(
        changes in prop::collection::vec(changes(), 0..20),
    ) {
        let changes = standing(&changes);
        let mut state = State::default();
        state.apply(changes.clone());
        let full = state.snapshot();
        state.apply(changes.iter().map(removal));
        prop_assert_eq!(&*state.snapshot(), &Snapshot::default());
        state.apply(changes);
        prop_assert_eq!(state.snapshot(), full);
    }

    #[test]
    fn every_index_finds_what_a_search_finds(changes in prop::collection::vec(changes(), 0..30)) {
        let snapshot = snapshot(changes);
        for address in ["10.0.0.1", "10.0.0.2", "fd00::1"].map(at) {
            let has = |service: &Service| service.addresses.iter().any(|a| a.ip.to_canonical() == address.ip);
            let found: Vec<_> = snapshot.services().filter(|service| has(service)).collect();
            prop_assert_eq!(snapshot.services_by_address(&address).iter().collect::<Vec<_>>(), found);

            let best = snapshot
                .workloads()
                .filter(|workload| workload.network_mode == NetworkMode::Standard)
                .filter(|workload| workload.addresses.iter().any(|a| a.to_canonical() == address.ip))
                .min_by_key(|workload| {
                    let hbone = workload.tunnel_protocol == TunnelProtocol::Hbone;
                    (!workload.uid.0.contains("//Pod/"), !hbone, &workload.uid)
                });
            prop_assert_eq!(snapshot.workload_by_address(&address), best);
        }
        for name in ["web", "cart"].map(|name| service_name("shop", name)) {
            let serving: Vec<_> = snapshot.workloads().filter(|w| w.services.contains_key(&name)).collect();
            let endpoints: Vec<_> = snapshot.endpoints(&name).iter().map(|e| &e.workload).collect();
            prop_assert_eq!(endpoints, serving);
        }
        let pods: Vec<_> = snapshot.workloads().filter(|workload| workload.pod.is_some()).collect();
        prop_assert_eq!(snapshot.counts().pods, pods.len());
        prop_assert_eq!(snapshot.pods().collect::<Vec<_>>(), pods.clone());
        let on_node: Vec<_> = pods.into_iter().filter(|pod| &*pod.node == "node-1").collect();
        prop_assert_eq!(snapshot.pods_on("node-1").iter().collect::<Vec<_>>(), on_node);
    }
}

#[test]
fn policies_are_found_by_scope_and_by_name() {
    let scoped = |namespace: &str, name: &str, scope| {
        let policy = policy(name, Action::Allow, Vec::new());
        Change::from(AuthorizationPolicy { name: policy_name(namespace, name), scope, ..policy })
    };
    let snapshot = snapshot([
        scoped("root", "global", PolicyScope::Global),
        scoped("shop", "namespace", PolicyScope::Namespace),
        scoped("other", "namespace", PolicyScope::Namespace),
        scoped("shop", "named", PolicyScope::WorkloadSelector),
        scoped("shop", "unnamed", PolicyScope::WorkloadSelector),
    ]);
    let authorization_policies: PolicyNames =
        [policy_name("shop", "named"), policy_name("shop", "namespace"), policy_name("shop", "gone")]
            .into_iter()
            .collect();
    let workload = Workload { authorization_policies, ..workload("web", &[]) };
    let policies = snapshot.policies_for(&workload);
    let names: Vec<_> = policies.allow().map(|policy| policy.name.to_string()).collect();
    assert_eq!(names, ["root/global", "shop/namespace", "shop/named"]);
    assert_eq!(policies.missing(), Some(&policy_name("shop", "gone")));
    assert_eq!((policies.deny().count(), policies.dry_run().count()), (0, 0));
}

#[test]
fn policies_that_name_clients_are_known_as_they_come_and_go() {
    let anybody = Match { principals: vec![StringMatch::Presence], ..Match::default() };
    let somebody = Match { namespaces: vec![StringMatch::Exact("shop".into())], ..Match::default() };
    let nobody = Match { destination_ports: vec![8080], ..Match::default() };
    let one = |name: &str, scope, matches: &Match| {
        let rule = Rule { clauses: vec![Clause { any_of: vec![matches.clone()] }] };
        Change::from(AuthorizationPolicy { scope, ..policy(name, Action::Deny, vec![rule]) })
    };
    let web = workload("web", &["10.0.0.1"]);
    let mut state = State::default();
    let mut asks = |change| {
        state.apply([change]);
        state.snapshot().policies_for(&web).name_clients()
    };
    assert!(!asks(web.clone().into()));
    assert!(!asks(one("p", PolicyScope::Namespace, &anybody)));
    assert!(!asks(one("q", PolicyScope::Global, &nobody)));
    assert!(asks(one("p", PolicyScope::Namespace, &somebody)));
    assert!(asks(one("p", PolicyScope::Global, &somebody)), "it has moved");
    assert!(!asks(one("p", PolicyScope::Global, &nobody)));
    assert!(asks(one("q", PolicyScope::Namespace, &somebody)));
    assert!(!asks(Change::RemovePolicy(policy("q", Action::Deny, Vec::new()).name)));
    let names = [policy_name("shop", "missing")].into_iter().collect();
    let unknown = Workload { authorization_policies: names, ..web.clone() };
    assert!(state.snapshot().policies_for(&unknown).name_clients(), "what was never received may");
}

#[test]
fn a_crowd_is_packed_and_stays_what_it_was() {
    let name = service_name("shop", "web");
    let crowd = |count: u32| {
        (0..count).map(|index| {
            let address = format!("10.1.{}.{}", index / 250, index % 250);
            Change::from(endpoint(&format!("w{index}"), &[&address], &[&name]))
        })
    };
    let mut state = State::default();
    state.apply(crowd(5_000));
    let packed = state.snapshot();
    let mut one_by_one = State::default();
    for change in crowd(5_000) {
        one_by_one.apply([change]);
        one_by_one.snapshot();
    }
    assert_eq!(*packed, *one_by_one.snapshot());
    assert_eq!(packed.endpoints(&name).len(), 5_000);
    state.apply([Change::RemoveWorkload(uid("w7"))]);
    assert_eq!(state.snapshot().endpoints(&name).len(), 4_999);
    assert_eq!(packed.endpoints(&name).len(), 5_000, "what was handed out does not change");
}

#[test]
fn a_change_shares_everything_else_with_the_snapshot_before() {
    let name = service_name("shop", "web");
    let mut state = State::default();
    state.apply((0..5_000).map(|index| {
        let address = format!("10.1.{}.{}", index / 250, index % 250);
        Change::from(workload(&format!("w{index}"), &[&address]))
    }));
    let before = state.snapshot();
    state.apply([endpoint("w7", &["10.1.0.7"], &[&name]).into()]);
    let after = state.snapshot();

    assert_eq!(before.workloads.shards_changed(&after.workloads), 1);
    assert!(std::ptr::eq(
        Arc::as_ptr(before.workload(&uid("w8")).unwrap()),
        Arc::as_ptr(after.workload(&uid("w8")).unwrap()),
    ));
    assert!(before.endpoints(&name).is_empty());
    assert_eq!(after.endpoints(&name).len(), 1);
}
