//! `v1` Node.

use ipnet::IpNet;
use serde::Deserialize;

use super::meta::Meta;
use super::values::{lenient_networks, null_is_default};

/// A node: it may subscribe, and its labels say where it stands.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Node {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: NodeSpec,
}

/// `spec` of a node.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    /// The ranges that the addresses of its pods come from, one for each address family. Empty where
    /// the network plugin hands out addresses by itself.
    #[serde(rename = "podCIDRs", deserialize_with = "lenient_networks")]
    pub pod_cidrs: Vec<IpNet>,
}
