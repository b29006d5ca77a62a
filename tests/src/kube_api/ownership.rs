//! `metadata.managedFields`: which manager owns which field.
//!
//! Simplified: a map is never owned as such, only what is in it, and the elements of built-in lists that
//! are merged are those of a short table.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::kinds::{Origin, Resource};
use super::objects::{Part, fields, metadata};

/// One step into an object, written as in `fieldsV1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Field(String),
    /// The element of a list with these keys, whose values are written as JSON.
    Key(BTreeMap<String, String>),
    /// The element of a set.
    Element(String),
}

pub(super) type Path = Vec<Step>;
pub(super) type Paths = BTreeSet<Path>;

/// How a list is merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ListKind {
    /// As a whole.
    Atomic,
    Set,
    /// Element by element, told apart by these fields.
    Map(Vec<String>),
}

/// How the list at a path is merged.
pub(super) fn list_kind(resource: &Resource, path: &[Step]) -> ListKind {
    let map = |keys: &[&str]| ListKind::Map(keys.iter().map(|key| (*key).to_owned()).collect());
    let names: Vec<&str> = path
        .iter()
        .map(|step| match step {
            Step::Field(name) => name.as_str(),
            Step::Key(_) | Step::Element(_) => "*",
        })
        .collect();
    match (names.as_slice(), &resource.origin) {
        (["metadata", "ownerReferences"], _) => map(&["uid"]),
        (["metadata", "finalizers"], _) => ListKind::Set,
        (_, Origin::Custom(schema)) => kind_in_schema(schema, &names),
        (["status", "conditions"], Origin::BuiltIn) => map(&["type"]),
        (["status", "podIPs"], Origin::BuiltIn) => map(&["ip"]),
        (["spec", "containers"], Origin::BuiltIn)
        | (["spec", "template", "spec", "containers"], Origin::BuiltIn) => map(&["name"]),
        (["spec", "ports"], Origin::BuiltIn) => map(&["port", "protocol"]),
        (_, Origin::BuiltIn) => ListKind::Atomic,
    }
}

fn kind_in_schema(schema: &Value, names: &[&str]) -> ListKind {
    let found = names.iter().fold(schema, |schema, name| match *name {
        "*" => &schema["items"],
        name if schema["properties"][name].is_object() => &schema["properties"][name],
        _ => &schema["additionalProperties"],
    });
    match found["x-kubernetes-list-type"].as_str() {
        Some("map") => {
            let keys = found["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
            ListKind::Map(keys.filter_map(|key| Some(key.as_str()?.to_owned())).collect())
        }
        Some("set") => ListKind::Set,
        Some(_) | None => ListKind::Atomic,
    }
}

/// The fields of an object that somebody can own, below one endpoint.
pub(super) fn owned(resource: &Resource, object: &Value, part: Part) -> Paths {
    let mut paths = Paths::new();
    collect(resource, &strip(resource, object, part), &mut Vec::new(), &mut paths);
    paths
}

/// What of a body an endpoint writes, without the fields that identify the object.
pub(super) fn strip(resource: &Resource, object: &Value, part: Part) -> Value {
    if part == Part::Status {
        return match object.get("status") {
            Some(status) => json!({"status": status}),
            None => json!({}),
        };
    }
    let mut object = object.clone();
    if resource.has_status {
        fields(&mut object).remove("status");
    }
    for field in ["apiVersion", "kind"] {
        fields(&mut object).remove(field);
    }
    metadata(&mut object).retain(|field, _| {
        ["labels", "annotations", "finalizers", "ownerReferences"].contains(&field.as_str())
    });
    object
}

fn collect(resource: &Resource, value: &Value, path: &mut Path, paths: &mut Paths) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                path.push(Step::Field(name.clone()));
                collect(resource, value, path, paths);
                path.pop();
            }
        }
        Value::Array(elements) => {
            let kind = list_kind(resource, path);
            if kind == ListKind::Atomic {
                paths.insert(path.clone());
                return;
            }
            for element in elements {
                let Some(step) = step_to(&kind, element) else { continue };
                path.push(step);
                paths.insert(path.clone());
                if element.is_object() {
                    collect(resource, element, path, paths);
                }
                path.pop();
            }
        }
        // `metadata: {}` owns nothing.
        Value::Object(_) if path.as_slice() == [Step::Field("metadata".into())] || path.is_empty() => {}
        Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            paths.insert(path.clone());
        }
    }
}

/// The step that leads to an element of a list that is merged.
pub(super) fn step_to(kind: &ListKind, element: &Value) -> Option<Step> {
    match kind {
        ListKind::Atomic => None,
        ListKind::Set => Some(Step::Element(element.to_string())),
        ListKind::Map(keys) => Some(Step::Key(
            keys.iter().filter_map(|key| Some((key.clone(), element.get(key)?.to_string()))).collect(),
        )),
    }
}

/// The value at a path.
pub(super) fn value_at<'a>(object: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| match step {
        Step::Field(name) => value.get(name),
        Step::Key(_) | Step::Element(_) => value.as_array()?.iter().find(|element| is_at(element, step)),
    })
}

/// Whether a step leads to this element.
pub(super) fn is_at(element: &Value, step: &Step) -> bool {
    match step {
        Step::Field(_) => false,
        Step::Key(keys) => {
            keys.iter().all(|(key, value)| element.get(key).is_some_and(|own| text_of(own) == *value))
        }
        Step::Element(text) => text_of(element) == *text,
    }
}

fn text_of(value: &Value) -> String {
    value.to_string()
}

/// The paths as `fieldsV1` writes them.
pub(super) fn to_fields_v1(paths: &Paths) -> Value {
    let mut root = json!({});
    for path in paths {
        let node = path.iter().fold(&mut root, |node, step| {
            let name = match step {
                Step::Field(name) => format!("f:{name}"),
                Step::Key(keys) => format!("k:{}", key_text(keys)),
                Step::Element(text) => format!("v:{text}"),
            };
            fields(node).entry(name).or_insert_with(|| json!({}))
        });
        // An element owned as such, beside what is in it.
        if !matches!(path.last(), Some(Step::Field(_)) | None) {
            fields(node).insert(".".into(), json!({}));
        }
    }
    root
}

fn key_text(keys: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = keys.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    format!("{{{}}}", pairs.join(","))
}

fn read_key(text: &str) -> BTreeMap<String, String> {
    let keys: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
    keys.into_iter().map(|(key, value)| (key, value.to_string())).collect()
}

/// What `fieldsV1` says.
pub(super) fn from_fields_v1(value: &Value) -> Paths {
    let mut paths = Paths::new();
    read_fields(value, &mut Vec::new(), &mut paths);
    paths
}

fn read_fields(value: &Value, path: &mut Path, paths: &mut Paths) {
    let children = value.as_object().into_iter().flatten();
    let mut is_leaf = true;
    for (name, value) in children {
        is_leaf = false;
        let step = match name.split_at_checked(2) {
            Some(("f:", name)) => Step::Field(name.into()),
            Some(("v:", text)) => Step::Element(text.into()),
            Some(("k:", keys)) => Step::Key(read_key(keys)),
            Some(_) | None => {
                paths.insert(path.clone());
                continue;
            }
        };
        path.push(step);
        read_fields(value, path, paths);
        path.pop();
    }
    if is_leaf && !path.is_empty() {
        paths.insert(path.clone());
    }
}

/// A path as error messages write it: `.status.conditions[type="Ready"].status`.
pub(super) fn describe(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Field(name) => format!("{text}.{name}"),
        Step::Key(keys) => {
            let keys: Vec<String> = keys.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("{text}[{}]", keys.join(","))
        }
        Step::Element(element) => format!("{text}[={element}]"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::kinds::built_in;

    #[test]
    fn fields_are_written_and_read() {
        let services = built_in().find(|resource| resource.is("", "services")).unwrap();
        let service = json!({
            "metadata": {"name": "a", "labels": {"x": "y"}, "finalizers": ["a/b"]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        let status = owned(&services, &service, Part::Status);
        let written = to_fields_v1(&status);
        let of_ready = json!({".": {}, "f:status": {}, "f:type": {}});
        assert_eq!(written, json!({"f:status": {"f:conditions": {r#"k:{"type":"Ready"}"#: of_ready}}}));
        assert_eq!(from_fields_v1(&written), status);
        let main = to_fields_v1(&owned(&services, &service, Part::Main));
        let finalizers = json!({r#"v:"a/b""#: {".": {}}});
        assert_eq!(main, json!({"f:metadata": {"f:labels": {"f:x": {}}, "f:finalizers": finalizers}}));
    }
}
