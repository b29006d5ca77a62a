//! Which endpoint of a backend takes a request.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rand::Rng;

use super::decide::Backend;
use super::destination::Place;
use super::snapshot::WaypointSnapshot;
use crate::decide::{
    Ask, OutboundDecision, OutboundError, OutboundRequest, Outcome, outbound_to_service,
    outbound_to_service_choices, outbound_to_workload, outbound_to_workload_choices,
};
use crate::service::LoadBalancingMode;
use crate::workload::WorkloadUid;

/// Why no endpoint can take a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpstreamError {
    /// The waypoint does not know its own workload yet.
    #[error("this waypoint has not been told of its own workload: check that control serves it")]
    Unplaced,
    /// The subset is not defined.
    #[error("{service} has no subset {subset}: check the subsets of its DestinationRule")]
    NoSuchSubset {
        /// The service.
        service: String,
        /// The subset.
        subset: String,
    },
    /// The service has none that can.
    #[error(transparent)]
    Endpoint(#[from] OutboundError),
}

impl WaypointSnapshot {
    /// Picks an endpoint of `backend` that was not tried in vain, and says how it is reached. To be
    /// called again after a failed connect, with the endpoint of that decision in `excluded`. One of `suspects` is
    /// picked only where there is no other.
    ///
    /// # Errors
    /// When none is left.
    pub fn upstream(
        &self,
        backend: &Backend,
        excluded: &[WorkloadUid],
        suspects: &[WorkloadUid],
        rng: &mut (impl Rng + ?Sized),
    ) -> Result<OutboundDecision, UpstreamError> {
        self.asking(backend, excluded, suspects, |request| match &backend.place {
            Place::Service(service) => outbound_to_service(self.mesh(), request, service, rng),
            Place::Workload(workload) => outbound_to_workload(self.mesh(), request, workload, rng),
        })
    }

    /// Every decision that [`Self::upstream`] may come to at first: one for each endpoint.
    ///
    /// # Errors
    /// When there is none.
    pub fn upstream_choices(&self, backend: &Backend) -> Result<Vec<OutboundDecision>, UpstreamError> {
        self.asking(backend, &[], &[], |request| match &backend.place {
            Place::Service(service) => outbound_to_service_choices(self.mesh(), request, service),
            Place::Workload(workload) => outbound_to_workload_choices(self.mesh(), request, workload),
        })
    }

    fn asking<T>(
        &self,
        backend: &Backend,
        excluded: &[WorkloadUid],
        suspects: &[WorkloadUid],
        decide: impl FnOnce(&OutboundRequest<'_>) -> Result<T, Outcome>,
    ) -> Result<T, UpstreamError> {
        let own = self.own().ok_or(UpstreamError::Unplaced)?;
        let mut excluded = excluded.to_vec();
        if let Some(name) = &backend.subset {
            let subset = self.subset(name).ok_or_else(|| UpstreamError::NoSuchSubset {
                service: name.service.to_string(),
                subset: name.name.to_string(),
            })?;
            let outside = |uid: &&WorkloadUid| !subset.members.contains(uid);
            let endpoints = self.mesh().endpoints(&name.service).iter();
            excluded.extend(endpoints.map(|endpoint| &endpoint.workload.uid).filter(outside).cloned());
        }
        let ip = match &backend.place {
            // Without a virtual address the family is as the endpoints have it; what is passed through goes where it
            // was dialled.
            Place::Service(service) => {
                let is_passed_through = service.load_balancing.mode == LoadBalancingMode::Passthrough;
                let dialled = backend.address.filter(|_| is_passed_through);
                let own = || service.addresses.first().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |at| at.ip);
                dialled.unwrap_or_else(own)
            }
            Place::Workload(workload) => {
                let ip = workload.addresses.first().copied().ok_or(UpstreamError::Unplaced)?;
                backend.address.unwrap_or(ip)
            }
        };
        let request = OutboundRequest {
            source: own,
            destination: SocketAddr::new(ip, backend.port),
            excluded: &excluded,
            suspects,
            mesh_ranges: &[],
            waited: true,
        };
        decide(&request).map_err(|outcome| match outcome {
            Outcome::Refused(error) => error.into(),
            Outcome::Ask(Ask::Wait { address }) => {
                OutboundError::UnknownInMesh { destination: SocketAddr::new(address.ip, backend.port) }.into()
            }
        })
    }
}
