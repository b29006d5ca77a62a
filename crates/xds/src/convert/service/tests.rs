use ambit_mesh::address::GatewayDestination;
use proptest::prelude::*;

use super::*;
use crate::samples;
use crate::samples::arbitrary;

fn message() -> proto::Service {
    to_proto(&samples::service("shop", "web"))
}

fn waypoint(hostname: &str, hbone_mtls_port: u32) -> proto::GatewayAddress {
    let name = proto::NamespacedHostname { namespace: "shop".into(), hostname: hostname.into() };
    let destination = Some(proto::gateway_address::Destination::Hostname(name));
    proto::GatewayAddress { destination, hbone_mtls_port }
}

#[test]
fn what_cannot_be_represented_safely_is_refused() {
    let range = proto::NetworkAddress { address: vec![10, 0, 0, 0], length: Some(8), ..Default::default() };
    let port = proto::Port { service_port: 80, target_port: 65_536, app_protocol: 0 };
    let balancing = |mode, scope| {
        Some(proto::LoadBalancing { mode, routing_preference: vec![scope], ..Default::default() })
    };
    let cases = [
        ("no hostname", proto::Service { hostname: String::new(), ..message() }, InvalidService::Name),
        ("no namespace", proto::Service { namespace: String::new(), ..message() }, InvalidService::Name),
        (
            "a range as virtual address",
            proto::Service { addresses: vec![range], ..message() },
            InvalidService::Address(InvalidAddress::Range { length: 8 }),
        ),
        (
            "port",
            proto::Service { ports: vec![port], ..message() },
            InvalidService::Port(InvalidPort { number: 65_536 }),
        ),
        (
            "waypoint without name",
            proto::Service { waypoint: Some(waypoint("", 15008)), ..message() },
            InvalidService::Waypoint(InvalidGateway::Destination),
        ),
        (
            "unknown mode",
            proto::Service { load_balancing: balancing(4, 1), ..message() },
            InvalidService::Mode { value: 4 },
        ),
        (
            "unknown scope",
            proto::Service { load_balancing: balancing(1, 7), ..message() },
            InvalidService::Scope { value: 7 },
        ),
    ];
    for (case, message, expected) in cases {
        assert_eq!(from_proto(&message), Err(expected), "{case}");
    }
}

#[test]
fn weighted_waypoints_alone_still_bind_the_service() {
    let weighted =
        |hostname, weight| proto::WeightedWaypoint { destination: Some(waypoint(hostname, 15008)), weight };
    let weighted_waypoints = vec![weighted("light", 1), weighted("heavy", 9)];
    let service = from_proto(&proto::Service { weighted_waypoints, ..message() }).unwrap();
    let Some(GatewayDestination::Service(name)) = service.waypoint.map(|waypoint| waypoint.destination)
    else {
        panic!("the service is not bound");
    };
    assert_eq!(&*name.hostname, "heavy");
}

#[test]
fn an_identity_that_nobody_can_have_is_left_out() {
    let subject_alt_names = vec!["spiffe://td/other".into(), "spiffe://td/ns/shop/sa/web".into()];
    let service = from_proto(&proto::Service { subject_alt_names, ..message() }).unwrap();
    assert_eq!(service.subject_alt_names, ["spiffe://td/ns/shop/sa/web".parse().unwrap()]);
}

proptest! {
    #[test]
    fn a_service_reads_back_as_it_was_written(service in arbitrary::service()) {
        prop_assert_eq!(from_proto(&to_proto(&service)), Ok(service));
    }
}
