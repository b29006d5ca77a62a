//! The metadata that objects have in common.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Deserializer;

use super::values::null_is_default;

/// Labels or annotations.
pub type StringMap = BTreeMap<String, String>;

/// `metadata`, as far as it is used. Name and namespace are in the object's key.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// The object's UID; empty where nobody gave it one.
    #[serde(deserialize_with = "null_is_default")]
    pub uid: String,
    /// Counts the changes of its `spec`; absent where nobody counts.
    pub generation: Option<i64>,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: StringMap,
    /// Annotations, as far as they may mean something to a mesh: others can be large.
    #[serde(deserialize_with = "meant_for_a_mesh")]
    pub annotations: StringMap,
    /// Owners; at most one is the controller.
    #[serde(deserialize_with = "null_is_default")]
    pub owner_references: Vec<OwnerReference>,
    /// When it was created (RFC 3339, which sorts as text when written in UTC).
    pub creation_timestamp: Option<String>,
    /// Set while it is being deleted.
    pub deletion_timestamp: Option<String>,
}

/// One owner of an object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// Whether it is the controller.
    #[serde(deserialize_with = "null_is_default")]
    pub controller: bool,
}

/// `last-applied-configuration` alone is often larger than everything else that is kept of an object.
fn meant_for_a_mesh<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StringMap, D::Error> {
    let mut annotations: StringMap = null_is_default(deserializer)?;
    annotations.retain(|name, _| is_meant_for_a_mesh(name));
    Ok(annotations)
}

/// Ours, Istio's, and the kubelet's about static pods.
fn is_meant_for_a_mesh(annotation: &str) -> bool {
    let domain = annotation.split_once('/').map_or("", |(domain, _)| domain);
    ["ambit.dev", "istio.io"]
        .iter()
        .any(|ours| domain.strip_suffix(ours).is_some_and(|sub| sub.is_empty() || sub.ends_with('.')))
        || annotation.starts_with("kubernetes.io/config.")
}

impl Meta {
    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// An annotation's value.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_that_mean_nothing_to_a_mesh_are_not_kept() {
        let rows = [
            ("ambit.dev/netns", true),
            ("x.ambit.dev/y", true),
            ("istio.io/dry-run", true),
            ("traffic.sidecar.istio.io/excludeInboundPorts", true),
            ("kubernetes.io/config.mirror", true),
            ("kubectl.kubernetes.io/last-applied-configuration", false),
            ("noistio.io/x", false),
            ("istio.io", false),
            ("kubernetes.io/psp", false),
        ];
        let annotations: serde_json::Map<_, _> =
            rows.iter().map(|(name, _)| ((*name).to_owned(), "v".into())).collect();
        let meta = Meta::deserialize(serde_json::json!({"annotations": annotations})).unwrap();
        for (name, is_kept) in rows {
            assert_eq!(meta.annotation(name).is_some(), is_kept, "{name}");
        }
    }
}
