//! The objects of a waypoint, from its Gateway. Pure.
//!
//! All of them are owned by the [`Waypoint`], which is the Gateway's, and go with it. Pods pass the `restricted`
//! profile of pod security.

use kube::Resource;
use serde_json::{Map, Value, json};

use super::kind::Waypoint;
use crate::objects::gateway_api::Gateway;
use crate::objects::meta::StringMap;

/// On the pods and on everything else of a waypoint: the name of its Gateway (Gateway API).
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Replicas of a waypoint that nobody has scaled.
const REPLICAS: u32 = 2;

/// Where waypoints listen.
const HBONE_PORT: u16 = 15008;

/// Metrics and readiness.
const METRICS_PORT: u16 = 15020;
const READINESS_PORT: u16 = 15021;

/// What a container leaves to the next one of its pod.
const STATE: &str = "/run/ambit";

/// Any user but root.
const USER: u32 = 65532;

/// How long a pod's connections may finish, and how long until it is killed.
const DRAIN_SECONDS: u32 = 25;
const GRACE_SECONDS: u32 = 40;

/// What all waypoints of an installation have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Common {
    /// The image, with its tag.
    pub image: String,
    /// `IfNotPresent`, `Always` or `Never`.
    pub image_pull_policy: String,
    /// Where control serves: a URL.
    pub xds_address: String,
    /// The audience of the tokens that control accepts.
    pub token_audience: String,
    /// The trust domain.
    pub trust_domain: String,
    /// The name of the cluster.
    pub cluster_id: String,
}

/// A Gateway, or its Waypoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name, which its objects have.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
}

/// A Waypoint as the owner of the rest.
pub fn owner(waypoint: &Owner<'_>) -> Value {
    json!({
        "apiVersion": Waypoint::api_version(&()),
        "kind": Waypoint::kind(&()),
        "name": waypoint.name,
        "uid": waypoint.uid,
        "controller": true,
    })
}

/// What owns the rest.
pub fn waypoint(gateway: &Owner<'_>, common: &Common) -> Value {
    json!({
        "apiVersion": Waypoint::api_version(&()),
        "kind": Waypoint::kind(&()),
        "metadata": {
            "name": gateway.name,
            "namespace": gateway.namespace,
            "labels": { GATEWAY_NAME: gateway.name, "app.kubernetes.io/part-of": "ambit" },
            "ownerReferences": [{
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": gateway.name,
                "uid": gateway.uid,
                "controller": true,
            }],
        },
        "spec": { "gateway": gateway.name, "image": common.image },
    })
}

/// A kind of object that a waypoint consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Who it is.
    ServiceAccount,
    /// What it trusts: the roots.
    ConfigMap,
    /// Where it is reached.
    Service,
    /// That not all of its pods are evicted at once.
    PodDisruptionBudget,
    /// Its pods.
    Deployment,
}

impl Part {
    /// All of them, in the order in which they are made.
    pub const ALL: [Self; 5] =
        [Self::ServiceAccount, Self::ConfigMap, Self::Service, Self::PodDisruptionBudget, Self::Deployment];

    /// Group, version, kind and plural.
    pub fn names(self) -> (&'static str, &'static str, &'static str, &'static str) {
        match self {
            Self::ServiceAccount => ("", "v1", "ServiceAccount", "serviceaccounts"),
            Self::ConfigMap => ("", "v1", "ConfigMap", "configmaps"),
            Self::Service => ("", "v1", "Service", "services"),
            Self::PodDisruptionBudget => ("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Self::Deployment => ("apps", "v1", "Deployment", "deployments"),
        }
    }

    /// What is set once, when it is made, and is the user's from then on: who scales a waypoint is not
    /// overruled.
    pub fn once(self) -> Option<Value> {
        match self {
            Self::Deployment => Some(json!({ "spec": { "replicas": REPLICAS } })),
            Self::ServiceAccount | Self::ConfigMap | Self::Service | Self::PodDisruptionBudget => None,
        }
    }

    /// The object. `roots` are PEM.
    pub fn object(self, owner: &Owner<'_>, gateway: &Gateway, common: &Common, roots: &str) -> Value {
        let (group, version, kind, _) = self.names();
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let mut object = json!({
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {
                "name": owner.name,
                "namespace": owner.namespace,
                "labels": labels(owner, gateway),
                "annotations": gateway.spec.infrastructure.annotations,
                "ownerReferences": [self::owner(owner)],
            },
        });
        let more = match self {
            Self::ServiceAccount => json!({}),
            Self::ConfigMap => json!({ "data": { "root-cert.pem": roots } }),
            Self::Service => json!({ "spec": {
                "selector": selector(owner),
                "ports": [
                    { "name": "hbone", "port": HBONE_PORT, "targetPort": "hbone", "protocol": "TCP" },
                    { "name": "status-port", "port": READINESS_PORT, "targetPort": "readiness",
                      "protocol": "TCP" },
                ],
            } }),
            Self::PodDisruptionBudget => json!({ "spec": {
                "maxUnavailable": 1,
                "selector": { "matchLabels": selector(owner) },
            } }),
            Self::Deployment => json!({ "spec": deployment(owner, gateway, common) }),
        };
        merge(&mut object, more);
        object
    }
}

/// Adds what `more` has and `into` has not, object by object.
pub fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Object(Map::new())), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn selector(owner: &Owner<'_>) -> Value {
    json!({ GATEWAY_NAME: owner.name })
}

/// The user's labels, under ours.
fn labels(owner: &Owner<'_>, gateway: &Gateway) -> StringMap {
    let mut labels = gateway.spec.infrastructure.labels.clone();
    for (key, value) in [
        (GATEWAY_NAME, owner.name),
        ("gateway.networking.k8s.io/gateway-class-name", gateway.spec.gateway_class_name.as_str()),
        ("app.kubernetes.io/name", "waypoint"),
        ("app.kubernetes.io/part-of", "ambit"),
        ("app.kubernetes.io/managed-by", "ambit"),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

fn deployment(owner: &Owner<'_>, gateway: &Gateway, common: &Common) -> Value {
    let mut pod_labels = labels(owner, gateway);
    // It takes tunnels itself: no agent captures it, and nobody injects anything.
    for (key, value) in [("istio.io/dataplane-mode", "none"), ("sidecar.istio.io/inject", "false")] {
        pod_labels.insert(key.to_owned(), value.to_owned());
    }
    let mut annotations = gateway.spec.infrastructure.annotations.clone();
    for (key, value) in [
        ("prometheus.io/scrape", "true"),
        ("prometheus.io/port", "15020"),
        ("prometheus.io/path", "/metrics"),
    ] {
        annotations.entry(key.to_owned()).or_insert_with(|| value.to_owned());
    }
    json!({
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 } },
        "selector": { "matchLabels": selector(owner) },
        "template": {
            "metadata": { "labels": pod_labels, "annotations": annotations },
            "spec": {
                "serviceAccountName": owner.name,
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": GRACE_SECONDS,
                "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
                    apart(owner, 100, "kubernetes.io/hostname"),
                    apart(owner, 50, "topology.kubernetes.io/zone"),
                ] } },
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER,
                    "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [container(owner, common)],
                "volumes": [
                    // Of a container that ends, for its next one; in memory, since keys are in it.
                    { "name": "state", "emptyDir": { "medium": "Memory" } },
                    { "name": "root", "configMap": { "name": owner.name } },
                    { "name": "token", "projected": { "sources": [{ "serviceAccountToken": {
                        "audience": common.token_audience, "expirationSeconds": 3600, "path": "token",
                    } }] } },
                ],
            },
        },
    })
}

/// Not two constraints of topology: the scheduler passes over every node that lacks a label of one of them, so that
/// without zones nodes would not count either.
fn apart(owner: &Owner<'_>, weight: u8, topology: &str) -> Value {
    json!({ "weight": weight, "podAffinityTerm": {
        "topologyKey": topology, "labelSelector": { "matchLabels": selector(owner) },
    } })
}

fn container(owner: &Owner<'_>, common: &Common) -> Value {
    let of_pod = |field: &str| json!({ "fieldRef": { "fieldPath": field } });
    json!({
        "name": "waypoint",
        "image": common.image,
        "imagePullPolicy": common.image_pull_policy,
        "args": ["run"],
        "env": [
            { "name": "AMBIT_NAMESPACE", "value": owner.namespace },
            { "name": "AMBIT_GATEWAY", "value": owner.name },
            { "name": "AMBIT_SERVICE_ACCOUNT", "value": owner.name },
            { "name": "AMBIT_POD_NAME", "valueFrom": of_pod("metadata.name") },
            { "name": "AMBIT_XDS_ADDRESS", "value": common.xds_address },
            { "name": "AMBIT_XDS_ROOT_FILE", "value": "/var/run/secrets/ambit-root/root-cert.pem" },
            { "name": "AMBIT_STATE_DIR", "value": STATE },
            { "name": "AMBIT_TOKEN_FILE", "value": "/var/run/secrets/ambit/token" },
            { "name": "AMBIT_TRUST_DOMAIN", "value": common.trust_domain },
            { "name": "AMBIT_CLUSTER_ID", "value": common.cluster_id },
            { "name": "AMBIT_DRAIN_TIMEOUT", "value": format!("{DRAIN_SECONDS}s") },
        ],
        "ports": [
            { "name": "hbone", "containerPort": HBONE_PORT },
            { "name": "metrics", "containerPort": METRICS_PORT },
            { "name": "readiness", "containerPort": READINESS_PORT },
        ],
        "readinessProbe": {
            "httpGet": { "path": "/healthz/ready", "port": "readiness" },
            "periodSeconds": 2,
            "failureThreshold": 3,
        },
        "resources": {
            "requests": { "cpu": "100m", "memory": "64Mi" },
            "limits": { "memory": "1Gi" },
        },
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"] },
        },
        "volumeMounts": [
            { "name": "state", "mountPath": STATE },
            { "name": "root", "mountPath": "/var/run/secrets/ambit-root", "readOnly": true },
            { "name": "token", "mountPath": "/var/run/secrets/ambit", "readOnly": true },
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> Gateway {
        serde_json::from_value(json!({
            "metadata": {"name": "waypoint", "namespace": "shop"},
            "spec": {
                "gatewayClassName": "ambit-waypoint",
                "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
                "infrastructure": {"labels": {"team": "shop", GATEWAY_NAME: "another"}, "annotations": {"a": "b"}},
            },
        }))
        .unwrap()
    }

    fn common() -> Common {
        Common {
            image: "registry/waypoint:1".to_owned(),
            image_pull_policy: "IfNotPresent".to_owned(),
            xds_address: "https://control.ambit-system.svc:15012".to_owned(),
            token_audience: "ambit-ca".to_owned(),
            trust_domain: "cluster.local".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
        }
    }

    #[test]
    fn the_gateway_owns_the_waypoint_and_this_the_rest() {
        let owner = Owner { namespace: "shop", name: "waypoint", uid: "g-1" };
        let waypoint = waypoint(&owner, &common());
        let by_gateway = json!([{
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "waypoint", "uid": "g-1",
            "controller": true,
        }]);
        assert_eq!(waypoint["metadata"]["ownerReferences"], by_gateway);
        assert_eq!(
            (&waypoint["kind"], &waypoint["spec"]["gateway"]),
            (&json!("Waypoint"), &json!("waypoint"))
        );
    }

    #[test]
    fn everything_has_one_owner_and_is_found_by_the_gateways_name() {
        let owner = Owner { namespace: "shop", name: "waypoint", uid: "u-1" };
        for part in Part::ALL {
            let object = part.object(&owner, &gateway(), &common(), "PEM");
            let metadata = &object["metadata"];
            let by_waypoint = json!([{
                "apiVersion": "deploy.ambit.dev/v1alpha1", "kind": "Waypoint", "name": "waypoint", "uid": "u-1",
                "controller": true,
            }]);
            assert_eq!(metadata["ownerReferences"], by_waypoint, "{part:?}: or garbage collection takes it");
            assert_eq!(metadata["labels"]["team"], "shop", "{part:?}");
            assert_eq!(
                metadata["labels"][GATEWAY_NAME], "waypoint",
                "{part:?}: who selects is not the user's"
            );
            assert_eq!(metadata["annotations"]["a"], "b", "{part:?}");
        }
    }

    #[test]
    fn pods_pass_the_restricted_profile_and_replicas_are_set_once() {
        let owner = Owner { namespace: "shop", name: "waypoint", uid: "u-1" };
        let deployment = Part::Deployment.object(&owner, &gateway(), &common(), "PEM");
        assert_eq!(deployment["spec"].get("replicas"), None, "or scaling would be undone");
        assert_eq!(Part::Deployment.once().unwrap()["spec"]["replicas"], 2);
        let pod = &deployment["spec"]["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["capabilities"], json!({"drop": ["ALL"]}));
        assert_eq!(deployment["spec"]["template"]["metadata"]["labels"]["istio.io/dataplane-mode"], "none");
    }

    #[test]
    fn replicas_keep_away_from_each_other_whether_nodes_have_zones_or_not() {
        let owner = Owner { namespace: "shop", name: "waypoint", uid: "u-1" };
        let deployment = Part::Deployment.object(&owner, &gateway(), &common(), "PEM");
        let (template, selector) = (&deployment["spec"]["template"], &deployment["spec"]["selector"]);
        let apart = &template["spec"]["affinity"]["podAntiAffinity"];
        let terms = apart["preferredDuringSchedulingIgnoredDuringExecution"].as_array().unwrap();
        let over: Vec<_> = terms.iter().map(|term| &term["podAffinityTerm"]["topologyKey"]).collect();
        assert_eq!(over, ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
        assert!(terms.iter().all(|term| term["podAffinityTerm"]["labelSelector"] == *selector));
        assert_eq!(template["spec"].get("topologySpreadConstraints"), None);
    }

    #[test]
    fn what_is_merged_is_added() {
        let mut object = json!({"spec": {"a": 1, "b": {"c": 2}}});
        merge(&mut object, json!({"spec": {"b": {"d": 3}, "e": 4}}));
        assert_eq!(object, json!({"spec": {"a": 1, "b": {"c": 2, "d": 3}, "e": 4}}));
    }
}
