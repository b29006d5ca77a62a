//! Addresses and names by which the mesh finds workloads and services.

mod authority;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

pub use authority::{Authority, InvalidAuthority};

/// A network of Istio's multi-network model: addresses are unique only within one. Empty for a
/// mesh of a single network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Network(pub Arc<str>);

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An address and the network it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// The network.
    pub network: Network,
    /// The address. IPv4 is never written as an IPv4-mapped IPv6 address here.
    pub ip: IpAddr,
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.ip)
    }
}

/// `<namespace>/<hostname>`: the name of a service in the mesh.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The fully qualified host name, such as `web.shop.svc.cluster.local`.
    pub hostname: Arc<str>,
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// Whose waypoint or gateway to use, and where it listens for HBONE.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// How the gateway is named.
    pub destination: GatewayDestination,
    /// The port of the gateway's HBONE listener; for a service, its service port.
    pub hbone_mtls_port: u16,
}

/// How a gateway is named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// A service: any of its endpoints.
    Service(ServiceName),
    /// An address: of a service, or of one workload.
    Address(NetworkAddress),
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            GatewayDestination::Service(name) => write!(f, "{name}:{}", self.hbone_mtls_port),
            GatewayDestination::Address(address) => write!(f, "{address}:{}", self.hbone_mtls_port),
        }
    }
}

/// The address with IPv4 written as IPv4: a dual-stack socket shows an IPv4 peer as
/// `::ffff:a.b.c.d`.
pub fn canonical_socket(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
