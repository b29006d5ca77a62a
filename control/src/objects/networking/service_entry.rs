//! `networking.istio.io` ServiceEntry: hosts that the mesh is told of.
//!
//! It is read as what it stands for: a service for each host, and slices of its endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Deserialize;

use crate::objects::endpoint_slice::{AddressType, Conditions, Endpoint, EndpointPort, EndpointSlice};
use crate::objects::meta::{Meta, StringMap};
use crate::objects::service::{ClusterIp, Service, ServicePort, ServiceSpec, ServiceStatus};
use crate::objects::values::{Protocol, TargetPort, null_is_default};

/// Hosts that the mesh is told of.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct ServiceEntry {
    /// Metadata.
    pub metadata: Meta,
    /// One for each host.
    pub services: Vec<Service>,
    /// Where their endpoints are, for each of them.
    pub slices: Vec<EndpointSlice>,
    /// What of it is not carried out, and what that means.
    pub left_out: Vec<String>,
    /// Where it counts.
    pub export_to: Vec<String>,
}

#[derive(Deserialize)]
struct Raw {
    metadata: Meta,
    #[serde(default)]
    spec: RawSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    #[serde(deserialize_with = "null_is_default")]
    hosts: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    ports: Vec<RawPort>,
    #[serde(deserialize_with = "null_is_default")]
    resolution: Resolution,
    #[serde(deserialize_with = "null_is_default")]
    endpoints: Vec<RawEndpoint>,
    workload_selector: Option<RawSelector>,
    #[serde(deserialize_with = "null_is_default")]
    export_to: Vec<String>,
}

/// How endpoints are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Resolution {
    /// They are not: connections go where they were dialled.
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPort {
    number: u16,
    #[serde(default, deserialize_with = "null_is_default")]
    name: String,
    #[serde(default)]
    protocol: Option<String>,
    #[serde(default)]
    target_port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawEndpoint {
    #[serde(deserialize_with = "null_is_default")]
    address: String,
    #[serde(deserialize_with = "null_is_default")]
    ports: BTreeMap<String, u16>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSelector {
    #[serde(deserialize_with = "null_is_default")]
    labels: StringMap,
}

impl TryFrom<Raw> for ServiceEntry {
    type Error = String;

    fn try_from(Raw { metadata, spec }: Raw) -> Result<Self, Self::Error> {
        if spec.hosts.is_empty() {
            return Err("spec.hosts: Invalid value: should have at least 1 items".to_owned());
        }
        if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
            return Err("only one of WorkloadSelector or Endpoints can be set".to_owned());
        }
        let mut left_out = Vec::new();
        let by_name = match spec.resolution {
            Resolution::None | Resolution::Static => false,
            Resolution::Dns | Resolution::DnsRoundRobin | Resolution::DynamicDns => true,
        };
        if by_name {
            left_out.push("resolution by DNS: the entry is left out".to_owned());
        }
        let addresses = addresses(&spec.addresses, &mut left_out);
        let hosts = spec.hosts.iter().filter(|host| {
            if host.contains('*') {
                left_out.push(format!("host {host}: an entry for names by a wildcard is left out"));
            }
            !host.contains('*') && !by_name
        });
        let hosts: Vec<&String> = hosts.collect();
        let service = |host: &&String| service(&metadata, &spec, host, &addresses);
        let services = hosts.iter().map(service).collect();
        let slices =
            spec.endpoints.iter().filter_map(|endpoint| slice(endpoint, &spec, &mut left_out)).collect();
        Ok(Self { services, slices, left_out, export_to: spec.export_to, metadata })
    }
}

fn addresses(written: &[String], left_out: &mut Vec<String>) -> Vec<IpAddr> {
    let address = |text: &String| {
        let whole = text.strip_suffix("/32").or_else(|| text.strip_suffix("/128")).unwrap_or(text);
        let address = whole.parse::<IpAddr>().ok();
        if address.is_none() {
            left_out.push(format!("address {text}: a range of addresses is left out"));
        }
        address.map(|ip| ip.to_canonical())
    };
    written.iter().filter_map(address).collect()
}

fn service(metadata: &Meta, spec: &RawSpec, host: &str, addresses: &[IpAddr]) -> Service {
    let port = |port: &RawPort| ServicePort {
        name: port.name.clone(),
        port: port.number,
        target_port: port.target_port.map(TargetPort::Number),
        protocol: Protocol::Tcp,
        app_protocol: port.protocol.as_deref().map(str::to_ascii_lowercase),
    };
    let is_tcp =
        |port: &&RawPort| !port.protocol.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("udp"));
    Service {
        metadata: metadata.clone(),
        spec: ServiceSpec {
            cluster_ips: addresses.iter().copied().map(ClusterIp::Address).collect(),
            selector: spec.workload_selector.as_ref().map(|by| by.labels.clone()).unwrap_or_default(),
            ports: spec.ports.iter().filter(is_tcp).map(port).collect(),
            ..ServiceSpec::default()
        },
        status: ServiceStatus::default(),
        entry: Some(EntryHost {
            host: host.to_ascii_lowercase().into(),
            is_passed_through: spec.resolution == Resolution::None && spec.workload_selector.is_none(),
        }),
    }
}

/// What makes a service of a ServiceEntry another than that of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryHost {
    /// Its name in the mesh.
    pub host: Arc<str>,
    /// Connections go where they were dialled.
    pub is_passed_through: bool,
}

/// One for each endpoint, whose ports are its own.
fn slice(from: &RawEndpoint, spec: &RawSpec, left_out: &mut Vec<String>) -> Option<EndpointSlice> {
    let Ok(address) = from.address.parse::<IpAddr>() else {
        left_out.push(format!("endpoint {}: only addresses are carried out", from.address));
        return None;
    };
    let port = |port: &RawPort| EndpointPort {
        name: port.name.clone(),
        port: from.ports.get(&port.name).copied().or(port.target_port).or(Some(port.number)),
        protocol: Protocol::Tcp,
    };
    Some(EndpointSlice {
        metadata: Meta::default(),
        address_type: if address.is_ipv4() { AddressType::V4 } else { AddressType::V6 },
        endpoints: vec![Endpoint {
            addresses: vec![address.to_canonical().to_string()],
            conditions: Conditions::default(),
            target_ref: None,
            node_name: None,
        }],
        ports: spec.ports.iter().map(port).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spec: serde_json::Value) -> Result<ServiceEntry, String> {
        let object = serde_json::json!({"metadata": {"name": "e"}, "spec": spec});
        serde_json::from_value(object).map_err(|error| error.to_string())
    }

    #[test]
    fn an_entry_is_a_service_for_each_host_with_its_endpoints() {
        let entry = read(serde_json::json!({
            "hosts": ["a.example", "b.example"],
            "addresses": ["240.0.0.1", "240.0.0.2/32", "10.0.0.0/8"],
            "ports": [
                {"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 8080},
                {"number": 53, "name": "dns", "protocol": "UDP"},
            ],
            "resolution": "STATIC",
            "endpoints": [{"address": "10.1.0.1", "ports": {"http": 9090}}, {"address": "10.1.0.2"}],
        }))
        .unwrap();
        assert_eq!(entry.services.len(), 2);
        let service = &entry.services[0];
        assert_eq!(&*service.entry.as_ref().unwrap().host, "a.example");
        assert_eq!(service.addresses().len(), 2);
        assert_eq!(service.tcp_ports().count(), 1);
        let ports: Vec<_> = entry.slices.iter().map(|slice| slice.ports[0].port).collect();
        assert_eq!(ports, [Some(9090), Some(8080)]);
        assert_eq!(entry.left_out, ["address 10.0.0.0/8: a range of addresses is left out"]);
    }

    #[test]
    fn what_is_not_carried_out_is_said() {
        let entry = read(serde_json::json!({"hosts": ["a.example"], "resolution": "DNS"})).unwrap();
        assert!(entry.services.is_empty() && entry.left_out.len() == 1);
        let entry = read(serde_json::json!({"hosts": ["*.example", "a.example"]})).unwrap();
        assert_eq!((entry.services.len(), entry.left_out.len()), (1, 1));
        assert!(entry.services[0].entry.as_ref().unwrap().is_passed_through);
        assert!(read(serde_json::json!({"hosts": []})).is_err());
    }
}
