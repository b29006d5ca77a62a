//! `networking.k8s.io` ServiceCIDR: a range that the addresses of Services come from.

use ipnet::IpNet;
use serde::Deserialize;

use super::meta::Meta;
use super::values::{lenient_networks, null_is_default};

/// Ranges of Service addresses.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ServiceCidr {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: ServiceCidrSpec,
}

/// `spec` of a ServiceCIDR.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceCidrSpec {
    /// One for each address family.
    #[serde(deserialize_with = "lenient_networks")]
    pub cidrs: Vec<IpNet>,
}
