//! From the port that a client uses to the port that a pod listens on.

use crate::service::{PortMapping, Service};
use crate::workload::Workload;

/// Where `service_port` of `service` leads on `workload`, whose own mapping for that service is
/// `mapping`. `None` when the service has no such port or it leads nowhere.
///
/// Istio's order: the endpoint's mapping, the service's, and for a workload that takes tunnelled
/// traffic on a port of its own, the service port as it is.
pub(super) fn target_port(
    service: &Service,
    mapping: &[PortMapping],
    workload: &Workload,
    service_port: u16,
) -> Option<u16> {
    let find = |ports: &[PortMapping]| ports.iter().copied().find(|port| port.service_port == service_port);
    let of_service = find(&service.ports)?;
    let tunnelled = || workload.application_tunnel.and_then(|tunnel| tunnel.port).map(|_| service_port);
    let of_endpoint = find(mapping).and_then(|port| port.target_port);
    of_endpoint.or(of_service.target_port).or_else(tunnelled)
}
