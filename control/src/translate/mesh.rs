//! What holds for the mesh as a whole, and is of no single workload, service or policy.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::Settings;
use super::enrolment;
use super::view::View;

/// The ranges of all nodes' pods and of all services, and those that settings add.
pub(super) fn ranges(view: &View<'_>, settings: &Settings) -> Vec<IpNet> {
    let of_nodes = view.nodes.values().flat_map(|node| &node.spec.pod_cidrs);
    let of_services = view.service_cidrs.iter().flat_map(|cidr| &cidr.spec.cidrs);
    let all = of_nodes.chain(of_services).chain(&settings.mesh_ranges).copied().collect();
    // Joins neighbours too: the ranges of a thousand nodes become the cluster's.
    IpNet::aggregate(&all)
}

/// The namespaces whose pods are in the mesh unless they opt out.
pub(super) fn enrolled_namespaces(view: &View<'_>) -> BTreeSet<Arc<str>> {
    let enrolled =
        view.namespaces.iter().filter(|(_, namespace)| enrolment::is_asked(&namespace.metadata.labels));
    enrolled.map(|(name, _)| Arc::from(*name)).collect()
}
