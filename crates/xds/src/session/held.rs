//! What a session has received and not seen removed: names and versions, not the resources.
//!
//! This is where DESIGN 6.1 and 6.5 are kept: a resource that cannot be used leaves the last good
//! version in place, and a policy that has none is replaced by one that denies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ambit_mesh::http::HttpPolicy;
use ambit_mesh::policy::{AuthorizationPolicy, PolicyName, PolicyScope};
use ambit_mesh::snapshot::Change;
use ambit_mesh::workload::WorkloadUid;
use ambit_proto::envoy::service::discovery::v3::Resource;

use crate::ResourceType;
use crate::convert::address::{policy_name, route_name, service_name, subset_name};
use crate::convert::{InvalidResource, Received, ResourceName, authorization, waypoint};

#[derive(Debug)]
pub(super) struct Held {
    kind: ResourceType,
    by_name: BTreeMap<Arc<str>, Entry>,
    /// How many there were when they were last packed.
    packed: usize,
}

#[derive(Debug)]
struct Entry {
    /// What it is: remembered, for its name on the wire does not tell.
    kind: Kind,
    version: Version,
}

/// So many names are not worth packing.
const FEW: usize = 1_024;

/// What a name stands for. The name itself is not kept twice: there may be many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Workload,
    Service,
    Policy,
    Mesh,
    Route,
    HttpPolicy,
    Subset,
    /// A policy under a name that is none.
    Nameless,
    /// A policy of waypoints under a name that is none.
    NamelessHttp,
}

#[derive(Debug)]
enum Version {
    /// The last good one, which is 32 hexadecimal digits in lower case as our own control writes it: as octets, in
    /// the order of the digits. There is one for each workload of the mesh.
    Digest([u8; 16]),
    /// The last good one of any other form.
    Text(Box<str>),
    /// None was ever good: a policy that denies stands in. Never declared to a server, which
    /// therefore sends the policy again.
    StandIn,
}

impl Version {
    fn good(text: String) -> Self {
        let is_digest =
            text.len() == 32 && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
        match u128::from_str_radix(&text, 16) {
            Ok(digest) if is_digest => Self::Digest(digest.to_be_bytes()),
            Ok(_) | Err(_) => Self::Text(text.into()),
        }
    }

    /// What the server called it; `None` if none was ever good.
    fn declared(&self) -> Option<String> {
        match self {
            Self::Digest(octets) => Some(format!("{:032x}", u128::from_be_bytes(*octets))),
            Self::Text(text) => Some(text.to_string()),
            Self::StandIn => None,
        }
    }
}

/// A resource that could not be used.
#[derive(Debug)]
pub struct Rejection {
    /// Its name.
    pub name: String,
    /// Why.
    pub error: InvalidResource,
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.error.with_causes())
    }
}

impl Held {
    pub(super) fn new(kind: ResourceType) -> Self {
        Self { kind, by_name: BTreeMap::new(), packed: 0 }
    }

    /// Gives back the room that a map leaves free while it grows in the order of its keys, nearly half of it, once
    /// there are half as many names again as at the last time.
    pub(super) fn pack(&mut self) {
        if self.by_name.len() > self.packed + self.packed / 2 + FEW {
            self.by_name = std::mem::take(&mut self.by_name).into_iter().collect();
            self.packed = self.by_name.len();
        }
    }

    /// Names with the version last applied.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        let version =
            |(name, entry): (&Arc<str>, &Entry)| Some((name.to_string(), entry.version.declared()?));
        self.by_name.iter().filter_map(version).collect()
    }

    /// Names that [`Self::versions`] leaves out.
    pub(super) fn undeclared(&self) -> BTreeSet<String> {
        let undeclared = |(name, entry): (&Arc<str>, &Entry)| match entry.version {
            Version::Digest(_) | Version::Text(_) => None,
            Version::StandIn => Some(name.to_string()),
        };
        self.by_name.iter().filter_map(undeclared).collect()
    }

    /// Forgets a name; nothing changes if nothing is held under it.
    pub(super) fn remove(&mut self, name: &str) -> Option<Change> {
        let (name, entry) = self.by_name.remove_entry(name)?;
        entry.kind.named(&name).map(ResourceName::into_removal)
    }

    /// Takes in a resource and appends what changes.
    pub(super) fn receive(&mut self, resource: Resource, changes: &mut Vec<Change>) -> Result<(), Rejection> {
        match Received::decode(self.kind, &resource) {
            Ok(received) => {
                self.put(resource.name, received, Version::good(resource.version), changes);
                Ok(())
            }
            Err(error) => {
                self.close_without(&resource, changes);
                Err(Rejection { name: resource.name, error })
            }
        }
    }

    fn put(&mut self, name: String, received: Received, version: Version, changes: &mut Vec<Change>) {
        // A workload's name is its uid: the text is shared with it.
        let (kind, name) = match received.name() {
            ResourceName::Workload(uid) => (Kind::Workload, uid.0),
            ResourceName::Service(_) => (Kind::Service, name.into()),
            ResourceName::Policy(policy) if policy.to_string() == name => (Kind::Policy, name.into()),
            ResourceName::Policy(_) => (Kind::Nameless, name.into()),
            ResourceName::Mesh => (Kind::Mesh, name.into()),
            ResourceName::Route(_) => (Kind::Route, name.into()),
            ResourceName::HttpPolicy(policy) if policy.to_string() == name => (Kind::HttpPolicy, name.into()),
            ResourceName::HttpPolicy(_) => (Kind::NamelessHttp, name.into()),
            ResourceName::Subset(_) => (Kind::Subset, name.into()),
        };
        let before = self.by_name.get(&name).map(|entry| entry.kind);
        // A name that was a service's can become a workload's.
        let before = before.filter(|before| *before != kind).and_then(|before| before.named(&name));
        changes.extend(before.map(ResourceName::into_removal));
        // Not replaced in place: the old key is the old workload's text.
        self.by_name.remove(&name);
        self.by_name.insert(name, Entry { kind, version });
        changes.push(received.into_change());
    }

    /// Keeps the last good version of a rejected resource. An address without one stays unknown,
    /// which is closed; a policy without one would be missing where it should deny.
    fn close_without(&mut self, resource: &Resource, changes: &mut Vec<Change>) {
        match self.kind {
            ResourceType::Address | ResourceType::Mesh | ResourceType::Route | ResourceType::Subset => return,
            ResourceType::Authorization | ResourceType::HttpPolicy => {}
        }
        let last = self.by_name.get(resource.name.as_str()).map(|entry| &entry.version);
        if let Some(Version::Digest(_) | Version::Text(_)) = last {
            return;
        }
        let policy = match self.kind {
            ResourceType::HttpPolicy => Received::HttpPolicy(Arc::new(http_stand_in(resource))),
            ResourceType::Authorization
            | ResourceType::Address
            | ResourceType::Mesh
            | ResourceType::Route
            | ResourceType::Subset => Received::Policy(Arc::new(stand_in(resource))),
        };
        self.put(resource.name.clone(), policy, Version::StandIn, changes);
    }
}

impl Kind {
    /// What is known under this name on the wire. Every name that is kept can be read: what was
    /// received under it had it.
    fn named(self, name: &Arc<str>) -> Option<ResourceName> {
        match self {
            Self::Workload => Some(ResourceName::Workload(WorkloadUid(name.clone()))),
            Self::Service => service_name(name).ok().map(ResourceName::Service),
            Self::Policy => policy_name(name).ok().map(ResourceName::Policy),
            Self::Mesh => Some(ResourceName::Mesh),
            Self::Nameless => Some(ResourceName::Policy(nameless(name))),
            Self::Route => route_name(name).ok().map(ResourceName::Route),
            Self::HttpPolicy => policy_name(name).ok().map(ResourceName::HttpPolicy),
            Self::Subset => subset_name(name).ok().map(ResourceName::Subset),
            Self::NamelessHttp => Some(ResourceName::HttpPolicy(nameless(name))),
        }
    }
}

/// The name of what stands in for a policy whose own name cannot be read.
fn nameless(text: &str) -> PolicyName {
    PolicyName { namespace: "".into(), name: text.into() }
}

fn http_stand_in(resource: &Resource) -> HttpPolicy {
    let octets = resource.resource.as_ref().map(|body| body.value.as_slice()).unwrap_or_default();
    let name = policy_name(&resource.name).unwrap_or_else(|invalid| nameless(&invalid.text));
    waypoint::policy::stand_in(name, octets)
}

fn stand_in(resource: &Resource) -> AuthorizationPolicy {
    let octets = resource.resource.as_ref().map(|body| body.value.as_slice()).unwrap_or_default();
    match policy_name(&resource.name) {
        Ok(name) => authorization::stand_in(name, octets),
        // In which namespace it would apply is not known.
        Err(invalid) => authorization::deny_all(nameless(&invalid.text), PolicyScope::Global),
    }
}
