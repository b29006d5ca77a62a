//! `v1` Service -> [`ambit_mesh::service::Service`].

use ambit_mesh::service::{
    self as mesh, AppProtocol, HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, PortMapping, Scope,
};

use super::view::{Named, View};
use super::{Conditions, Notes, Reason, Settings, waypoint};
use crate::objects::Service;
use crate::objects::service::{IpFamily, ServicePort};
use crate::objects::values::TargetPort;

/// Istio's way to ask for locality on clusters whose Services have no `trafficDistribution`.
const DISTRIBUTION_ANNOTATION: &str = "networking.istio.io/traffic-distribution";

/// Where services say what became of them.
pub(super) struct Said<'a> {
    pub(super) notes: &'a mut Notes,
    pub(super) conditions: &'a mut Conditions,
}

/// Translates a service. An ExternalName is an alias in DNS and nothing to connect to.
pub(super) fn translate(
    service: &Named<'_, Service>,
    view: &View<'_>,
    settings: &Settings,
    Said { notes, conditions }: &mut Said<'_>,
) -> Option<mesh::Service> {
    if service.object.spec.kind.as_deref() == Some("ExternalName") {
        notes.add(service.key, Reason::NoEffect, "a Service of type ExternalName is not part of the mesh");
        return None;
    }
    Some(mesh::Service {
        name: service.mesh_name(),
        short_name: service.key.name.clone(),
        addresses: service.object.addresses().into_iter().map(|ip| settings.address(ip)).collect(),
        ports: service.object.tcp_ports().map(port).collect(),
        subject_alt_names: Vec::new(),
        waypoint: waypoint::of_service(service, view, conditions),
        waypoint_failure: waypoint::failure(service.namespace(), &service.object.metadata, view),
        load_balancing: load_balancing(service, notes),
        ip_families: ip_families(&service.object.spec.ip_families),
        canonical: service.object.entry.is_none(),
    })
}

fn port(port: &ServicePort) -> PortMapping {
    let target_port = match &port.target_port {
        None => Some(port.port),
        Some(TargetPort::Number(number)) => Some(*number),
        // Differs between pods; each endpoint brings its own.
        Some(TargetPort::Name(_)) => None,
    };
    PortMapping { service_port: port.port, target_port, app_protocol: app_protocol(port) }
}

/// `appProtocol`, or else Istio's convention that a port's name begins with its protocol.
pub(super) fn app_protocol(port: &ServicePort) -> AppProtocol {
    let named = port.name.split('-').next().unwrap_or_default();
    match port.app_protocol.as_deref().unwrap_or(named).to_ascii_lowercase().as_str() {
        "http" | "kubernetes.io/ws" => AppProtocol::Http11,
        "http2" | "kubernetes.io/h2c" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "tcp" => AppProtocol::Tcp,
        "tls" | "https" | "kubernetes.io/wss" => AppProtocol::Tls,
        _ => AppProtocol::Unknown,
    }
}

fn ip_families(families: &[IpFamily]) -> IpFamilies {
    match (families.contains(&IpFamily::V4), families.contains(&IpFamily::V6)) {
        (false, false) => IpFamilies::Automatic,
        (true, false) => IpFamilies::Ipv4Only,
        (false, true) => IpFamilies::Ipv6Only,
        (true, true) => IpFamilies::Dual,
    }
}

fn load_balancing(service: &Named<'_, Service>, notes: &mut Notes) -> LoadBalancing {
    let spec = &service.object.spec;
    let health_policy = match spec.publish_not_ready_addresses {
        true => HealthPolicy::AllowAll,
        false => HealthPolicy::OnlyHealthy,
    };
    if service.object.entry.as_ref().is_some_and(|entry| entry.is_passed_through) {
        return LoadBalancing { mode: LoadBalancingMode::Passthrough, ..LoadBalancing::default() };
    }
    let (routing_preference, mode) = match spec.internal_traffic_policy.as_deref() {
        Some("Local") => (vec![Scope::Node], LoadBalancingMode::Strict),
        _ => distribution(service, notes),
    };
    LoadBalancing { routing_preference, mode, health_policy }
}

/// Kubernetes, "Traffic distribution": a preference, never a restriction.
fn distribution(service: &Named<'_, Service>, notes: &mut Notes) -> (Vec<Scope>, LoadBalancingMode) {
    const SAME_ZONE: [Scope; 3] = [Scope::Network, Scope::Region, Scope::Zone];
    let annotation = service.object.metadata.annotation(DISTRIBUTION_ANNOTATION);
    let preference = match annotation.or(service.object.spec.traffic_distribution.as_deref()) {
        None => Vec::new(),
        Some("PreferClose" | "PreferSameZone") => SAME_ZONE.to_vec(),
        Some("PreferSameNode") => [&SAME_ZONE[..], &[Scope::Subzone, Scope::Node]].concat(),
        Some(other) => {
            let message = format!(
                "traffic distribution {other:?} is not known: use PreferClose, PreferSameZone or PreferSameNode"
            );
            notes.add(service.key, Reason::NoEffect, message);
            Vec::new()
        }
    };
    let mode =
        if preference.is_empty() { LoadBalancingMode::Unspecified } else { LoadBalancingMode::Failover };
    (preference, mode)
}
