//! Which waypoints a resource is for: those that need it for the services and workloads bound to them. Pure.
//!
//! A waypoint is named by its Service here. It needs
//!
//! * what is bound to it, the backends of the routes of that, the waypoint of such a backend, and its own Service;
//! * the workloads behind those services, with the policies of layer 4 that hold for them: they tell which endpoints
//!   have to know who asks;
//! * the routes and policies of what is bound to it, and the named parts of every service that it knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_mesh::address::{GatewayAddress, GatewayDestination, ServiceName};
use ambit_mesh::http::{HttpPolicy, PolicyTarget, Route, Subset};
use ambit_mesh::policy::{AuthorizationPolicy, PolicyName, PolicyScope};
use ambit_mesh::service::Service;
use ambit_mesh::workload::Workload;
use ambit_xds::resources::Audience;

use crate::translate::{Translated, service_name};

type Waypoints = BTreeSet<ServiceName>;

/// Which waypoints need what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Audiences {
    /// Of each service that is bound to a waypoint: which.
    bound: BTreeMap<ServiceName, ServiceName>,
    /// Of each service that a waypoint has to know: which waypoints.
    services: BTreeMap<ServiceName, Arc<Waypoints>>,
    /// Of each namespace with workloads that a waypoint has to know: which waypoints.
    namespaces: BTreeMap<Arc<str>, Arc<Waypoints>>,
    /// Of each policy that such a workload names: which waypoints.
    named: BTreeMap<PolicyName, Arc<Waypoints>>,
    /// Each waypoint alone.
    alone: BTreeMap<ServiceName, Arc<Waypoints>>,
}

impl Audiences {
    /// What a translation asks for.
    pub(super) fn of(translated: &Translated) -> Self {
        let bound: BTreeMap<_, _> = translated
            .services
            .values()
            .filter_map(|service| Some((service.name.clone(), waypoint(service.waypoint.as_ref())?)))
            .collect();
        let mut services: BTreeMap<ServiceName, Waypoints> = BTreeMap::new();
        let mut need = |waypoint: &ServiceName, service: &ServiceName| {
            services.entry(service.clone()).or_default().insert(waypoint.clone());
        };
        for waypoint in &translated.waypoints {
            need(waypoint, waypoint);
        }
        for (service, waypoint) in &bound {
            need(waypoint, service);
        }
        for route in translated.for_waypoints.routes.values() {
            for waypoint in route.parents.iter().filter_map(|parent| bound.get(&parent.service)) {
                for backend in route.backends() {
                    need(waypoint, backend);
                    // It is reached through its own.
                    bound.get(backend).into_iter().for_each(|of_backend| need(waypoint, of_backend));
                }
            }
        }
        let services = services.into_iter().map(|(name, waypoints)| (name, Arc::new(waypoints))).collect();
        let alone = |waypoint: &ServiceName| (waypoint.clone(), Arc::new([waypoint.clone()].into()));
        let alone = translated.waypoints.iter().map(alone).collect();
        let mut audiences = Self { bound, services, alone, ..Self::default() };
        audiences.look_at(translated.workloads.values());
        audiences
    }

    /// Of a service.
    pub(super) fn service(&self, service: &Service) -> Audience {
        audience(self.services.get(&service.name).cloned())
    }

    /// Of a part of a service's endpoints.
    pub(super) fn subset(&self, subset: &Subset) -> Audience {
        audience(self.services.get(&subset.name.service).cloned())
    }

    /// Of a workload.
    pub(super) fn workload(&self, workload: &Workload) -> Audience {
        audience(self.of_workload(workload))
    }

    /// Of a policy of layer 4.
    pub(super) fn policy(&self, policy: &AuthorizationPolicy) -> Audience {
        match policy.scope {
            PolicyScope::Global => Audience::Everybody,
            PolicyScope::Namespace => audience(self.namespaces.get(&policy.name.namespace).cloned()),
            PolicyScope::WorkloadSelector => audience(self.named.get(&policy.name).cloned()),
        }
    }

    /// Of a route.
    pub(super) fn route(&self, route: &Route) -> Audience {
        let waypoints = route.parents.iter().filter_map(|parent| self.bound.get(&parent.service));
        audience(Some(Arc::new(waypoints.cloned().collect())))
    }

    /// Of a policy of waypoints.
    pub(super) fn http_policy(&self, policy: &HttpPolicy) -> Audience {
        if policy.targets.contains(&PolicyTarget::EveryWaypoint) {
            return Audience::Everybody;
        }
        let waypoints = policy.targets.iter().filter_map(|target| match target {
            PolicyTarget::EveryWaypoint => None,
            PolicyTarget::Gateway(gateway) => Some(service_name(&gateway.namespace, &gateway.name)),
            PolicyTarget::Service(service) => self.bound.get(service).cloned(),
        });
        audience(Some(Arc::new(waypoints.collect())))
    }

    fn of_workload(&self, workload: &Workload) -> Option<Arc<Waypoints>> {
        let own = waypoint(workload.waypoint.as_deref());
        let own = own.map(|own| self.alone.get(&own).cloned().unwrap_or_else(|| Arc::new([own].into())));
        let of_services = workload.services.iter().filter_map(|(name, _)| self.services.get(name).cloned());
        own.into_iter().chain(of_services).reduce(|one, other| {
            if other.is_subset(&one) {
                one
            } else if one.is_subset(&other) {
                other
            } else {
                Arc::new(one.union(&other).cloned().collect())
            }
        })
    }

    /// Notes whose policies are asked for.
    fn look_at<'a>(&mut self, workloads: impl Iterator<Item = &'a Arc<Workload>>) {
        for workload in workloads {
            let Some(waypoints) = self.of_workload(workload) else { continue };
            for name in workload.authorization_policies.iter() {
                add(&mut self.named, name, &waypoints);
            }
            add(&mut self.namespaces, &workload.namespace, &waypoints);
        }
    }
}

fn add<K: Clone + Ord>(to: &mut BTreeMap<K, Arc<Waypoints>>, key: &K, waypoints: &Arc<Waypoints>) {
    match to.get_mut(key) {
        None => drop(to.insert(key.clone(), Arc::clone(waypoints))),
        Some(known) if waypoints.is_subset(known) => {}
        Some(known) => Arc::make_mut(known).extend(waypoints.iter().cloned()),
    }
}

/// The Service of a waypoint. Control names waypoints by nothing else.
fn waypoint(address: Option<&GatewayAddress>) -> Option<ServiceName> {
    match &address?.destination {
        GatewayDestination::Service(name) => Some(name.clone()),
        GatewayDestination::Address(_) => None,
    }
}

fn audience(waypoints: Option<Arc<Waypoints>>) -> Audience {
    Audience::Waypoints(waypoints.unwrap_or_default())
}

#[cfg(test)]
mod tests;
