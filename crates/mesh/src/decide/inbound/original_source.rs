//! For whom a waypoint speaks: DESIGN 6.3.
//!
//! A waypoint connects as itself, and says whose request it carries. Policies of the destination are
//! about that client. Whose word counts is decided here.

use crate::address::{GatewayAddress, GatewayDestination};
use crate::identity::SpiffeId;
use crate::policy::Peer;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// Whom policies of `workload` see: `original`, if the peer is an instance of a waypoint that traffic
/// for the workload passes; otherwise the peer, whatever it says.
pub(super) fn client(
    snapshot: &Snapshot,
    workload: &Workload,
    peer: &Peer,
    original: Option<&SpiffeId>,
) -> Peer {
    match (peer.identity(), original) {
        (Some(identity), Some(original)) if may_speak(snapshot, workload, identity) => {
            Peer::Verified(original.clone())
        }
        _ => peer.clone(),
    }
}

/// Whether the peer is an instance of a waypoint that traffic for `workload` passes.
pub(super) fn is_bound_waypoint(snapshot: &Snapshot, workload: &Workload, peer: &Peer) -> bool {
    peer.identity().is_some_and(|identity| may_speak(snapshot, workload, identity))
}

fn may_speak(snapshot: &Snapshot, workload: &Workload, identity: &SpiffeId) -> bool {
    let of_services = workload.services.keys().filter_map(|name| snapshot.service(name)?.waypoint.as_ref());
    let bound = workload.waypoint.as_deref().into_iter().chain(of_services);
    bound.into_iter().any(|waypoint| is_identity_of(snapshot, waypoint, identity))
}

/// Whether an instance of the waypoint has this identity. Instances that are not ready count: they may
/// have just begun to drain.
fn is_identity_of(snapshot: &Snapshot, waypoint: &GatewayAddress, identity: &SpiffeId) -> bool {
    let of_service = |service: &Service| {
        let endpoints = snapshot.endpoints(&service.name).iter();
        service.subject_alt_names.contains(identity)
            || endpoints.map(|endpoint| &endpoint.workload).any(|instance| instance.identity == *identity)
    };
    match &waypoint.destination {
        GatewayDestination::Service(name) => {
            snapshot.service(name).is_some_and(|service| of_service(service))
        }
        GatewayDestination::Address(address) => match snapshot.workload_by_address(address) {
            Some(instance) => instance.identity == *identity,
            None => snapshot.services_by_address(address).iter().any(|service| of_service(service)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::NetworkAddress;
    use crate::fixtures::{at, endpoint, identity, service, service_name, snapshot, workload};

    fn bound_to(destination: GatewayDestination) -> Option<GatewayAddress> {
        Some(GatewayAddress { destination, hbone_mtls_port: 15008 })
    }

    fn seen(by: &str, name: &str, said: Option<&str>) -> String {
        let gateway = service_name("shop", "gateway");
        let web = service_name("shop", "web");
        let by_service = bound_to(GatewayDestination::Service(gateway.clone()));
        let by_address = |text: &str| -> NetworkAddress { at(text) };
        let own = |address| bound_to(GatewayDestination::Address(by_address(address))).map(Box::new);
        let of_mesh = snapshot([
            service("shop", "gateway", &["10.96.0.9"]).into(),
            Service { waypoint: by_service, ..service("shop", "web", &["10.96.0.1"]) }.into(),
            service("shop", "plain", &["10.96.0.2"]).into(),
            endpoint("gateway", &["10.0.0.9"], &[&gateway]).into(),
            endpoint("web", &["10.0.0.1"], &[&web]).into(),
            endpoint("plain", &["10.0.0.2"], &[&service_name("shop", "plain")]).into(),
            Workload { waypoint: own("10.0.0.9"), ..workload("pod-bound", &["10.0.0.3"]) }.into(),
            Workload { waypoint: own("10.96.0.9"), ..workload("vip-bound", &["10.0.0.4"]) }.into(),
            Workload { waypoint: own("10.0.0.77"), ..workload("lost", &["10.0.0.5"]) }.into(),
        ]);
        let destination = of_mesh.workload(&crate::fixtures::uid(name)).unwrap();
        let said = said.map(identity);
        let peer = client(&of_mesh, destination, &Peer::Verified(identity(by)), said.as_ref());
        peer.identity().unwrap().service_account().to_owned()
    }

    #[test]
    fn only_the_bound_waypoint_speaks_for_others() {
        for (row, by, destination, said, expected) in [
            ("its service's waypoint", "gateway", "web", Some("client"), "client"),
            ("its own waypoint, by address", "gateway", "pod-bound", Some("client"), "client"),
            ("its own waypoint, by virtual address", "gateway", "vip-bound", Some("client"), "client"),
            ("a waypoint that says nothing", "gateway", "web", None, "gateway"),
            ("a waypoint of others", "gateway", "plain", Some("client"), "gateway"),
            ("a waypoint that is gone", "gateway", "lost", Some("client"), "gateway"),
            ("no waypoint", "web", "web", Some("client"), "web"),
        ] {
            assert_eq!(seen(by, destination, said), expected, "{row}");
        }
    }

    #[test]
    fn who_has_proved_nothing_speaks_for_nobody() {
        let of_mesh = snapshot([workload("web", &["10.0.0.1"]).into()]);
        let web = of_mesh.workload(&crate::fixtures::uid("web")).unwrap();
        let said = identity("client");
        assert_eq!(client(&of_mesh, web, &Peer::Unauthenticated, Some(&said)), Peer::Unauthenticated);
    }
}
