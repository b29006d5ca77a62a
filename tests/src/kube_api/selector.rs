//! Label and field selectors of lists and watches.

use serde_json::Value;

use super::errors::ApiError;
use super::kinds::Resource;

/// What an object must look like to be listed.
#[derive(Clone, Debug, Default)]
pub(super) struct Selector {
    labels: Vec<Requirement>,
    /// A path into the object, a value, and whether it must have it or must not.
    fields: Vec<(Vec<String>, String, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Absent(String),
}

impl Selector {
    pub(super) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, ApiError> {
        Ok(Self { labels: parse_labels(labels)?, fields: parse_fields(resource, fields)? })
    }

    pub(super) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(super) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        let label = |key: &str| labels.get(key).and_then(Value::as_str);
        self.labels.iter().all(|requirement| match requirement {
            Requirement::In(key, values) => {
                label(key).is_some_and(|value| values.iter().any(|one| one == value))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|value| values.iter().all(|one| one != value))
            }
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
        }) && self.fields.iter().all(|(path, wanted, equal)| {
            let value = path.iter().fold(object, |value, field| &value[field.as_str()]);
            (value.as_str().unwrap_or_default() == wanted) == *equal
        })
    }
}

fn parse_labels(text: &str) -> Result<Vec<Requirement>, ApiError> {
    let mut requirements = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let end = end_of_requirement(rest);
        requirements.push(requirement(rest[..end].trim())?);
        rest = rest[end..].trim_start_matches(',').trim();
    }
    Ok(requirements)
}

/// The next comma that is not within parentheses.
fn end_of_requirement(text: &str) -> usize {
    let mut depth = 0;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => return index,
            _ => {}
        }
    }
    text.len()
}

fn requirement(text: &str) -> Result<Requirement, ApiError> {
    let set = |list: &str| -> Option<Vec<String>> {
        let inner = list.trim().strip_prefix('(')?.strip_suffix(')')?;
        Some(inner.split(',').map(|value| value.trim().to_owned()).collect())
    };
    let unreadable = || ApiError::bad_request(format!("unable to parse requirement: {text}"));
    if let Some(key) = text.strip_prefix('!') {
        return Ok(Requirement::Absent(key.trim().into()));
    }
    if let Some((key, list)) = text.split_once(" notin ") {
        return Ok(Requirement::NotIn(key.trim().into(), set(list).ok_or_else(unreadable)?));
    }
    if let Some((key, list)) = text.split_once(" in ") {
        return Ok(Requirement::In(key.trim().into(), set(list).ok_or_else(unreadable)?));
    }
    if let Some((key, value)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(key.trim().into(), vec![value.trim().into()]));
    }
    if let Some((key, value)) = text.split_once('=') {
        let value = value.trim_start_matches('=').trim();
        return Ok(Requirement::In(key.trim().into(), vec![value.into()]));
    }
    Ok(Requirement::Exists(text.into()))
}

/// As the real server: of every kind name and namespace; of pods a few more.
fn parse_fields(resource: &Resource, text: &str) -> Result<Vec<(Vec<String>, String, bool)>, ApiError> {
    let mut fields = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
            (path, value, false)
        } else if let Some((path, value)) = part.split_once('=') {
            (path, value.trim_start_matches('='), true)
        } else {
            return Err(ApiError::bad_request(format!("invalid selector: '{part}'")));
        };
        let of_pods = ["spec.nodeName", "status.phase", "status.podIP", "spec.serviceAccountName"];
        let known = ["metadata.name", "metadata.namespace"].contains(&path)
            || resource.is("", "pods") && of_pods.contains(&path)
            || resource.is("", "secrets") && path == "type";
        if !known {
            return Err(ApiError::bad_request(format!("field label not supported: {path}")));
        }
        fields.push((path.split('.').map(str::to_owned).collect(), value.to_owned(), equal));
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube_api::kinds::built_in;
    use serde_json::json;

    #[test]
    fn selectors_select() {
        let pods = built_in().find(|resource| resource.is("", "pods")).unwrap();
        let pod = json!({
            "metadata": {"name": "web", "labels": {"app": "web", "tier": "front"}},
            "spec": {"nodeName": "n1"},
        });
        for (labels, fields, matches) in [
            ("", "", true),
            ("app=web", "", true),
            ("app==web,tier in (front, back)", "", true),
            ("app!=web", "", false),
            ("tier notin (front),app", "", false),
            ("!canary,app", "", true),
            ("canary", "", false),
            ("", "spec.nodeName=n1", true),
            ("", "spec.nodeName!=n1", false),
            ("", "status.phase!=Failed,metadata.name=web", true),
        ] {
            let selector = Selector::parse(&pods, labels, fields).unwrap();
            assert_eq!(selector.matches(&pod), matches, "{labels} {fields}");
        }
        assert!(Selector::parse(&pods, "", "spec.hostNetwork=true").is_err());
    }
}
