//! What a Gateway's `infrastructure.parametersRef` changes about its waypoint. Pure.
//!
//! The ConfigMap has a patch for each kind of object, under the keys that Istio gives them. Patches are merged as
//! `kubectl patch --type=strategic` would: object by object, and lists whose items have a name item by item.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::desired::{GATEWAY_NAME, Part, merge};
use crate::source::yaml;

/// What is changed about each kind of object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patches(BTreeMap<Part, Value>);

/// By these an item of a list is known.
const KEYS: [&str; 4] = ["name", "mountPath", "topologyKey", "port"];

/// What is set to take an item away.
const DIRECTIVE: &str = "$patch";

impl Patches {
    /// Reads `data` of the ConfigMap.
    ///
    /// # Errors
    /// With the key that is unknown, or whose patch is none.
    pub fn read(data: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut patches = BTreeMap::new();
        for (key, text) in data {
            let part = Part::ALL.into_iter().find(|part| self::key(*part) == Some(key));
            let part = part.ok_or_else(|| {
                let known: Vec<_> = Part::ALL.into_iter().filter_map(self::key).collect();
                format!("key {key:?} is not read: there are {}", known.join(", "))
            })?;
            let patch: Value = yaml::read(text).map_err(|error| format!("{key}: {error}"))?;
            if !patch.is_object() {
                return Err(format!("{key}: a patch is an object, as the object itself is written"));
            }
            patches.insert(part, patch);
        }
        Ok(Self(patches))
    }

    /// Changes an object. Who it is, whose it is, and by what its pods are found stays.
    pub fn apply(&self, part: Part, object: &mut Value) {
        let Some(patch) = self.0.get(&part) else { return };
        let kept = kept(part, object);
        strategic(object, patch);
        merge(object, kept);
    }
}

/// The key of a kind's patch; the roots are nobody's to change.
fn key(part: Part) -> Option<&'static str> {
    match part {
        Part::ServiceAccount => Some("serviceAccount"),
        Part::ConfigMap => None,
        Part::Service => Some("service"),
        Part::PodDisruptionBudget => Some("podDisruptionBudget"),
        Part::Deployment => Some("deployment"),
    }
}

/// What no patch changes.
fn kept(part: Part, object: &Value) -> Value {
    let mut kept = Value::Object(Map::new());
    let mut keep = |pointer: &[&str]| {
        let found = pointer.iter().try_fold(object, |at, key| at.get(key));
        if let Some(found) = found {
            let nested = pointer.iter().rev().fold(found.clone(), |value, key| {
                Value::Object(Map::from_iter([((*key).to_owned(), value)]))
            });
            merge(&mut kept, nested);
        }
    };
    keep(&["apiVersion"]);
    keep(&["kind"]);
    for field in ["name", "namespace", "ownerReferences"] {
        keep(&["metadata", field]);
    }
    keep(&["metadata", "labels", GATEWAY_NAME]);
    match part {
        Part::Deployment => {
            keep(&["spec", "selector"]);
            keep(&["spec", "template", "metadata", "labels", GATEWAY_NAME]);
            keep(&["spec", "template", "spec", "serviceAccountName"]);
        }
        Part::Service | Part::PodDisruptionBudget => keep(&["spec", "selector"]),
        Part::ServiceAccount | Part::ConfigMap => {}
    }
    kept
}

fn strategic(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(key);
                } else {
                    strategic(into.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (Value::Array(into), Value::Array(patch)) if let Some(key) = key_of(into, patch) => {
            patch.iter().for_each(|item| merge_item(into, item, key));
        }
        (into, patch) => *into = patch.clone(),
    }
}

/// The key by which both lists' items are known, if there is one.
fn key_of(into: &[Value], patch: &[Value]) -> Option<&'static str> {
    let mut items = into.iter().chain(patch).peekable();
    items.peek()?;
    let items: Vec<&Value> = items.collect();
    KEYS.into_iter().find(|key| items.iter().all(|item| item.get(key).is_some()))
}

fn merge_item(into: &mut Vec<Value>, item: &Value, key: &str) {
    let place = into.iter().position(|there| there[key] == item[key]);
    let is_deletion = item[DIRECTIVE] == "delete";
    match place {
        Some(place) if is_deletion => drop(into.remove(place)),
        Some(place) => strategic(&mut into[place], item),
        None if is_deletion => {}
        None => into.push(item.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patches(key: &str, text: &str) -> Result<Patches, String> {
        Patches::read(&[(key.to_owned(), text.to_owned())].into())
    }

    fn deployment() -> Value {
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "waypoint", "namespace": "shop", "labels": {GATEWAY_NAME: "waypoint"}},
            "spec": {
                "selector": {"matchLabels": {GATEWAY_NAME: "waypoint"}},
                "template": {
                    "metadata": {"labels": {GATEWAY_NAME: "waypoint"}},
                    "spec": {
                        "serviceAccountName": "waypoint",
                        "containers": [{"name": "waypoint", "image": "ours", "env": [
                            {"name": "A", "value": "1"}, {"name": "B", "value": "2"},
                        ]}],
                        "volumes": [{"name": "root"}],
                    },
                },
            },
        })
    }

    #[test]
    fn containers_and_their_variables_are_merged_by_name() {
        let patch = "
spec:
  replicas: 3
  template:
    spec:
      nodeSelector: {disk: ssd}
      tolerations: [{operator: Exists}]
      containers:
      - name: waypoint
        resources: {limits: {cpu: '2'}}
        env: [{name: B, value: '3'}, {name: C, value: '4'}, {name: A, $patch: delete}]
      - {name: beside, image: theirs}
";
        let mut object = deployment();
        patches("deployment", patch).unwrap().apply(Part::Deployment, &mut object);
        let pod = &object["spec"]["template"]["spec"];
        assert_eq!(object["spec"]["replicas"], 3);
        assert_eq!(pod["nodeSelector"], json!({"disk": "ssd"}));
        assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
        let [own, beside] = pod["containers"].as_array().unwrap().as_slice() else { panic!("{pod}") };
        assert_eq!((&own["image"], &own["resources"]["limits"]["cpu"]), (&json!("ours"), &json!("2")));
        assert_eq!(own["env"], json!([{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]));
        assert_eq!(beside["image"], "theirs");
    }

    #[test]
    fn who_it_is_and_how_its_pods_are_found_is_not_the_users_to_change() {
        let patch = "
metadata: {name: other, ownerReferences: null, labels: {gateway.networking.k8s.io/gateway-name: other, team: a}}
spec:
  selector: {matchLabels: {gateway.networking.k8s.io/gateway-name: other}}
  template:
    metadata: {labels: null}
    spec: {serviceAccountName: other}
";
        let mut object = deployment();
        patches("deployment", patch).unwrap().apply(Part::Deployment, &mut object);
        assert_eq!(object["metadata"]["name"], "waypoint");
        assert_eq!(object["metadata"]["labels"], json!({GATEWAY_NAME: "waypoint", "team": "a"}));
        assert_eq!(object["spec"]["selector"], deployment()["spec"]["selector"]);
        assert_eq!(object["spec"]["template"]["metadata"]["labels"][GATEWAY_NAME], "waypoint");
        assert_eq!(object["spec"]["template"]["spec"]["serviceAccountName"], "waypoint");
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (key, text, expected) in [
            ("horizontalPodAutoscaler", "{}", "key \"horizontalPodAutoscaler\" is not read: there are "),
            ("deployment", "- a", "deployment: a patch is an object"),
            ("service", "a: [", "service: "),
        ] {
            let error = patches(key, text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
        let mut object = json!({"spec": {"type": "ClusterIP"}});
        patches("service", "spec: {type: NodePort}").unwrap().apply(Part::Service, &mut object);
        assert_eq!(object["spec"]["type"], "NodePort");
    }
}
