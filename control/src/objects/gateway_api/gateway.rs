//! `gateway.networking.k8s.io` Gateway: for a mesh, a waypoint.

use serde::Deserialize;

use crate::objects::meta::{Meta, StringMap};
use crate::objects::values::null_is_default;

/// The API group of the Gateway API.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// The classes whose Gateways are waypoints.
const WAYPOINT_CLASSES: [&str; 2] = ["ambit-waypoint", "istio-waypoint"];

/// Which traffic a waypoint is for (Istio).
const WAYPOINT_FOR: &str = "istio.io/waypoint-for";

/// A gateway.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Gateway {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Spec,
}

/// `spec` of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The name of its GatewayClass.
    #[serde(deserialize_with = "null_is_default")]
    pub gateway_class_name: String,
    /// Its listeners.
    #[serde(deserialize_with = "null_is_default")]
    pub listeners: Vec<Listener>,
    /// What it is deployed with.
    #[serde(deserialize_with = "null_is_default")]
    pub infrastructure: Infrastructure,
}

/// What the objects are to have that a gateway is deployed as.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Infrastructure {
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: StringMap,
    /// Annotations.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: StringMap,
    /// The object that changes what it is deployed as.
    #[serde(rename = "parametersRef")]
    pub parameters: Option<Parameters>,
}

/// Where to find what changes the objects of a gateway; in the gateway's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Parameters {
    /// The API group; empty for the core.
    #[serde(default, deserialize_with = "null_is_default")]
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// A listener.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Its name.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// Its port.
    pub port: u16,
    /// Its protocol; `HBONE` for a waypoint.
    #[serde(default, deserialize_with = "null_is_default")]
    pub protocol: String,
    /// Who may use it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub allowed_routes: AllowedRoutes,
}

/// Who may use a listener.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedRoutes {
    /// From which namespaces.
    #[serde(deserialize_with = "null_is_default")]
    pub namespaces: RouteNamespaces,
    /// Of which kinds; all where none is said.
    #[serde(deserialize_with = "null_is_default")]
    pub kinds: Vec<RouteKind>,
}

/// A kind of routes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RouteKind {
    /// Its API group; that of the Gateway API where none is said.
    pub group: Option<String>,
    /// Its name.
    pub kind: String,
}

impl RouteKind {
    /// Its API group.
    pub fn group(&self) -> &str {
        self.group.as_deref().unwrap_or(GROUP)
    }
}

/// Namespaces from which a listener may be used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteNamespaces {
    /// `All`, `Selector` or `Same`, the default.
    pub from: Option<String>,
    /// For `Selector`.
    pub selector: Option<NamespaceSelector>,
}

/// Labels of namespaces. Expressions are not read: what has some selects nothing.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespaceSelector {
    /// All of them must be on the namespace.
    #[serde(deserialize_with = "null_is_default")]
    pub match_labels: StringMap,
    /// Expressions.
    #[serde(deserialize_with = "null_is_default")]
    pub match_expressions: Vec<serde_json::Value>,
}

impl Gateway {
    /// Whether it is a waypoint.
    pub fn is_waypoint(&self) -> bool {
        WAYPOINT_CLASSES.contains(&self.spec.gateway_class_name.as_str())
    }

    /// Whether it takes traffic that is addressed to services.
    pub fn is_for_services(&self) -> bool {
        matches!(self.waypoint_for(), "service" | "all")
    }

    /// Whether it takes traffic that is addressed to workloads themselves.
    pub fn is_for_workloads(&self) -> bool {
        matches!(self.waypoint_for(), "workload" | "all")
    }

    fn waypoint_for(&self) -> &str {
        self.metadata.label(WAYPOINT_FOR).unwrap_or("service")
    }

    /// Whether objects of a namespace with these labels may use it, whose own namespace is `own`.
    pub fn allows(&self, own: &str, namespace: &str, labels: Option<&StringMap>) -> bool {
        let hbone = self.spec.listeners.iter().find(|listener| listener.protocol == "HBONE");
        let allowed = hbone.map(|listener| &listener.allowed_routes.namespaces);
        match allowed.and_then(|allowed| allowed.from.as_deref()) {
            None | Some("Same") => own == namespace,
            Some("All") => true,
            Some("Selector") => {
                let selector = allowed.and_then(|allowed| allowed.selector.as_ref());
                selector.zip(labels).is_some_and(|(selector, labels)| {
                    selector.match_expressions.is_empty()
                        && crate::objects::selector::includes(labels, &selector.match_labels)
                })
            }
            Some(_) => false,
        }
    }
}
