//! The table of inbound decisions.

use super::*;
use crate::address::{GatewayAddress, GatewayDestination};
use crate::fixtures::{endpoint, identity, ip, port, service, service_name, snapshot, socket, uid, workload};
use crate::policy::authorize;
use crate::workload::ApplicationTunnel;

/// `shop/web` serves `web` on 80 -> 8080 and 81 -> nothing, and has an address of either family.
fn mesh() -> Arc<Snapshot> {
    let web = service_name("shop", "web");
    let tunnelled = |name: &str, address, protocol| Workload {
        application_tunnel: Some(ApplicationTunnel { protocol, port: Some(9000) }),
        ..workload(name, &[address])
    };
    let ports = vec![port(80, Some(8080)), port(81, None), port(82, Some(15006))];
    snapshot([
        Service { ports, ..service("shop", "web", &["10.96.0.1"]) }.into(),
        service("shop", "cart", &["10.96.0.2"]).into(),
        service("other", "web", &["10.96.0.3"]).into(),
        endpoint("web", &["10.0.0.1", "fd00::1"], &[&web]).into(),
        workload("cart", &["10.0.0.2"]).into(),
        tunnelled("tunnel", "10.0.0.3", ApplicationTunnelProtocol::None).into(),
        tunnelled("proxy", "10.0.0.4", ApplicationTunnelProtocol::Proxy).into(),
        workload("pending", &[]).into(),
    ])
}

fn connect(name: &str, local: &str, authority: &str) -> Result<InboundDecision, InboundError> {
    let authority: Authority = authority.parse()?;
    let target =
        InboundTarget::Connect { authority: &authority, forwarded_host: None, original_source: None };
    inbound(&mesh(), &request(&uid(name), local, target))
}

fn plaintext(name: &str, local: &str) -> Result<InboundDecision, InboundError> {
    inbound(&mesh(), &request(&uid(name), local, InboundTarget::Plaintext))
}

fn request<'a>(workload: &'a WorkloadUid, local: &str, target: InboundTarget<'a>) -> InboundRequest<'a> {
    let peer = Peer::Verified(identity("client"));
    InboundRequest { workload, local: socket(local), target, peer, peer_ip: ip("10.0.0.9") }
}

/// The destination, or the status and what the message speaks of.
fn check(row: &str, outcome: Result<InboundDecision, InboundError>, expected: Result<&str, (u16, &str)>) {
    match (outcome, expected) {
        (Ok(decision), Ok(destination)) => {
            assert_eq!(decision.connection.destination, socket(destination), "{row}");
        }
        (Err(error), Err((status, part))) => {
            assert_eq!(error.status(), status, "{row}: {error}");
            assert!(error.to_string().contains(part), "{row}: {error}");
        }
        (outcome, expected) => panic!("{row}: {outcome:?} instead of {expected:?}"),
    }
}

#[test]
fn connects_by_address() {
    let local = "10.0.0.1:15008";
    for (row, name, local, authority, expected) in [
        ("the address it came to", "web", local, "10.0.0.1:8080", Ok("10.0.0.1:8080")),
        ("any port but the proxy's", "web", local, "10.0.0.1:22", Ok("10.0.0.1:22")),
        ("another address of its own", "web", local, "[fd00::1]:8080", Ok("[fd00::1]:8080")),
        ("IPv4-mapped", "web", "[::ffff:10.0.0.1]:15008", "[::ffff:10.0.0.1]:80", Ok("10.0.0.1:80")),
        (
            "a pod whose address is not published yet",
            "pending",
            "10.0.0.7:15008",
            "10.0.0.7:80",
            Ok("10.0.0.7:80"),
        ),
        ("another pod's address", "web", local, "10.0.0.2:8080", Err((400, "10.0.0.2:8080"))),
        ("a service's address", "web", local, "10.96.0.1:80", Err((400, "not an address of"))),
        ("loopback", "web", local, "127.0.0.1:8080", Err((400, "127.0.0.1"))),
        ("the proxy's outbound port", "web", local, "10.0.0.1:15001", Err((503, "10.0.0.1:15001"))),
        ("the proxy's plaintext port", "web", local, "10.0.0.1:15006", Err((503, "port of the proxy"))),
        ("the proxy's HBONE port", "web", local, "10.0.0.1:15008", Err((503, "port of the proxy"))),
        ("not a target at all", "web", local, "web", Err((400, "CONNECT target"))),
        ("a pod that is not known", "gone", local, "10.0.0.1:80", Err((503, "is not known"))),
        ("an application tunnel", "tunnel", "10.0.0.3:15008", "10.96.0.9:80", Ok("10.0.0.3:9000")),
        ("an application tunnel by PROXY", "proxy", "10.0.0.4:15008", "10.0.0.4:80", Err((503, "PROXY"))),
    ] {
        check(row, connect(name, local, authority), expected);
    }
}

#[test]
fn connects_by_host_name() {
    let web = "web.shop.svc.cluster.local";
    let local = "10.0.0.1:15008";
    for (row, name, authority, expected) in [
        ("a service it serves", "web", format!("{web}:80"), Ok("10.0.0.1:8080")),
        ("in another case", "web", format!("{}:80", web.to_uppercase()), Ok("10.0.0.1:8080")),
        ("a port that leads nowhere", "web", format!("{web}:81"), Err((503, "port 81"))),
        (
            "a port that the service lacks",
            "web",
            format!("{web}:8080"),
            Err((503, "check the Service's targetPort")),
        ),
        ("a port that leads to the proxy", "web", format!("{web}:82"), Err((503, "port of the proxy"))),
        (
            "a service it does not serve",
            "web",
            "cart.shop.svc.cluster.local:80".into(),
            Err((503, "cart.shop")),
        ),
        (
            "a service of another namespace",
            "web",
            "web.other.svc.cluster.local:80".into(),
            Err((503, "web.other")),
        ),
        ("a host that is no service", "web", "example.com:80".into(), Err((503, "example.com"))),
        ("a service that others serve", "cart", format!("{web}:80"), Err((503, "Pod/shop/cart"))),
    ] {
        check(row, connect(name, local, &authority), expected);
    }
}

#[test]
fn connects_in_plain_text() {
    for (row, name, local, expected) in [
        ("the address it came to", "web", "10.0.0.1:8080", Ok("10.0.0.1:8080")),
        ("IPv6", "web", "[fd00::1]:8080", Ok("[fd00::1]:8080")),
        ("IPv4-mapped", "web", "[::ffff:10.0.0.1]:8080", Ok("10.0.0.1:8080")),
        ("an application tunnel is for tunnels", "proxy", "10.0.0.4:80", Ok("10.0.0.4:80")),
        ("the proxy's own port", "web", "10.0.0.1:15006", Err((503, "port of the proxy"))),
        ("a pod that is not known", "gone", "10.0.0.1:80", Err((503, "is not known"))),
    ] {
        check(row, plaintext(name, local), expected);
    }
}

#[test]
fn the_service_is_known_from_the_host_name_or_from_the_forwarded_hint() {
    let service_of = |authority: &str, forwarded_host| {
        let authority = authority.parse().unwrap();
        let target = InboundTarget::Connect { authority: &authority, forwarded_host, original_source: None };
        let decision = inbound(&mesh(), &request(&uid("web"), "10.0.0.1:15008", target)).unwrap();
        decision.service.map(|service| service.name.to_string())
    };
    let web = Some("shop/web.shop.svc.cluster.local".to_owned());
    let address = "10.0.0.1:8080";
    assert_eq!(service_of("web.shop.svc.cluster.local:80", None), web);
    assert_eq!(service_of(address, Some("web.shop.svc.cluster.local")), web);
    assert_eq!(service_of(address, Some("cart.shop.svc.cluster.local")), None, "it does not serve it");
    assert_eq!(service_of(address, None), None);
}

#[test]
fn what_was_decided_is_what_policy_permits() {
    let decision = connect("web", "[::ffff:10.0.0.1]:15008", "10.0.0.1:8080").unwrap();
    let permit = authorize(&mesh(), &decision.workload, &decision.connection).unwrap();
    assert_eq!(permit.destination(), socket("10.0.0.1:8080"));
    assert_eq!(permit.source_ip(), ip("10.0.0.9"));
}

/// DESIGN 6.2.
#[test]
fn a_workload_may_take_nothing_but_what_came_through_its_waypoint() {
    let (web, gateway) = (service_name("shop", "web"), service_name("shop", "gateway"));
    let destination = GatewayDestination::Service(gateway.clone());
    let waypoint = Some(GatewayAddress { destination, hbone_mtls_port: 15008 });
    let demands = |name: &str, address, services: &[&ServiceName]| Workload {
        requires_waypoint: true,
        ..endpoint(name, &[address], services)
    };
    let mesh = snapshot([
        service("shop", "gateway", &["10.96.0.9"]).into(),
        Service { waypoint, ..service("shop", "web", &["10.96.0.1"]) }.into(),
        endpoint("gateway", &["10.0.0.9"], &[&gateway]).into(),
        demands("web", "10.0.0.1", &[&web]).into(),
        demands("unbound", "10.0.0.2", &[]).into(),
        endpoint("relaxed", &["10.0.0.3"], &[&web]).into(),
    ]);
    let original = identity("gateway");
    for (row, name, local, by, expected) in [
        ("through the waypoint", "web", "10.0.0.1:15008", Some("gateway"), true),
        ("around it", "web", "10.0.0.1:15008", Some("client"), false),
        ("in plain text", "web", "10.0.0.1:8080", None, false),
        ("of nothing bound there is no through", "unbound", "10.0.0.2:15008", Some("gateway"), false),
        ("where nobody asks for it", "relaxed", "10.0.0.3:15008", Some("client"), true),
    ] {
        let authority = Authority::Address(SocketAddr::new(socket(local).ip(), 8080));
        let target = match by {
            // What somebody else says of the waypoint is only said.
            Some(_) => InboundTarget::Connect {
                authority: &authority,
                forwarded_host: None,
                original_source: Some(&original),
            },
            None => InboundTarget::Plaintext,
        };
        let uid = uid(name);
        let peer = by.map_or(Peer::Unauthenticated, |by| Peer::Verified(identity(by)));
        let decision = inbound(&mesh, &InboundRequest { peer, ..request(&uid, local, target) }).unwrap();
        let outcome = authorize(&mesh, &decision.workload, &decision.connection);
        assert_eq!(outcome.is_ok(), expected, "{row}: {outcome:?}");
        if let Err(denied) = outcome {
            assert!(denied.to_string().contains("require-waypoint"), "{row}: {denied}");
        }
    }
}

#[test]
fn a_denial_is_401_and_counts_as_one() {
    let policy = crate::fixtures::policy_name("shop", "p");
    let error = InboundError::from(crate::policy::Denied::PolicyMissing { policy });
    assert_eq!((error.status(), error.reason().as_str()), (401, "DENY"));
}
