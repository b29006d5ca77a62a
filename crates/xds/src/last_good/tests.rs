use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use ambit_mesh::address::{GatewayAddress, GatewayDestination, Network, NetworkAddress, ServiceName};
use ambit_mesh::http::{GatewayName, Myself, WaypointState};
use ambit_mesh::mesh::Mesh;
use ambit_mesh::policy::{
    Action, AuthorizationPolicy, Clause, Match, PolicyName, PolicyScope, Rule, ServiceAccountMatch,
    StringMatch,
};
use ambit_mesh::service::{AppProtocol, IpFamilies, LoadBalancing, PortMapping, Service};
use ambit_mesh::snapshot::{Change, State};
use ambit_mesh::workload::{
    CaptureExclusions, Locality, NetworkMode, PodBinding, TunnelProtocol, Workload, WorkloadStatus,
    WorkloadType, WorkloadUid,
};
use ambit_proto::envoy::service::discovery::v3::Resource as ProtoResource;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use prost::Message;
use tempfile::TempDir;

use super::*;
use crate::convert::waypoint::tests::one_of_each;

fn owner() -> Owner {
    Owner {
        cluster_id: "Kubernetes".to_owned(),
        proxy: "n1".to_owned(),
        trust_domain: "cluster.local".parse().unwrap(),
    }
}

fn file() -> (TempDir, LastGood) {
    let directory = tempfile::tempdir().unwrap();
    let file = LastGood::new(directory.path(), owner());
    (directory, file)
}

/// Whole seconds, as they are kept.
fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn of(changes: Vec<Change>) -> Arc<Snapshot> {
    snapshot(changes)
}

fn snapshot(changes: impl IntoIterator<Item = Change>) -> Arc<Snapshot> {
    let mut state = State::default();
    state.apply(changes);
    state.snapshot()
}

/// Everything that a snapshot can hold, in more than one form where there is more than one.
fn mesh() -> Arc<Snapshot> {
    let policies = [
        policy("global", PolicyScope::Global, Action::Deny, vec![]),
        policy("of-namespace", PolicyScope::Namespace, Action::Allow, vec![Rule { clauses: vec![] }]),
        policy("selecting", PolicyScope::WorkloadSelector, Action::Deny, vec![rule()]),
        AuthorizationPolicy {
            dry_run: true,
            ..policy("watched", PolicyScope::Namespace, Action::Allow, vec![rule(), rule()])
        },
    ];
    let host = Workload { network_mode: NetworkMode::HostNetwork, pod: None, ..workload("host") };
    let plain = Workload {
        tunnel_protocol: TunnelProtocol::None,
        status: WorkloadStatus::Unhealthy,
        capacity: 0,
        authorization_policies: Default::default(),
        services: Default::default(),
        ..workload("plain")
    };
    let workloads = [workload("web"), host, plain].map(|workload| Change::Workload(Arc::new(workload)));
    let policies = policies.map(|policy| Change::Policy(Arc::new(policy)));
    let whole =
        Mesh::new(["shop".into()], ["10.10.0.0/16", "fd00:10::/32"].map(|range| range.parse().unwrap()));
    let others = [Change::Service(Arc::new(service())), Change::Mesh(Arc::new(whole))];
    snapshot(others.into_iter().chain(workloads).chain(policies))
}

/// A pod of n1 that names the policy `shop/selecting`.
fn workload(name: &str) -> Workload {
    Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into()),
        name: name.into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Network("west".into()),
        addresses: vec![ip("10.0.0.7"), ip("fd00::7")],
        hostname: Some("web.example".into()),
        identity: format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap(),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: "n1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Deployment,
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "v2".into(),
        waypoint: Some(Box::new(GatewayAddress {
            destination: GatewayDestination::Service(service_name("waypoint")),
            hbone_mtls_port: 15008,
        })),
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: [policy_name("selecting")].into_iter().collect(),
        status: WorkloadStatus::Healthy,
        locality: Locality { region: "r".into(), zone: "z".into(), subzone: "s".into() },
        capacity: 3,
        services: [(service_name("web"), vec![port()])].into(),
        pod: Some(Box::new(PodBinding {
            pod_uid: format!("uid-of-{name}").into(),
            network_namespace: Some(format!("/run/netns/{name}").into()),
            probe_ports: [8080].into(),
            exclusions: CaptureExclusions::default(),
        })),
    }
}

fn service() -> Service {
    Service {
        name: service_name("web"),
        short_name: "web".into(),
        addresses: vec![NetworkAddress { network: Network("west".into()), ip: ip("10.96.0.1") }],
        ports: vec![port()],
        subject_alt_names: vec!["spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()],
        waypoint: None,
        waypoint_failure: Default::default(),
        load_balancing: LoadBalancing::default(),
        ip_families: IpFamilies::Dual,
        canonical: true,
    }
}

fn policy(name: &str, scope: PolicyScope, action: Action, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy { name: policy_name(name), scope, action, rules, dry_run: false }
}

fn rule() -> Rule {
    let condition = Match {
        namespaces: vec![StringMatch::Exact("bank".into())],
        not_principals: vec![StringMatch::Suffix("/sa/root".into()), StringMatch::Presence],
        service_accounts: vec![ServiceAccountMatch {
            namespace: "bank".into(),
            service_account: "teller".into(),
        }],
        source_ips: vec!["10.0.0.0/8".parse().unwrap()],
        destination_ports: vec![80, 443],
        ..Match::default()
    };
    Rule { clauses: vec![Clause { any_of: vec![condition] }] }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port() -> PortMapping {
    PortMapping { service_port: 80, target_port: Some(8080), app_protocol: AppProtocol::Http2 }
}

fn service_name(name: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: format!("{name}.shop.svc.cluster.local").into() }
}

fn policy_name(name: &str) -> PolicyName {
    PolicyName { namespace: "shop".into(), name: name.into() }
}

#[test]
fn what_is_read_equals_what_was_written() {
    let (_directory, file) = file();
    assert!(file.load().unwrap().is_none());
    assert!(file.take_up(noon()).is_none());
    for snapshot in [mesh(), snapshot([])] {
        file.save(&*snapshot, noon()).unwrap();
        let kept = file.load().unwrap().unwrap();
        assert_eq!((of(kept.changes), kept.written), (snapshot.clone(), noon()));
        // Also when the clock was set back since.
        assert_eq!(file.take_up(SystemTime::UNIX_EPOCH).map(of), Some(snapshot));
    }
}

#[test]
fn what_waypoints_know_besides_is_kept_too() {
    let (_directory, file) = file();
    let myself = Myself {
        gateway: GatewayName { namespace: "shop".into(), name: "waypoint".into() },
        workload: WorkloadUid("Kubernetes//Pod/shop/waypoint-a".into()),
    };
    let snapshot = |changes: Vec<Change>| {
        let mut state = WaypointState::new(myself.clone());
        state.apply(changes);
        state.snapshot()
    };
    let mesh = mesh();
    let of_mesh = mesh.services().map(|service| Change::Service(Arc::clone(service)));
    let known = snapshot(of_mesh.chain(one_of_each().map(Change::Http)).collect());
    assert_eq!((known.routes().count(), known.policies().count(), known.subsets().count()), (1, 1, 1));
    file.save(&*known, noon()).unwrap();
    assert_eq!(snapshot(file.take_up(noon()).unwrap()), known);
}

#[test]
fn the_file_is_its_owners_alone_whatever_a_crash_has_left() {
    let (directory, file) = file();
    let unfinished = directory.path().join("last-good.unfinished");
    fs::write(&unfinished, "half").unwrap();
    fs::set_permissions(&unfinished, Permissions::from_mode(0o666)).unwrap();
    file.save(&*mesh(), noon()).unwrap();
    assert_eq!(fs::metadata(&file.path).unwrap().mode() & 0o777, 0o600);
    assert!(!unfinished.exists());
}

/// The octets of a good file.
fn good() -> Vec<u8> {
    let mut octets = Vec::new();
    format::write(&*mesh(), &owner(), noon(), &mut octets).unwrap();
    octets
}

/// The same with one more record, and the digest that belongs to it.
fn good_and(record: &ProtoResource) -> Vec<u8> {
    let mut octets = good();
    octets.truncate(octets.len() - SHA256_OUTPUT_LEN);
    octets.extend(record.encode_length_delimited_to_vec());
    let sum = digest(&SHA256, &octets[FIRST_LINE..]);
    [&octets, sum.as_ref()].concat()
}

const FIRST_LINE: usize = b"ambit last-good 1\n".len();

#[test]
fn nothing_is_used_of_a_file_that_was_cut_off_anywhere() {
    let good = good();
    for length in 0..good.len() {
        let read = format::read(&good[..length], &owner());
        assert!(matches!(read, Err(Refused::Format | Refused::Damaged)), "{length}: {read:?}");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert_eq!(format::read(&longer, &owner()).err(), Some(Refused::Damaged));
}

#[test]
fn nothing_is_used_of_a_file_of_which_any_bit_was_flipped() {
    let mut octets = good();
    for place in 0..octets.len() {
        for bit in 0..8 {
            octets[place] ^= 1 << bit;
            let read = format::read(&octets, &owner());
            assert!(matches!(read, Err(Refused::Format | Refused::Damaged)), "{place}, {bit}: {read:?}");
            octets[place] ^= 1 << bit;
        }
    }
    assert!(format::read(&octets, &owner()).is_ok());
}

#[test]
fn the_log_says_what_is_wrong_with_a_file() {
    let as_other = |change: fn(&mut Owner)| {
        let mut other = owner();
        change(&mut other);
        let mut octets = Vec::new();
        format::write(&*mesh(), &other, noon(), &mut octets).unwrap();
        octets
    };
    let version = [b"ambit last-good 2\n", &good()[FIRST_LINE..]].concat();
    let unnamed = AuthorizationPolicy {
        name: PolicyName { namespace: "".into(), name: "x".into() },
        ..policy("x", PolicyScope::Global, Action::Deny, vec![])
    };
    let unnamed = Resource::policy(&unnamed).to_proto();
    let mut alien = Resource::service(&service()).to_proto();
    alien.resource.as_mut().unwrap().type_url = "type.googleapis.com/example.Alien".into();
    for (name, octets, expected) in [
        ("empty", Vec::new(), "not written by this version of the program"),
        ("other version", version, "not written by this version of the program"),
        ("truncated", good()[..200].to_vec(), "damaged or incomplete"),
        ("other proxy", as_other(|owner| owner.proxy = "n2".into()), r#"belongs to proxy "n2", not to "n1""#),
        ("other cluster", as_other(|owner| owner.cluster_id = "west".into()), r#"belongs to cluster "west""#),
        (
            "other trust domain",
            as_other(|owner| owner.trust_domain = "example.org".parse().unwrap()),
            r#"belongs to trust domain "example.org""#,
        ),
        ("a resource of an unknown type", good_and(&alien), "web.shop.svc.cluster.local in it is not usable"),
        (
            "a policy that cannot be read",
            good_and(&unnamed),
            "/x in it is not usable: policy: namespace or name",
        ),
    ] {
        let (_directory, file) = file();
        fs::write(&file.path, octets).unwrap();
        let error = file.load().unwrap_err().to_string();
        assert!(error.contains(expected), "{name}: {error}");
        assert!(error.contains(&file.path.display().to_string()), "{name}: {error}");
        assert!(file.take_up(noon()).is_none(), "{name}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_not_a_file_that_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let no_directory = directory.path().join("state");
    fs::write(&no_directory, "a file").unwrap();
    let error = LastGood::new(&no_directory, owner()).load().unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "{error}");
    assert!(LastGood::new(&no_directory, owner()).save(&*mesh(), noon()).is_err());

    let (directory, file) = file();
    fs::create_dir(directory.path().join("last-good")).unwrap();
    let error = file.load().unwrap_err();
    assert!(matches!(error, LoadError::Read { .. }), "{error}");
}

#[test]
fn a_file_that_others_may_have_written_is_not_used() {
    for mode in [0o620, 0o602, 0o666] {
        let (_directory, file) = file();
        file.save(&*mesh(), noon()).unwrap();
        fs::set_permissions(&file.path, Permissions::from_mode(mode)).unwrap();
        assert!(matches!(file.load(), Err(LoadError::Rights { .. })), "{mode:o}");
    }
    let (_directory, file) = file();
    file.save(&*mesh(), noon()).unwrap();
    let other_user = geteuid().as_raw() + 1;
    std::os::unix::fs::chown(&file.path, Some(other_user), None).unwrap();
    assert!(matches!(file.load(), Err(LoadError::Rights { .. })));
}
