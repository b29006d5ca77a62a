//! The table of outbound decisions. Long because it is one table: a row for each way in which a destination is meant.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::address::{GatewayDestination, Network, ServiceName};
use crate::fixtures::{
    at, endpoint, gateway, identity, port, service, service_name, snapshot, socket, uid, workload,
};
use crate::mesh::Mesh;
use crate::service::{HealthPolicy, IpFamilies, LoadBalancing, Scope};
use crate::snapshot::Change;
use crate::workload::{NetworkMode, WorkloadStatus};

/// A mesh and a connection in it. By default `shop/client` on `node-1` opens it.
struct Case {
    mesh: Vec<Change>,
    source: Workload,
    excluded: Vec<WorkloadUid>,
    suspects: Vec<WorkloadUid>,
    waited: bool,
}

fn case(mesh: impl IntoIterator<Item = Change>) -> Case {
    let source = workload("client", &["10.0.0.9", "fd00::9"]);
    let (excluded, suspects) = (Vec::new(), Vec::new());
    Case { mesh: mesh.into_iter().collect(), source, excluded, suspects, waited: false }
}

impl Case {
    fn decide(&self, destination: &str, seed: u64) -> Result<OutboundDecision, Outcome> {
        let request = OutboundRequest {
            source: &self.source,
            destination: socket(destination),
            excluded: &self.excluded,
            suspects: &self.suspects,
            mesh_ranges: &["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()],
            waited: self.waited,
        };
        outbound(&snapshot(self.mesh.clone()), &request, &mut SmallRng::seed_from_u64(seed))
    }

    /// Checks the decision as [`told`] tells it.
    fn goes(&self, rule: &str, destination: &str, expected: &str) {
        assert_eq!(told(self.decide(destination, 1)), expected, "{rule}");
    }

    /// Checks that the connection is refused with a message that has `part`.
    fn refused(&self, rule: &str, destination: &str, part: &str) {
        let outcome = told(self.decide(destination, 1));
        assert!(outcome.starts_with("refused: ") && outcome.contains(part), "{rule}: {outcome}");
    }

    /// The endpoints that take the connection for some seed, in order.
    fn takers(&self, destination: &str) -> Vec<String> {
        let taken = (0..64).filter_map(|seed| self.decide(destination, seed).ok()?.endpoint);
        let names: std::collections::BTreeSet<_> = taken.map(|endpoint| endpoint.name.to_string()).collect();
        names.into_iter().collect()
    }
}

/// A decision in one line.
fn told(outcome: Result<OutboundDecision, Outcome>) -> String {
    match outcome {
        Ok(decision) => match decision.transport {
            Transport::Passthrough => format!("plain {} ({:?})", decision.next_hop, decision.why),
            Transport::Hbone { authority, expected } => {
                let expected: Vec<_> = expected.iter().map(|id| id.service_account().to_owned()).collect();
                let expected = expected.join("|");
                format!("hbone {} for {authority} as {expected} ({:?})", decision.next_hop, decision.why)
            }
        },
        Err(Outcome::Ask(ask)) => format!("ask: {ask:?}"),
        Err(Outcome::Refused(error)) => format!("refused: {error}"),
    }
}

fn web() -> ServiceName {
    service_name("shop", "web")
}

fn web_at(address: &str) -> Service {
    service("shop", "web", &[address])
}

fn plain(workload: Workload) -> Workload {
    Workload { tunnel_protocol: TunnelProtocol::None, ..workload }
}

fn unhealthy(workload: Workload) -> Workload {
    Workload { status: WorkloadStatus::Unhealthy, ..workload }
}

#[test]
fn a_workload_by_its_address() {
    let mesh = case([
        workload("web", &["10.0.0.1", "fd00::1"]).into(),
        plain(workload("old", &["10.0.0.2"])).into(),
        unhealthy(workload("sick", &["10.0.0.3"])).into(),
        Workload { network_mode: NetworkMode::HostNetwork, ..workload("host", &["192.0.2.1"]) }.into(),
        web_at("10.0.0.1").into(),
    ]);
    mesh.goes("HBONE", "10.0.0.1:80", "hbone 10.0.0.1:15008 for 10.0.0.1:80 as web (Workload)");
    mesh.goes("IPv6", "[fd00::1]:80", "hbone [fd00::1]:15008 for [fd00::1]:80 as web (Workload)");
    mesh.goes(
        "IPv4-mapped",
        "[::ffff:10.0.0.1]:80",
        "hbone 10.0.0.1:15008 for 10.0.0.1:80 as web (Workload)",
    );
    mesh.goes("without HBONE", "10.0.0.2:80", "plain 10.0.0.2:80 (Workload)");
    mesh.goes(
        "health is for services",
        "10.0.0.3:80",
        "hbone 10.0.0.3:15008 for 10.0.0.3:80 as sick (Workload)",
    );
    mesh.goes("the node's network is not a pod's", "192.0.2.1:80", "plain 192.0.2.1:80 (OutsideMesh)");

    let tried = Case { excluded: vec![uid("web")], ..mesh };
    tried.refused("there is no other to try", "10.0.0.1:80", "no other workload");
}

#[test]
fn a_service_by_its_virtual_address() {
    let named = Service { subject_alt_names: vec![identity("gate")], ..web_at("10.96.0.1") };
    let mesh = case([named.into(), endpoint("web-0", &["10.0.0.1"], &[&web()]).into()]);
    mesh.goes(
        "the service's identities count beside the endpoint's",
        "10.96.0.1:80",
        "hbone 10.0.0.1:15008 for 10.0.0.1:8080 as gate|web-0 (Service)",
    );
    let decision = mesh.decide("10.96.0.1:80", 1).unwrap();
    assert_eq!(decision.service.unwrap().name, web());
    assert_eq!(decision.endpoint.unwrap().uid, uid("web-0"));

    let mesh = case([web_at("10.96.0.1").into(), plain(endpoint("old", &["10.0.0.1"], &[&web()])).into()]);
    mesh.goes("an endpoint without HBONE", "10.96.0.1:80", "plain 10.0.0.1:8080 (Service)");

    let client = endpoint("client", &["10.0.0.9"], &[&web()]);
    let mesh = case([web_at("10.96.0.1").into(), client.clone().into()]);
    let hairpin = Case { source: client, ..mesh };
    hairpin.goes("itself", "10.96.0.1:80", "hbone 10.0.0.9:15008 for 10.0.0.9:8080 as client (Service)");
}

#[test]
fn which_port_an_endpoint_is_reached_on() {
    let of_endpoint =
        |ports| Workload { services: [(web(), ports)].into(), ..endpoint("web-0", &["10.0.0.1"], &[]) };
    let of_service = |ports| Service { ports, ..web_at("10.96.0.1") };
    let to = |service: Service, workload: Workload| case([service.into(), workload.into()]);
    let hbone_to = |port| format!("hbone 10.0.0.1:15008 for 10.0.0.1:{port} as web-0 (Service)");

    for (rule, service_ports, endpoint_ports, expected) in [
        ("the service's", vec![port(80, Some(8080))], vec![], 8080),
        ("the endpoint's first", vec![port(80, Some(8080))], vec![port(80, Some(9090))], 9090),
        ("the endpoint's alone", vec![port(80, None)], vec![port(80, Some(9090))], 9090),
        ("the endpoint's is for another port", vec![port(80, Some(8080))], vec![port(81, Some(1))], 8080),
        ("the endpoint leaves it open", vec![port(80, Some(8080))], vec![port(80, None)], 8080),
    ] {
        to(of_service(service_ports), of_endpoint(endpoint_ports)).goes(
            rule,
            "10.96.0.1:80",
            &hbone_to(expected),
        );
    }
    for (rule, service_ports, endpoint_ports) in [
        ("a port that leads nowhere", vec![port(80, None)], vec![]),
        ("a port that the service lacks", vec![port(81, Some(81))], vec![port(80, Some(9090))]),
    ] {
        let case = to(of_service(service_ports), of_endpoint(endpoint_ports));
        case.refused(rule, "10.96.0.1:80", "port 80: 1 without such a port (check targetPort)");
    }
    let application_tunnel = Some(crate::workload::ApplicationTunnel {
        protocol: crate::workload::ApplicationTunnelProtocol::None,
        port: Some(9000),
    });
    let tunnelled = Workload { application_tunnel, ..of_endpoint(vec![]) };
    to(of_service(vec![port(80, None)]), tunnelled).goes("a tunnel takes any", "10.96.0.1:80", &hbone_to(80));
}

#[test]
fn which_endpoints_count() {
    let web_0 = || endpoint("web-0", &["10.0.0.1"], &[&web()]);
    let abroad = || Workload { network: Network("abroad".into()), ..web_0() };
    let named = || Workload { hostname: Some("db.example".into()), addresses: vec![], ..web_0() };
    let four_only = || Service { ip_families: IpFamilies::Ipv6Only, ..web_at("10.96.0.1") };
    let any_health = || LoadBalancing { health_policy: HealthPolicy::AllowAll, ..LoadBalancing::default() };
    let refused = [
        ("no endpoint", web_at("10.96.0.1"), vec![], "it has none"),
        ("not ready", web_at("10.96.0.1"), vec![unhealthy(web_0())], "1 not ready"),
        ("capacity 0", web_at("10.96.0.1"), vec![Workload { capacity: 0, ..web_0() }], "1 of capacity 0"),
        ("another network", web_at("10.96.0.1"), vec![abroad()], "multi-network is not supported yet"),
        ("a host name", web_at("10.96.0.1"), vec![named()], "host names are not resolved here"),
        ("no address of the family", four_only(), vec![web_0()], "1 without an address"),
    ];
    for (rule, service, endpoints, part) in refused {
        let mesh = case(endpoints.into_iter().map(Change::from).chain([service.into()]));
        mesh.refused(rule, "10.96.0.1:80", part);
    }

    let all = Service { load_balancing: any_health(), ..web_at("10.96.0.1") };
    let mesh = case([all.into(), unhealthy(web_0()).into()]);
    assert_eq!(mesh.takers("10.96.0.1:80"), ["web-0"], "all endpoints count, whatever their health");

    let web_1 = endpoint("web-1", &["10.0.0.2"], &[&web()]);
    let other_network = Workload { uid: uid("abroad"), name: "abroad".into(), ..abroad() };
    let mesh = case([
        web_at("10.96.0.1").into(),
        web_0().into(),
        web_1.into(),
        other_network.into(),
        unhealthy(endpoint("sick", &["10.0.0.3"], &[&web()])).into(),
        workload("stranger", &["10.0.0.4"]).into(),
    ]);
    assert_eq!(mesh.takers("10.96.0.1:80"), ["web-0", "web-1"]);
    let retry = Case { excluded: vec![uid("web-0")], ..mesh };
    assert_eq!(retry.takers("10.96.0.1:80"), ["web-1"], "what was tried is left out");
    let doubted = Case { excluded: Vec::new(), suspects: vec![uid("web-0")], ..retry };
    assert_eq!(doubted.takers("10.96.0.1:80"), ["web-1"], "others are taken first");
    let no_other = Case { excluded: vec![uid("web-1")], ..doubted };
    assert_eq!(no_other.takers("10.96.0.1:80"), ["web-0"], "where there are any");
    let last = Case { excluded: vec![uid("web-0"), uid("web-1")], ..no_other };
    last.refused("all were tried", "10.96.0.1:80", "1 not ready, 2 tried in vain, 1 in another network");
}

#[test]
fn which_address_of_an_endpoint_is_used() {
    let families = |ip_families| {
        let service = Service { ip_families, ..service("shop", "web", &["10.96.0.1", "fd96::1"]) };
        case([service.into(), endpoint("web-0", &["fd00::1", "10.0.0.1"], &[&web()]).into()])
    };
    let six = "hbone [fd00::1]:15008 for [fd00::1]:8080 as web-0 (Service)";
    let four = "hbone 10.0.0.1:15008 for 10.0.0.1:8080 as web-0 (Service)";
    for (families_of_service, by_four, by_six) in [
        (IpFamilies::Automatic, four, six),
        (IpFamilies::Dual, four, six),
        (IpFamilies::Ipv4Only, four, four),
        (IpFamilies::Ipv6Only, six, six),
    ] {
        let mesh = families(families_of_service);
        mesh.goes("asked by IPv4", "10.96.0.1:80", by_four);
        mesh.goes("asked by IPv6", "[fd96::1]:80", by_six);
    }
    let mesh = case([web_at("10.96.0.1").into(), endpoint("web-0", &["fd00::1"], &[&web()]).into()]);
    mesh.goes("no address of that family: the first", "10.96.0.1:80", six);
}

#[test]
fn where_endpoints_are_counts() {
    let prefers =
        |mode| LoadBalancing { routing_preference: vec![Scope::Node], mode, ..LoadBalancing::default() };
    let on = |name: &str, address: &str, node: &str| Workload {
        node: node.into(),
        ..endpoint(name, &[address], &[&web()])
    };
    let mesh = |mode| {
        let service = Service { load_balancing: prefers(mode), ..web_at("10.96.0.1") };
        case([
            service.into(),
            on("near", "10.0.0.1", "node-1").into(),
            on("far", "10.0.0.2", "node-2").into(),
        ])
    };
    assert_eq!(mesh(LoadBalancingMode::Unspecified).takers("10.96.0.1:80"), ["far", "near"]);
    assert_eq!(mesh(LoadBalancingMode::Failover).takers("10.96.0.1:80"), ["near"]);
    assert_eq!(mesh(LoadBalancingMode::Strict).takers("10.96.0.1:80"), ["near"]);

    let doubted = |mode| Case { suspects: vec![uid("near")], ..mesh(mode) };
    assert_eq!(doubted(LoadBalancingMode::Failover).takers("10.96.0.1:80"), ["far"]);
    assert_eq!(doubted(LoadBalancingMode::Strict).takers("10.96.0.1:80"), ["near"], "none goes too far");
    let without_near = |mode| Case { excluded: vec![uid("near")], ..mesh(mode) };
    assert_eq!(without_near(LoadBalancingMode::Failover).takers("10.96.0.1:80"), ["far"]);
    without_near(LoadBalancingMode::Strict).refused("strict", "10.96.0.1:80", "1 outside the locality");
    mesh(LoadBalancingMode::Passthrough).goes(
        "passthrough",
        "10.96.0.1:80",
        "plain 10.96.0.1:80 (PassthroughService)",
    );
}

#[test]
fn of_services_that_share_an_address() {
    let at_shared = |namespace: &str, name: &str| service(namespace, name, &["10.96.0.1"]);
    let canonical = || Service { canonical: true, ..at_shared("other", "main") };
    let chosen = |services: Vec<Service>| {
        let backends = services.iter().enumerate().map(|(index, service)| {
            let address = format!("10.0.0.{}", index + 1);
            Change::from(endpoint(&service.short_name, &[&address], &[&service.name]))
        });
        let backends: Vec<_> = backends.collect();
        let mesh = case(services.into_iter().map(Change::from).chain(backends));
        mesh.decide("10.96.0.1:80", 1).unwrap().service.unwrap().short_name.to_string()
    };
    let (a, own, z) = (at_shared("a", "first"), at_shared("shop", "own"), at_shared("z", "last"));
    assert_eq!(chosen(vec![canonical(), own.clone(), a.clone()]), "own", "the client's namespace");
    assert_eq!(chosen(vec![z.clone(), canonical(), a.clone()]), "main", "the canonical one");
    assert_eq!(chosen(vec![z, a]), "first", "the first by name");
}

#[test]
fn what_is_not_known() {
    let mesh = || case([]);
    mesh().goes("outside the mesh", "192.0.2.1:443", "plain 192.0.2.1:443 (OutsideMesh)");
    let unknown = mesh().decide("10.0.0.1:80", 1);
    assert_eq!(unknown, Err(Outcome::Ask(Ask::Wait { address: at("10.0.0.1") })), "inside: wait");
    let unknown = mesh().decide("[::ffff:10.0.0.1]:80", 1);
    assert_eq!(unknown, Err(Outcome::Ask(Ask::Wait { address: at("10.0.0.1") })), "IPv4-mapped: wait");
    let waited = Case { waited: true, ..mesh() };
    waited.refused("inside, after waiting", "10.0.0.1:80", "check that it exists");
    waited.refused("IPv6 inside, after waiting", "[fd00::1]:80", "check that it exists");
    waited.goes("outside, after waiting", "192.0.2.1:443", "plain 192.0.2.1:443 (OutsideMesh)");

    let ranges = Change::Mesh(Arc::new(Mesh::new([], ["192.0.2.0/24".parse().unwrap()])));
    let told = || Case { waited: true, ..case([ranges.clone()]) };
    told().refused("inside what control says, after waiting", "192.0.2.1:443", "check that it exists");
    told().refused("inside what the agent was started with", "10.0.0.1:80", "check that it exists");
    told().goes("outside both", "198.51.100.1:443", "plain 198.51.100.1:443 (OutsideMesh)");

    let mesh = case([workload("web", &["10.0.0.1"]).into()]);
    let source = Workload { network: Network("abroad".into()), ..workload("client", &[]) };
    let abroad = Case { source, waited: true, ..mesh };
    abroad.refused("an address of another network means nothing here", "10.0.0.1:80", "neither a workload");
}

#[test]
fn what_would_come_back_to_the_proxy() {
    let mesh = case([
        plain(workload("old", &["10.0.0.2"])).into(),
        Service { ports: vec![port(80, Some(15001))], ..web_at("10.96.0.1") }.into(),
        plain(endpoint("loop", &["10.0.0.3"], &[&web()])).into(),
    ]);
    for own in [15001, 15006, 15008] {
        mesh.refused("outside the mesh", &format!("192.0.2.1:{own}"), "port of the proxy");
        mesh.refused("a workload without HBONE", &format!("10.0.0.2:{own}"), "port of the proxy");
    }
    mesh.refused("a target port", "10.96.0.1:80", "10.0.0.3:15001 is a port of the proxy");
    mesh.refused("loopback", "127.0.0.1:15001", "loopback");
    mesh.refused("loopback, IPv6", "[::1]:80", "loopback");
    mesh.refused("loopback, IPv4-mapped", "[::ffff:127.0.0.1]:80", "loopback");
}

fn waypoint() -> ServiceName {
    service_name("shop", "waypoint")
}

fn waypoint_service() -> Service {
    Service { ports: vec![port(15008, Some(15108))], ..service("shop", "waypoint", &["10.96.0.30"]) }
}

fn waypoint_pod() -> Workload {
    endpoint("waypoint", &["10.0.0.30"], &[&waypoint()])
}

/// A service and a workload that are bound to the waypoint, beside the waypoint's own parts.
fn bound(to: GatewayAddress, parts: impl IntoIterator<Item = Change>) -> Case {
    let service = Service { waypoint: Some(to.clone()), ..web_at("10.96.0.1") };
    let pod = Workload { waypoint: Some(to.into()), ..endpoint("web-0", &["10.0.0.1"], &[&web()]) };
    case([service.into(), pod.into()].into_iter().chain(parts))
}

#[test]
fn a_bound_waypoint_takes_the_connection() {
    let by_address = |address: &str, hbone_mtls_port| GatewayAddress {
        destination: GatewayDestination::Address(at(address)),
        hbone_mtls_port,
    };
    for (rule, to, next_hop) in [
        ("by service", gateway(&waypoint()), "10.0.0.30:15108"),
        ("by the service's address", by_address("10.96.0.30", 15008), "10.0.0.30:15108"),
        ("by the workload's address", by_address("10.0.0.30", 15118), "10.0.0.30:15118"),
    ] {
        let mesh = bound(to, [waypoint_service().into(), waypoint_pod().into()]);
        let hbone = |authority, why| format!("hbone {next_hop} for {authority} as waypoint ({why})");
        mesh.goes(rule, "10.96.0.1:80", &hbone("10.96.0.1:80", "ServiceWaypoint"));
        mesh.goes(rule, "10.0.0.1:8080", &hbone("10.0.0.1:8080", "WorkloadWaypoint"));

        let itself = Case { source: waypoint_pod(), ..mesh };
        let direct = "hbone 10.0.0.1:15008 for 10.0.0.1:8080 as web-0";
        itself.goes("the waypoint goes on", "10.96.0.1:80", &format!("{direct} (Service)"));
        itself.goes("the waypoint goes on", "10.0.0.1:8080", &format!("{direct} (Workload)"));
    }
}

#[test]
fn a_waypoint_that_cannot_take_it_closes() {
    let by_address = || GatewayAddress {
        destination: GatewayDestination::Address(at("10.0.0.30")),
        hbone_mtls_port: 15008,
    };
    let abroad = || Workload { network: Network("abroad".into()), ..waypoint_pod() };
    for (rule, mesh, part) in [
        ("missing", bound(gateway(&waypoint()), []), "does not exist"),
        ("missing at its address", bound(by_address(), []), "does not exist"),
        ("without instance", bound(gateway(&waypoint()), [waypoint_service().into()]), "it has none"),
        (
            "not ready",
            bound(gateway(&waypoint()), [waypoint_service().into(), unhealthy(waypoint_pod()).into()]),
            "1 not ready",
        ),
        ("not ready at its address", bound(by_address(), [unhealthy(waypoint_pod()).into()]), "1 not ready"),
        (
            "without the port",
            bound(gateway(&waypoint()), [service("shop", "waypoint", &[]).into(), waypoint_pod().into()]),
            "1 without such a port",
        ),
        (
            "in another network",
            bound(gateway(&waypoint()), [waypoint_service().into(), abroad().into()]),
            "1 in another network",
        ),
    ] {
        mesh.refused(rule, "10.96.0.1:80", part);
        mesh.refused(rule, "10.0.0.1:8080", part);
    }
    // Whose owner has said so goes around it.
    let open = |parts: Vec<Change>| {
        let (to, failure) = (gateway(&waypoint()), WaypointFailure::Open);
        let pod = endpoint("web-0", &["10.0.0.1"], &[&web()]);
        let pod = Workload { waypoint: Some(to.clone().into()), waypoint_failure: failure, ..pod };
        let service = Service { waypoint: Some(to), waypoint_failure: failure, ..web_at("10.96.0.1") };
        case([service.into(), pod.into()].into_iter().chain(parts))
    };
    let direct = "hbone 10.0.0.1:15008 for 10.0.0.1:8080 as web-0";
    for (rule, mesh) in [
        ("missing, fails open", open(Vec::new())),
        ("not ready, fails open", open(vec![waypoint_service().into(), unhealthy(waypoint_pod()).into()])),
        (
            "tried, fails open",
            Case {
                excluded: vec![uid("waypoint")],
                ..open(vec![waypoint_service().into(), waypoint_pod().into()])
            },
        ),
    ] {
        mesh.goes(rule, "10.96.0.1:80", &format!("{direct} (Service)"));
        mesh.goes(rule, "10.0.0.1:8080", &format!("{direct} (Workload)"));
    }
    let mesh = open(vec![waypoint_service().into(), waypoint_pod().into()]);
    let hbone = "hbone 10.0.0.30:15108 for 10.96.0.1:80 as waypoint (ServiceWaypoint)";
    mesh.goes("there, fails open", "10.96.0.1:80", hbone);
    let doubted = Case { suspects: vec![uid("waypoint")], ..mesh };
    doubted.goes("a suspicion opens no way around it", "10.96.0.1:80", hbone);
    let mesh = bound(gateway(&waypoint()), [waypoint_service().into(), waypoint_pod().into()]);
    let tried = Case { excluded: vec![uid("waypoint")], ..mesh };
    tried.refused("all instances tried", "10.96.0.1:80", "1 tried in vain");
}

proptest! {
    /// Whatever a destination's parts are, a connection to it is in clear only to a workload that
    /// does not speak HBONE, or where the service asks for it.
    #[test]
    fn nothing_of_the_mesh_leaves_in_clear_unasked(
        healthy: bool,
        hbone: bool,
        capacity in 0_u32..2,
        known_service: bool,
        waypointed: bool,
        waypoint_ready: bool,
        excluded: bool,
        waited: bool,
        seed: u64,
        destination in prop::sample::select(vec!["10.96.0.1:80", "10.0.0.1:8080", "10.0.0.2:8080"]),
    ) {
        let waypoint = waypointed.then(|| gateway(&waypoint()));
        let pod = Workload {
            status: if healthy { WorkloadStatus::Healthy } else { WorkloadStatus::Unhealthy },
            tunnel_protocol: if hbone { TunnelProtocol::Hbone } else { TunnelProtocol::None },
            capacity,
            waypoint: waypoint.clone().map(Box::new),
            ..endpoint("web-0", &["10.0.0.1"], &[&web()])
        };
        let mut mesh: Vec<Change> = vec![pod.into(), waypoint_service().into()];
        if known_service {
            mesh.push(Service { waypoint, ..web_at("10.96.0.1") }.into());
        }
        if waypoint_ready {
            mesh.push(waypoint_pod().into());
        }
        let excluded = if excluded { vec![uid("web-0")] } else { Vec::new() };
        let decided = Case { excluded, waited, ..case(mesh) }.decide(destination, seed);
        if let Ok(decision) = decided {
            let waypoint_used = decision.endpoint.is_some_and(|endpoint| endpoint.uid == uid("waypoint"));
            prop_assert_eq!(waypoint_used, waypointed, "a waypoint is passed exactly where one is bound");
            let plain = decision.transport == Transport::Passthrough;
            prop_assert_eq!(plain, !hbone && !waypointed);
        }
    }

    #[test]
    fn the_same_seed_decides_the_same(seed: u64) {
        let endpoints = (1..9).map(|index| {
            endpoint(&format!("web-{index}"), &[&format!("10.0.0.{index}")], &[&web()]).into()
        });
        let mesh = case(endpoints.chain([web_at("10.96.0.1").into()]));
        prop_assert_eq!(mesh.decide("10.96.0.1:80", seed), mesh.decide("10.96.0.1:80", seed));
    }
}

/// What an explanation lists is what may happen, and nothing that happens is missing.
#[test]
fn a_decision_is_one_of_its_choices_and_each_choice_is_met() {
    let (web, waypoint) = (service_name("shop", "web"), service_name("shop", "waypoint"));
    let bound = Service { waypoint: Some(gateway(&waypoint)), ..service("shop", "bound", &["10.96.0.2"]) };
    let idle = Workload { capacity: 0, ..endpoint("idle", &["10.0.0.4"], &[&web]) };
    let case = case([
        service("shop", "web", &["10.96.0.1"]).into(),
        bound.into(),
        Service { ports: vec![port(15008, Some(15008))], ..service("shop", "waypoint", &["10.96.0.9"]) }
            .into(),
        endpoint("web-0", &["10.0.0.1"], &[&web]).into(),
        endpoint("web-1", &["10.0.0.2"], &[&web]).into(),
        idle.into(),
        endpoint("waypoint-0", &["10.0.0.8"], &[&waypoint]).into(),
    ]);
    for (destination, expected) in [
        ("10.96.0.1:80", 2),
        ("10.96.0.2:80", 1),
        ("10.0.0.1:80", 1),
        ("192.0.2.1:80", 1),
        ("10.96.0.1:81", 0),
    ] {
        let request = OutboundRequest {
            source: &case.source,
            destination: socket(destination),
            excluded: &[],
            suspects: &[],
            mesh_ranges: &["10.0.0.0/8".parse().unwrap()],
            waited: true,
        };
        let choices = outbound_choices(&snapshot(case.mesh.clone()), &request);
        assert_eq!(choices.as_ref().map_or(0, Vec::len), expected, "{destination}: {choices:?}");
        let mut met = Vec::new();
        for seed in 0..64 {
            match (case.decide(destination, seed), &choices) {
                (Ok(decision), Ok(choices)) => {
                    assert!(choices.contains(&decision), "{destination}: {decision:?}");
                    if !met.contains(&decision) {
                        met.push(decision);
                    }
                }
                (Err(error), Err(of_choices)) => assert_eq!(error, *of_choices, "{destination}"),
                (decided, _) => panic!("{destination}: {decided:?} and {choices:?}"),
            }
        }
        assert_eq!(met.len(), expected, "{destination}");
    }
}
