//! Pod -> [`PodBinding`]: what the agent needs to find a pod on its node and to capture it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::path::PathBuf;
use std::sync::Arc;

use ambit_mesh::workload::{CaptureExclusions, PodBinding};

use super::view::Named;
use super::{NetnsAnnotation, Notes, Reason, Settings};
use crate::objects::Pod;
use crate::objects::values::{parse_ip_block, parse_port};

/// Directory mode: where the pod's network namespace is.
const NETNS_ANNOTATION: &str = "ambit.dev/netns";

/// Our annotations, and Istio's for sidecars, which mean the same.
const EXCLUDED_INBOUND_PORTS: [&str; 2] =
    ["ambit.dev/exclude-inbound-ports", "traffic.sidecar.istio.io/excludeInboundPorts"];
const EXCLUDED_OUTBOUND_PORTS: [&str; 2] =
    ["ambit.dev/exclude-outbound-ports", "traffic.sidecar.istio.io/excludeOutboundPorts"];
const EXCLUDED_OUTBOUND_RANGES: [&str; 2] =
    ["ambit.dev/exclude-outbound-cidrs", "traffic.sidecar.istio.io/excludeOutboundIPRanges"];

/// The binding of a pod. Of one that is not in the mesh only the UID is of interest: it tells the
/// agent that control knows the pod. One that was written by hand has none.
pub(super) fn of(
    pod: &Named<'_, Pod>,
    is_enrolled: bool,
    settings: &Settings,
    notes: &mut Notes,
) -> Option<PodBinding> {
    let network_namespace = network_namespace(pod, settings, notes).filter(|_| is_enrolled);
    let (probe_ports, exclusions) = match is_enrolled {
        true => (pod.object.probe_ports(), exclusions(pod, notes)),
        false => (BTreeSet::new(), CaptureExclusions::default()),
    };
    let is_of_interest = is_enrolled || !pod.object.metadata.uid.is_empty();
    is_of_interest.then(|| PodBinding { pod_uid: pod_uid(pod), network_namespace, probe_ports, exclusions })
}

fn network_namespace(pod: &Named<'_, Pod>, settings: &Settings, notes: &mut Notes) -> Option<PathBuf> {
    let path = pod.object.metadata.annotation(NETNS_ANNOTATION)?;
    match settings.netns_annotation {
        NetnsAnnotation::Honoured => Some(PathBuf::from(path)),
        NetnsAnnotation::Ignored => {
            let message = format!(
                "annotation {NETNS_ANNOTATION} counts only when control runs with --allow-netns-annotation"
            );
            notes.add(pod.key, Reason::NoEffect, message);
            None
        }
    }
}

/// The UID by which the pod is known on its node. A pod written by hand has none: its name serves,
/// which is as unique in one directory.
fn pod_uid(pod: &Named<'_, Pod>) -> Arc<str> {
    match pod.object.uid_on_node() {
        "" => format!("{}.{}", pod.namespace(), pod.name()).into(),
        uid => uid.into(),
    }
}

/// What the pod's author wants to be left alone. A value that is none excludes nothing.
fn exclusions(pod: &Named<'_, Pod>, notes: &mut Notes) -> CaptureExclusions {
    let exclusions = CaptureExclusions {
        inbound_ports: list(pod, EXCLUDED_INBOUND_PORTS, parse_port, notes),
        outbound_ports: list(pod, EXCLUDED_OUTBOUND_PORTS, parse_port, notes),
        outbound_destinations: list(pod, EXCLUDED_OUTBOUND_RANGES, parse_ip_block, notes),
    };
    let count = exclusions.count();
    if count <= CaptureExclusions::MAXIMUM {
        return exclusions;
    }
    let message = format!(
        "the pod excludes {count} ports and ranges from capture and at most {} are possible: none is excluded",
        CaptureExclusions::MAXIMUM
    );
    notes.add(pod.key, Reason::EnforcedStricter, message);
    CaptureExclusions::default()
}

/// The values of the first of these annotations that the pod has.
fn list<T: Ord, E: Display>(
    pod: &Named<'_, Pod>,
    annotations: [&str; 2],
    parse: impl Fn(&str) -> Result<T, E>,
    notes: &mut Notes,
) -> BTreeSet<T> {
    let metadata = &pod.object.metadata;
    let given = annotations.iter().find_map(|name| Some((name, metadata.annotation(name)?)));
    let Some((annotation, text)) = given else { return BTreeSet::new() };
    let mut values = BTreeSet::new();
    for value in text.split(',').map(str::trim).filter(|value| !value.is_empty()) {
        match parse(value) {
            Ok(value) => drop(values.insert(value)),
            Err(error) => {
                let message = format!("annotation {annotation}: {error}; it excludes nothing");
                notes.add(pod.key, Reason::NoEffect, message);
            }
        }
    }
    values
}
