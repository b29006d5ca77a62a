//! Waypoints: which there are, and who is bound to which.
//!
//! What passes them is translated in `routes` and `policies`.

mod cors;
pub(super) mod policies;
pub(super) mod routes;
pub(super) mod virtual_services;

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_mesh::address::{GatewayAddress, GatewayDestination, ServiceName};
use ambit_mesh::decide::HBONE_PORT;
use ambit_mesh::http::{HttpPolicy, Route, RouteName, Subset, SubsetName};
use ambit_mesh::policy::PolicyName;
use ambit_mesh::service::WaypointFailure;

use super::conditions::{Condition, Conditions};
use super::view::{Named, View};
use super::{Notes, Reason, service_name};
use crate::objects::gateway_api::gateway::{Gateway, Listener};
use crate::objects::meta::{Meta, StringMap};
use crate::objects::{Pod, Service, ServiceEntry};

/// Which waypoint traffic for an object passes (Istio).
const USE_WAYPOINT: &str = "istio.io/use-waypoint";

/// The namespace of that waypoint, where it is another.
const USE_WAYPOINT_NAMESPACE: &str = "istio.io/use-waypoint-namespace";

/// On a Service, a pod or a namespace: `open` lets traffic go around a waypoint that no instance of takes connections
/// (ours).
const WAYPOINT_FAILURE: &str = "ambit.dev/waypoint-failure";

/// On a Service or a namespace: endpoints take what came through their waypoint alone (ours).
const REQUIRE_WAYPOINT: &str = "ambit.dev/require-waypoint";

/// On a pod: the Gateway that it is an instance of (Gateway API).
pub(super) const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// The condition by which Istio says what a Service is bound to.
pub const WAYPOINT_BOUND: &str = "istio.io/WaypointBound";

/// What waypoints learn beside workloads and services.
#[derive(Clone, Debug, Default)]
pub struct ForWaypoints {
    /// Routes.
    pub routes: BTreeMap<RouteName, Arc<Route>>,
    /// Parts of services' endpoints.
    pub subsets: BTreeMap<SubsetName, Arc<Subset>>,
    /// Policies.
    pub policies: BTreeMap<PolicyName, Arc<HttpPolicy>>,
}

/// Which waypoint an object asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked<'a> {
    /// None.
    Nothing,
    /// This one.
    Waypoint { namespace: &'a str, name: &'a str },
}

/// The object's own label comes before that of its namespace; `none` opts out, and there is no
/// fallback from a waypoint that does not exist.
fn asked<'a>(namespace: &'a str, own: &'a Meta, of_namespace: Option<&'a StringMap>) -> Asked<'a> {
    let labels = [Some(&own.labels), of_namespace];
    let labelled = labels.into_iter().flatten().find(|labels| labels.contains_key(USE_WAYPOINT));
    let Some(labels) = labelled else { return Asked::Nothing };
    let value = |label: &str| labels.get(label).map(String::as_str).filter(|value| !value.is_empty());
    match value(USE_WAYPOINT) {
        None | Some("none") => Asked::Nothing,
        Some(name) => Asked::Waypoint { namespace: value(USE_WAYPOINT_NAMESPACE).unwrap_or(namespace), name },
    }
}

/// The waypoint of a service.
pub(super) fn of_service(
    service: &Named<'_, Service>,
    view: &View<'_>,
    conditions: &mut Conditions,
) -> Option<GatewayAddress> {
    // There is no waypoint in front of a waypoint.
    if service.object.entry.is_none() && view.waypoint(service.namespace(), service.name()).is_some() {
        return None;
    }
    let labels = view.namespace_labels(service.namespace());
    let Asked::Waypoint { namespace, name } = asked(service.namespace(), &service.object.metadata, labels)
    else {
        return None;
    };
    let (bound, condition) = binding(view, (namespace, name), service.namespace(), Traffic::Services);
    conditions.add(service.key, condition);
    bound
}

/// The waypoint of a pod itself.
pub(super) fn of_pod(pod: &Named<'_, Pod>, view: &View<'_>) -> Option<GatewayAddress> {
    if is_instance(pod, view) {
        return None;
    }
    let labels = view.namespace_labels(pod.namespace());
    let Asked::Waypoint { namespace, name } = asked(pod.namespace(), &pod.object.metadata, labels) else {
        return None;
    };
    binding(view, (namespace, name), pod.namespace(), Traffic::Workloads).0
}

/// What becomes of traffic for an object while its waypoint takes no connections. Whatever is not `open` is closed.
pub(super) fn failure(namespace: &str, own: &Meta, view: &View<'_>) -> WaypointFailure {
    let of_namespace = || view.namespace_labels(namespace)?.get(WAYPOINT_FAILURE).map(String::as_str);
    match own.label(WAYPOINT_FAILURE).or_else(of_namespace) {
        Some("open") => WaypointFailure::Open,
        Some(_) | None => WaypointFailure::Closed,
    }
}

/// What a Service says of whether its endpoints take what came through their waypoint alone. Whatever is not `false`
/// asks for it.
pub(super) fn requirement(service: &Service) -> Option<bool> {
    service.metadata.label(REQUIRE_WAYPOINT).map(|value| value != "false")
}

/// Whether a pod takes what came through its waypoint alone: as its Services say, or else its namespace.
pub(super) fn is_required(pod: &Named<'_, Pod>, of_services: Option<bool>, view: &View<'_>) -> bool {
    let labels = view.namespace_labels(pod.namespace());
    let of_namespace = || labels?.get(REQUIRE_WAYPOINT).map(|value| value != "false");
    of_services.or_else(of_namespace).unwrap_or(false)
}

/// Whether a pod is an instance of a waypoint of its namespace. Such a pod is not captured: it takes
/// tunnels itself.
pub(super) fn is_instance(pod: &Named<'_, Pod>, view: &View<'_>) -> bool {
    let gateway = pod.object.metadata.label(GATEWAY_NAME);
    gateway.is_some_and(|name| view.waypoint(pod.namespace(), name).is_some())
}

/// Which traffic is to pass a waypoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Services,
    Workloads,
}

/// Where traffic goes that is to pass a waypoint.
///
/// Closed where the waypoint is missing, or may not be used from there: the traffic is sent to a
/// waypoint that is not there, and so refused. Not bound where the waypoint is for other traffic.
fn binding(
    view: &View<'_>,
    (namespace, name): (&str, &str),
    from: &str,
    traffic: Traffic,
) -> (Option<GatewayAddress>, Condition) {
    let at = |service: ServiceName| {
        Some(GatewayAddress {
            destination: GatewayDestination::Service(service),
            hbone_mtls_port: HBONE_PORT,
        })
    };
    let condition = |status, reason, message| Condition::new(WAYPOINT_BOUND, status, reason, message);
    let own = service_name(namespace, name);
    let Some(gateway) = view.waypoint(namespace, name) else {
        // A pod is bound only where its waypoint says that it is for workloads.
        let bound = (traffic == Traffic::Services).then(|| at(own)).flatten();
        let message = format!(
            "waypoint {namespace}/{name} does not exist: traffic is refused until a Gateway of class \
             ambit-waypoint has this name"
        );
        return (bound, condition(false, "WaypointIsNotReady", message));
    };
    let takes = match traffic {
        Traffic::Services => gateway.object.is_for_services(),
        Traffic::Workloads => gateway.object.is_for_workloads(),
    };
    if !takes {
        let message =
            format!("waypoint {namespace}/{name} is not for this traffic: check istio.io/waypoint-for");
        return (None, condition(false, "UnsupportedTrafficType", message));
    }
    if !gateway.object.allows(namespace, from, view.namespace_labels(from)) {
        let nowhere = format!("{name}.not-allowed.invalid");
        let nowhere = ServiceName { namespace: namespace.into(), hostname: nowhere.into() };
        let message = format!(
            "waypoint {namespace}/{name} does not allow namespace {from}: traffic is refused; check \
             allowedRoutes of its listener"
        );
        return (at(nowhere), condition(false, "AttachmentDenied", message));
    }
    let message = format!("Successfully attached to waypoint {namespace}/{name}");
    (at(own), condition(true, "WaypointAccepted", message))
}

/// What is to be said of a ServiceEntry.
pub(super) fn note_entry(entry: &Named<'_, ServiceEntry>, notes: &mut Notes) {
    for left_out in &entry.object.left_out {
        notes.add(entry.key, Reason::NoEffect, format!("not carried out: {left_out}"));
    }
    if entry.object.services.iter().any(|service| service.addresses().is_empty()) {
        let message = "it has no addresses: nothing that is dialled is known for it";
        notes.add(entry.key, Reason::NoEffect, message);
    }
}

/// What is to be said of a Gateway.
pub(super) fn note_gateway(
    gateway: &Named<'_, Gateway>,
    view: &View<'_>,
    notes: &mut Notes,
    conditions: &mut Conditions,
) {
    if !gateway.object.is_waypoint() {
        let class = &gateway.object.spec.gateway_class_name;
        let message = format!("class {class:?} is not one of ours: ambit-waypoint and istio-waypoint are");
        notes.add(gateway.key, Reason::NoEffect, message);
        return;
    }
    let hbone = gateway.object.spec.listeners.iter().find(|listener| listener.protocol == "HBONE");
    let problem = match hbone {
        None => {
            Some("no listener has protocol HBONE: traffic that is bound to it is taken on 15008".to_owned())
        }
        Some(listener) if listener.port != HBONE_PORT => {
            Some(format!("port {} of its listener is not used: a waypoint listens on 15008", listener.port))
        }
        Some(_) => None,
    };
    if let Some(problem) = problem {
        notes.add(gateway.key, Reason::NoEffect, problem);
    }
    let is_of_use = |listener: &&Listener| listener.protocol == "HBONE" && listener.port == HBONE_PORT;
    let accepted = match gateway.object.spec.listeners.iter().filter(is_of_use).count() {
        1 if gateway.object.spec.listeners.len() == 1 => {
            Condition::new("Accepted", true, "Accepted", "a waypoint of this mesh".into())
        }
        _ => {
            let message = "a waypoint of this mesh; not all of its listeners are of use, as each says".into();
            Condition::new("Accepted", true, "ListenersNotValid", message)
        }
    };
    conditions.add(gateway.key, accepted);
    let services = view.services.get(gateway.namespace()).into_iter().flatten();
    let is_its =
        |service: &Named<'_, Service>| service.object.entry.is_none() && service.name() == gateway.name();
    let has_service = services.into_iter().any(is_its);
    let mut pods = view.pods.get(gateway.namespace()).into_iter().flatten();
    let is_ready = |pod: &Named<'_, Pod>| {
        pod.object.metadata.label(GATEWAY_NAME) == Some(gateway.name()) && pod.object.is_ready()
    };
    let programmed = match (has_service, pods.any(is_ready)) {
        (true, true) => Condition::new("Programmed", true, "Programmed", "it has a ready pod".into()),
        (false, _) => {
            let message = format!("there is no Service {}: write one with port 15008", gateway.key.name);
            Condition::new("Programmed", false, "AddressNotAssigned", message)
        }
        (true, false) => {
            let message = format!("no pod with the label {GATEWAY_NAME}: {} is ready", gateway.key.name);
            Condition::new("Programmed", false, "NoResources", message)
        }
    };
    conditions.add(gateway.key, programmed);
}
