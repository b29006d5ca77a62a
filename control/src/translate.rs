//! Turns what is in force into what the data plane needs. Pure.
//!
//! It never fails as a whole: what cannot be carried out as written is replaced by something
//! stricter, and a note for the object's status says so.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ambit_mesh::address::{Network, NetworkAddress, ServiceName};
use ambit_mesh::identity::TrustDomain;
use ambit_mesh::policy::{AuthorizationPolicy, PolicyName};
use ambit_mesh::service::Service;
use ambit_mesh::workload::{TunnelProtocol, Workload, WorkloadUid};

use crate::ca::grant::NodeIdentities;
use crate::inputs::Inputs;
use crate::objects::ObjectKey;

mod authorization;
mod endpoints;
mod enrolment;
mod peer_authentication;
mod service;
mod view;
mod workload;

use peer_authentication::PeerAuthentications;
use view::View;

/// Namespaces in which an object without selector applies to the whole mesh. Istio has one; users
/// who come from there keep theirs.
pub const ROOT_NAMESPACES: [&str; 2] = ["ambit-system", "istio-system"];

/// The domain of service host names.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// What holds for the whole mesh.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the cluster.
    pub cluster_id: Arc<str>,
    /// The network that all addresses belong to.
    pub network: Network,
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// Whether pods may name their network namespace.
    pub netns_annotation: NetnsAnnotation,
}

/// Whether the annotation `ambit.dev/netns` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetnsAnnotation {
    /// It does: whoever writes pods is trusted with the node.
    Honoured,
    /// It is reported and ignored.
    Ignored,
}

/// What the data plane needs.
#[derive(Clone, Debug, Default)]
pub struct Translated {
    /// Workloads.
    pub workloads: BTreeMap<WorkloadUid, Workload>,
    /// Services.
    pub services: BTreeMap<ServiceName, Service>,
    /// Policies of layer 4.
    pub policies: BTreeMap<PolicyName, AuthorizationPolicy>,
    /// The identities that a node may ask certificates for: those of the enrolled pods scheduled to it.
    pub identities: NodeIdentities,
    /// What the authors of objects should know.
    pub notes: Notes,
}

/// Notes by object.
#[derive(Clone, Debug, Default)]
pub struct Notes(pub BTreeMap<ObjectKey, Vec<Note>>);

/// Something that the author of an object should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which kind of thing.
    pub reason: Reason,
    /// What, and what to do about it.
    pub message: String,
}

/// Kinds of notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub enum Reason {
    /// The object, or a part of it, does nothing where it stands.
    NoEffect,
    /// A part cannot be enforced as written and is enforced more strictly.
    EnforcedStricter,
    /// Another object takes precedence or claims the same thing.
    Conflict,
    /// The object cannot be carried out.
    NotTranslated,
}

impl Notes {
    fn add(&mut self, key: &ObjectKey, reason: Reason, message: impl Into<String>) {
        self.0.entry(key.clone()).or_default().push(Note { reason, message: message.into() });
    }
}

/// Translates everything. The whole is computed on every change, in time proportional to all objects:
/// simpler than following what depends on what, and below a second for tens of thousands of pods.
pub fn translate(inputs: &Inputs, settings: &Settings) -> Translated {
    let mut out = Translated::default();
    let view = View::of(inputs);
    let peers = PeerAuthentications::of(&view, &mut out.notes);
    for policy in &view.authorization_policies {
        let policy = authorization::translate(policy, settings, &mut out.notes);
        out.policies.extend(policy.map(by_name));
    }
    out.policies.extend(peers.policies().into_iter().map(by_name));
    for service in view.services.values().flatten() {
        let service = service::translate(service, settings, &mut out.notes);
        out.services.extend(service.map(|service| (service.name.clone(), service)));
    }
    note_shared_addresses(&view, &mut out.notes);
    let mut endpoints = endpoints::find(&view, settings);
    for pod in &view.pods {
        let services = endpoints.of_pod(pod);
        let workload = workload::translate(pod, &view, &peers, services, settings, &mut out.notes);
        let Some(workload) = workload else { continue };
        if workload.tunnel_protocol == TunnelProtocol::Hbone {
            let on_node = out.identities.by_node.entry(workload.node.clone()).or_default();
            on_node.insert(workload.identity.clone());
        }
        out.workloads.insert(workload.uid.clone(), workload);
    }
    out.workloads.extend(endpoints.outside_the_cluster);
    out
}

impl Settings {
    fn address(&self, ip: IpAddr) -> NetworkAddress {
        NetworkAddress { network: self.network.clone(), ip }
    }
}

/// Whoever connects to an address that several pods claim reaches one of them, and expects another.
fn note_shared_addresses(view: &View<'_>, notes: &mut Notes) {
    let by_address = view.pods_by_address();
    for pod in view.pods.iter().filter(|pod| pod.object.has_own_address()) {
        for ip in pod.object.addresses() {
            if let Some(other) = by_address.get(&ip).filter(|other| other.key != pod.key) {
                let message = format!("address {ip} is also that of {} at {}", other.key, other.origin);
                notes.add(pod.key, Reason::Conflict, message);
            }
        }
    }
}

fn by_name(policy: AuthorizationPolicy) -> (PolicyName, AuthorizationPolicy) {
    (policy.name.clone(), policy)
}

fn service_name(namespace: &str, name: &str) -> ServiceName {
    let hostname = format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}");
    ServiceName { namespace: namespace.into(), hostname: hostname.into() }
}

fn policy_name(namespace: &str, name: &str) -> PolicyName {
    PolicyName { namespace: namespace.into(), name: name.into() }
}

fn is_root(namespace: &str) -> bool {
    ROOT_NAMESPACES.contains(&namespace)
}

#[cfg(test)]
mod tests;
