//! Turns what is in force into what the data plane needs. Pure.
//!
//! It never fails as a whole: what cannot be carried out as written is replaced by something
//! stricter, and a note for the object's status says so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ambit_mesh::address::{Network, NetworkAddress, ServiceName};
use ambit_mesh::identity::TrustDomain;
use ambit_mesh::policy::{AuthorizationPolicy, PolicyName};
use ambit_mesh::service::Service;
use ambit_mesh::workload::{Workload, WorkloadUid};
use ipnet::IpNet;

use crate::ca::grant::NodeIdentities;
use crate::inputs::Inputs;
use crate::objects::ObjectKey;

mod authorization;
mod binding;
pub mod conditions;
mod endpoints;
mod enrolment;
mod mesh;
mod namespaces;
mod peer_authentication;
mod service;
mod view;
mod waypoint;
pub mod waypoints;
mod workload;

pub use conditions::{Condition, Conditions};
pub use namespaces::Translator;
pub use peer_authentication::converted as converted_peer_authentication;
pub use waypoint::{ForWaypoints, WAYPOINT_BOUND};

/// Namespaces in which an object without selector applies to the whole mesh. Istio has one; users
/// who come from there keep theirs.
pub const ROOT_NAMESPACES: [&str; 2] = ["ambit-system", "istio-system"];

/// The domain of service host names.
pub(crate) const CLUSTER_DOMAIN: &str = "cluster.local";

/// What holds for the whole mesh.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the cluster.
    pub cluster_id: Arc<str>,
    /// The network that all addresses belong to.
    pub network: Network,
    /// The trust domain of every identity.
    pub trust_domain: TrustDomain,
    /// Ranges of the mesh beyond those that Nodes and ServiceCIDRs tell of.
    pub mesh_ranges: Vec<IpNet>,
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
    pub workloads: BTreeMap<WorkloadUid, Arc<Workload>>,
    /// Services.
    pub services: BTreeMap<ServiceName, Arc<Service>>,
    /// Policies of layer 4.
    pub policies: BTreeMap<PolicyName, Arc<AuthorizationPolicy>>,
    /// The identities that a node may ask certificates for: those of the enrolled pods scheduled to it.
    pub identities: NodeIdentities,
    /// Where the addresses of the mesh's pods and services come from: whoever connects to one of
    /// them that nobody knows must not be let out in clear. In order, none inside another.
    pub mesh_ranges: Vec<IpNet>,
    /// The namespaces that are labelled to be in the mesh, whether they have pods or not.
    pub enrolled_namespaces: BTreeSet<Arc<str>>,
    /// The waypoints that there are, each by the name of its Service.
    pub waypoints: BTreeSet<ServiceName>,
    /// What waypoints learn beside workloads and services.
    pub for_waypoints: ForWaypoints,
    /// What the authors of objects should know.
    pub notes: Notes,
    /// What is to be said of objects by the conditions of their APIs.
    pub conditions: Conditions,
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

impl Reason {
    /// The reason as statuses and Events name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::NoEffect => "NoEffect",
            Self::EnforcedStricter => "EnforcedStricter",
            Self::Conflict => "Conflict",
            Self::NotTranslated => "NotTranslated",
        }
    }
}

impl Notes {
    fn add(&mut self, key: &ObjectKey, reason: Reason, message: impl Into<String>) {
        self.0.entry(key.clone()).or_default().push(Note { reason, message: message.into() });
    }
}

/// Translates everything.
pub fn translate(inputs: &Inputs, settings: &Settings) -> Translated {
    Translator::default().translate(inputs, &BTreeSet::new(), settings)
}

impl Settings {
    fn address(&self, ip: IpAddr) -> NetworkAddress {
        NetworkAddress { network: self.network.clone(), ip }
    }
}

/// The name of a Service of the cluster.
pub(crate) fn service_name(namespace: &str, name: &str) -> ServiceName {
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
pub(crate) mod tests;
