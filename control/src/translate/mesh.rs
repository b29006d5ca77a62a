//! The mesh as a whole: which namespaces are in it, and where its addresses lie.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;

use super::view::View;
use super::{Notes, Reason, Settings, enrolment};

/// The namespaces whose label asks for the mesh.
pub(super) fn enrolled_namespaces(view: &View<'_>) -> BTreeSet<Arc<str>> {
    let asks = |name: &&&str| enrolment::is_asked_for(view.namespace_labels(name));
    view.namespaces.keys().filter(asks).map(|name| Arc::from(*name)).collect()
}

/// What nodes say of their pods' addresses, and what control was told of the rest.
pub(super) fn ranges(view: &View<'_>, settings: &Settings, notes: &mut Notes) -> BTreeSet<IpNet> {
    let mut ranges: BTreeSet<IpNet> = settings.mesh_ranges.iter().copied().collect();
    for node in view.nodes.values() {
        for text in node.object.pod_ranges() {
            match text.parse() {
                Ok(range) => drop(ranges.insert(range)),
                Err(_) => {
                    let message = format!("spec.podCIDRs: {text:?} is not a CIDR such as 10.0.0.0/8");
                    notes.add(node.key, Reason::NotTranslated, message);
                }
            }
        }
    }
    ranges
}
