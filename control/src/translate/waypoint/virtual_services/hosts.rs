//! Which VirtualService holds for which Service.
//!
//! One of the Service's own namespace comes before one of the namespace of its waypoint; of several the first by name
//! holds.

use std::collections::{BTreeMap, BTreeSet};

use ambit_mesh::address::{GatewayDestination, ServiceName};

use crate::objects::networking::is_exported;
use crate::objects::{ObjectKey, Service, VirtualService};
use crate::translate::view::{Named, View};
use crate::translate::waypoint::of_service;
use crate::translate::waypoint::routes::{Report, find_host, find_service};
use crate::translate::{CLUSTER_DOMAIN, Conditions, Reason};

/// What VirtualServices hold for.
pub(super) struct Claims<'a>(BTreeMap<ServiceName, Claim<'a>>);

/// A Service that a VirtualService is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It is of the namespace of the Service's waypoint.
    OfWaypoint,
    /// It is of the Service's own namespace.
    OfService,
}

/// One that holds.
pub(super) struct Claim<'a> {
    pub(super) name: ServiceName,
    pub(super) service: Named<'a, Service>,
    by: &'a ObjectKey,
    rank: Rank,
}

impl<'a> Claims<'a> {
    /// Decides between all of them; `routed` is left to routes of the Gateway API.
    pub(super) fn of(view: &View<'a>, routed: &BTreeSet<ServiceName>, report: &mut Report<'_>) -> Self {
        let mut claims = Self(BTreeMap::new());
        let mut lost: Vec<(&ObjectKey, String)> = Vec::new();
        for written in &view.virtual_services {
            let spec = &written.object.spec;
            // Of a gateway of the mesh's edge, which is not ours.
            if !spec.gateways.is_empty() && !spec.gateways.iter().any(|gateway| gateway == "mesh") {
                let message = "it is for gateways alone: a mesh has none of them";
                report.notes.add(written.key, Reason::NoEffect, message);
                continue;
            }
            for host in &spec.hosts {
                match claim(written, host, view, report) {
                    Ok(claim) if routed.contains(&claim.name) => lost.push((written.key, host.clone())),
                    Ok(claim) => {
                        let other = claims.0.get(&claim.name);
                        match other.filter(|other| other.rank >= claim.rank) {
                            Some(_) => lost.push((written.key, host.clone())),
                            None => lost.extend(claims.add(claim).map(|other| (other.by, host.clone()))),
                        }
                    }
                    Err(message) => report.notes.add(written.key, Reason::NoEffect, message),
                }
            }
        }
        for (key, host) in lost {
            let message = format!(
                "host {host:?} has another route, which holds: one of the Gateway API, or the first VirtualService \
                 by name of the Service's namespace, then of its waypoint's"
            );
            report.notes.add(key, Reason::Conflict, message);
        }
        claims
    }

    fn add(&mut self, claim: Claim<'a>) -> Option<Claim<'a>> {
        self.0.insert(claim.name.clone(), claim)
    }

    /// What an object holds for.
    pub(super) fn of_object(&self, written: &Named<'_, VirtualService>) -> Vec<&Claim<'a>> {
        self.0.values().filter(|claim| claim.by == written.key).collect()
    }
}

fn claim<'a>(
    written: &Named<'a, VirtualService>,
    host: &str,
    view: &View<'a>,
    report: &mut Report<'_>,
) -> Result<Claim<'a>, String> {
    let service = find(view, host, written.namespace());
    let service =
        service.ok_or_else(|| format!("host {host:?} is no Service and no ServiceEntry of this mesh"))?;
    let waypoint = waypoint_namespace(&service, view);
    let rank = if service.namespace() == written.namespace() {
        Rank::OfService
    } else if waypoint.as_deref() == Some(written.namespace()) {
        Rank::OfWaypoint
    } else {
        return Err(format!(
            "host {host:?} is a Service of another namespace: a waypoint takes VirtualServices of the Service's \
             namespace and of its own"
        ));
    };
    match &waypoint {
        None => {
            let message = format!("{host:?} is not bound to a waypoint: the rules have no effect on it");
            report.notes.add(written.key, Reason::NoEffect, message);
        }
        Some(waypoint) if !is_exported(&written.object.spec.export_to, written.namespace(), waypoint) => {
            return Err(format!(
                "exportTo leaves out namespace {waypoint}, where the waypoint of host {host:?} is: the rules have \
                 no effect on it"
            ));
        }
        Some(_) => {}
    }
    let name = service.mesh_name();
    Ok(Claim { name, service, by: written.key, rank })
}

/// The namespace of the waypoint that a Service is bound to.
pub(super) fn waypoint_namespace(service: &Named<'_, Service>, view: &View<'_>) -> Option<String> {
    match of_service(service, view, &mut Conditions::default())?.destination {
        GatewayDestination::Service(waypoint) => Some(waypoint.namespace.to_string()),
        GatewayDestination::Address(_) => None,
    }
}

/// The service that a host stands for, to an object of `namespace`.
pub(super) fn find<'a>(view: &View<'a>, host: &str, namespace: &str) -> Option<Named<'a, Service>> {
    let service = resolved(host, namespace);
    let service = service.and_then(|(namespace, name)| find_service(view, &namespace, &name));
    service.or_else(|| find_host(view, host, namespace))
}

/// Namespace and name of the Service that a host stands for. A name without dots is of the object's own
/// namespace (Istio).
fn resolved(host: &str, namespace: &str) -> Option<(String, String)> {
    let domain = format!(".svc.{CLUSTER_DOMAIN}");
    let short = host.strip_suffix(domain.as_str()).or_else(|| host.strip_suffix(".svc")).unwrap_or(host);
    let (name, namespace) = short.split_once('.').unwrap_or((short, namespace));
    (!name.is_empty() && !namespace.contains('.') && !host.contains('*'))
        .then(|| (namespace.to_owned(), name.to_owned()))
}
