use proptest::prelude::*;

use super::*;
use crate::samples;
use crate::samples::arbitrary;

fn message() -> proto::Workload {
    to_proto(&samples::workload_on("Kubernetes//Pod/shop/web-0", "n1"))
}

#[test]
fn what_is_absent_takes_istios_defaults() {
    let minimal = proto::Workload {
        uid: "u".into(),
        namespace: "shop".into(),
        tunnel_protocol: proto::TunnelProtocol::Hbone.into(),
        ..proto::Workload::default()
    };
    let workload = from_proto(&minimal).unwrap();
    assert_eq!(workload.identity.to_string(), "spiffe://cluster.local/ns/shop/sa/default");
    assert_eq!(&*workload.cluster_id, "Kubernetes");
    assert_eq!(workload.capacity, 1);
    assert_eq!((workload.hostname, workload.pod), (None, None));
}

#[test]
fn a_capacity_of_zero_is_not_an_absent_one() {
    let drained = proto::Workload { capacity: Some(0), ..message() };
    assert_eq!(from_proto(&drained).unwrap().capacity, 0);
}

#[test]
fn a_status_that_is_not_known_is_not_healthy() {
    let workload = from_proto(&proto::Workload { status: 7, ..message() }).unwrap();
    assert_eq!(workload.status, ambit_mesh::workload::WorkloadStatus::Unhealthy);
}

#[test]
fn extensions_of_others_are_passed_over() {
    let foreign = proto::Extension { name: "example.com/other".into(), config: None };
    let workload = from_proto(&proto::Workload { extensions: vec![foreign], ..message() }).unwrap();
    assert_eq!(workload.pod, None);
}

#[test]
fn what_cannot_be_represented_safely_is_refused() {
    let gateway = |port| proto::GatewayAddress {
        destination: Some(proto::gateway_address::Destination::Hostname(proto::NamespacedHostname {
            namespace: "shop".into(),
            hostname: "waypoint.test".into(),
        })),
        hbone_mtls_port: port,
    };
    let services = |name: &str, service_port| {
        let ports = vec![proto::Port { service_port, ..proto::Port::default() }];
        [(name.to_owned(), proto::PortList { ports })].into()
    };
    let pod = |type_url: &str, value: &[u8]| {
        let config = prost_types::Any { type_url: type_url.into(), value: value.into() };
        vec![proto::Extension { name: "ambit.dev/pod".into(), config: Some(config) }]
    };
    let pod_type = "type.googleapis.com/ambit.workload.v1.PodBinding";
    let tunnel = |protocol, port| Some(proto::ApplicationTunnel { protocol, port });
    type Broken = fn(&InvalidWorkload) -> bool;
    let cases: [(&str, proto::Workload, Broken); 19] = [
        ("no uid", proto::Workload { uid: String::new(), ..message() }, |e| {
            matches!(e, InvalidWorkload::Uid)
        }),
        ("no namespace", proto::Workload { namespace: String::new(), ..message() }, |e| {
            matches!(e, InvalidWorkload::Identity(_))
        }),
        ("bad trust domain", proto::Workload { trust_domain: "A/b".into(), ..message() }, |e| {
            matches!(e, InvalidWorkload::Identity(_))
        }),
        ("bad account", proto::Workload { service_account: "a/b".into(), ..message() }, |e| {
            matches!(e, InvalidWorkload::Identity(_))
        }),
        ("five octets", proto::Workload { addresses: vec![vec![1; 5]], ..message() }, |e| {
            matches!(e, InvalidWorkload::Address(_))
        }),
        ("legacy mTLS", proto::Workload { tunnel_protocol: 2, ..message() }, |e| {
            matches!(e, InvalidWorkload::TunnelProtocol { value: 2 })
        }),
        ("unknown tunnel", proto::Workload { tunnel_protocol: 9, ..message() }, |e| {
            matches!(e, InvalidWorkload::TunnelProtocol { value: 9 })
        }),
        ("unknown network mode", proto::Workload { network_mode: 2, ..message() }, |e| {
            matches!(e, InvalidWorkload::NetworkMode { value: 2 })
        }),
        ("waypoint port", proto::Workload { waypoint: Some(gateway(70_000)), ..message() }, |e| {
            matches!(e, InvalidWorkload::Gateway { field: "waypoint", source: InvalidGateway::Port(_) })
        }),
        (
            "waypoint without destination",
            proto::Workload { waypoint: Some(proto::GatewayAddress::default()), ..message() },
            |e| matches!(e, InvalidWorkload::Gateway { source: InvalidGateway::Destination, .. }),
        ),
        (
            "unknown application tunnel",
            proto::Workload { application_tunnel: tunnel(2, 0), ..message() },
            |e| matches!(e, InvalidWorkload::ApplicationTunnel { value: 2 }),
        ),
        ("application port", proto::Workload { application_tunnel: tunnel(1, 70_000), ..message() }, |e| {
            matches!(e, InvalidWorkload::ApplicationPort { .. })
        }),
        (
            "policy without namespace",
            proto::Workload { authorization_policies: vec!["deny".into()], ..message() },
            |e| matches!(e, InvalidWorkload::Policy(_)),
        ),
        ("service name", proto::Workload { services: services("web", 80), ..message() }, |e| {
            matches!(e, InvalidWorkload::Service(_))
        }),
        ("service port", proto::Workload { services: services("shop/web", 65_536), ..message() }, |e| {
            matches!(e, InvalidWorkload::ServicePort { .. })
        }),
        ("pod of another type", proto::Workload { extensions: pod("type/Other", &[]), ..message() }, |e| {
            matches!(e, InvalidWorkload::PodType)
        }),
        ("garbled pod", proto::Workload { extensions: pod(pod_type, &[0xff]), ..message() }, |e| {
            matches!(e, InvalidWorkload::PodBytes(_))
        }),
        (
            "garbled wish for a waypoint",
            proto::Workload {
                extensions: vec![proto::Extension { name: "ambit.dev/waypoint".into(), config: None }],
                ..message()
            },
            |e| matches!(e, InvalidWorkload::WaypointRules(_)),
        ),
        ("pod without uid", proto::Workload { extensions: pod(pod_type, &[]), ..message() }, |e| {
            matches!(e, InvalidWorkload::PodUid)
        }),
    ];
    for (case, message, expected) in cases {
        let error = from_proto(&message).unwrap_err();
        assert!(expected(&error), "{case}: {error:?}");
    }
}

proptest! {
    #[test]
    fn a_workload_reads_back_as_it_was_written(workload in arbitrary::workload()) {
        prop_assert_eq!(from_proto(&to_proto(&workload)), Ok(workload));
    }
}
