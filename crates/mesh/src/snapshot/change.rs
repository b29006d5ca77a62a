//! The writer's side: how a change becomes the next snapshot.
//!
//! Every index is kept by the same two steps, "forget the old value" and "index the new one", so
//! that the result depends on the content alone and not on the order in which it came.

use std::cmp::Ordering;
use std::sync::Arc;

use super::named::{Naming, Namings, Stale};
use super::sharing::Sharing;
use super::{Endpoint, Snapshot};
use crate::address::{NetworkAddress, ServiceName};
use crate::http::HttpChange;
use crate::mesh::Mesh;
use crate::policy::{AuthorizationPolicy, PolicyName, PolicyScope};
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
    /// The mesh as a whole has changed.
    Mesh(Arc<Mesh>),
    /// Something that concerns waypoints alone has changed or is gone.
    Http(HttpChange),
    /// A workload is gone.
    RemoveWorkload(WorkloadUid),
    /// A service is gone. Its endpoints stay known, for it may come back before they change.
    RemoveService(ServiceName),
    /// A policy is gone.
    RemovePolicy(PolicyName),
    /// Nothing is known of the mesh as a whole any more.
    RemoveMesh,
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
    namings: Namings,
    stale: Stale,
    sharing: Sharing,
    /// How many workloads and services there were when the indexes were last packed.
    packed: usize,
}

/// So many workloads and services are not worth packing.
const FEW: usize = 1_024;

impl State {
    /// Applies changes in their order.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let Self { snapshot, namings, stale, sharing, packed: _ } = self;
        let mut writer = Writer { snapshot: Arc::make_mut(snapshot), namings, stale, sharing };
        for change in changes {
            match change {
                Change::Workload(workload) => writer.put_workload(workload),
                Change::Service(service) => writer.snapshot.put_service(service),
                Change::Policy(policy) => writer.put_policy(policy),
                Change::Mesh(mesh) => writer.snapshot.mesh = Some(mesh),
                Change::RemoveWorkload(uid) => writer.remove_workload(&uid),
                Change::RemoveService(name) => writer.snapshot.remove_service(&name),
                Change::RemovePolicy(name) => writer.remove_policy(&name),
                Change::RemoveMesh => writer.snapshot.mesh = None,
                // Of waypoints, which keep it beside this: see `http::WaypointState`.
                Change::Http(_) => {}
            }
        }
    }

    /// What is known now. Later changes do not touch it.
    ///
    /// Policies that changed are prepared for their evaluation here, once for all changes since the
    /// last call: those who decide by the snapshot find it ready.
    pub fn snapshot(&mut self) -> Arc<Snapshot> {
        if !self.stale.is_empty() {
            self.stale.refresh(Arc::make_mut(&mut self.snapshot));
        }
        self.pack_if_grown();
        self.snapshot.clone()
    }

    /// Each time costs as much as what was added since the one before.
    fn pack_if_grown(&mut self) {
        let count = self.snapshot.workloads.len() + self.snapshot.services.len();
        if count > self.packed + self.packed / 2 + FEW {
            Arc::make_mut(&mut self.snapshot).pack();
            self.packed = count;
        }
    }
}

/// The parts of a [`State`] while changes are applied.
struct Writer<'a> {
    snapshot: &'a mut Snapshot,
    namings: &'a mut Namings,
    stale: &'a mut Stale,
    sharing: &'a mut Sharing,
}

impl Writer<'_> {
    fn put_workload(&mut self, mut workload: Arc<Workload>) {
        self.sharing.share(Arc::make_mut(&mut workload));
        let names_the_same = |before: &&Arc<Workload>| Naming::of(before) == Naming::of(&workload);
        if let Some(before) = self.snapshot.workload(&workload.uid).filter(names_the_same).cloned() {
            // The usual change is to something else: what was prepared stays.
            let names = before.authorization_policies.clone();
            Arc::make_mut(&mut workload).authorization_policies = names;
            self.snapshot.forget_workload(&workload.uid);
            return self.snapshot.index_workload(workload);
        }
        self.remove_workload(&workload.uid);
        if !workload.authorization_policies.is_empty() {
            let shared = self.namings.shared(&workload.namespace, &workload.authorization_policies);
            Arc::make_mut(&mut workload).authorization_policies = shared;
            self.stale.namings.extend(self.namings.add(&workload));
        }
        self.snapshot.index_workload(workload);
    }

    fn remove_workload(&mut self, uid: &WorkloadUid) {
        let Some(workload) = self.snapshot.forget_workload(uid) else { return };
        if let Some(naming) = self.namings.remove(&workload) {
            self.snapshot.named_policies.remove(&naming);
            self.stale.namings.remove(&naming);
        }
    }

    fn put_policy(&mut self, policy: Arc<AuthorizationPolicy>) {
        self.remove_policy(&policy.name);
        self.invalidate(&policy);
        match policy.scope {
            PolicyScope::Global => Arc::make_mut(&mut self.snapshot.mesh_policies).put(policy.clone()),
            PolicyScope::Namespace => {
                let namespace = &policy.name.namespace;
                let set = self.snapshot.namespace_policies.entry(namespace);
                Arc::make_mut(set).put(policy.clone());
            }
            PolicyScope::WorkloadSelector => {}
        }
        self.snapshot.policies.insert(policy.name.clone(), policy);
    }

    fn remove_policy(&mut self, name: &PolicyName) {
        let Some(policy) = self.snapshot.policies.remove(name) else { return };
        self.invalidate(&policy);
        match policy.scope {
            PolicyScope::Global => Arc::make_mut(&mut self.snapshot.mesh_policies).remove(&policy),
            PolicyScope::Namespace => {
                let set = Arc::make_mut(self.snapshot.namespace_policies.entry(&name.namespace));
                set.remove(&policy);
                if set.is_empty() {
                    self.snapshot.namespace_policies.remove(&name.namespace);
                }
            }
            PolicyScope::WorkloadSelector => {}
        }
    }

    /// What was prepared from a policy is to be prepared anew.
    fn invalidate(&mut self, policy: &AuthorizationPolicy) {
        match policy.scope {
            PolicyScope::Global => self.stale.mesh = true,
            PolicyScope::Namespace => {
                self.stale.namespaces.insert(policy.name.namespace.clone());
            }
            PolicyScope::WorkloadSelector => {}
        }
        // A policy of any scope may be named too, and then counts or not by its scope.
        self.stale.namings.extend(self.namings.of_policy(&policy.name).cloned());
    }
}

impl Snapshot {
    /// Gives back what indexes leave free for more.
    fn pack(&mut self) {
        self.workloads.pack(|_| {});
        self.workloads_by_address.pack();
        self.services.pack(|_| {});
        self.services_by_address.pack();
        self.endpoints.pack();
        self.pods_by_node.pack();
    }

    fn index_workload(&mut self, workload: Arc<Workload>) {
        for address in indexed_addresses(&workload) {
            self.workloads_by_address.insert(&address, workload.clone(), by_preference);
        }
        for (service, ports) in workload.services.iter() {
            let endpoint = Endpoint { workload: workload.clone(), ports: ports.clone() };
            self.endpoints.insert(service, endpoint, by_endpoint_uid);
        }
        if workload.pod.is_some() {
            self.pods_by_node.insert(&workload.node, workload.clone(), by_uid);
        }
        self.workloads.insert(workload.uid.clone(), workload);
    }

    fn forget_workload(&mut self, uid: &WorkloadUid) -> Option<Arc<Workload>> {
        let workload = self.workloads.remove(uid)?;
        for address in indexed_addresses(&workload) {
            self.workloads_by_address.remove(&address, &workload, by_preference);
        }
        for service in workload.services.keys() {
            let endpoint = Endpoint { workload: workload.clone(), ports: Arc::default() };
            self.endpoints.remove(service, &endpoint, by_endpoint_uid);
        }
        self.pods_by_node.remove(&workload.node, &workload, by_uid);
        Some(workload)
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

fn by_preference(a: &Arc<Workload>, b: &Arc<Workload>) -> Ordering {
    let key = |workload: &Workload| {
        let other_kind = !workload.uid.0.contains("//Pod/");
        (other_kind, workload.tunnel_protocol != TunnelProtocol::Hbone)
    };
    key(a).cmp(&key(b)).then_with(|| by_uid(a, b))
}

fn by_uid(a: &Arc<Workload>, b: &Arc<Workload>) -> Ordering {
    a.uid.cmp(&b.uid)
}

fn by_endpoint_uid(a: &Endpoint, b: &Endpoint) -> Ordering {
    by_uid(&a.workload, &b.workload)
}

fn by_service_name(a: &Arc<Service>, b: &Arc<Service>) -> Ordering {
    a.name.cmp(&b.name)
}
