//! Ports of services and of endpoints.

use ambit_mesh::service::{AppProtocol, PortMapping};
use ambit_proto::istio::workload as proto;

/// Reads a port.
///
/// # Errors
/// When the number is above 65535.
pub fn port(number: u32) -> Result<u16, InvalidPort> {
    u16::try_from(number).map_err(|_| InvalidPort { number })
}

/// Reads where ports lead; a target of zero says that endpoints differ.
///
/// # Errors
/// When a number is above 65535.
pub fn mappings(ports: &[proto::Port]) -> Result<Vec<PortMapping>, InvalidPort> {
    ports.iter().map(mapping).collect()
}

/// Writes where ports lead.
pub fn mappings_to_proto(ports: &[PortMapping]) -> Vec<proto::Port> {
    ports.iter().map(mapping_to_proto).collect()
}

fn mapping(from: &proto::Port) -> Result<PortMapping, InvalidPort> {
    let target = port(from.target_port)?;
    Ok(PortMapping {
        service_port: port(from.service_port)?,
        target_port: (target != 0).then_some(target),
        app_protocol: match from.app_protocol() {
            proto::AppProtocol::Unknown => AppProtocol::Unknown,
            proto::AppProtocol::Http11 => AppProtocol::Http11,
            proto::AppProtocol::Http2 => AppProtocol::Http2,
            proto::AppProtocol::Grpc => AppProtocol::Grpc,
            proto::AppProtocol::Tcp => AppProtocol::Tcp,
            proto::AppProtocol::Tls => AppProtocol::Tls,
        },
    })
}

fn mapping_to_proto(from: &PortMapping) -> proto::Port {
    let app_protocol = match from.app_protocol {
        AppProtocol::Unknown => proto::AppProtocol::Unknown,
        AppProtocol::Http11 => proto::AppProtocol::Http11,
        AppProtocol::Http2 => proto::AppProtocol::Http2,
        AppProtocol::Grpc => proto::AppProtocol::Grpc,
        AppProtocol::Tcp => proto::AppProtocol::Tcp,
        AppProtocol::Tls => proto::AppProtocol::Tls,
    };
    proto::Port {
        service_port: u32::from(from.service_port),
        target_port: from.target_port.map_or(0, u32::from),
        app_protocol: app_protocol.into(),
    }
}

/// A number that is not a port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("port {number} is above 65535")]
pub struct InvalidPort {
    /// What was read.
    pub number: u32,
}
