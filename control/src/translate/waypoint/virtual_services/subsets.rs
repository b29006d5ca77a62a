//! Subsets of DestinationRules.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_mesh::http::{Subset, SubsetName};
use ambit_mesh::workload::WorkloadUid;

use super::hosts::{find, waypoint_namespace};
use crate::objects::meta::StringMap;
use crate::objects::networking::is_exported;
use crate::objects::selector::includes;
use crate::objects::{DestinationRule, Service};
use crate::translate::view::{Named, View};
use crate::translate::waypoint::ForWaypoints;
use crate::translate::waypoint::routes::Report;
use crate::translate::{Reason, Settings};

/// The labels of every subset. Of two of one name the one of the Service's own namespace counts, then the first.
pub(super) fn defined<'a>(view: &View<'a>, report: &mut Report<'_>) -> BTreeMap<SubsetName, &'a StringMap> {
    let (mut of_services, mut of_waypoints) = (Vec::new(), Vec::new());
    for rule in &view.destination_rules {
        let spec = &rule.object.spec;
        let left_out = spec.left_out();
        if !left_out.is_empty() {
            let message = format!("not carried out: {}", left_out.join(", "));
            report.notes.add(rule.key, Reason::NoEffect, message);
        }
        match host(rule, view) {
            Ok(service) => {
                let name = service.mesh_name();
                let named = spec.subsets.iter().map(|subset| {
                    let name = SubsetName { service: name.clone(), name: subset.name.as_str().into() };
                    (name, &subset.labels)
                });
                if service.namespace() == rule.namespace() {
                    of_services.extend(named);
                } else {
                    of_waypoints.extend(named);
                }
            }
            Err(message) => report.notes.add(rule.key, Reason::NoEffect, message),
        }
    }
    let mut subsets = BTreeMap::new();
    for (name, labels) in of_services.into_iter().chain(of_waypoints) {
        subsets.entry(name).or_insert(labels);
    }
    subsets
}

/// The service that a rule is for, if it counts there.
fn host<'a>(rule: &Named<'_, DestinationRule>, view: &View<'a>) -> Result<Named<'a, Service>, String> {
    let spec = &rule.object.spec;
    let service = find(view, &spec.host, rule.namespace());
    let service = service
        .ok_or_else(|| format!("host {:?} is no Service and no ServiceEntry of this mesh", spec.host))?;
    if spec.workload_selector.is_some() {
        let message =
            "workloadSelector names clients, which a waypoint does not tell apart: the rule is left out";
        return Err(message.to_owned());
    }
    let waypoint = waypoint_namespace(&service, view);
    let is_of_waypoint = waypoint.as_deref() == Some(rule.namespace());
    if service.namespace() != rule.namespace() && !is_of_waypoint {
        return Err(format!(
            "host {:?} is of another namespace: rules of that and of its waypoint's count there",
            spec.host
        ));
    }
    match waypoint {
        Some(waypoint) if !is_exported(&spec.export_to, rule.namespace(), &waypoint) => {
            Err(format!("exportTo leaves out namespace {waypoint}, where the waypoint of the host is"))
        }
        Some(_) | None => Ok(service),
    }
}

/// The subsets with the pods that are in them.
pub(super) fn add(
    subsets: &BTreeMap<SubsetName, &StringMap>,
    view: &View<'_>,
    settings: &Settings,
    out: &mut ForWaypoints,
) {
    for (name, labels) in subsets {
        let pods = view.pods.get(&*name.service.namespace).into_iter().flatten();
        let inside = pods.filter(|pod| includes(&pod.object.metadata.labels, labels));
        let uid = |pod: &Named<'_, _>| {
            WorkloadUid(format!("{}//Pod/{}/{}", settings.cluster_id, pod.namespace(), pod.name()).into())
        };
        let members = inside.map(uid).collect();
        out.subsets.insert(name.clone(), Arc::new(Subset { name: name.clone(), members }));
    }
}
