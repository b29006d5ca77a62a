//! Label selectors of policies.

use serde::Deserialize;

use super::Body;
use super::meta::StringMap;
use super::values::null_is_default;

/// `selector` of a policy (`istio.type.v1beta1.WorkloadSelector`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Raw")]
pub struct Selector {
    /// All of them must be on the workload. Empty selects every workload in scope.
    pub match_labels: StringMap,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    #[serde(default, deserialize_with = "null_is_default")]
    match_labels: StringMap,
}

impl TryFrom<Raw> for Selector {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        for (key, value) in &raw.match_labels {
            if key.is_empty() {
                return Err("spec.selector.matchLabels: key must not be empty".to_owned());
            }
            if key.contains('*') || value.contains('*') {
                return Err(format!("spec.selector.matchLabels: wildcard not allowed in {key}: {value}"));
            }
        }
        Ok(Self { match_labels: raw.match_labels })
    }
}

impl Selector {
    /// Whether it leaves nothing out.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty()
    }

    /// Whether a workload with these labels is selected.
    pub fn matches(&self, labels: &StringMap) -> bool {
        includes(labels, &self.match_labels)
    }
}

/// What a policy selects, read past everything else that may be wrong with it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Selection {
    /// The selector.
    #[serde(deserialize_with = "null_is_default")]
    pub selector: Selector,
    /// Objects it is attached to.
    #[serde(deserialize_with = "null_is_default")]
    pub target_refs: Vec<TargetRef>,
}

/// An object that a policy is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetRef {
    /// The API group; empty for the core group.
    #[serde(default, deserialize_with = "null_is_default")]
    pub group: String,
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The namespace; only the policy's own is allowed.
    #[serde(default)]
    pub namespace: Option<String>,
}

impl Selection {
    /// What a broken policy selects. Where that cannot be read either it selects everything in
    /// its scope: what is unknown is closed.
    pub fn of(body: Option<Body<'_>>) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Document {
            #[serde(deserialize_with = "null_is_default")]
            spec: Selection,
        }
        body.and_then(|body| body.read::<Document>().ok()).unwrap_or_default().spec
    }
}

/// Whether all of `wanted` are among `labels`.
pub fn includes(labels: &StringMap, wanted: &StringMap) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
