//! Which kinds are served: those of a table, and those of the CustomResourceDefinitions in the store.

use std::sync::Arc;

use serde_json::{Value, json};

/// What tells one kind from another in the store: versions share their objects.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ResourceId {
    /// Empty for the core group.
    pub(super) group: String,
    pub(super) plural: String,
}

impl ResourceId {
    pub(super) fn new(group: &str, plural: &str) -> Self {
        Self { group: group.into(), plural: plural.into() }
    }

    /// As error messages name it: `leases.coordination.k8s.io`.
    pub(super) fn qualified(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

/// A kind in one version.
#[derive(Clone, Debug)]
pub(super) struct Resource {
    pub(super) id: ResourceId,
    pub(super) version: String,
    pub(super) kind: String,
    pub(super) namespaced: bool,
    /// Whether `status` is written apart from the rest.
    pub(super) has_status: bool,
    /// Whether `metadata.generation` counts changes of what is asked for.
    pub(super) has_generation: bool,
    pub(super) origin: Origin,
}

/// Where the knowledge of a kind comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    BuiltIn,
    /// A CustomResourceDefinition, with `openAPIV3Schema` of the version.
    Custom(Arc<Value>),
}

impl Resource {
    pub(super) fn api_version(&self) -> String {
        match self.id.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    pub(super) fn is_custom(&self) -> bool {
        matches!(self.origin, Origin::Custom(_))
    }

    pub(super) fn is(&self, group: &str, plural: &str) -> bool {
        self.id.group == group && self.id.plural == plural
    }
}

pub(super) const CRDS: (&str, &str) = ("apiextensions.k8s.io", "customresourcedefinitions");
pub(super) const RBAC: &str = "rbac.authorization.k8s.io";

/// Scope, status and generation of a row of the table.
const CLUSTER: u8 = 1;
const STATUS: u8 = 2;
const GENERATION: u8 = 4;

/// Group, version, plural, kind. Review kinds, which store nothing, are in `auth.rs`.
const TABLE: &[(&str, &str, &str, &str, u8)] = &[
    ("", "v1", "namespaces", "Namespace", CLUSTER | STATUS),
    ("", "v1", "nodes", "Node", CLUSTER | STATUS),
    ("", "v1", "pods", "Pod", STATUS | GENERATION),
    ("", "v1", "services", "Service", STATUS),
    ("", "v1", "serviceaccounts", "ServiceAccount", 0),
    ("", "v1", "configmaps", "ConfigMap", 0),
    ("", "v1", "secrets", "Secret", 0),
    ("", "v1", "events", "Event", 0),
    ("apps", "v1", "deployments", "Deployment", STATUS | GENERATION),
    ("apps", "v1", "replicasets", "ReplicaSet", STATUS | GENERATION),
    ("apps", "v1", "daemonsets", "DaemonSet", STATUS | GENERATION),
    ("apps", "v1", "statefulsets", "StatefulSet", STATUS | GENERATION),
    ("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", GENERATION),
    ("coordination.k8s.io", "v1", "leases", "Lease", 0),
    ("events.k8s.io", "v1", "events", "Event", 0),
    ("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", GENERATION),
    ("networking.k8s.io", "v1", "servicecidrs", "ServiceCIDR", CLUSTER | STATUS),
    ("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", STATUS | GENERATION),
    (RBAC, "v1", "clusterroles", "ClusterRole", CLUSTER),
    (RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", CLUSTER),
    (RBAC, "v1", "roles", "Role", 0),
    (RBAC, "v1", "rolebindings", "RoleBinding", 0),
    (CRDS.0, "v1", CRDS.1, "CustomResourceDefinition", CLUSTER | STATUS | GENERATION),
];

/// The kinds that every server has.
pub(super) fn built_in() -> impl Iterator<Item = Resource> {
    TABLE.iter().map(|&(group, version, plural, kind, traits)| Resource {
        id: ResourceId::new(group, plural),
        version: version.into(),
        kind: kind.into(),
        namespaced: traits & CLUSTER == 0,
        has_status: traits & STATUS != 0,
        has_generation: traits & GENERATION != 0,
        origin: Origin::BuiltIn,
    })
}

/// The kinds of a CustomResourceDefinition: one for each version that it serves.
pub(super) fn custom(definition: &Value) -> Vec<Resource> {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let versions = spec["versions"].as_array().into_iter().flatten();
    versions
        .filter(|version| version["served"] == true)
        .map(|version| Resource {
            id: ResourceId { group: text(&spec["group"]), plural: text(&spec["names"]["plural"]) },
            version: text(&version["name"]),
            kind: text(&spec["names"]["kind"]),
            namespaced: spec["scope"] == "Namespaced",
            has_status: !version["subresources"]["status"].is_null(),
            has_generation: true,
            origin: Origin::Custom(Arc::new(version["schema"]["openAPIV3Schema"].clone())),
        })
        .collect()
}

/// What a definition's status says once its kinds are served.
pub(super) fn established(definition: &Value, now: &str) -> Value {
    let condition = |kind: &str, reason: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now, "reason": reason, "message": ""});
    let stored = definition["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<&Value> =
        stored.filter(|version| version["storage"] == true).map(|version| &version["name"]).collect();
    json!({
        "acceptedNames": definition["spec"]["names"],
        "storedVersions": stored,
        "conditions": [
            condition("NamesAccepted", "NoConflicts"),
            condition("Established", "InitialNamesAccepted"),
        ],
    })
}
