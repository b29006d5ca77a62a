//! `discovery.k8s.io/v1` EndpointSlice, as far as it is used.

use serde::Deserialize;

use super::meta::Meta;
use super::values::{Protocol, null_is_default};

/// The label that names the service of a slice.
pub const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Some endpoints of a service.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointSlice {
    /// Metadata.
    pub metadata: Meta,
    /// What the addresses are.
    pub address_type: AddressType,
    /// The endpoints.
    #[serde(default, deserialize_with = "null_is_default")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that every endpoint of this slice serves.
    #[serde(default, deserialize_with = "null_is_default")]
    pub ports: Vec<EndpointPort>,
}

/// What the addresses of a slice are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum AddressType {
    /// IPv4 addresses.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6 addresses.
    #[serde(rename = "IPv6")]
    V6,
    /// Host names.
    #[serde(rename = "FQDN")]
    Fqdn,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Its addresses: all of them lead to the same endpoint.
    #[serde(default, deserialize_with = "null_is_default")]
    pub addresses: Vec<String>,
    /// Whether it takes traffic.
    #[serde(default, deserialize_with = "null_is_default")]
    pub conditions: Conditions,
    /// The object behind it.
    #[serde(default)]
    pub target_ref: Option<TargetRef>,
    /// The node it is on.
    #[serde(default)]
    pub node_name: Option<String>,
}

/// Conditions of an endpoint; a missing `ready` means ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Conditions {
    /// Takes traffic: serving and not terminating, or published although it is not ready.
    pub ready: Option<bool>,
}

/// The object behind an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TargetRef {
    /// Its kind.
    pub kind: String,
    /// Its namespace; the slice's own when missing.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its UID; empty where the slice does not tell.
    pub uid: String,
}

/// One port of a slice.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointPort {
    /// The name of the service port.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// The number of the endpoint's port.
    #[serde(default)]
    pub port: Option<u16>,
    /// The transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
}

impl EndpointSlice {
    /// The name of the service whose endpoints these are.
    pub fn service(&self) -> Option<&str> {
        self.metadata.label(SERVICE_NAME_LABEL)
    }
}

impl Endpoint {
    /// Whether it takes traffic.
    pub fn is_ready(&self) -> bool {
        // EndpointConditions: "A nil value should be interpreted as \"true\"."
        self.conditions.ready.unwrap_or(true)
    }
}
