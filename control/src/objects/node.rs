//! `v1` Node.

use serde::Deserialize;

use super::meta::Meta;
use super::values::null_is_default;

/// A node: it may subscribe, its labels say where it stands, and its ranges where its pods are.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Metadata.
    pub metadata: Meta,
    /// What was decided for it.
    #[serde(default)]
    pub spec: NodeSpec,
}

/// `spec` of a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodeSpec {
    /// Where its pods have their addresses, one range for each address family.
    #[serde(rename = "podCIDRs", deserialize_with = "null_is_default")]
    pub pod_cidrs: Vec<String>,
    /// The first of them, which older clusters have alone.
    #[serde(rename = "podCIDR", deserialize_with = "null_is_default")]
    pub pod_cidr: String,
}

impl Node {
    /// Where its pods have their addresses.
    pub fn pod_ranges(&self) -> impl Iterator<Item = &str> {
        let NodeSpec { pod_cidrs, pod_cidr } = &self.spec;
        let first = (pod_cidrs.is_empty() && !pod_cidr.is_empty()).then_some(pod_cidr.as_str());
        pod_cidrs.iter().map(String::as_str).chain(first)
    }
}
