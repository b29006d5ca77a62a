//! Where an inbound connection ends, as HBONE or in plain text.
//!
//! The answer holds the [`Connection`] that `policy::authorize` must permit before anything is
//! connected.

mod error;
mod original_source;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use error::InboundError;

use super::is_own_port;
use super::ports::target_port;
use crate::address::{Authority, ServiceName, canonical_socket};
use crate::identity::SpiffeId;
use crate::policy::{Connection, Peer};
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::workload::{ApplicationTunnelProtocol, Workload, WorkloadUid};

/// An inbound connection, as the shell accepted it.
#[derive(Clone, Debug)]
pub struct InboundRequest<'a> {
    /// The pod whose listener took it.
    pub workload: &'a WorkloadUid,
    /// The address that the connection came to. In plain text this is the original destination,
    /// which TPROXY keeps.
    pub local: SocketAddr,
    /// What was asked for.
    pub target: InboundTarget<'a>,
    /// Who opened it.
    pub peer: Peer,
    /// The address it was opened from.
    pub peer_ip: IpAddr,
}

/// What an inbound connection asks for.
#[derive(Clone, Copy, Debug)]
pub enum InboundTarget<'a> {
    /// HBONE: a CONNECT.
    Connect {
        /// Its `:authority`.
        authority: &'a Authority,
        /// The host of its `forwarded` header: the service that the client called. It is a hint
        /// for telemetry and decides nothing.
        forwarded_host: Option<&'a str>,
        /// For whom the peer says that it speaks: the identity in its `ambit-original-source` header. It
        /// counts only if the peer is the waypoint that the destination is bound to.
        original_source: Option<&'a SpiffeId>,
    },
    /// A plaintext connection to the address that it came to.
    Plaintext,
}

/// Where an inbound connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundDecision {
    /// The workload that takes it.
    pub workload: Arc<Workload>,
    /// The service it was meant for, where that is known.
    pub service: Option<Arc<Service>>,
    /// What `policy::authorize` must permit.
    pub connection: Connection,
}

/// Decides where an inbound connection ends.
///
/// # Errors
/// When it cannot be served, with the status to answer.
pub fn inbound(snapshot: &Snapshot, request: &InboundRequest<'_>) -> Result<InboundDecision, InboundError> {
    let workload = snapshot
        .workload(request.workload)
        .ok_or_else(|| InboundError::UnknownWorkload { workload: request.workload.clone() })?;
    let local = canonical_socket(request.local);
    let (destination, service) = match request.target {
        InboundTarget::Plaintext => (local, None),
        InboundTarget::Connect { authority: Authority::Address(asked), forwarded_host, .. } => {
            let service = forwarded_host.and_then(|host| own_service(snapshot, workload, host));
            (address_target(workload, local, *asked)?, service)
        }
        InboundTarget::Connect { authority: Authority::Host { name, port }, .. } => {
            let (port, service) = host_target(snapshot, workload, name, *port)?;
            (SocketAddr::new(local.ip(), port), Some(service))
        }
    };
    if is_own_port(destination.port()) {
        return Err(InboundError::OwnPort { destination });
    }
    let source_ip = request.peer_ip.to_canonical();
    let original = match request.target {
        InboundTarget::Connect { original_source, .. } => original_source,
        InboundTarget::Plaintext => None,
    };
    let peer = original_source::client(snapshot, workload, &request.peer, original);
    let through_waypoint = original_source::is_bound_waypoint(snapshot, workload, &request.peer);
    let connection = Connection { peer, source_ip, destination, through_waypoint };
    Ok(InboundDecision { workload: workload.clone(), service: service.cloned(), connection })
}

/// The address of a CONNECT must be the one that the connection came to or another of the same
/// workload: anything else would make the pod a relay.
fn address_target(
    workload: &Workload,
    local: SocketAddr,
    asked: SocketAddr,
) -> Result<SocketAddr, InboundError> {
    let asked = canonical_socket(asked);
    if let Some(tunnel) = workload.application_tunnel {
        // The application takes tunnelled traffic for other addresses itself, so the one asked for
        // says nothing about where it listens.
        return match tunnel.protocol {
            ApplicationTunnelProtocol::None => {
                Ok(SocketAddr::new(local.ip(), tunnel.port.unwrap_or(asked.port())))
            }
            ApplicationTunnelProtocol::Proxy => {
                Err(InboundError::ProxyProtocol { workload: workload.uid.clone() })
            }
        };
    }
    let own = workload.addresses.iter().any(|ip| ip.to_canonical() == asked.ip());
    if own || asked.ip() == local.ip() {
        return Ok(asked);
    }
    Err(InboundError::OtherAddress { asked, local, workload: workload.uid.clone() })
}

/// A host name stands for a service of the workload's own namespace that the workload serves.
fn host_target<'a>(
    snapshot: &'a Snapshot,
    workload: &Workload,
    host: &str,
    port: u16,
) -> Result<(u16, &'a Arc<Service>), InboundError> {
    let service = own_service(snapshot, workload, host).ok_or_else(|| InboundError::UnknownService {
        host: host.into(),
        workload: workload.uid.clone(),
        namespace: workload.namespace.clone(),
    })?;
    let ports = workload.services.get(&service.name).map_or(&[][..], |ports| ports);
    let target = target_port(service, ports, workload, port)
        .ok_or_else(|| InboundError::UnknownPort { service: service.name.clone(), port })?;
    Ok((target, service))
}

fn own_service<'a>(snapshot: &'a Snapshot, workload: &Workload, host: &str) -> Option<&'a Arc<Service>> {
    let name = ServiceName { namespace: workload.namespace.clone(), hostname: host.into() };
    workload.services.contains_key(&name).then(|| snapshot.service(&name))?
}

#[cfg(test)]
mod tests;
