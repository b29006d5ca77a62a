//! `istio.workload.Service`.

use ambit_mesh::address::{GatewayAddress, ServiceName};
use ambit_mesh::service::{HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, Scope, Service};
use ambit_proto::istio::workload as proto;
use ambit_proto::istio::workload::load_balancing;

use super::address::{self, InvalidAddress, InvalidGateway};
use super::ports::{self, InvalidPort};
use super::waypoint_rules::{self, InvalidWaypointRules, WaypointRules};

/// Reads a service.
///
/// # Errors
/// When a field has a value that cannot be represented safely.
pub fn from_proto(from: &proto::Service) -> Result<Service, InvalidService> {
    if from.namespace.is_empty() || from.hostname.is_empty() {
        return Err(InvalidService::Name);
    }
    Ok(Service {
        name: ServiceName {
            namespace: from.namespace.as_str().into(),
            hostname: from.hostname.as_str().into(),
        },
        short_name: from.name.as_str().into(),
        addresses: from.addresses.iter().map(address::network_address).collect::<Result<_, _>>()?,
        ports: ports::mappings(&from.ports)?,
        // An identity of a form that the mesh never issues matches no peer: leaving it out
        // accepts nobody more.
        subject_alt_names: from.subject_alt_names.iter().filter_map(|name| name.parse().ok()).collect(),
        waypoint: waypoint(from)?,
        waypoint_failure: waypoint_rules::read(&from.extensions)?.failure,
        load_balancing: load_balancing(from.load_balancing.as_ref())?,
        ip_families: match from.ip_families() {
            proto::IpFamilies::Automatic => IpFamilies::Automatic,
            proto::IpFamilies::Ipv4Only => IpFamilies::Ipv4Only,
            proto::IpFamilies::Ipv6Only => IpFamilies::Ipv6Only,
            proto::IpFamilies::Dual => IpFamilies::Dual,
        },
        canonical: from.canonical,
    })
}

/// Writes a service.
pub fn to_proto(from: &Service) -> proto::Service {
    let ip_families = match from.ip_families {
        IpFamilies::Automatic => proto::IpFamilies::Automatic,
        IpFamilies::Ipv4Only => proto::IpFamilies::Ipv4Only,
        IpFamilies::Ipv6Only => proto::IpFamilies::Ipv6Only,
        IpFamilies::Dual => proto::IpFamilies::Dual,
    };
    let rules = WaypointRules { failure: from.waypoint_failure, is_required: false };
    proto::Service {
        name: from.short_name.to_string(),
        namespace: from.name.namespace.to_string(),
        hostname: from.name.hostname.to_string(),
        addresses: from.addresses.iter().map(address::network_address_to_proto).collect(),
        ports: ports::mappings_to_proto(&from.ports),
        subject_alt_names: from.subject_alt_names.iter().map(ToString::to_string).collect(),
        waypoint: from.waypoint.as_ref().map(address::gateway_to_proto),
        load_balancing: load_balancing_to_proto(&from.load_balancing),
        ip_families: ip_families.into(),
        canonical: from.canonical,
        extensions: waypoint_rules::write(rules).into_iter().collect(),
        ..proto::Service::default()
    }
}

/// The waypoint. Where only weighted ones are given, the heaviest: traffic goes through a
/// waypoint whatever the weights say.
fn waypoint(from: &proto::Service) -> Result<Option<GatewayAddress>, InvalidService> {
    let heaviest = || from.weighted_waypoints.iter().max_by_key(|weighted| weighted.weight);
    let weighted = match (&from.waypoint, heaviest()) {
        (Some(waypoint), _) => return Ok(Some(address::gateway(waypoint)?)),
        (None, None) => return Ok(None),
        (None, Some(weighted)) => weighted,
    };
    let destination = weighted.destination.as_ref().ok_or(InvalidGateway::Destination)?;
    Ok(Some(address::gateway(destination)?))
}

fn load_balancing(from: Option<&proto::LoadBalancing>) -> Result<LoadBalancing, InvalidService> {
    let Some(from) = from else { return Ok(LoadBalancing::default()) };
    let routing_preference = from.routing_preference.iter().filter_map(|&value| scope(value).transpose());
    Ok(LoadBalancing {
        routing_preference: routing_preference.collect::<Result<_, _>>()?,
        mode: match load_balancing::Mode::try_from(from.mode) {
            Ok(load_balancing::Mode::UnspecifiedMode) => LoadBalancingMode::Unspecified,
            Ok(load_balancing::Mode::Strict) => LoadBalancingMode::Strict,
            Ok(load_balancing::Mode::Failover) => LoadBalancingMode::Failover,
            Ok(load_balancing::Mode::Passthrough) => LoadBalancingMode::Passthrough,
            Err(_) => return Err(InvalidService::Mode { value: from.mode }),
        },
        health_policy: match from.health_policy() {
            load_balancing::HealthPolicy::OnlyHealthy => HealthPolicy::OnlyHealthy,
            load_balancing::HealthPolicy::AllowAll => HealthPolicy::AllowAll,
        },
    })
}

fn scope(value: i32) -> Result<Option<Scope>, InvalidService> {
    match load_balancing::Scope::try_from(value) {
        Ok(load_balancing::Scope::UnspecifiedScope) => Ok(None),
        Ok(load_balancing::Scope::Region) => Ok(Some(Scope::Region)),
        Ok(load_balancing::Scope::Zone) => Ok(Some(Scope::Zone)),
        Ok(load_balancing::Scope::Subzone) => Ok(Some(Scope::Subzone)),
        Ok(load_balancing::Scope::Node) => Ok(Some(Scope::Node)),
        Ok(load_balancing::Scope::Cluster) => Ok(Some(Scope::Cluster)),
        Ok(load_balancing::Scope::Network) => Ok(Some(Scope::Network)),
        Err(_) => Err(InvalidService::Scope { value }),
    }
}

fn load_balancing_to_proto(from: &LoadBalancing) -> Option<proto::LoadBalancing> {
    if *from == LoadBalancing::default() {
        return None;
    }
    let mode = match from.mode {
        LoadBalancingMode::Unspecified => load_balancing::Mode::UnspecifiedMode,
        LoadBalancingMode::Strict => load_balancing::Mode::Strict,
        LoadBalancingMode::Failover => load_balancing::Mode::Failover,
        LoadBalancingMode::Passthrough => load_balancing::Mode::Passthrough,
    };
    let health_policy = match from.health_policy {
        HealthPolicy::OnlyHealthy => load_balancing::HealthPolicy::OnlyHealthy,
        HealthPolicy::AllowAll => load_balancing::HealthPolicy::AllowAll,
    };
    Some(proto::LoadBalancing {
        routing_preference: from.routing_preference.iter().map(|&scope| scope_to_proto(scope)).collect(),
        mode: mode.into(),
        health_policy: health_policy.into(),
    })
}

fn scope_to_proto(scope: Scope) -> i32 {
    let scope = match scope {
        Scope::Region => load_balancing::Scope::Region,
        Scope::Zone => load_balancing::Scope::Zone,
        Scope::Subzone => load_balancing::Scope::Subzone,
        Scope::Node => load_balancing::Scope::Node,
        Scope::Cluster => load_balancing::Scope::Cluster,
        Scope::Network => load_balancing::Scope::Network,
    };
    scope.into()
}

/// Why a service is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidService {
    /// It cannot be named.
    #[error("namespace or hostname is empty")]
    Name,
    /// A virtual address is impossible.
    #[error("addresses")]
    Address(#[from] InvalidAddress),
    /// A port is impossible.
    #[error("ports")]
    Port(#[from] InvalidPort),
    /// The waypoint is impossible; without it, traffic would go around the waypoint.
    #[error("waypoint")]
    Waypoint(#[from] InvalidGateway),
    /// What is wanted of its waypoint cannot be read.
    #[error(transparent)]
    WaypointRules(#[from] InvalidWaypointRules),
    /// An unknown way of choosing endpoints.
    #[error("load_balancing.mode {value} is not known")]
    Mode {
        /// The number on the wire.
        value: i32,
    },
    /// An unknown scope of locality.
    #[error("load_balancing.routing_preference {value} is not known")]
    Scope {
        /// The number on the wire.
        value: i32,
    },
}

#[cfg(test)]
mod tests;
