//! The mesh as one consistent value: what every decision reads.
//!
//! A [`Snapshot`] never changes. The writer's side is [`State`]: it applies changes and hands out
//! the next snapshot. Getting the changes here and publishing snapshots is the programs' work.

mod change;
mod lists;
mod named;
mod shards;
mod sharing;

use std::borrow::Cow;
use std::sync::Arc;

pub use change::{Change, State};

use crate::address::{NetworkAddress, ServiceName};
use crate::mesh::Mesh;
use crate::policy::{AuthorizationPolicy, PoliciesFor, PolicyName, PolicyScope, PolicySet};
use crate::service::{PortMapping, Service};
use crate::workload::{Workload, WorkloadUid};
use lists::Lists;
use named::Naming;
use shards::Shards;

/// Everything the mesh is known to consist of at one moment.
///
/// Equal content gives equal snapshots, in whatever order it arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    workloads: Shards<WorkloadUid, Arc<Workload>>,
    workloads_by_address: Lists<NetworkAddress, Arc<Workload>>,
    services: Shards<ServiceName, Arc<Service>>,
    services_by_address: Lists<NetworkAddress, Arc<Service>>,
    endpoints: Lists<ServiceName, Endpoint>,
    pods_by_node: Lists<Arc<str>, Arc<Workload>>,
    policies: Shards<PolicyName, Arc<AuthorizationPolicy>>,
    mesh_policies: Arc<PolicySet>,
    namespace_policies: Shards<Arc<str>, Arc<PolicySet>>,
    /// The policies of workloads that name some: one entry for all that name the same.
    named_policies: Shards<Naming, Arc<PolicySet>>,
    mesh: Option<Arc<Mesh>>,
}

/// A workload as one of those that serve a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The workload.
    pub workload: Arc<Workload>,
    /// Where each service port leads on this workload; it goes before the service's own mapping.
    pub ports: Arc<[PortMapping]>,
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

/// The policies of a workload at one moment, to see whether they are the same at another.
#[derive(Clone, Debug)]
pub struct PolicyStamp {
    mesh: Arc<PolicySet>,
    namespace: Option<Arc<PolicySet>>,
    /// Of a workload that names policies; they were prepared if it is one of the snapshot's.
    named: Option<Option<Arc<PolicySet>>>,
    requires_waypoint: bool,
}

impl PolicyStamp {
    /// Whether nothing was changed in between. It may say no where all is as it was.
    pub fn is_still(&self, earlier: &Self) -> bool {
        let same = |a: &Option<Arc<PolicySet>>, b: &Option<Arc<PolicySet>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        let named = match (&self.named, &earlier.named) {
            (Some(Some(a)), Some(Some(b))) => Arc::ptr_eq(a, b),
            (None, None) => true,
            (Some(_), _) | (None, Some(_)) => false,
        };
        Arc::ptr_eq(&self.mesh, &earlier.mesh)
            && same(&self.namespace, &earlier.namespace)
            && named
            && self.requires_waypoint == earlier.requires_waypoint
    }
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
    pub fn endpoints(&self, service: &ServiceName) -> &[Endpoint] {
        self.endpoints.get(service)
    }

    /// The policy of this name.
    pub fn policy(&self, name: &PolicyName) -> Option<&Arc<AuthorizationPolicy>> {
        self.policies.get(name)
    }

    /// The policies that apply to `workload`: mesh-wide ones, those of its namespace, and those
    /// it names.
    ///
    /// For a workload of this snapshot they were prepared when it was made.
    pub fn policies_for(&self, workload: &Workload) -> PoliciesFor<'_> {
        PoliciesFor {
            mesh: &self.mesh_policies,
            namespace: self.namespace_policies.get(&*workload.namespace).map(|set| &**set),
            named: Naming::of(workload).map(|naming| match self.named_policies.get(&naming) {
                Some(set) => Cow::Borrowed(&**set),
                None => Cow::Owned(self.named_by(&naming)),
            }),
        }
    }

    /// What [`crate::policy::authorize`] goes by for `workload`. Equal stamps, equal answers.
    pub fn policy_stamp(&self, workload: &Workload) -> PolicyStamp {
        PolicyStamp {
            mesh: self.mesh_policies.clone(),
            namespace: self.namespace_policies.get(&*workload.namespace).cloned(),
            named: Naming::of(workload).map(|naming| self.named_policies.get(&naming).cloned()),
            requires_waypoint: workload.requires_waypoint,
        }
    }

    /// The policies that workloads name, less those that apply to them by scope.
    fn named_by(&self, naming: &Naming) -> PolicySet {
        let policies = naming.names.iter().map(|name| self.policies.get(name).ok_or(name));
        let by_scope = |policy: &AuthorizationPolicy| applies_by_scope(policy, &naming.namespace);
        PolicySet::named(policies.filter(|policy| !policy.is_ok_and(|policy| by_scope(policy))))
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

    /// The mesh as a whole; `None` where the configuration server has not told, or does not know.
    pub fn mesh(&self) -> Option<&Arc<Mesh>> {
        self.mesh.as_ref()
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

/// Whether a policy that workloads of `namespace` name is already among those of their scopes.
fn applies_by_scope(policy: &AuthorizationPolicy, namespace: &str) -> bool {
    match policy.scope {
        PolicyScope::Global => true,
        PolicyScope::Namespace => *policy.name.namespace == *namespace,
        PolicyScope::WorkloadSelector => false,
    }
}

#[cfg(test)]
mod tests;
