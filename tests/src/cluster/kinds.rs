//! Kinds of objects, and definitions of some.

use anyhow::Result;
use kube::api::{ApiResource, DynamicObject};
use kube::{Api, Client};
use serde_json::{Value, json};

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its API group; empty for the core group.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// Its name.
    pub kind: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    namespaced: bool,
}

const fn namespaced(
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
) -> Kind {
    Kind { group, version, kind, plural, namespaced: true }
}

const fn of_cluster(group: &'static str, kind: &'static str, plural: &'static str) -> Kind {
    Kind { group, version: "v1", kind, plural, namespaced: false }
}

/// A kind of Kubernetes.
pub const NAMESPACES: Kind = of_cluster("", "Namespace", "namespaces");
/// A kind of Kubernetes.
pub const NODES: Kind = of_cluster("", "Node", "nodes");
/// A kind of Kubernetes.
pub const PODS: Kind = namespaced("", "v1", "Pod", "pods");
/// A kind of Kubernetes.
pub const SERVICES: Kind = namespaced("", "v1", "Service", "services");
/// A kind of Kubernetes.
pub const SERVICE_ACCOUNTS: Kind = namespaced("", "v1", "ServiceAccount", "serviceaccounts");
/// A kind of Kubernetes.
pub const CONFIG_MAPS: Kind = namespaced("", "v1", "ConfigMap", "configmaps");
/// A kind of Kubernetes.
pub const LEASES: Kind = namespaced("coordination.k8s.io", "v1", "Lease", "leases");
/// A kind of Kubernetes.
pub const SECRETS: Kind = namespaced("", "v1", "Secret", "secrets");
/// A kind of Kubernetes.
pub const ENDPOINT_SLICES: Kind = namespaced("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices");
/// A kind of Ambit's own.
pub const PROXY_REPORTS: Kind = namespaced("ambit.dev", "v1alpha1", "ProxyReport", "proxyreports");
/// A kind of Ambit's own.
pub const WAYPOINTS: Kind = namespaced("deploy.ambit.dev", "v1alpha1", "Waypoint", "waypoints");
/// A kind of Istio's.
pub const POLICIES: Kind =
    namespaced("security.istio.io", "v1", "AuthorizationPolicy", "authorizationpolicies");
/// A kind of Kubernetes.
pub const EVENTS: Kind = namespaced("events.k8s.io", "v1", "Event", "events");
/// A kind of Kubernetes.
pub const ROLES: Kind = namespaced("rbac.authorization.k8s.io", "v1", "Role", "roles");
/// A kind of Kubernetes.
pub const ROLE_BINDINGS: Kind = namespaced("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings");
/// A kind of Kubernetes.
pub const CLUSTER_ROLES: Kind = of_cluster("rbac.authorization.k8s.io", "ClusterRole", "clusterroles");
/// A kind of Kubernetes.
pub const CLUSTER_ROLE_BINDINGS: Kind =
    of_cluster("rbac.authorization.k8s.io", "ClusterRoleBinding", "clusterrolebindings");
/// A kind of Kubernetes.
pub const CRDS: Kind =
    of_cluster("apiextensions.k8s.io", "CustomResourceDefinition", "customresourcedefinitions");
/// A kind of Kubernetes.
pub const TOKEN_REVIEWS: Kind = of_cluster("authentication.k8s.io", "TokenReview", "tokenreviews");
/// A kind of Kubernetes.
pub const SELF_REVIEWS: Kind = of_cluster("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews");

/// A kind of Kubernetes.
pub const DEPLOYMENTS: Kind = namespaced("apps", "v1", "Deployment", "deployments");
/// A kind of Kubernetes.
pub const BUDGETS: Kind = namespaced("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets");
/// A kind of the Gateway API.
pub const GATEWAYS: Kind = namespaced("gateway.networking.k8s.io", "v1", "Gateway", "gateways");
/// A kind of the Gateway API.
pub const HTTP_ROUTES: Kind = namespaced("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes");
/// A kind of the Gateway API.
pub const GRPC_ROUTES: Kind = namespaced("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes");
/// A kind of the Gateway API.
pub const TLS_ROUTES: Kind = namespaced("gateway.networking.k8s.io", "v1", "TLSRoute", "tlsroutes");
/// A kind of the Gateway API.
pub const TCP_ROUTES: Kind = namespaced("gateway.networking.k8s.io", "v1", "TCPRoute", "tcproutes");
/// A kind of the Gateway API.
pub const GATEWAY_CLASSES: Kind = of_cluster("gateway.networking.k8s.io", "GatewayClass", "gatewayclasses");
/// A kind of Istio's.
pub const PEER_AUTHENTICATIONS: Kind =
    namespaced("security.istio.io", "v1", "PeerAuthentication", "peerauthentications");

/// A kind of Istio's.
pub const VIRTUAL_SERVICES: Kind =
    namespaced("networking.istio.io", "v1", "VirtualService", "virtualservices");
/// A kind of Istio's.
pub const SERVICE_ENTRIES: Kind = namespaced("networking.istio.io", "v1", "ServiceEntry", "serviceentries");
/// A kind of Istio's.
pub const DESTINATION_RULES: Kind =
    namespaced("networking.istio.io", "v1", "DestinationRule", "destinationrules");

impl Kind {
    /// As objects say it: `<group>/<version>`.
    pub fn api_version(self) -> String {
        match self.group {
            "" => self.version.to_owned(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// As the client wants it.
    pub fn resource(self) -> ApiResource {
        ApiResource {
            group: self.group.into(),
            version: self.version.into(),
            api_version: self.api_version(),
            kind: self.kind.into(),
            plural: self.plural.into(),
        }
    }

    /// The objects of this kind in a namespace, which kinds of the cluster do not have.
    pub fn api(self, client: Client, namespace: &str) -> Api<DynamicObject> {
        match self.namespaced {
            true => Api::namespaced_with(client, namespace, &self.resource()),
            false => Api::all_with(client, &self.resource()),
        }
    }

    /// An object of this kind.
    ///
    /// # Errors
    /// When `object` has no metadata that can be read.
    pub fn object(self, mut object: Value) -> Result<DynamicObject> {
        object["apiVersion"] = self.api_version().into();
        object["kind"] = self.kind.into();
        Ok(serde_json::from_value(object)?)
    }
}

/// A kind of the contract suite's own. Each trial that needs one has its own group, so that none is in
/// another's way.
#[derive(Clone, Debug)]
pub struct Custom {
    /// The kind.
    pub kind: Kind,
    /// Its CustomResourceDefinition.
    pub definition: Value,
}

impl Custom {
    /// A kind `Sample` with `spec`, and a status with two lists of conditions: `conditions`, which are
    /// told apart by `type`, and `plain`, which is one value.
    pub fn sample(group: &str) -> Self {
        // A test's own names live as long as the program.
        let group: &'static str = Box::leak(group.to_owned().into_boxed_str());
        let kind = namespaced(group, "v1alpha1", "Sample", "samples");
        let condition = json!({
            "type": "object", "required": ["type"],
            "properties": {
                "type": {"type": "string"}, "status": {"type": "string"}, "reason": {"type": "string"},
            },
        });
        let schema = json!({
            "type": "object",
            "properties": {
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "status": {
                    "type": "object",
                    "properties": {
                        "conditions": {
                            "type": "array", "items": condition,
                            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
                        },
                        "plain": {"type": "array", "items": condition},
                        "note": {"type": "string"},
                    },
                },
            },
        });
        Self { kind, definition: definition(kind, &schema) }
    }
}

/// The definition of a namespaced kind that has a status.
pub fn definition(kind: Kind, schema: &Value) -> Value {
    let scope = if kind.namespaced { "Namespaced" } else { "Cluster" };
    json!({
        "metadata": {"name": format!("{}.{}", kind.plural, kind.group)},
        "spec": {
            "group": kind.group, "scope": scope,
            "names": {"kind": kind.kind, "plural": kind.plural, "singular": kind.kind.to_lowercase(),
                      "listKind": format!("{}List", kind.kind)},
            "versions": [{
                "name": kind.version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}},
            }],
        },
    })
}
