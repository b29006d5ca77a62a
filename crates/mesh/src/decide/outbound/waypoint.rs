//! Which instance of a waypoint takes a connection, and which workload is one.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::endpoint::{Chosen, Wanted, choose, unavailable};
use super::picker::Picker;
use super::{OutboundError, OutboundRequest};
use crate::address::{GatewayAddress, GatewayDestination, NetworkAddress};
use crate::service::{HealthPolicy, Service};
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// Whether `workload` is an instance of `waypoint`.
pub(super) fn is_instance(snapshot: &Snapshot, waypoint: &GatewayAddress, workload: &Workload) -> bool {
    match &waypoint.destination {
        GatewayDestination::Service(name) => workload.services.contains_key(name),
        GatewayDestination::Address(address) => match at(snapshot, address) {
            Some(At::Workload(instance, _)) => instance.uid == workload.uid,
            Some(At::Service(service)) => workload.services.contains_key(&service.name),
            None => false,
        },
    }
}

/// Picks an instance of `waypoint`, with the service that it is an endpoint of. `ip` is the address
/// that the client asked for, whose family the instance should have.
pub(super) fn instance<'a>(
    snapshot: &'a Snapshot,
    request: &OutboundRequest<'_>,
    waypoint: &GatewayAddress,
    ip: IpAddr,
    picker: &mut impl Picker,
) -> Result<(Chosen<'a>, Option<&'a Arc<Service>>), OutboundError> {
    let not_ready = |left_out| OutboundError::WaypointNotReady { waypoint: waypoint.clone(), left_out };
    let found = match &waypoint.destination {
        GatewayDestination::Service(name) => snapshot.service(name).map(At::Service),
        GatewayDestination::Address(address) => at(snapshot, address),
    };
    match found {
        Some(At::Service(service)) => {
            // The gateway's port is a port of its service.
            let wanted = Wanted { service, port: waypoint.hbone_mtls_port, ip };
            let chosen =
                choose(snapshot, request, &wanted, picker).map_err(|error| not_ready(error.left_out))?;
            Ok((chosen, Some(service)))
        }
        Some(At::Workload(workload, ip)) => {
            if let Some(reason) = unavailable(workload, request, HealthPolicy::OnlyHealthy) {
                return Err(not_ready(reason.into()));
            }
            let address = SocketAddr::new(ip, waypoint.hbone_mtls_port);
            Ok((Chosen { workload, address }, None))
        }
        None => Err(OutboundError::WaypointMissing { waypoint: waypoint.clone() }),
    }
}

/// What answers at a gateway's address.
enum At<'a> {
    Workload(&'a Arc<Workload>, IpAddr),
    Service(&'a Arc<Service>),
}

fn at<'a>(snapshot: &'a Snapshot, address: &NetworkAddress) -> Option<At<'a>> {
    let workload = snapshot.workload_by_address(address);
    workload
        .map(|workload| At::Workload(workload, address.ip.to_canonical()))
        .or_else(|| snapshot.services_by_address(address).first().map(At::Service))
}
