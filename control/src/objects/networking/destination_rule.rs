//! `networking.istio.io` DestinationRule: named parts of a service's endpoints.

use serde::Deserialize;

use crate::objects::meta::{Meta, StringMap};
use crate::objects::values::null_is_default;

/// What holds for requests to a service once they are routed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct DestinationRule {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Spec,
}

/// `spec` of a DestinationRule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The service.
    #[serde(deserialize_with = "null_is_default")]
    pub host: String,
    /// Parts of its endpoints.
    #[serde(deserialize_with = "null_is_default")]
    pub subsets: Vec<Subset>,
    /// Where it counts.
    #[serde(deserialize_with = "null_is_default")]
    pub export_to: Vec<String>,
    /// What is not carried out yet.
    pub traffic_policy: Option<serde_json::Value>,
    /// Clients that it is for, which a waypoint does not tell apart.
    pub workload_selector: Option<serde_json::Value>,
}

/// A part of a service's endpoints.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Subset {
    /// Its name.
    pub name: String,
    /// All of them must be on the workload.
    #[serde(default, deserialize_with = "null_is_default")]
    pub labels: StringMap,
    /// What is not carried out yet.
    #[serde(default)]
    pub traffic_policy: Option<serde_json::Value>,
}

impl Spec {
    /// The parts of every `trafficPolicy`, none of which is carried out yet, by their paths.
    pub fn left_out(&self) -> Vec<String> {
        let subsets = self
            .subsets
            .iter()
            .enumerate()
            .map(|(at, subset)| (format!("subsets[{at}].trafficPolicy"), subset.traffic_policy.as_ref()));
        let all = std::iter::once(("trafficPolicy".to_owned(), self.traffic_policy.as_ref())).chain(subsets);
        let parts = |(path, policy): (String, Option<&serde_json::Value>)| -> Vec<String> {
            let keys =
                policy.and_then(serde_json::Value::as_object).into_iter().flat_map(|policy| policy.keys());
            keys.map(|key| format!("{path}.{key}")).collect()
        };
        all.flat_map(parts).collect()
    }
}
