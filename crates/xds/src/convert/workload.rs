//! `istio.workload.Workload`.

mod enums;
mod pod;

use std::sync::Arc;

use ambit_mesh::address::{GatewayAddress, Network, ServiceName};
use ambit_mesh::identity::{InvalidSpiffeId, SpiffeId};
use ambit_mesh::service::PortMapping;
use ambit_mesh::workload::{Locality, ServicePorts, Workload, WorkloadUid};
use ambit_proto::istio::workload as proto;
use prost::DecodeError;

use super::address::{self, InvalidAddress, InvalidGateway, InvalidName};
use super::ports::{self, InvalidPort};
use super::waypoint_rules::{self, InvalidWaypointRules, WaypointRules};

/// The cluster where none is named. Istio's default.
const DEFAULT_CLUSTER: &str = "Kubernetes";

/// The ServiceAccount where none is named. Istio's default.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// Reads a workload.
///
/// # Errors
/// When a field has a value that cannot be represented safely.
pub fn from_proto(from: &proto::Workload) -> Result<Workload, InvalidWorkload> {
    if from.uid.is_empty() {
        return Err(InvalidWorkload::Uid);
    }
    let gateway =
        |field, gateway: Option<&proto::GatewayAddress>| -> Result<Option<Box<GatewayAddress>>, _> {
            gateway
                .map(|gateway| address::gateway(gateway).map(Box::new))
                .transpose()
                .map_err(|source| InvalidWorkload::Gateway { field, source })
        };
    let rules = waypoint_rules::read(&from.extensions)?;
    Ok(Workload {
        uid: WorkloadUid(from.uid.as_str().into()),
        name: from.name.as_str().into(),
        namespace: from.namespace.as_str().into(),
        cluster_id: or(&from.cluster_id, DEFAULT_CLUSTER).into(),
        network: Network(from.network.as_str().into()),
        addresses: from.addresses.iter().map(|octets| address::ip(octets)).collect::<Result<_, _>>()?,
        hostname: (!from.hostname.is_empty()).then(|| from.hostname.as_str().into()),
        identity: identity(from)?,
        tunnel_protocol: enums::tunnel_protocol(from.tunnel_protocol)?,
        node: from.node.as_str().into(),
        network_mode: enums::network_mode(from.network_mode)?,
        workload_type: enums::workload_type(from.workload_type()),
        workload_name: from.workload_name.as_str().into(),
        canonical_name: from.canonical_name.as_str().into(),
        canonical_revision: from.canonical_revision.as_str().into(),
        waypoint: gateway("waypoint", from.waypoint.as_ref())?,
        waypoint_failure: rules.failure,
        requires_waypoint: rules.is_required,
        network_gateway: gateway("network_gateway", from.network_gateway.as_ref())?,
        application_tunnel: from.application_tunnel.as_ref().map(enums::application_tunnel).transpose()?,
        // A policy that cannot be named could not be enforced.
        authorization_policies: from
            .authorization_policies
            .iter()
            .map(|name| address::policy_name(name))
            .collect::<Result<_, _>>()
            .map_err(InvalidWorkload::Policy)?,
        status: enums::status(from.status),
        locality: locality(from.locality.as_ref()),
        capacity: from.capacity.unwrap_or(1),
        services: services(from)?,
        pod: pod::read(&from.extensions)?.map(Box::new),
    })
}

/// Writes a workload.
pub fn to_proto(from: &Workload) -> proto::Workload {
    let rules = WaypointRules { failure: from.waypoint_failure, is_required: from.requires_waypoint };
    let pod = from.pod.iter().map(|pod| pod::write(pod));
    proto::Workload {
        uid: from.uid.0.to_string(),
        name: from.name.to_string(),
        namespace: from.namespace.to_string(),
        cluster_id: from.cluster_id.to_string(),
        network: from.network.0.to_string(),
        addresses: from.addresses.iter().map(|&ip| address::octets(ip)).collect(),
        hostname: from.hostname.as_deref().unwrap_or_default().to_owned(),
        trust_domain: from.identity.trust_domain().to_string(),
        service_account: from.identity.service_account().to_owned(),
        tunnel_protocol: enums::tunnel_protocol_to_proto(from.tunnel_protocol).into(),
        node: from.node.to_string(),
        network_mode: enums::network_mode_to_proto(from.network_mode).into(),
        workload_type: enums::workload_type_to_proto(from.workload_type).into(),
        workload_name: from.workload_name.to_string(),
        canonical_name: from.canonical_name.to_string(),
        canonical_revision: from.canonical_revision.to_string(),
        waypoint: from.waypoint.as_deref().map(address::gateway_to_proto),
        network_gateway: from.network_gateway.as_deref().map(address::gateway_to_proto),
        application_tunnel: from.application_tunnel.map(enums::application_tunnel_to_proto),
        authorization_policies: from.authorization_policies.iter().map(ToString::to_string).collect(),
        status: enums::status_to_proto(from.status).into(),
        locality: locality_to_proto(&from.locality),
        capacity: (from.capacity != 1).then_some(from.capacity),
        services: from.services.iter().map(service_to_proto).collect(),
        extensions: pod.chain(waypoint_rules::write(rules)).collect(),
        native_tunnel: false,
    }
}

fn or<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn identity(from: &proto::Workload) -> Result<SpiffeId, InvalidWorkload> {
    let trust_domain =
        if from.trust_domain.is_empty() { Ok(Default::default()) } else { from.trust_domain.parse() };
    trust_domain
        .and_then(|domain| {
            SpiffeId::new(domain, &from.namespace, or(&from.service_account, DEFAULT_SERVICE_ACCOUNT))
        })
        .map_err(InvalidWorkload::Identity)
}

fn locality(from: Option<&proto::Locality>) -> Locality {
    from.map_or_else(Locality::default, |from| Locality {
        region: from.region.as_str().into(),
        zone: from.zone.as_str().into(),
        subzone: from.subzone.as_str().into(),
    })
}

fn locality_to_proto(from: &Locality) -> Option<proto::Locality> {
    (*from != Locality::default()).then(|| proto::Locality {
        region: from.region.to_string(),
        zone: from.zone.to_string(),
        subzone: from.subzone.to_string(),
    })
}

fn services(from: &proto::Workload) -> Result<ServicePorts, InvalidWorkload> {
    let entry = |(name, list): (&String, &proto::PortList)| {
        let name = address::service_name(name).map_err(InvalidWorkload::Service)?;
        let ports = ports::mappings(&list.ports)
            .map_err(|source| InvalidWorkload::ServicePort { service: name.clone(), source })?;
        Ok((name, ports))
    };
    from.services.iter().map(entry).collect()
}

fn service_to_proto((name, ports): (&ServiceName, &Arc<[PortMapping]>)) -> (String, proto::PortList) {
    (name.to_string(), proto::PortList { ports: ports::mappings_to_proto(ports) })
}

/// Why a workload is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWorkload {
    /// It cannot be named.
    #[error("uid is empty")]
    Uid,
    /// It cannot be identified.
    #[error("trust_domain, namespace or service_account")]
    Identity(#[source] InvalidSpiffeId),
    /// An address is impossible.
    #[error("addresses")]
    Address(#[from] InvalidAddress),
    /// A gateway is impossible.
    #[error("{field}")]
    Gateway {
        /// Which.
        field: &'static str,
        /// Why.
        source: InvalidGateway,
    },
    /// The mesh does not speak this protocol.
    #[error("tunnel_protocol {value} is not supported: NONE (0) and HBONE (1) are")]
    TunnelProtocol {
        /// The number on the wire.
        value: i32,
    },
    /// Whether its addresses identify it is not known.
    #[error("network_mode {value} is not known")]
    NetworkMode {
        /// The number on the wire.
        value: i32,
    },
    /// The mesh does not speak this protocol to applications.
    #[error("application_tunnel.protocol {value} is not known")]
    ApplicationTunnel {
        /// The number on the wire.
        value: i32,
    },
    /// The application's port is impossible.
    #[error("application_tunnel.port")]
    ApplicationPort {
        /// Why.
        source: InvalidPort,
    },
    /// It names a policy in a form that no policy has.
    #[error("authorization_policies")]
    Policy(#[source] InvalidName),
    /// It names a service in a form that no service has.
    #[error("services")]
    Service(#[source] InvalidName),
    /// A port of a service is impossible.
    #[error("services[{service}]")]
    ServicePort {
        /// Of which service.
        service: ServiceName,
        /// Why.
        source: InvalidPort,
    },
    /// What is wanted of its waypoint cannot be read.
    #[error(transparent)]
    WaypointRules(#[from] InvalidWaypointRules),
    /// The extension is of another type.
    #[error("extension ambit.dev/pod is not an ambit.workload.v1.PodBinding")]
    PodType,
    /// The extension cannot be decoded.
    #[error("extension ambit.dev/pod")]
    PodBytes(#[from] DecodeError),
    /// The extension names no pod.
    #[error("extension ambit.dev/pod: pod_uid is empty")]
    PodUid,
    /// The extension names an impossible port.
    #[error("extension ambit.dev/pod: {field}")]
    PodPort {
        /// Where.
        field: &'static str,
        /// Why.
        source: InvalidPort,
    },
    /// The extension names a range that is none.
    #[error("extension ambit.dev/pod: outbound_cidrs: {range:?} is no range of addresses")]
    PodRange {
        /// What it names.
        range: String,
    },
}

#[cfg(test)]
mod tests;
