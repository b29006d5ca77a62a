//! Translation by namespaces: after a change, those alone are translated that it can make a
//! difference to.
//!
//! What a namespace becomes depends on its own objects, on the nodes of its pods and on the policies
//! of the root namespaces; and on another namespace only where both have to do with one address.
//! That is rare, mostly a mistake, and looked for each time: as long as it is so, everything is
//! translated after every change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ambit_mesh::workload::{TunnelProtocol, Workload};

use super::endpoints::{self, Endpoints};
use super::peer_authentication::PeerAuthentications;
use super::view::{Named, PodsByAddress, View};
use super::{Notes, Reason, Settings, Translated, authorization, is_root, mesh, service, waypoint, workload};
use crate::ca::grant::waypoint_caller;
use crate::inputs::Inputs;
use crate::objects::{Kind, KnownKind, ObjectKey, Pod};

/// Keeps what every namespace became.
#[derive(Debug, Default)]
pub struct Translator {
    /// `None` before the first translation.
    kept: Option<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By namespace. What they say of identities and of objects is in there too.
    parts: BTreeMap<Arc<str>, Translated>,
    /// Whether namespaces have to do with each other.
    is_entangled: bool,
}

impl Translator {
    /// Translates `inputs`, of which `changed` are those objects that may be others, or elsewhere,
    /// than at the last call. The result is the same as without it.
    pub fn translate(
        &mut self,
        inputs: &Inputs,
        changed: &BTreeSet<ObjectKey>,
        settings: &Settings,
    ) -> Translated {
        let view = View::of(inputs);
        let by_address = view.pods_by_address();
        let is_entangled = by_address.is_shared || endpoints::cross_namespaces(&view, &by_address);
        let mut kept =
            self.kept.take().filter(|kept| !kept.is_entangled && !is_entangled).unwrap_or_default();
        kept.is_entangled = is_entangled;
        let is_first = kept.parts.is_empty() || changed.iter().any(is_for_all);
        let all = view.namespaces_with_objects();
        kept.parts.retain(|namespace, _| all.contains(&**namespace));
        let stale = if is_first { all } else { stale(&view, &kept, changed, &all) };

        let mut out = Translated::default();
        let peers = PeerAuthentications::of(&view, &mut out.notes);
        let mut endpoints = endpoints::find(&view, &by_address, &stale, settings);
        let step = Step { view: &view, by_address: &by_address, peers: &peers, settings };
        let mut outside: BTreeMap<Arc<str>, Vec<Workload>> = BTreeMap::new();
        for workload in endpoints.take_outside() {
            outside.entry(workload.namespace.clone()).or_default().push(workload);
        }
        for namespace in stale {
            let mut part = step.translate(namespace, &mut endpoints);
            outside.remove(namespace).into_iter().flatten().for_each(|workload| part.add(workload));
            kept.parts.insert(namespace.into(), part);
        }
        let of_peers = peers.policies().into_iter().map(|policy| (policy.name.clone(), Arc::new(policy)));
        out.policies.extend(of_peers);
        out.join(kept.parts.values());
        let Translated { waypoints, for_waypoints, notes, conditions, .. } = &mut out;
        for gateway in view.gateways.values().flat_map(BTreeMap::values) {
            if gateway.object.is_waypoint() {
                waypoints.insert(super::service_name(gateway.namespace(), gateway.name()));
            }
            waypoint::note_gateway(gateway, &view, notes, conditions);
        }
        view.service_entries.iter().for_each(|entry| waypoint::note_entry(entry, notes));
        let mut report = waypoint::routes::Report { notes, conditions };
        waypoint::routes::translate(&view, &mut report, for_waypoints);
        waypoint::virtual_services::translate(&view, settings, &mut report, for_waypoints);
        waypoint::policies::translate(&view, settings, &mut report, for_waypoints);
        out.mesh_ranges = mesh::ranges(&view, settings);
        out.enrolled_namespaces = mesh::enrolled_namespaces(&view);
        self.kept = Some(kept);
        out
    }
}

/// Whether a change of this object can make a difference to every namespace.
fn is_for_all(key: &ObjectKey) -> bool {
    match &key.kind {
        Kind::Known(KnownKind::AuthorizationPolicy | KnownKind::PeerAuthentication) => {
            key.namespace.as_deref().is_some_and(is_root)
        }
        // Objects of any namespace may be bound to it.
        Kind::Known(KnownKind::Gateway) => true,
        Kind::Known(
            KnownKind::Namespace
            | KnownKind::Node
            | KnownKind::Pod
            | KnownKind::Service
            | KnownKind::EndpointSlice
            | KnownKind::ServiceAccount
            | KnownKind::ServiceCidr
            | KnownKind::HttpRoute
            | KnownKind::GrpcRoute
            | KnownKind::TcpRoute
            | KnownKind::TlsRoute
            | KnownKind::VirtualService
            | KnownKind::DestinationRule
            | KnownKind::ServiceEntry,
        )
        | Kind::Foreign { .. } => false,
    }
}

/// The namespaces that changes make a difference to.
fn stale<'a>(
    view: &View<'a>,
    kept: &Kept,
    changed: &BTreeSet<ObjectKey>,
    all: &BTreeSet<&'a str>,
) -> BTreeSet<&'a str> {
    let mut touched: BTreeSet<&str> = BTreeSet::new();
    for key in changed {
        match &key.kind {
            Kind::Known(KnownKind::Namespace) => drop(touched.insert(&key.name)),
            Kind::Known(KnownKind::Node) => touched.extend(view.namespaces_on(&key.name)),
            // They say nothing about any namespace; routes are translated each time.
            Kind::Known(
                KnownKind::ServiceCidr
                | KnownKind::HttpRoute
                | KnownKind::GrpcRoute
                | KnownKind::TcpRoute
                | KnownKind::TlsRoute
                | KnownKind::VirtualService
                | KnownKind::DestinationRule,
            ) => {}
            Kind::Known(
                KnownKind::Pod
                | KnownKind::Service
                | KnownKind::ServiceEntry
                | KnownKind::EndpointSlice
                | KnownKind::ServiceAccount
                | KnownKind::AuthorizationPolicy
                | KnownKind::PeerAuthentication
                | KnownKind::Gateway,
            )
            | Kind::Foreign { .. } => touched.extend(key.namespace.as_deref()),
        }
    }
    let is_stale = |namespace: &&&str| touched.contains(**namespace) || !kept.parts.contains_key(**namespace);
    all.iter().filter(is_stale).copied().collect()
}

/// What the translation of one namespace reads.
struct Step<'a, 'b> {
    view: &'b View<'a>,
    by_address: &'b PodsByAddress<'a>,
    peers: &'b PeerAuthentications<'a>,
    settings: &'b Settings,
}

impl<'a> Step<'a, '_> {
    fn translate(&self, namespace: &str, endpoints: &mut Endpoints<'a>) -> Translated {
        let mut out = Translated::default();
        for policy in self.view.authorization_policies.get(namespace).into_iter().flatten() {
            let policy = authorization::translate(policy, self.settings, &mut out.notes);
            out.policies.extend(policy.map(|policy| (policy.name.clone(), Arc::new(policy))));
        }
        for service in self.view.services.get(namespace).into_iter().flatten() {
            let mut said = service::Said { notes: &mut out.notes, conditions: &mut out.conditions };
            let service = service::translate(service, self.view, self.settings, &mut said);
            out.services.extend(service.map(|service| (service.name.clone(), Arc::new(service))));
        }
        for pod in self.view.pods.get(namespace).into_iter().flatten() {
            self.note_shared_addresses(pod, &mut out.notes);
            let (services, requirement) = (endpoints.of_pod(pod), endpoints.requirement(pod));
            let addresses = self.by_address.of(pod);
            let step = workload::Step { view: self.view, peers: self.peers, settings: self.settings };
            let workload = step.translate(pod, addresses, services, requirement, &mut out.notes);
            if let Some(workload) = workload {
                if waypoint::is_instance(pod, self.view) {
                    let caller = waypoint_caller(pod.namespace(), pod.name());
                    out.identities.by_node.insert(caller, [workload.identity.clone()].into());
                }
                out.add(workload);
            }
        }
        out
    }

    /// Whoever connects to an address that several pods claim may reach another than it counts for.
    fn note_shared_addresses(&self, pod: &Named<'_, Pod>, notes: &mut Notes) {
        let own: Vec<IpAddr> = if pod.object.has_own_address() { pod.object.addresses() } else { Vec::new() };
        for ip in own {
            if let Some(other) = self.by_address.pods.get(&ip).filter(|other| other.key != pod.key) {
                let message = format!(
                    "address {ip} is also that of {} at {}, which it counts for",
                    other.key, other.origin
                );
                notes.add(pod.key, Reason::Conflict, message);
            }
        }
    }
}

impl Translated {
    fn add(&mut self, workload: Workload) {
        if workload.tunnel_protocol == TunnelProtocol::Hbone {
            let on_node = self.identities.by_node.entry(workload.node.clone()).or_default();
            on_node.insert(workload.identity.clone());
        }
        self.workloads.insert(workload.uid.clone(), Arc::new(workload));
    }

    /// Takes in what namespaces became. None of them has anything of another.
    fn join<'a>(&mut self, parts: impl Iterator<Item = &'a Self> + Clone) {
        let shared =
            |part: &'a Self| part.workloads.iter().map(|(uid, workload)| (uid.clone(), workload.clone()));
        self.workloads = parts.clone().flat_map(shared).collect();
        for part in parts {
            self.services.extend(part.services.iter().map(|(name, service)| (name.clone(), service.clone())));
            self.policies.extend(part.policies.iter().map(|(name, policy)| (name.clone(), policy.clone())));
            for (node, identities) in &part.identities.by_node {
                self.identities.by_node.entry(node.clone()).or_default().extend(identities.iter().cloned());
            }
            for (key, notes) in &part.notes.0 {
                self.notes.0.entry(key.clone()).or_default().extend(notes.iter().cloned());
            }
            self.conditions.join(&part.conditions);
        }
    }
}
