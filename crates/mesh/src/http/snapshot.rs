//! What one waypoint knows: the mesh, and the routes and policies of what it serves.
//!
//! A [`WaypointSnapshot`] never changes. The writer's side is [`WaypointState`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use super::policy::{HttpPolicy, PolicyTarget};
use super::route::{Parent, Route, RouteName};
use super::table::Tables;
use crate::address::ServiceName;
use crate::decide::is_waypoint_instance;
use crate::policy::PolicyName;
use crate::service::Service;
use crate::snapshot::{Change, Snapshot, State};
use crate::workload::{Workload, WorkloadUid};

/// `<namespace>/<name>` of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for GatewayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Who a waypoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Myself {
    /// The Gateway that it is an instance of.
    pub gateway: GatewayName,
    /// Its own workload.
    pub workload: WorkloadUid,
}

/// A named part of a service's endpoints (DestinationRule).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subset {
    /// Its name.
    pub name: SubsetName,
    /// The workloads in it.
    pub members: BTreeSet<WorkloadUid>,
}

/// The name of a subset.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubsetName {
    /// The service.
    pub service: ServiceName,
    /// The subset's own name.
    pub name: Arc<str>,
}

impl fmt::Display for SubsetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.name)
    }
}

/// One thing that is now so and concerns waypoints alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpChange {
    /// A route is new or has changed.
    Route(Arc<Route>),
    /// A policy is new or has changed.
    Policy(Arc<HttpPolicy>),
    /// A subset is new or has changed.
    Subset(Arc<Subset>),
    /// A route is gone.
    RemoveRoute(RouteName),
    /// A policy is gone.
    RemovePolicy(PolicyName),
    /// A subset is gone.
    RemoveSubset(SubsetName),
}

/// Everything that a waypoint decides by, at one moment.
///
/// Equal content gives equal snapshots, in whatever order it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaypointSnapshot {
    mesh: Arc<Snapshot>,
    myself: Arc<Myself>,
    routes: Arc<BTreeMap<RouteName, Arc<Route>>>,
    tables: Arc<BTreeMap<ServiceName, Arc<Tables>>>,
    policies: Arc<BTreeMap<PolicyName, Arc<HttpPolicy>>>,
    targets: Arc<BTreeMap<PolicyTarget, Vec<Arc<HttpPolicy>>>>,
    subsets: Arc<BTreeMap<SubsetName, Arc<Subset>>>,
    hostnames: Arc<BTreeMap<Arc<str>, BTreeSet<ServiceName>>>,
}

impl WaypointSnapshot {
    /// The mesh: workloads and services.
    pub fn mesh(&self) -> &Arc<Snapshot> {
        &self.mesh
    }

    /// Who this waypoint is.
    pub fn myself(&self) -> &Myself {
        &self.myself
    }

    /// This waypoint's own workload, once control has told of it.
    pub fn own(&self) -> Option<&Arc<Workload>> {
        self.mesh.workload(&self.myself.workload)
    }

    /// Every route, in order of their names.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.routes.values()
    }

    /// Every policy, in order of their names.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<HttpPolicy>> {
        self.policies.values()
    }

    /// Every subset, in order of their names.
    pub fn subsets(&self) -> impl Iterator<Item = &Arc<Subset>> {
        self.subsets.values()
    }

    /// A part of a service's endpoints.
    pub fn subset(&self, name: &SubsetName) -> Option<&Arc<Subset>> {
        self.subsets.get(name)
    }

    /// Whether traffic for `service` is meant to pass here.
    pub fn serves_service(&self, service: &Service) -> bool {
        let here = |own| is_waypoint_instance(&self.mesh, service.waypoint.as_ref()?, own).then_some(());
        self.own().and_then(|own| here(own)).is_some()
    }

    /// Whether traffic for `workload` itself is meant to pass here.
    pub fn serves_workload(&self, workload: &Workload) -> bool {
        let here = |own| is_waypoint_instance(&self.mesh, workload.waypoint.as_deref()?, own).then_some(());
        self.own().and_then(|own| here(own)).is_some()
    }

    /// The policies that guard a service, or for `None` what has none: the waypoint's own first, each
    /// group in order of names. None is named twice.
    pub(super) fn policies_for(&self, service: Option<&ServiceName>) -> Vec<&Arc<HttpPolicy>> {
        let every = PolicyTarget::EveryWaypoint;
        let gateway = PolicyTarget::Gateway(self.myself.gateway.clone());
        let service = service.map(|service| PolicyTarget::Service(service.clone()));
        let targets = [Some(every), Some(gateway), service];
        let mut found: Vec<&Arc<HttpPolicy>> = Vec::new();
        for policy in targets.iter().flatten().filter_map(|target| self.targets.get(target)).flatten() {
            if policy.targets.len() == 1 || !found.iter().any(|other| other.name == policy.name) {
                found.push(policy);
            }
        }
        found
    }

    pub(super) fn tables(&self, service: &ServiceName) -> Option<&Arc<Tables>> {
        self.tables.get(service)
    }

    /// The service of this host name that is served here, or else the first by name.
    pub(super) fn service_by_hostname(&self, hostname: &str) -> Option<&Arc<Service>> {
        let names = self.hostnames.get(hostname)?;
        let services = || names.iter().filter_map(|name| self.mesh.service(name));
        services().find(|service| self.serves_service(service)).or_else(|| services().next())
    }
}

/// What a waypoint knows so far, and the writer's handle on it.
#[derive(Clone, Debug)]
pub struct WaypointState {
    mesh: State,
    snapshot: Arc<WaypointSnapshot>,
    /// Services whose tables are to be made anew.
    stale: BTreeSet<ServiceName>,
}

impl WaypointState {
    /// The state of a waypoint that has been told nothing.
    pub fn new(myself: Myself) -> Self {
        let snapshot = WaypointSnapshot {
            mesh: Arc::default(),
            myself: Arc::new(myself),
            routes: Arc::default(),
            tables: Arc::default(),
            policies: Arc::default(),
            targets: Arc::default(),
            subsets: Arc::default(),
            hostnames: Arc::default(),
        };
        Self { mesh: State::default(), snapshot: Arc::new(snapshot), stale: BTreeSet::new() }
    }

    /// Applies changes in their order.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut of_mesh = Vec::new();
        for change in changes {
            match change {
                Change::Http(change) => self.apply_http(change),
                Change::Service(ref service) => {
                    self.name_service(&service.name);
                    of_mesh.push(change);
                }
                Change::RemoveService(ref name) => {
                    self.forget_service(name);
                    of_mesh.push(change);
                }
                Change::Workload(_)
                | Change::RemoveWorkload(_)
                | Change::Policy(_)
                | Change::RemovePolicy(_)
                | Change::Mesh(_)
                | Change::RemoveMesh => of_mesh.push(change),
            }
        }
        self.mesh.apply(of_mesh);
    }

    /// What is known now. Later changes do not touch it.
    pub fn snapshot(&mut self) -> Arc<WaypointSnapshot> {
        let mesh = self.mesh.snapshot();
        let snapshot = Arc::make_mut(&mut self.snapshot);
        snapshot.mesh = mesh;
        if !self.stale.is_empty() {
            let tables = Arc::make_mut(&mut snapshot.tables);
            for service in std::mem::take(&mut self.stale) {
                match Tables::of(&service, snapshot.routes.values()) {
                    Some(made) => tables.insert(service, Arc::new(made)),
                    None => tables.remove(&service),
                };
            }
        }
        self.snapshot.clone()
    }

    fn apply_http(&mut self, change: HttpChange) {
        match change {
            HttpChange::Route(route) => {
                self.remove_route(&route.name);
                self.mark_stale(&route.parents);
                Arc::make_mut(&mut self.snapshot_mut().routes).insert(route.name.clone(), route);
            }
            HttpChange::RemoveRoute(name) => self.remove_route(&name),
            HttpChange::Policy(policy) => {
                self.remove_policy(&policy.name);
                let snapshot = self.snapshot_mut();
                let targets = Arc::make_mut(&mut snapshot.targets);
                for target in policy.targets.iter().collect::<BTreeSet<_>>() {
                    let guarding = targets.entry(target.clone()).or_default();
                    let at = guarding.partition_point(|other| other.name < policy.name);
                    guarding.insert(at, policy.clone());
                }
                Arc::make_mut(&mut snapshot.policies).insert(policy.name.clone(), policy);
            }
            HttpChange::RemovePolicy(name) => self.remove_policy(&name),
            HttpChange::Subset(subset) => {
                Arc::make_mut(&mut self.snapshot_mut().subsets).insert(subset.name.clone(), subset);
            }
            HttpChange::RemoveSubset(name) => {
                Arc::make_mut(&mut self.snapshot_mut().subsets).remove(&name);
            }
        }
    }

    fn remove_route(&mut self, name: &RouteName) {
        let removed = Arc::make_mut(&mut self.snapshot_mut().routes).remove(name);
        if let Some(route) = removed {
            self.mark_stale(&route.parents);
        }
    }

    fn remove_policy(&mut self, name: &PolicyName) {
        let snapshot = self.snapshot_mut();
        let Some(policy) = Arc::make_mut(&mut snapshot.policies).remove(name) else { return };
        let targets = Arc::make_mut(&mut snapshot.targets);
        for target in &policy.targets {
            if let Some(guarding) = targets.get_mut(target) {
                guarding.retain(|other| other.name != *name);
                if guarding.is_empty() {
                    targets.remove(target);
                }
            }
        }
    }

    fn name_service(&mut self, name: &ServiceName) {
        let known = self.snapshot.hostnames.get(&name.hostname).is_some_and(|names| names.contains(name));
        if !known {
            let hostnames = Arc::make_mut(&mut self.snapshot_mut().hostnames);
            hostnames.entry(name.hostname.clone()).or_default().insert(name.clone());
        }
    }

    fn forget_service(&mut self, name: &ServiceName) {
        let hostnames = Arc::make_mut(&mut self.snapshot_mut().hostnames);
        if let Some(names) = hostnames.get_mut(&name.hostname) {
            names.remove(name);
            if names.is_empty() {
                hostnames.remove(&name.hostname);
            }
        }
    }

    fn mark_stale(&mut self, parents: &[Parent]) {
        self.stale.extend(parents.iter().map(|parent| parent.service.clone()));
    }

    fn snapshot_mut(&mut self) -> &mut WaypointSnapshot {
        Arc::make_mut(&mut self.snapshot)
    }
}
