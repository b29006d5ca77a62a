//! `v1` Service, as far as it is used.

use std::net::IpAddr;

use serde::Deserialize;

use super::meta::{Meta, StringMap};
use super::networking::service_entry::EntryHost;
use super::values::{Protocol, TargetPort, null_is_default};

/// A service.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Service {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: ServiceSpec,
    /// Of a service that a ServiceEntry stands for.
    #[serde(skip)]
    pub entry: Option<EntryHost>,
    /// What is said of it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub status: ServiceStatus,
}

/// `status` of a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ServiceStatus {
    /// Which conditions there are.
    #[serde(deserialize_with = "null_is_default")]
    pub conditions: Vec<ServiceCondition>,
}

/// That there is a condition; what it says is not used.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServiceCondition {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
}

/// `spec` of a service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// `ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// The first virtual address.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: ClusterIp,
    /// All virtual addresses.
    #[serde(rename = "clusterIPs", deserialize_with = "null_is_default")]
    pub cluster_ips: Vec<ClusterIp>,
    /// Address families.
    #[serde(deserialize_with = "null_is_default")]
    pub ip_families: Vec<IpFamily>,
    /// Labels of the pods behind it; empty when endpoints are given otherwise.
    #[serde(deserialize_with = "null_is_default")]
    pub selector: StringMap,
    /// Ports.
    #[serde(deserialize_with = "null_is_default")]
    pub ports: Vec<ServicePort>,
    /// `Cluster` or `Local`.
    pub internal_traffic_policy: Option<String>,
    /// `PreferClose`, `PreferSameZone` or `PreferSameNode`.
    pub traffic_distribution: Option<String>,
    /// Whether pods that are not ready take traffic too.
    #[serde(deserialize_with = "null_is_default")]
    pub publish_not_ready_addresses: bool,
}

/// A virtual address of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Option<String>")]
pub enum ClusterIp {
    /// None was assigned.
    #[default]
    Unassigned,
    /// `None`: the service is headless on purpose.
    Headless,
    /// An address.
    Address(IpAddr),
}

impl TryFrom<Option<String>> for ClusterIp {
    type Error = String;

    fn try_from(text: Option<String>) -> Result<Self, Self::Error> {
        match text.as_deref() {
            None | Some("") => Ok(Self::Unassigned),
            Some("None") => Ok(Self::Headless),
            Some(text) => text.parse().map(|ip: IpAddr| Self::Address(ip.to_canonical())).map_err(|_| {
                format!("spec.clusterIPs: Invalid value: {text:?}: must be a valid IP address, or 'None'")
            }),
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum IpFamily {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// One port of a service.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePort {
    /// The port's name; may be missing when there is only one.
    #[serde(default, deserialize_with = "null_is_default")]
    pub name: String,
    /// The port that clients use.
    pub port: u16,
    /// The port of the pod; the same as `port` when missing.
    #[serde(default)]
    pub target_port: Option<TargetPort>,
    /// The transport protocol.
    #[serde(default)]
    pub protocol: Protocol,
    /// The application protocol.
    #[serde(default)]
    pub app_protocol: Option<String>,
}

impl Service {
    /// Its virtual addresses, each once.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let mut addresses = Vec::new();
        for cluster_ip in std::iter::once(&self.spec.cluster_ip).chain(&self.spec.cluster_ips) {
            if let ClusterIp::Address(ip) = cluster_ip
                && !addresses.contains(ip)
            {
                addresses.push(*ip);
            }
        }
        addresses
    }

    /// Whether its status says anything of this type.
    pub fn has_condition(&self, kind: &str) -> bool {
        self.status.conditions.iter().any(|condition| condition.kind == kind)
    }

    /// Its TCP ports; others are outside the mesh.
    pub fn tcp_ports(&self) -> impl Iterator<Item = &ServicePort> {
        self.spec.ports.iter().filter(|port| port.protocol == Protocol::Tcp)
    }
}
