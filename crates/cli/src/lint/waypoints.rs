//! Labels that name a waypoint which is not there.
//!
//! Of Services control says so itself.

use control::objects::meta::{Meta, StringMap};
use control::objects::{Kind, KnownKind, Object, ObjectKey};

use super::{Findings, Severity};

const USE_WAYPOINT: &str = "istio.io/use-waypoint";
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";

pub(super) fn look(findings: &mut Findings<'_>) {
    let inputs = &findings.model.generation().inputs;
    for (key, entry) in inputs.entries() {
        let (own, namespace) = match entry.object() {
            Some(Object::Namespace(object)) => (&object.metadata, &*key.name),
            Some(Object::Pod(object)) => (&object.metadata, key.namespace.as_deref().unwrap_or_default()),
            Some(_) | None => continue,
        };
        look_at(findings, key, own, namespace);
    }
}

fn look_at(findings: &mut Findings<'_>, key: &ObjectKey, own: &Meta, namespace: &str) {
    let value = |labels: &StringMap, name: &str| labels.get(name).filter(|value| !value.is_empty()).cloned();
    let Some(name) = value(&own.labels, USE_WAYPOINT).filter(|name| name != "none") else { return };
    let namespace = value(&own.labels, USE_WAYPOINT_NAMESPACE).unwrap_or_else(|| namespace.to_owned());
    let gateway = findings.model.object(KnownKind::Gateway, &namespace, &name);
    let is_waypoint = matches!(gateway, Some(Object::Gateway(gateway)) if gateway.is_waypoint());
    if is_waypoint {
        return;
    }
    let what = match gateway {
        Some(_) => {
            format!("{USE_WAYPOINT} names Gateway {namespace}/{name}, which is not of a waypoint's class")
        }
        None => {
            format!("{USE_WAYPOINT} names Gateway {namespace}/{name}, which is not there: traffic is refused")
        }
    };
    let is_for_all = key.kind == Kind::Known(KnownKind::Namespace);
    let severity = if is_for_all { Severity::Error } else { Severity::Warning };
    let advice = format!("make a Gateway {namespace}/{name} of class ambit-waypoint, or take the label away");
    findings.of(key, (severity, "waypoint-missing"), what, advice);
}
