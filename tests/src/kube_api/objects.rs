//! What becomes of an object that is created, updated or deleted: the fields that belong to the server,
//! and the wall between `status` and the rest.
//!
//! Defaults are only those that something watches for: phases, cluster IPs, names in labels. Nothing is
//! validated but names, and no object is changed because of another.

use serde_json::{Map, Value, json};

use super::errors::ApiError;
use super::kinds::{CRDS, Resource, established};

/// Which endpoint of an object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The object's own: of kinds with a status, all but that.
    Main,
    /// Its status alone.
    Status,
}

/// Fields of `metadata` that only the server writes.
const OF_THE_SERVER: [&str; 7] = [
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "resourceVersion",
    "managedFields",
];

/// What the clock and the dice say.
#[derive(Clone, Debug)]
pub(super) struct Now {
    /// RFC 3339, in seconds.
    pub(super) time: String,
    pub(super) uid: String,
}

/// The object as it is first stored.
pub(super) fn created(resource: &Resource, mut object: Value, now: &Now) -> Result<Value, ApiError> {
    let given = &object["metadata"]["resourceVersion"];
    if given.as_str().is_some_and(|given| !given.is_empty()) {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let metadata = metadata(&mut object);
    OF_THE_SERVER.iter().for_each(|field| drop(metadata.remove(*field)));
    metadata.insert("uid".into(), now.uid.clone().into());
    metadata.insert("creationTimestamp".into(), now.time.clone().into());
    if resource.has_generation {
        metadata.insert("generation".into(), 1.into());
    }
    // A kubelet registers its node with a status.
    if resource.has_status && !resource.is("", "nodes") {
        fields(&mut object).remove("status");
    }
    complete(resource, &mut object);
    if resource.is("", "pods") {
        object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
    } else if resource.is("", "namespaces") {
        object["spec"]["finalizers"] = json!(["kubernetes"]);
        object["status"] = json!({"phase": "Active"});
    } else if resource.is(CRDS.0, CRDS.1) {
        object["status"] = established(&object, &now.time);
    } else if resource.is("", "services") {
        object["status"] = json!({"loadBalancer": {}});
    }
    Ok(object)
}

/// The object as it is stored in place of `old`.
pub(super) fn updated(resource: &Resource, old: &Value, mut object: Value, part: Part) -> Value {
    if part == Part::Status {
        let status = object["status"].take();
        let mut object = old.clone();
        set(&mut object, "status", status);
        return object;
    }
    let metadata = metadata(&mut object);
    for field in OF_THE_SERVER {
        match old["metadata"].get(field) {
            Some(kept) => metadata.insert(field.into(), kept.clone()),
            None => metadata.remove(field),
        };
    }
    if resource.has_status {
        set(&mut object, "status", old["status"].clone());
    }
    if resource.is("", "services") {
        for field in ["clusterIP", "clusterIPs"] {
            if object["spec"][field].is_null() {
                object["spec"][field] = old["spec"][field].clone();
            }
        }
    }
    complete(resource, &mut object);
    if resource.has_generation && wanted(resource, &object) != wanted(resource, old) {
        count_generation(&mut object);
    }
    object
}

/// What `generation` counts changes of.
fn wanted(resource: &Resource, object: &Value) -> Value {
    let mut object = object.clone();
    fields(&mut object).remove("metadata");
    if resource.has_status {
        fields(&mut object).remove("status");
    }
    object
}

fn count_generation(object: &mut Value) {
    let generation = object["metadata"]["generation"].as_u64().unwrap_or_default();
    object["metadata"]["generation"] = (generation + 1).into();
}

fn complete(resource: &Resource, object: &mut Value) {
    object["apiVersion"] = resource.api_version().into();
    object["kind"] = resource.kind.clone().into();
    if resource.is("", "namespaces") {
        let name = object["metadata"]["name"].clone();
        object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    }
}

/// What a request to delete leads to.
#[derive(Debug, PartialEq)]
pub(super) enum Deletion {
    /// The object is gone.
    Gone,
    /// It stays, marked, until its finalizers are removed or the kubelet says that the pod has ended.
    Marked(Value),
}

/// `seconds` is the grace period that the request asks for.
pub(super) fn deletion(resource: &Resource, old: &Value, seconds: Option<u64>, now: &Now) -> Deletion {
    let grace = if resource.is("", "pods") { grace_of_pod(old, seconds) } else { 0 };
    if grace == 0 && !has_finalizers(old) {
        return Deletion::Gone;
    }
    let mut object = old.clone();
    let metadata = metadata(&mut object);
    metadata.entry("deletionTimestamp").or_insert_with(|| now.time.clone().into());
    metadata.insert("deletionGracePeriodSeconds".into(), grace.into());
    if resource.has_generation && old["metadata"]["deletionTimestamp"].is_null() {
        count_generation(&mut object);
    }
    Deletion::Marked(object)
}

/// A pod that no kubelet runs goes at once.
fn grace_of_pod(pod: &Value, asked: Option<u64>) -> u64 {
    let scheduled = pod["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    let ended = pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
    if !scheduled || ended {
        return 0;
    }
    let of_the_pod = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
    asked.unwrap_or(of_the_pod)
}

/// Whether an object that is marked for deletion goes with this update.
pub(super) fn is_finished(object: &Value) -> bool {
    let marked = !object["metadata"]["deletionTimestamp"].is_null();
    let running = object["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or_default() > 0;
    marked && !running && !has_finalizers(object)
}

fn has_finalizers(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty())
}

/// JSON merge patch (RFC 7386).
pub(super) fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            fields(target).remove(key);
        } else {
            merge_patch(fields(target).entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The value as an object, which it becomes if it is none.
pub(super) fn fields(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it has just become one")
}

pub(super) fn metadata(object: &mut Value) -> &mut Map<String, Value> {
    fields(fields(object).entry("metadata").or_insert(Value::Null))
}

/// Sets a field, or removes it where there is no value.
pub(super) fn set(object: &mut Value, field: &str, value: Value) {
    match value {
        Value::Null => drop(fields(object).remove(field)),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            fields(object).insert(field.into(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::kinds::built_in;

    fn pods() -> Resource {
        built_in().find(|resource| resource.is("", "pods")).unwrap()
    }

    fn now() -> Now {
        Now { time: "2026-01-01T00:00:00Z".into(), uid: "u".into() }
    }

    #[test]
    fn each_endpoint_writes_its_own_part() {
        let pod =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let pod = created(&pods(), pod, &now()).unwrap();
        assert_eq!(pod["status"]["phase"], "Pending");
        let both =
            json!({"metadata": {"name": "a"}, "spec": {"nodeName": "m"}, "status": {"phase": "Failed"}});
        let main = updated(&pods(), &pod, both.clone(), Part::Main);
        assert_eq!((&main["spec"]["nodeName"], &main["status"]["phase"]), (&json!("m"), &json!("Pending")));
        assert_eq!(main["metadata"]["generation"], 2);
        let status = updated(&pods(), &pod, both, Part::Status);
        assert_eq!(
            (&status["spec"]["nodeName"], &status["status"]["phase"]),
            (&json!("n"), &json!("Failed"))
        );
        assert_eq!(status["metadata"]["generation"], 1);
    }

    #[test]
    fn a_pod_on_a_node_ends_when_the_kubelet_says_so() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"nodeName": "n"}});
        let Deletion::Marked(marked) = deletion(&pods(), &pod, None, &now()) else { panic!("it is gone") };
        assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
        assert!(!is_finished(&marked));
        assert_eq!(deletion(&pods(), &marked, Some(0), &now()), Deletion::Gone);
        assert_eq!(deletion(&pods(), &json!({"metadata": {"name": "a"}}), None, &now()), Deletion::Gone);
        let kept = json!({"metadata": {"name": "a", "finalizers": ["x/y"]}});
        let Deletion::Marked(mut kept) = deletion(&pods(), &kept, Some(0), &now()) else {
            panic!("it is gone")
        };
        assert!(!is_finished(&kept));
        merge_patch(&mut kept, &json!({"metadata": {"finalizers": null}}));
        assert!(is_finished(&kept));
    }
}
