//! What a tunnel to a waypoint was opened for.

use std::net::SocketAddr;
use std::sync::Arc;

use super::snapshot::WaypointSnapshot;
use crate::address::{Authority, NetworkAddress, canonical_socket};
use crate::service::{AppProtocol, Service};
use crate::workload::Workload;

/// What a client dialled, as the CONNECT named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What it is.
    pub place: Place,
    /// The address that was dialled, if it was one: what policies see as the destination.
    pub address: Option<SocketAddr>,
    /// The port that was dialled: of the service, or of the pod.
    pub port: u16,
    /// The protocol that is declared for this port.
    pub protocol: AppProtocol,
}

/// What a client dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A service.
    Service(Arc<Service>),
    /// A workload itself.
    Workload(Arc<Workload>),
}

impl Destination {
    /// The service, if it is one.
    pub fn service(&self) -> Option<&Arc<Service>> {
        match &self.place {
            Place::Service(service) => Some(service),
            Place::Workload(_) => None,
        }
    }
}

/// Why a waypoint takes no traffic for a destination.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotServed {
    /// The waypoint does not know its own workload yet.
    #[error("this waypoint has not been told of its own workload: check that control serves it")]
    Unplaced,
    /// Nothing is known there.
    #[error("{authority} is no service and no workload that this waypoint knows: check the address")]
    Unknown {
        /// What was asked for.
        authority: Authority,
    },
    /// It is bound to another waypoint, or to none.
    #[error("{name} is not bound to this waypoint: check its label istio.io/use-waypoint")]
    NotBound {
        /// The service or workload.
        name: String,
    },
    /// The service has no such port.
    #[error("{service} has no port {port}: check the ports of the Service")]
    NoSuchPort {
        /// The service.
        service: String,
        /// The port.
        port: u16,
    },
}

impl WaypointSnapshot {
    /// What a CONNECT to `authority` is for.
    ///
    /// # Errors
    /// When the waypoint serves no such thing: it is no open relay.
    pub fn destination(&self, authority: &Authority) -> Result<Destination, NotServed> {
        let own = self.own().ok_or(NotServed::Unplaced)?;
        let unknown = || NotServed::Unknown { authority: authority.clone() };
        match authority {
            Authority::Address(address) => {
                let address = canonical_socket(*address);
                let at = NetworkAddress { network: own.network.clone(), ip: address.ip() };
                if let Some(workload) = self.mesh().workload_by_address(&at) {
                    return self.to_workload(workload, address);
                }
                let services = self.mesh().services_by_address(&at);
                let served = services.iter().find(|service| self.serves_service(service));
                let service = served.or_else(|| services.first()).ok_or_else(unknown)?;
                self.to_service(service, Some(address), address.port())
            }
            Authority::Host { name, port } => {
                let service = self.service_by_hostname(name).ok_or_else(unknown)?;
                self.to_service(service, None, *port)
            }
        }
    }

    fn to_service(
        &self,
        service: &Arc<Service>,
        address: Option<SocketAddr>,
        port: u16,
    ) -> Result<Destination, NotServed> {
        if !self.serves_service(service) {
            return Err(NotServed::NotBound { name: service.name.to_string() });
        }
        let mapping = service.ports.iter().find(|mapping| mapping.service_port == port);
        let protocol = mapping.map(|mapping| mapping.app_protocol);
        let protocol =
            protocol.ok_or_else(|| NotServed::NoSuchPort { service: service.name.to_string(), port })?;
        Ok(Destination { place: Place::Service(service.clone()), address, port, protocol })
    }

    fn to_workload(&self, workload: &Arc<Workload>, address: SocketAddr) -> Result<Destination, NotServed> {
        if !self.serves_workload(workload) {
            return Err(NotServed::NotBound { name: workload.uid.to_string() });
        }
        let port = address.port();
        let mut ports = workload.services.iter().flat_map(|(_, ports)| ports.iter());
        let declared = ports.find(|mapping| mapping.target_port == Some(port));
        let protocol = declared.map_or(AppProtocol::Unknown, |mapping| mapping.app_protocol);
        Ok(Destination { place: Place::Workload(workload.clone()), address: Some(address), port, protocol })
    }
}
