//! The mesh as one consistent value: what every decision reads.
//!
//! A [`Snapshot`] never changes. The writer's side is [`State`]: it applies changes and hands out
//! the next snapshot. Getting the changes here and publishing snapshots is the programs' work.

mod change;
mod lists;
mod shards;

use std::sync::Arc;

pub use change::{Change, State};

use crate::address::{NetworkAddress, ServiceName};
use crate::policy::{AuthorizationPolicy, PolicyName, PolicyScope};
use crate::service::{PortMapping, Service};
use crate::workload::{Workload, WorkloadUid};
use lists::Lists;
use shards::Shards;

/// Everything the mesh is known to consist of at one moment.
///
/// Equal content gives equal snapshots, in whatever order it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    workloads: Shards<WorkloadUid, Arc<Workload>>,
    workloads_by_address: Lists<NetworkAddress, Workload>,
    services: Shards<ServiceName, Arc<Service>>,
    services_by_address: Lists<NetworkAddress, Service>,
    endpoints: Lists<ServiceName, Endpoint>,
    pods_by_node: Lists<Arc<str>, Workload>,
    policies: Shards<PolicyName, Arc<AuthorizationPolicy>>,
    policies_by_scope: Lists<PolicyGroup, AuthorizationPolicy>,
}

/// A workload as one of those that serve a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Where each service port leads on this workload; it goes before the service's own mapping.
    pub ports: Vec<PortMapping>,
}

/// How many of each there are, for dumps and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Workloads.
    pub workloads: usize,
    /// Services.
    pub services: usize,
    /// Policies.
    pub policies: usize,
    /// Workloads that are bound to a pod.
    pub pods: usize,
}

/// The policies that apply to one workload, by what a match of them means.
#[derive(Clone, Debug)]
pub struct PoliciesFor<'a> {
    by_scope: [Scoped<'a>; 2],
    named: Vec<&'a Arc<AuthorizationPolicy>>,
    missing: Option<&'a PolicyName>,
}

/// The policies of one scope that are enforced or watched in one way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct PolicyGroup {
    /// `None` for mesh-wide policies.
    namespace: Option<Arc<str>>,
    effect: Effect,
}

/// What becomes of a policy's match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Effect {
    Deny,
    Allow,
    DryRun,
}

/// The policies of one scope.
#[derive(Clone, Copy, Debug)]
struct Scoped<'a> {
    deny: &'a [Arc<AuthorizationPolicy>],
    allow: &'a [Arc<AuthorizationPolicy>],
    dry_run: &'a [Arc<AuthorizationPolicy>],
}

impl Snapshot {
    /// The workload of this name.
    pub fn workload(&self, uid: &WorkloadUid) -> Option<&Arc<Workload>> {
        self.workloads.get(uid)
    }

    /// The workload that answers at this address.
    ///
    /// Of several, as when a finished pod's address was given to the next one: a pod goes before
    /// other kinds, one that speaks HBONE before one that does not, then the smallest uid.
    /// Workloads on their node's network are never found here: the address is the node's.
    pub fn workload_by_address(&self, address: &NetworkAddress) -> Option<&Arc<Workload>> {
        self.workloads_by_address.get(address).first()
    }

    /// The service of this name.
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    /// The services with this virtual address, in order of their names.
    pub fn services_by_address(&self, address: &NetworkAddress) -> &[Arc<Service>] {
        self.services_by_address.get(address)
    }

    /// The endpoints of a service, in order of their uids, whatever their health.
    pub fn endpoints(&self, service: &ServiceName) -> &[Arc<Endpoint>] {
        self.endpoints.get(service)
    }

    /// The policy of this name.
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<AuthorizationPolicy>> {
        self.policies.get(name)
    }

    /// The policies that apply to `workload`: mesh-wide ones, those of its namespace, and those
    /// it names.
    pub fn policies_for<'a>(&'a self, workload: &'a Workload) -> PoliciesFor<'a> {
        let by_scope = [None, Some(workload.namespace.clone())].map(|namespace| self.scoped(namespace));
        let named = Vec::with_capacity(workload.authorization_policies.len());
        let mut policies = PoliciesFor { by_scope, named, missing: None };
        for name in &workload.authorization_policies {
            match self.policies.get(name) {
                Some(policy) if applies_by_scope(policy, workload) => {}
                Some(policy) => policies.named.push(policy),
                None => policies.missing = policies.missing.or(Some(name)),
            }
        }
        policies
    }

    fn scoped(&self, namespace: Option<Arc<str>>) -> Scoped<'_> {
        let group =
            |effect| self.policies_by_scope.get(&PolicyGroup { namespace: namespace.clone(), effect });
        Scoped { deny: group(Effect::Deny), allow: group(Effect::Allow), dry_run: group(Effect::DryRun) }
    }

    /// The workloads that are bound to a pod, on any node, in order of their uids.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Workload>> {
        let mut pods: Vec<_> = self.pods_by_node.items().collect();
        pods.sort_unstable_by(|a, b| a.uid.cmp(&b.uid));
        pods.into_iter()
    }

    /// The workloads that are bound to a pod of `node`, in order of their uids. Its cost is that of
    /// the node's pods, not of the mesh's.
    pub fn pods_on(&self, node: &str) -> &[Arc<Workload>] {
        self.pods_by_node.get(node)
    }

    /// All workloads, in order of their uids; for dumps.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.sorted()
    }

    /// All services, in order of their names; for dumps.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.sorted()
    }

    /// All policies, in order of their names; for dumps.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.policies.sorted()
    }

    /// How many of each there are.
    pub fn counts(&self) -> Counts {
        Counts {
            workloads: self.workloads.len(),
            services: self.services.len(),
            policies: self.policies.len(),
            pods: self.pods_by_node.items().count(),
        }
    }
}

impl<'a> PoliciesFor<'a> {
    /// Enforced DENY policies.
    pub fn deny(&self) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        self.of(Effect::Deny)
    }

    /// Enforced ALLOW policies.
    pub fn allow(&self) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        self.of(Effect::Allow)
    }

    /// Policies of either action that are watched and not enforced.
    pub fn dry_run(&self) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        self.of(Effect::DryRun)
    }

    /// The first policy that the workload names and that was never received.
    pub fn missing(&self) -> Option<&'a PolicyName> {
        self.missing
    }

    fn of(&self, effect: Effect) -> impl Iterator<Item = &'a Arc<AuthorizationPolicy>> {
        let scoped = self.by_scope.map(|scope| scope.of(effect)).into_iter().flatten();
        scoped.chain(self.named.iter().copied().filter(move |policy| Effect::of(policy) == effect))
    }
}

/// Whether a policy that a workload names is already among those of its scopes.
fn applies_by_scope(policy: &AuthorizationPolicy, workload: &Workload) -> bool {
    match policy.scope {
        PolicyScope::Global => true,
        PolicyScope::Namespace => policy.name.namespace == workload.namespace,
        PolicyScope::WorkloadSelector => false,
    }
}

impl<'a> Scoped<'a> {
    fn of(self, effect: Effect) -> &'a [Arc<AuthorizationPolicy>] {
        match effect {
            Effect::Deny => self.deny,
            Effect::Allow => self.allow,
            Effect::DryRun => self.dry_run,
        }
    }
}

#[cfg(test)]
mod tests;
