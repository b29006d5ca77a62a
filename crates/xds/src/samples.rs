//! Small valid values for tests.

pub(crate) mod arbitrary;

use std::net::{IpAddr, Ipv4Addr};

use ambit_mesh::address::{Network, NetworkAddress, ServiceName};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope, Rule};
use ambit_mesh::service::{IpFamilies, LoadBalancing, Service};
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};

/// A workload with an address that follows from its uid.
pub(crate) fn workload_on(uid: &str, node: &str) -> Workload {
    Workload {
        uid: WorkloadUid(uid.into()),
        name: uid.into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Network("net".into()),
        addresses: vec![address_of(uid)],
        hostname: None,
        identity: SpiffeId::new(Default::default(), "shop", "web").unwrap(),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: node.into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Pod,
        workload_name: "web".into(),
        canonical_name: "web".into(),
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
        pod: None,
    }
}

pub(crate) fn address_of(uid: &str) -> IpAddr {
    let sum = uid.bytes().fold(0_u16, |sum, octet| sum.wrapping_mul(31).wrapping_add(octet.into()));
    let [high, low] = sum.to_be_bytes();
    Ipv4Addr::new(10, 0, high, low).into()
}

pub(crate) fn service(namespace: &str, short_name: &str) -> Service {
    Service {
        name: ServiceName { namespace: namespace.into(), hostname: format!("{short_name}.test").into() },
        short_name: short_name.into(),
        addresses: vec![NetworkAddress {
            network: Network("net".into()),
            ip: Ipv4Addr::new(10, 96, 0, 1).into(),
        }],
        ports: Vec::new(),
        subject_alt_names: Vec::new(),
        waypoint: None,
        waypoint_failure: Default::default(),
        load_balancing: LoadBalancing::default(),
        ip_families: IpFamilies::Automatic,
        canonical: false,
    }
}

/// A policy that matches everything.
pub(crate) fn policy(namespace: &str, name: &str, action: Action) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name: PolicyName { namespace: namespace.into(), name: name.into() },
        scope: PolicyScope::Namespace,
        action,
        rules: vec![Rule { clauses: Vec::new() }],
        dry_run: false,
    }
}
