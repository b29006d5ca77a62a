//! What a session has received and not seen removed: names and versions, not the resources.
//!
//! This is where DESIGN 6.1 and 6.5 are kept: a resource that cannot be used leaves the last good
//! version in place, and a policy that has none is replaced by one that denies.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ambit_mesh::policy::{AuthorizationPolicy, PolicyName, PolicyScope};
use ambit_mesh::snapshot::Change;
use ambit_proto::envoy::service::discovery::v3::Resource;

use crate::ResourceType;
use crate::convert::address::policy_name;
use crate::convert::{InvalidResource, Received, ResourceName, authorization};

#[derive(Debug)]
pub(super) struct Held {
    kind: ResourceType,
    by_name: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// What it is: remembered, for its name on the wire does not tell.
    name: ResourceName,
    version: Version,
}

#[derive(Debug)]
enum Version {
    /// The last good one.
    Good(String),
    /// None was ever good: a policy that denies stands in. Never declared to a server, which
    /// therefore sends the policy again.
    StandIn,
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
        Self { kind, by_name: BTreeMap::new() }
    }

    /// Names with the version last applied.
    pub(super) fn versions(&self) -> BTreeMap<String, String> {
        let version = |(name, entry): (&String, &Entry)| match &entry.version {
            Version::Good(version) => Some((name.clone(), version.clone())),
            Version::StandIn => None,
        };
        self.by_name.iter().filter_map(version).collect()
    }

    /// Names that [`Self::versions`] leaves out.
    pub(super) fn undeclared(&self) -> BTreeSet<String> {
        let undeclared = |(name, entry): (&String, &Entry)| match entry.version {
            Version::Good(_) => None,
            Version::StandIn => Some(name.clone()),
        };
        self.by_name.iter().filter_map(undeclared).collect()
    }

    /// Forgets a name; nothing changes if nothing is held under it.
    pub(super) fn remove(&mut self, name: &str) -> Option<Change> {
        self.by_name.remove(name).map(|entry| entry.name.into_removal())
    }

    /// Takes in a resource and appends what changes.
    pub(super) fn receive(&mut self, resource: Resource, changes: &mut Vec<Change>) -> Result<(), Rejection> {
        match Received::decode(self.kind, &resource) {
            Ok(received) => {
                self.put(resource.name, received, Version::Good(resource.version), changes);
                Ok(())
            }
            Err(error) => {
                self.close_without(&resource, changes);
                Err(Rejection { name: resource.name, error })
            }
        }
    }

    fn put(&mut self, name: String, received: Received, version: Version, changes: &mut Vec<Change>) {
        let now = received.name();
        let before = self.by_name.insert(name, Entry { name: now.clone(), version });
        // A name that was a service's can become a workload's.
        if let Some(before) = before.filter(|before| before.name != now) {
            changes.push(before.name.into_removal());
        }
        changes.push(received.into_change());
    }

    /// Keeps the last good version of a rejected resource. An address without one stays unknown,
    /// which is closed; a policy without one would be missing where it should deny.
    fn close_without(&mut self, resource: &Resource, changes: &mut Vec<Change>) {
        match self.kind {
            ResourceType::Address => return,
            ResourceType::Authorization => {}
        }
        let last = self.by_name.get(&resource.name).map(|entry| &entry.version);
        if let Some(Version::Good(_)) = last {
            return;
        }
        let policy = Received::Policy(Arc::new(stand_in(resource)));
        self.put(resource.name.clone(), policy, Version::StandIn, changes);
    }
}

fn stand_in(resource: &Resource) -> AuthorizationPolicy {
    let octets = resource.resource.as_ref().map(|body| body.value.as_slice()).unwrap_or_default();
    match policy_name(&resource.name) {
        Ok(name) => authorization::stand_in(name, octets),
        // In which namespace it would apply is not known.
        Err(invalid) => authorization::deny_all(
            PolicyName { namespace: "".into(), name: invalid.text.into() },
            PolicyScope::Global,
        ),
    }
}
