//! The writer's side: how a change becomes the next snapshot.
//!
//! Every index is kept by the same two steps, "forget the old value" and "index the new one", so
//! that the result depends on the content alone and not on the order in which it came.

use std::cmp::Ordering;
use std::sync::Arc;

use super::{Effect, Endpoint, PolicyGroup, Snapshot};
use crate::address::{NetworkAddress, ServiceName};
use crate::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope};
use crate::service::Service;
use crate::workload::{NetworkMode, TunnelProtocol, Workload, WorkloadUid};

/// One thing that is now so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A workload is new or has changed.
    Workload(Arc<Workload>),
    /// A service is new or has changed.
    Service(Arc<Service>),
    /// A policy is new or has changed.
    Policy(Arc<AuthorizationPolicy>),
    /// A workload is gone.
    RemoveWorkload(WorkloadUid),
    /// A service is gone. Its endpoints stay known, for it may come back before they change.
    RemoveService(ServiceName),
    /// A policy is gone.
    RemovePolicy(PolicyName),
}

/// What is known so far, and the writer's handle on it.
///
/// Applying a change costs the parts of the indexes that it touches, once per snapshot that was
/// handed out: with 100,000 workloads some 400 pointers for each index, and the endpoint list of
/// each service that the workload serves. Workloads, services and policies themselves are shared
/// between all snapshots.
#[derive(Clone, Debug, Default)]
pub struct State {
    snapshot: Arc<Snapshot>,
}

impl State {
    /// Applies changes in their order.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let snapshot = Arc::make_mut(&mut self.snapshot);
        for change in changes {
            match change {
                Change::Workload(workload) => snapshot.put_workload(workload),
                Change::Service(service) => snapshot.put_service(service),
                Change::Policy(policy) => snapshot.put_policy(policy),
                Change::RemoveWorkload(uid) => snapshot.remove_workload(&uid),
                Change::RemoveService(name) => snapshot.remove_service(&name),
                Change::RemovePolicy(name) => snapshot.remove_policy(&name),
            }
        }
    }

    /// What is known now. Later changes do not touch it.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.clone()
    }
}

impl Snapshot {
    fn put_workload(&mut self, workload: Arc<Workload>) {
        self.remove_workload(&workload.uid);
        for address in indexed_addresses(&workload) {
            self.workloads_by_address.insert(&address, workload.clone(), by_preference);
        }
        for (service, ports) in &workload.services {
            let endpoint = Endpoint { workload: workload.clone(), ports: ports.clone() };
            self.endpoints.insert(service, Arc::new(endpoint), by_endpoint_uid);
        }
        if workload.pod.is_some() {
            self.pods_by_node.insert(&workload.node, workload.clone(), by_uid);
        }
        self.workloads.insert(workload.uid.clone(), workload);
    }

    fn remove_workload(&mut self, uid: &WorkloadUid) {
        let Some(workload) = self.workloads.remove(uid) else { return };
        for address in indexed_addresses(&workload) {
            self.workloads_by_address.remove(&address, &workload, by_preference);
        }
        for service in workload.services.keys() {
            let endpoint = Endpoint { workload: workload.clone(), ports: Vec::new() };
            self.endpoints.remove(service, &endpoint, by_endpoint_uid);
        }
        self.pods_by_node.remove(&workload.node, &workload, by_uid);
    }

    fn put_service(&mut self, service: Arc<Service>) {
        self.remove_service(&service.name);
        for address in service.addresses.iter().map(canonical) {
            self.services_by_address.insert(&address, service.clone(), by_service_name);
        }
        self.services.insert(service.name.clone(), service);
    }

    fn remove_service(&mut self, name: &ServiceName) {
        let Some(service) = self.services.remove(name) else { return };
        for address in service.addresses.iter().map(canonical) {
            self.services_by_address.remove(&address, &service, by_service_name);
        }
    }

    fn put_policy(&mut self, policy: Arc<AuthorizationPolicy>) {
        self.remove_policy(&policy.name);
        if let Some(group) = PolicyGroup::of(&policy) {
            self.policies_by_scope.insert(&group, policy.clone(), by_policy_name);
        }
        self.policies.insert(policy.name.clone(), policy);
    }

    fn remove_policy(&mut self, name: &PolicyName) {
        let Some(policy) = self.policies.remove(name) else { return };
        if let Some(group) = PolicyGroup::of(&policy) {
            self.policies_by_scope.remove(&group, &policy, by_policy_name);
        }
    }
}

impl PolicyGroup {
    /// The group that workloads find the policy in; `None` for one that they name themselves.
    fn of(policy: &AuthorizationPolicy) -> Option<Self> {
        let effect = Effect::of(policy);
        match policy.scope {
            PolicyScope::Global => Some(Self { namespace: None, effect }),
            PolicyScope::Namespace => Some(Self { namespace: Some(policy.name.namespace.clone()), effect }),
            PolicyScope::WorkloadSelector => None,
        }
    }
}

impl Effect {
    pub(super) fn of(policy: &AuthorizationPolicy) -> Self {
        match (policy.dry_run, policy.action) {
            (true, Action::Deny | Action::Allow) => Self::DryRun,
            (false, Action::Deny) => Self::Deny,
            (false, Action::Allow) => Self::Allow,
        }
    }
}

/// Addresses that stand for this workload and nothing else.
fn indexed_addresses(workload: &Workload) -> impl Iterator<Item = NetworkAddress> {
    let own = match workload.network_mode {
        NetworkMode::Standard => workload.addresses.as_slice(),
        NetworkMode::HostNetwork => &[],
    };
    own.iter().map(|ip| NetworkAddress { network: workload.network.clone(), ip: ip.to_canonical() })
}

fn canonical(address: &NetworkAddress) -> NetworkAddress {
    NetworkAddress { network: address.network.clone(), ip: address.ip.to_canonical() }
}

fn by_preference(a: &Workload, b: &Workload) -> Ordering {
    let key = |workload: &Workload| {
        let other_kind = !workload.uid.0.contains("//Pod/");
        (other_kind, workload.tunnel_protocol != TunnelProtocol::Hbone)
    };
    key(a).cmp(&key(b)).then_with(|| by_uid(a, b))
}

fn by_uid(a: &Workload, b: &Workload) -> Ordering {
    a.uid.cmp(&b.uid)
}

fn by_endpoint_uid(a: &Endpoint, b: &Endpoint) -> Ordering {
    by_uid(&a.workload, &b.workload)
}

fn by_service_name(a: &Service, b: &Service) -> Ordering {
    a.name.cmp(&b.name)
}

fn by_policy_name(a: &AuthorizationPolicy, b: &AuthorizationPolicy) -> Ordering {
    a.name.cmp(&b.name)
}
