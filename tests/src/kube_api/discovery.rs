//! What the server says it serves.

use serde_json::{Value, json};

use super::errors::ApiError;
use super::kinds::Resource;

/// Kinds that answer a question and store nothing: group, plural, kind. All are of version v1.
pub(super) const REVIEWS: [(&str, &str, &str); 2] = [
    ("authentication.k8s.io", "tokenreviews", "TokenReview"),
    ("authentication.k8s.io", "selfsubjectreviews", "SelfSubjectReview"),
];

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The document at a path, if that is one of discovery.
pub(super) fn document(segments: &[&str], resources: &[&Resource]) -> Option<Result<Value, ApiError>> {
    Some(match *segments {
        ["version"] => Ok(version()),
        ["healthz" | "livez" | "readyz", ..] => Ok("ok".into()),
        ["api"] => Ok(json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})),
        ["api", version] => kinds("", version, resources),
        ["apis"] => Ok(groups(resources)),
        ["apis", name] => group(name, resources).ok_or_else(ApiError::no_such_path),
        ["apis", group, version] => kinds(group, version, resources),
        _ => return None,
    })
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": "v1.36.0-double", "gitCommit": "", "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
    })
}

fn groups(resources: &[&Resource]) -> Value {
    let mut names: Vec<&str> = resources.iter().map(|resource| resource.id.group.as_str()).collect();
    names.extend(REVIEWS.map(|(group, _, _)| group));
    names.sort_unstable();
    names.dedup();
    let groups: Vec<Value> = names
        .into_iter()
        .filter(|name| !name.is_empty())
        .filter_map(|name| {
            let mut group = group(name, resources)?;
            let fields = group.as_object_mut()?;
            fields.remove("kind");
            fields.remove("apiVersion");
            Some(group)
        })
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(name: &str, resources: &[&Resource]) -> Option<Value> {
    let of_group = resources.iter().filter(|resource| resource.id.group == name);
    let mut versions: Vec<&str> = of_group.map(|resource| resource.version.as_str()).collect();
    if REVIEWS.iter().any(|(group, _, _)| *group == name) {
        versions.push("v1");
    }
    versions.sort_unstable();
    versions.dedup();
    let named = |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    let preferred = named(versions.first()?);
    let versions: Vec<Value> = versions.into_iter().map(named).collect();
    Some(json!({
        "kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": versions,
        "preferredVersion": preferred,
    }))
}

fn kinds(group: &str, version: &str, resources: &[&Resource]) -> Result<Value, ApiError> {
    let mut list = Vec::new();
    for resource in resources.iter().filter(|one| one.id.group == group && one.version == version) {
        let mut entry = json!({
            "name": resource.id.plural, "singularName": resource.kind.to_lowercase(),
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": VERBS,
        });
        list.push(entry.clone());
        if resource.has_status {
            entry["name"] = format!("{}/status", resource.id.plural).into();
            entry["verbs"] = json!(["get", "patch", "update"]);
            list.push(entry);
        }
    }
    for (_, plural, kind) in REVIEWS.iter().filter(|(of, _, _)| *of == group && version == "v1") {
        list.push(json!({
            "name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind,
            "verbs": ["create"],
        }));
    }
    if list.is_empty() {
        return Err(ApiError::no_such_path());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list,
    }))
}
