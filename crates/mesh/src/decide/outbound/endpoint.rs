//! Which endpoint of a service takes a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::picker::Picker;
use super::{LeftOut, NoEndpoint, OutboundRequest};
use crate::balance;
use crate::decide::ports::target_port;
use crate::service::{HealthPolicy, IpFamilies, Service};
use crate::snapshot::{Endpoint, Snapshot};
use crate::workload::{Workload, WorkloadStatus};

/// What is looked for.
pub(super) struct Wanted<'a> {
    pub(super) service: &'a Service,
    /// The service port.
    pub(super) port: u16,
    /// The address that the client asked for, whose family an endpoint should have.
    pub(super) ip: IpAddr,
}

/// What was found: a workload, and its address with the port that the application listens on.
#[derive(Clone, Copy)]
pub(super) struct Chosen<'a> {
    pub(super) workload: &'a Arc<Workload>,
    pub(super) address: SocketAddr,
}

/// Picks one of the service's endpoints that can take the connection: those that are not suspected, nearest
/// first, then as `picker` says.
pub(super) fn choose<'a>(
    snapshot: &'a Snapshot,
    request: &OutboundRequest<'_>,
    wanted: &Wanted<'_>,
    picker: &mut impl Picker,
) -> Result<Chosen<'a>, NoEndpoint> {
    let mut left_out = LeftOut::default();
    let mut candidates = Vec::new();
    for endpoint in snapshot.endpoints(&wanted.service.name) {
        match usable(endpoint, request, wanted) {
            Ok(address) => candidates.push(Chosen { workload: &endpoint.workload, address }),
            Err(reason) => left_out.count(reason),
        }
    }
    let usable_count = candidates.len();
    let near = if request.suspects.is_empty() {
        nearest(request, wanted, candidates)
    } else {
        let is_trusted = |candidate: &&Chosen<'_>| !request.suspects.contains(&candidate.workload.uid);
        let trusted = nearest(request, wanted, candidates.iter().filter(is_trusted).copied().collect());
        if trusted.is_empty() { nearest(request, wanted, candidates) } else { trusted }
    };
    left_out.elsewhere = u32::try_from(usable_count - near.len()).unwrap_or(u32::MAX);
    picker.pick(&near).copied().ok_or_else(|| NoEndpoint {
        service: wanted.service.name.clone(),
        port: wanted.port,
        left_out,
    })
}

fn nearest<'a>(
    request: &OutboundRequest<'_>,
    wanted: &Wanted<'_>,
    candidates: Vec<Chosen<'a>>,
) -> Vec<Chosen<'a>> {
    balance::nearest(&wanted.service.load_balancing, request.source, candidates, |candidate| {
        candidate.workload
    })
}

/// Why an endpoint cannot take a connection.
pub(super) enum Unusable {
    Unhealthy,
    Tried,
    NoCapacity,
    NoPort,
    OtherNetwork,
    NoAddress,
}

/// Why the workload itself can take no connection through a service, whatever the port.
pub(super) fn unavailable(
    workload: &Workload,
    request: &OutboundRequest<'_>,
    health: HealthPolicy,
) -> Option<Unusable> {
    if workload.status == WorkloadStatus::Unhealthy && health == HealthPolicy::OnlyHealthy {
        Some(Unusable::Unhealthy)
    } else if request.excluded.contains(&workload.uid) {
        Some(Unusable::Tried)
    } else if workload.capacity == 0 {
        Some(Unusable::NoCapacity)
    } else if workload.network != request.source.network {
        // An address means another host there. Until gateways are spoken to, this is closed.
        Some(Unusable::OtherNetwork)
    } else {
        None
    }
}

fn usable(
    endpoint: &Endpoint,
    request: &OutboundRequest<'_>,
    wanted: &Wanted<'_>,
) -> Result<SocketAddr, Unusable> {
    let Wanted { service, port, .. } = *wanted;
    let workload = &endpoint.workload;
    if let Some(reason) = unavailable(workload, request, service.load_balancing.health_policy) {
        return Err(reason);
    }
    let port = target_port(service, &endpoint.ports, workload, port).ok_or(Unusable::NoPort)?;
    let ip = reachable_ip(workload, wanted).ok_or(Unusable::NoAddress)?;
    Ok(SocketAddr::new(ip, port))
}

/// Istio's order: the very address that was asked for, one of the service's family, one of the
/// family that was asked for, the first.
fn reachable_ip(workload: &Workload, wanted: &Wanted<'_>) -> Option<IpAddr> {
    let addresses = || workload.addresses.iter().map(IpAddr::to_canonical);
    if addresses().any(|ip| ip == wanted.ip) {
        return Some(wanted.ip);
    }
    match wanted.service.ip_families {
        IpFamilies::Ipv4Only => addresses().find(IpAddr::is_ipv4),
        IpFamilies::Ipv6Only => addresses().find(IpAddr::is_ipv6),
        IpFamilies::Automatic | IpFamilies::Dual => {
            addresses().find(|ip| ip.is_ipv4() == wanted.ip.is_ipv4()).or_else(|| addresses().next())
        }
    }
}
