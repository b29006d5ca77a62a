//! Where an outbound connection goes.
//!
//! Connecting, trying another endpoint after a failure and asking for what is unknown are the
//! shell's work: it calls again with what it learned.

mod endpoint;
mod error;
mod picker;
mod waypoint;

use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rand::Rng;

pub use error::{Ask, LeftOut, NoEndpoint, OutboundError, Outcome};

use self::endpoint::{Chosen, Wanted, choose};
use self::picker::{ByChance, InTurn, Picker};
use super::{HBONE_PORT, is_own_port};
use crate::address::{GatewayAddress, NetworkAddress, canonical_socket};
use crate::identity::IdentitySet;
use crate::service::{LoadBalancingMode, Service, WaypointFailure};
use crate::snapshot::Snapshot;
use crate::workload::{TunnelProtocol, Workload, WorkloadUid};

/// An outbound connection, as the shell captured it.
#[derive(Clone, Copy, Debug)]
pub struct OutboundRequest<'a> {
    /// The workload that opened it.
    pub source: &'a Workload,
    /// The address it was opened to.
    pub destination: SocketAddr,
    /// Endpoints that were tried for it in vain.
    pub excluded: &'a [WorkloadUid],
    /// Endpoints that are taken only where there is no other.
    pub suspects: &'a [WorkloadUid],
    /// Addresses that belong to the mesh beside those that the snapshot says: one of them that is not
    /// known is never passed through.
    pub mesh_ranges: &'a [IpNet],
    /// Whether an [`Ask`] was already answered by waiting.
    pub waited: bool,
}

/// Where an outbound connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundDecision {
    /// How it is carried.
    pub transport: Transport,
    /// The address to connect to.
    pub next_hop: SocketAddr,
    /// The service it was meant for.
    pub service: Option<Arc<Service>>,
    /// The workload at `next_hop`, where it is known: an endpoint or a waypoint.
    pub endpoint: Option<Arc<Workload>>,
    /// By which rule.
    pub why: Why,
}

/// How a connection is carried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As it is.
    Passthrough,
    /// In a tunnel.
    Hbone {
        /// The target of the CONNECT.
        authority: SocketAddr,
        /// Who may answer.
        expected: IdentitySet,
    },
}

/// By which rule a connection goes where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Why {
    /// The destination is a workload.
    Workload,
    /// The destination is a workload that is reached through its waypoint.
    WorkloadWaypoint,
    /// The destination is a service; this is one of its endpoints.
    Service,
    /// The destination is a service that is reached through its waypoint.
    ServiceWaypoint,
    /// The destination is a service that asks for connections to go on as they are.
    PassthroughService,
    /// The destination is not of the mesh.
    OutsideMesh,
}

/// Decides where an outbound connection goes.
///
/// # Errors
/// [`Outcome::Ask`] when the answer may become known by waiting, and [`Outcome::Refused`] when the
/// connection must not be made.
pub fn outbound(
    snapshot: &Snapshot,
    request: &OutboundRequest<'_>,
    rng: &mut (impl Rng + ?Sized),
) -> Result<OutboundDecision, Outcome> {
    Call::of(snapshot, request).to_address(&mut ByChance(rng))
}

/// Every decision that [`outbound`] may come to: one for each endpoint that it may pick.
///
/// # Errors
/// As of [`outbound`].
pub fn outbound_choices(
    snapshot: &Snapshot,
    request: &OutboundRequest<'_>,
) -> Result<Vec<OutboundDecision>, Outcome> {
    InTurn::every(|picker| Call::of(snapshot, request).to_address(picker))
}

/// Decides where a request goes that its sender means for `service`, whatever its address:
/// `request.destination` says the service port, and which address family is preferred.
///
/// # Errors
/// When no endpoint can take it.
pub fn outbound_to_service(
    snapshot: &Snapshot,
    request: &OutboundRequest<'_>,
    service: &Arc<Service>,
    rng: &mut (impl Rng + ?Sized),
) -> Result<OutboundDecision, Outcome> {
    Call::of(snapshot, request).to_service(service, &mut ByChance(rng))
}

/// Every decision that [`outbound_to_service`] may come to.
///
/// # Errors
/// As of [`outbound_to_service`].
pub fn outbound_to_service_choices(
    snapshot: &Snapshot,
    request: &OutboundRequest<'_>,
    service: &Arc<Service>,
) -> Result<Vec<OutboundDecision>, Outcome> {
    InTurn::every(|picker| Call::of(snapshot, request).to_service(service, picker))
}

/// Decides where a request goes that its sender means for `workload` itself.
///
/// # Errors
/// When it cannot take it.
pub fn outbound_to_workload(
    snapshot: &Snapshot,
    request: &OutboundRequest<'_>,
    workload: &Arc<Workload>,
    rng: &mut (impl Rng + ?Sized),
) -> Result<OutboundDecision, Outcome> {
    Call::of(snapshot, request).to_workload(workload, &mut ByChance(rng))
}

/// Every decision that [`outbound_to_workload`] may come to.
///
/// # Errors
/// As of [`outbound_to_workload`].
pub fn outbound_to_workload_choices(
    snapshot: &Snapshot,
    request: &OutboundRequest<'_>,
    workload: &Arc<Workload>,
) -> Result<Vec<OutboundDecision>, Outcome> {
    InTurn::every(|picker| Call::of(snapshot, request).to_workload(workload, picker))
}

/// Whether `workload` is an instance of `waypoint`.
pub fn is_waypoint_instance(snapshot: &Snapshot, waypoint: &GatewayAddress, workload: &Workload) -> bool {
    waypoint::is_instance(snapshot, waypoint, workload)
}

/// Of services that share an address: one of the client's namespace, then the canonical one, then
/// the first by name.
fn shared_address<'a>(services: &'a [Arc<Service>], source: &Workload) -> Option<&'a Arc<Service>> {
    let own = services.iter().find(|service| service.name.namespace == source.namespace);
    own.or_else(|| services.iter().find(|service| service.canonical)).or_else(|| services.first())
}

/// One call of [`outbound`]: what its steps read.
#[derive(Clone, Copy)]
struct Call<'a> {
    snapshot: &'a Snapshot,
    request: &'a OutboundRequest<'a>,
    destination: SocketAddr,
}

impl<'a> Call<'a> {
    fn of(snapshot: &'a Snapshot, request: &'a OutboundRequest<'a>) -> Self {
        Self { snapshot, request, destination: canonical_socket(request.destination) }
    }

    fn to_address(self, picker: &mut impl Picker) -> Result<OutboundDecision, Outcome> {
        let destination = self.destination;
        // Loopback is never captured, so this came to the proxy's port directly.
        if destination.ip().is_loopback() {
            return Err(OutboundError::Loopback { destination }.into());
        }
        let source = self.request.source;
        let address = NetworkAddress { network: source.network.clone(), ip: destination.ip() };
        // Istio looks for a workload first: a pod's own address wins over a virtual one.
        if let Some(workload) = self.snapshot.workload_by_address(&address) {
            return self.to_workload(workload, picker);
        }
        match shared_address(self.snapshot.services_by_address(&address), source) {
            Some(service) => self.to_service(service, picker),
            None => self.to_unknown(address),
        }
    }

    fn to_workload(
        self,
        workload: &Arc<Workload>,
        picker: &mut impl Picker,
    ) -> Result<OutboundDecision, Outcome> {
        if let Some(waypoint) = self.waypoint_for(workload.waypoint.as_deref()) {
            let decided = self.to_waypoint(waypoint, None, picker);
            if !may_go_around(&decided, workload.waypoint_failure) {
                return decided;
            }
        }
        // An address has one workload behind it, so there is no other to try.
        if self.request.excluded.contains(&workload.uid) {
            return Err(OutboundError::AlreadyTried { destination: self.destination }.into());
        }
        let chosen = Chosen { workload, address: self.destination };
        self.to_endpoint(chosen, None)
    }

    fn to_service(
        self,
        service: &Arc<Service>,
        picker: &mut impl Picker,
    ) -> Result<OutboundDecision, Outcome> {
        if let Some(waypoint) = self.waypoint_for(service.waypoint.as_ref()) {
            let decided = self.to_waypoint(waypoint, Some(service), picker);
            if !may_go_around(&decided, service.waypoint_failure) {
                return decided;
            }
        }
        if service.load_balancing.mode == LoadBalancingMode::Passthrough {
            return self.plain(self.destination, Some(service), None, Why::PassthroughService);
        }
        let wanted = Wanted { service, port: self.destination.port(), ip: self.destination.ip() };
        let chosen = choose(self.snapshot, self.request, &wanted, picker)?;
        self.to_endpoint(chosen, Some(service))
    }

    /// Unknown is closed inside the mesh: the destination may be a pod that was just made.
    fn to_unknown(self, address: NetworkAddress) -> Result<OutboundDecision, Outcome> {
        let is_told = self.snapshot.mesh().is_some_and(|mesh| mesh.has_in_range(address.ip));
        if !is_told && !self.request.mesh_ranges.iter().any(|range| range.contains(&address.ip)) {
            return self.plain(self.destination, None, None, Why::OutsideMesh);
        }
        if !self.request.waited {
            return Err(Outcome::Ask(Ask::Wait { address }));
        }
        Err(OutboundError::UnknownInMesh { destination: self.destination }.into())
    }

    fn to_endpoint(
        self,
        chosen: Chosen<'_>,
        service: Option<&Arc<Service>>,
    ) -> Result<OutboundDecision, Outcome> {
        let why = if service.is_some() { Why::Service } else { Why::Workload };
        match chosen.workload.tunnel_protocol {
            TunnelProtocol::None => self.plain(chosen.address, service, Some(chosen.workload), why),
            TunnelProtocol::Hbone => Ok(OutboundDecision {
                transport: Transport::Hbone {
                    authority: chosen.address,
                    expected: expected(chosen.workload, service),
                },
                next_hop: SocketAddr::new(chosen.address.ip(), HBONE_PORT),
                service: service.cloned(),
                endpoint: Some(chosen.workload.clone()),
                why,
            }),
        }
    }

    /// The waypoint that the connection must pass. Not for the waypoint itself, which is on its way
    /// to the destination.
    fn waypoint_for<'b>(&self, waypoint: Option<&'b GatewayAddress>) -> Option<&'b GatewayAddress> {
        waypoint.filter(|waypoint| !waypoint::is_instance(self.snapshot, waypoint, self.request.source))
    }

    /// A bound waypoint that is missing or not ready refuses the connection: going around it would
    /// skip its policies. Where that is wished for, [`may_go_around`] says so.
    fn to_waypoint(
        self,
        waypoint: &GatewayAddress,
        service: Option<&Arc<Service>>,
        picker: &mut impl Picker,
    ) -> Result<OutboundDecision, Outcome> {
        let ip = self.destination.ip();
        let (chosen, gateway) = waypoint::instance(self.snapshot, self.request, waypoint, ip, picker)?;
        Ok(OutboundDecision {
            // The waypoint learns from the authority which destination was meant.
            transport: Transport::Hbone {
                authority: self.destination,
                expected: expected(chosen.workload, gateway),
            },
            next_hop: chosen.address,
            service: service.cloned(),
            endpoint: Some(chosen.workload.clone()),
            why: if service.is_some() { Why::ServiceWaypoint } else { Why::WorkloadWaypoint },
        })
    }

    fn plain(
        self,
        next_hop: SocketAddr,
        service: Option<&Arc<Service>>,
        endpoint: Option<&Arc<Workload>>,
        why: Why,
    ) -> Result<OutboundDecision, Outcome> {
        if is_own_port(next_hop.port()) {
            return Err(OutboundError::OwnPort { destination: next_hop }.into());
        }
        Ok(OutboundDecision {
            transport: Transport::Passthrough,
            next_hop,
            service: service.cloned(),
            endpoint: endpoint.cloned(),
            why,
        })
    }
}

/// Whether a connection goes on without the waypoint that no instance takes it for.
fn may_go_around(decided: &Result<OutboundDecision, Outcome>, failure: WaypointFailure) -> bool {
    let is_away = matches!(
        decided,
        Err(Outcome::Refused(OutboundError::WaypointMissing { .. } | OutboundError::WaypointNotReady { .. }))
    );
    is_away && failure == WaypointFailure::Open
}

/// Istio: the endpoint's own identity, or one of those that the service names.
fn expected(endpoint: &Workload, service: Option<&Arc<Service>>) -> IdentitySet {
    let of_service = service.into_iter().flat_map(|service| service.subject_alt_names.iter().cloned());
    IdentitySet::new(endpoint.identity.clone(), of_service)
}

#[cfg(test)]
mod tests;
