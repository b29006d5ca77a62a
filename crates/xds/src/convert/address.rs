//! Addresses, gateways and the names of services and policies.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_mesh::address::{GatewayAddress, GatewayDestination, Network, NetworkAddress, ServiceName};
use ambit_mesh::http::{RouteKind, RouteName, SubsetName};
use ambit_mesh::policy::PolicyName;
use ambit_proto::istio::workload as proto;
use ambit_proto::istio::workload::gateway_address::Destination;

use super::ports::{self, InvalidPort};

/// Reads an address of four or sixteen octets; an IPv4-mapped one is the IPv4 address.
///
/// # Errors
/// When there is another number of octets.
pub fn ip(octets: &[u8]) -> Result<IpAddr, InvalidAddress> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::from(v4));
    }
    let v6 = <[u8; 16]>::try_from(octets).map_err(|_| InvalidAddress::Octets { count: octets.len() })?;
    Ok(IpAddr::from(v6).to_canonical())
}

/// The octets of an address.
pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Reads an address with its network.
///
/// # Errors
/// When it has no right number of octets, or is a range of addresses.
pub fn network_address(address: &proto::NetworkAddress) -> Result<NetworkAddress, InvalidAddress> {
    let whole = address.address.len() * 8;
    if let Some(length) = address.length
        && usize::try_from(length) != Ok(whole)
    {
        return Err(InvalidAddress::Range { length });
    }
    Ok(NetworkAddress { network: Network(address.network.as_str().into()), ip: ip(&address.address)? })
}

/// Writes an address with its network.
pub fn network_address_to_proto(address: &NetworkAddress) -> proto::NetworkAddress {
    proto::NetworkAddress {
        network: address.network.0.to_string(),
        address: octets(address.ip),
        length: None,
    }
}

/// Reads a waypoint or a network gateway.
///
/// # Errors
/// When it names nothing, or its address or port is impossible.
pub fn gateway(gateway: &proto::GatewayAddress) -> Result<GatewayAddress, InvalidGateway> {
    let destination = match gateway.destination.as_ref().ok_or(InvalidGateway::Destination)? {
        Destination::Hostname(name) => {
            if name.namespace.is_empty() || name.hostname.is_empty() {
                return Err(InvalidGateway::Destination);
            }
            GatewayDestination::Service(ServiceName {
                namespace: name.namespace.as_str().into(),
                hostname: name.hostname.as_str().into(),
            })
        }
        Destination::Address(address) => GatewayDestination::Address(network_address(address)?),
    };
    Ok(GatewayAddress { destination, hbone_mtls_port: ports::port(gateway.hbone_mtls_port)? })
}

/// Writes a waypoint or a network gateway.
pub fn gateway_to_proto(gateway: &GatewayAddress) -> proto::GatewayAddress {
    let destination = match &gateway.destination {
        GatewayDestination::Service(name) => Destination::Hostname(proto::NamespacedHostname {
            namespace: name.namespace.to_string(),
            hostname: name.hostname.to_string(),
        }),
        GatewayDestination::Address(address) => Destination::Address(network_address_to_proto(address)),
    };
    proto::GatewayAddress {
        destination: Some(destination),
        hbone_mtls_port: u32::from(gateway.hbone_mtls_port),
    }
}

/// Reads `<namespace>/<hostname>`.
///
/// # Errors
/// When the text has another form.
pub fn service_name(text: &str) -> Result<ServiceName, InvalidName> {
    let (namespace, hostname) = two_parts(text)?;
    Ok(ServiceName { namespace, hostname })
}

/// Reads `<namespace>/<name>` of a policy.
///
/// # Errors
/// When the text has another form.
pub fn policy_name(text: &str) -> Result<PolicyName, InvalidName> {
    let (namespace, name) = two_parts(text)?;
    Ok(PolicyName { namespace, name })
}

/// Reads `<kind>/<namespace>/<name>` of a route.
///
/// # Errors
/// When the text has another form.
pub fn route_name(text: &str) -> Result<RouteName, InvalidName> {
    let invalid = || InvalidName { text: text.into() };
    let (kind, rest) = text.split_once('/').ok_or_else(invalid)?;
    let (namespace, name) = two_parts(rest)?;
    let kind = RouteKind::ALL.into_iter().find(|known| known.as_str() == kind).ok_or_else(invalid)?;
    Ok(RouteName { kind, namespace, name })
}

/// Reads `<namespace>/<hostname>/<name>` of a subset.
///
/// # Errors
/// When the text has another form.
pub fn subset_name(text: &str) -> Result<SubsetName, InvalidName> {
    let invalid = || InvalidName { text: text.into() };
    let (service, name) = text.rsplit_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(invalid)?;
    Ok(SubsetName { service: service_name(service)?, name: name.into() })
}

fn two_parts(text: &str) -> Result<(Arc<str>, Arc<str>), InvalidName> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.into(), name.into()))
        }
        Some(_) | None => Err(InvalidName { text: text.into() }),
    }
}

/// Why an address cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// Neither IPv4 nor IPv6.
    #[error("an address of {count} octets: 4 or 16 are expected")]
    Octets {
        /// How many there are.
        count: usize,
    },
    /// A range where one address is expected.
    #[error("a range of addresses with prefix length {length}: only single addresses are supported here")]
    Range {
        /// The prefix length.
        length: u32,
    },
}

/// Why a waypoint or a network gateway cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidGateway {
    /// It names neither a service nor an address.
    #[error("it names neither a service nor an address")]
    Destination,
    /// Its address is impossible.
    #[error(transparent)]
    Address(#[from] InvalidAddress),
    /// Its port is impossible.
    #[error(transparent)]
    Port(#[from] InvalidPort),
}

/// Why a text is not a name in a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not of the form <namespace>/<name>")]
pub struct InvalidName {
    /// What was read.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_four_or_sixteen_octets() {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
        assert_eq!(ip(&[10, 0, 0, 1]), Ok("10.0.0.1".parse().unwrap()));
        assert_eq!(ip(&mapped), Ok("10.0.0.1".parse().unwrap()));
        for count in [0, 1, 3, 5, 15, 17] {
            assert_eq!(ip(&vec![1; count]), Err(InvalidAddress::Octets { count }));
        }
    }

    #[test]
    fn a_range_is_not_one_address() {
        let address = |octets: &[u8], length| proto::NetworkAddress {
            network: String::new(),
            address: octets.to_vec(),
            length,
        };
        assert!(network_address(&address(&[10, 0, 0, 0], Some(32))).is_ok());
        assert!(network_address(&address(&[10, 0, 0, 0], None)).is_ok());
        assert_eq!(
            network_address(&address(&[10, 0, 0, 0], Some(8))),
            Err(InvalidAddress::Range { length: 8 })
        );
        assert_eq!(network_address(&address(&[1; 16], Some(32))), Err(InvalidAddress::Range { length: 32 }));
    }

    #[test]
    fn names_have_two_parts() {
        assert!(service_name("shop/web.shop.svc.cluster.local").is_ok());
        for text in ["", "shop", "/web", "shop/", "shop/web/more"] {
            assert!(policy_name(text).is_err(), "{text:?} was accepted");
        }
    }
}
