//! VirtualService -> [`Route`], and DestinationRule -> [`Subset`].

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_mesh::http::{Order, Parent, Route, RouteKind, RouteName, Subset, SubsetName};
use ambit_mesh::workload::WorkloadUid;

use self::rules::Rules;
use super::ForWaypoints;
use super::routes::{Report, created, find_service};
use crate::objects::VirtualService;
use crate::objects::meta::StringMap;
use crate::objects::selector::includes;
use crate::translate::view::{Named, View};
use crate::translate::{CLUSTER_DOMAIN, Reason, Settings, service_name};

/// Translates all of them. What has a route of the Gateway API is left to it.
pub(in crate::translate) fn translate(
    view: &View<'_>,
    settings: &Settings,
    report: &mut Report<'_>,
    out: &mut ForWaypoints,
) {
    let subsets = subsets(view, report);
    let routed = out.routes.values().flat_map(|route| &route.parents);
    let mut taken: BTreeSet<_> = routed.map(|parent| parent.service.clone()).collect();
    for written in &view.virtual_services {
        if let Some(route) = route(written, view, &subsets, &mut taken, report) {
            out.routes.insert(route.name.clone(), Arc::new(route));
        }
    }
    for (name, labels) in &subsets {
        let pods = view.pods.get(&*name.service.namespace).into_iter().flatten();
        let inside = pods.filter(|pod| includes(&pod.object.metadata.labels, labels));
        let uid = |pod: &Named<'_, _>| {
            WorkloadUid(format!("{}//Pod/{}/{}", settings.cluster_id, pod.namespace(), pod.name()).into())
        };
        let members = inside.map(uid).collect();
        out.subsets.insert(name.clone(), Arc::new(Subset { name: name.clone(), members }));
    }
}

/// The labels of every subset. Of two of one name the first counts.
fn subsets<'a>(view: &View<'a>, report: &mut Report<'_>) -> BTreeMap<SubsetName, &'a StringMap> {
    let mut subsets = BTreeMap::new();
    for rule in &view.destination_rules {
        let spec = &rule.object.spec;
        if spec.traffic_policy.is_some() || spec.subsets.iter().any(|subset| subset.traffic_policy.is_some())
        {
            report.notes.add(rule.key, Reason::NoEffect, "not carried out: trafficPolicy");
        }
        let Some((namespace, name)) = resolved(&spec.host, rule.namespace()) else {
            let message = format!("host {:?} is no Service of this mesh", spec.host);
            report.notes.add(rule.key, Reason::NoEffect, message);
            continue;
        };
        if namespace != rule.namespace() {
            let message = format!("host {:?} is of another namespace: its own rules count there", spec.host);
            report.notes.add(rule.key, Reason::NoEffect, message);
            continue;
        }
        for subset in &spec.subsets {
            let service = service_name(&namespace, &name);
            let name = SubsetName { service, name: subset.name.as_str().into() };
            subsets.entry(name).or_insert(&subset.labels);
        }
    }
    subsets
}

fn route(
    written: &Named<'_, VirtualService>,
    view: &View<'_>,
    subsets: &BTreeMap<SubsetName, &StringMap>,
    taken: &mut BTreeSet<ambit_mesh::address::ServiceName>,
    report: &mut Report<'_>,
) -> Option<Route> {
    let spec = &written.object.spec;
    // Of a gateway of the mesh's edge, which is not ours.
    if !spec.gateways.is_empty() && !spec.gateways.iter().any(|gateway| gateway == "mesh") {
        report.notes.add(written.key, Reason::NoEffect, "it is for gateways alone: a mesh has none of them");
        return None;
    }
    let mut parents = Vec::new();
    let mut ports = BTreeSet::new();
    for host in &spec.hosts {
        let found = resolved(host, written.namespace());
        // A waypoint takes those of the service's own namespace.
        let own = found.filter(|(namespace, _)| namespace == written.namespace());
        let service = own.and_then(|(namespace, name)| find_service(view, &namespace, &name));
        let Some(service) = service else {
            let message = format!("host {host:?} is no Service of its namespace");
            report.notes.add(written.key, Reason::NoEffect, message);
            continue;
        };
        let name = service_name(service.namespace(), service.name());
        if !taken.insert(name.clone()) {
            let message = format!(
                "host {host:?} has another route, which holds: one of the Gateway API, or the first VirtualService by name"
            );
            report.notes.add(written.key, Reason::Conflict, message);
            continue;
        }
        if super::of_service(&service, view, &mut Default::default()).is_none() {
            let message = format!("{host:?} is not bound to a waypoint: the rules have no effect on it");
            report.notes.add(written.key, Reason::NoEffect, message);
        }
        ports.extend(service.object.tcp_ports().map(|port| port.port));
        parents.push(Parent { service: name, port: None });
    }
    let rules = Rules { view, subsets, namespace: written.namespace(), ports };
    let (rules, problems) = rules.translate(&spec.http);
    for (reason, message) in problems {
        report.notes.add(written.key, reason, message);
    }
    (!parents.is_empty()).then(|| Route {
        name: RouteName {
            kind: RouteKind::VirtualService,
            namespace: written.namespace().into(),
            name: written.key.name.clone(),
        },
        created: created(&written.object.metadata),
        order: Order::AsWritten,
        parents,
        hostnames: Vec::new(),
        rules,
    })
}

/// Namespace and name of the Service that a host stands for. A name without dots is of the object's own
/// namespace (Istio).
fn resolved(host: &str, namespace: &str) -> Option<(String, String)> {
    let domain = format!(".svc.{CLUSTER_DOMAIN}");
    let short = host.strip_suffix(domain.as_str()).or_else(|| host.strip_suffix(".svc")).unwrap_or(host);
    let (name, namespace) = short.split_once('.').unwrap_or((short, namespace));
    (!name.is_empty() && !namespace.contains('.') && !host.contains('*'))
        .then(|| (namespace.to_owned(), name.to_owned()))
}
