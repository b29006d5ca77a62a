//! Workloads, services and policies for tests: whole by default, so that a test sets only what it
//! is about.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::{GatewayAddress, GatewayDestination, Network, NetworkAddress, ServiceName};
use crate::identity::SpiffeId;
use crate::policy::{Action, AuthorizationPolicy, PolicyName, PolicyNames, PolicyScope, Rule};
use crate::service::{AppProtocol, IpFamilies, LoadBalancing, PortMapping, Service};
use crate::snapshot::{Change, Snapshot, State};
use crate::workload::{
    CaptureExclusions, Locality, NetworkMode, PodBinding, ServicePorts, TunnelProtocol, Workload,
    WorkloadStatus, WorkloadType, WorkloadUid,
};

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn at(text: &str) -> NetworkAddress {
    NetworkAddress { network: Network::default(), ip: ip(text) }
}

pub(crate) fn uid(name: &str) -> WorkloadUid {
    WorkloadUid(format!("Kubernetes//Pod/shop/{name}").into())
}

pub(crate) fn identity(name: &str) -> SpiffeId {
    format!("spiffe://cluster.local/ns/shop/sa/{name}").parse().unwrap()
}

pub(crate) fn policy_name(namespace: &str, name: &str) -> PolicyName {
    PolicyName { namespace: namespace.into(), name: name.into() }
}

pub(crate) fn service_name(namespace: &str, name: &str) -> ServiceName {
    let hostname = format!("{name}.{namespace}.svc.cluster.local").into();
    ServiceName { namespace: namespace.into(), hostname }
}

/// A healthy pod `shop/<name>` that speaks HBONE.
pub(crate) fn workload(name: &str, addresses: &[&str]) -> Workload {
    Workload {
        uid: uid(name),
        name: name.into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Network::default(),
        addresses: addresses.iter().copied().map(ip).collect(),
        hostname: None,
        identity: identity(name),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: "node-1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Deployment,
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "latest".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: PolicyNames::default(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: ServicePorts::default(),
        pod: Some(Box::new(PodBinding {
            pod_uid: format!("uid-of-{name}").into(),
            network_namespace: None,
            probe_ports: Default::default(),
            exclusions: CaptureExclusions::default(),
        })),
    }
}

/// A workload that serves `services` by the services' own port mapping.
pub(crate) fn endpoint(name: &str, addresses: &[&str], services: &[&ServiceName]) -> Workload {
    let services = services.iter().map(|service| ((*service).clone(), Vec::new())).collect();
    Workload { services, ..workload(name, addresses) }
}

/// A service `<namespace>/<name>` whose port 80 leads to 8080.
pub(crate) fn service(namespace: &str, name: &str, addresses: &[&str]) -> Service {
    Service {
        name: service_name(namespace, name),
        short_name: name.into(),
        addresses: addresses.iter().copied().map(at).collect(),
        ports: vec![port(80, Some(8080))],
        subject_alt_names: Vec::new(),
        waypoint: None,
        waypoint_failure: Default::default(),
        load_balancing: LoadBalancing::default(),
        ip_families: IpFamilies::Automatic,
        canonical: false,
    }
}

pub(crate) fn port(service_port: u16, target_port: Option<u16>) -> PortMapping {
    PortMapping { service_port, target_port, app_protocol: AppProtocol::Unknown }
}

pub(crate) fn gateway(service: &ServiceName) -> GatewayAddress {
    GatewayAddress { destination: GatewayDestination::Service(service.clone()), hbone_mtls_port: 15008 }
}

/// A policy of namespace `shop` that applies to the whole namespace.
pub(crate) fn policy(name: &str, action: Action, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name: policy_name("shop", name),
        scope: PolicyScope::Namespace,
        action,
        rules,
        dry_run: false,
    }
}

impl From<Workload> for Change {
    fn from(workload: Workload) -> Self {
        Self::Workload(Arc::new(workload))
    }
}

impl From<Service> for Change {
    fn from(service: Service) -> Self {
        Self::Service(Arc::new(service))
    }
}

impl From<AuthorizationPolicy> for Change {
    fn from(policy: AuthorizationPolicy) -> Self {
        Self::Policy(Arc::new(policy))
    }
}

pub(crate) fn snapshot(changes: impl IntoIterator<Item = Change>) -> Arc<Snapshot> {
    let mut state = State::default();
    state.apply(changes);
    state.snapshot()
}
