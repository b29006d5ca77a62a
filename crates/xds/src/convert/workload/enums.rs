//! The closed choices of a workload.
//!
//! A number that is not known is refused where it says how to reach the workload or who it is.

use ambit_mesh::workload::{
    ApplicationTunnel, ApplicationTunnelProtocol, NetworkMode, TunnelProtocol, WorkloadStatus, WorkloadType,
};
use ambit_proto::istio::workload as proto;
use ambit_proto::istio::workload::application_tunnel;

use super::InvalidWorkload;
use crate::convert::ports;

pub(super) fn tunnel_protocol(value: i32) -> Result<TunnelProtocol, InvalidWorkload> {
    match proto::TunnelProtocol::try_from(value) {
        Ok(proto::TunnelProtocol::None) => Ok(TunnelProtocol::None),
        Ok(proto::TunnelProtocol::Hbone) => Ok(TunnelProtocol::Hbone),
        Ok(proto::TunnelProtocol::LegacyIstioMtls) | Err(_) => Err(InvalidWorkload::TunnelProtocol { value }),
    }
}

pub(super) fn tunnel_protocol_to_proto(from: TunnelProtocol) -> proto::TunnelProtocol {
    match from {
        TunnelProtocol::None => proto::TunnelProtocol::None,
        TunnelProtocol::Hbone => proto::TunnelProtocol::Hbone,
    }
}

pub(super) fn network_mode(value: i32) -> Result<NetworkMode, InvalidWorkload> {
    match proto::NetworkMode::try_from(value) {
        Ok(proto::NetworkMode::Standard) => Ok(NetworkMode::Standard),
        Ok(proto::NetworkMode::HostNetwork) => Ok(NetworkMode::HostNetwork),
        Err(_) => Err(InvalidWorkload::NetworkMode { value }),
    }
}

pub(super) fn network_mode_to_proto(from: NetworkMode) -> proto::NetworkMode {
    match from {
        NetworkMode::Standard => proto::NetworkMode::Standard,
        NetworkMode::HostNetwork => proto::NetworkMode::HostNetwork,
    }
}

pub(super) fn workload_type(from: proto::WorkloadType) -> WorkloadType {
    match from {
        proto::WorkloadType::Deployment => WorkloadType::Deployment,
        proto::WorkloadType::Cronjob => WorkloadType::CronJob,
        proto::WorkloadType::Pod => WorkloadType::Pod,
        proto::WorkloadType::Job => WorkloadType::Job,
    }
}

pub(super) fn workload_type_to_proto(from: WorkloadType) -> proto::WorkloadType {
    match from {
        WorkloadType::Deployment => proto::WorkloadType::Deployment,
        WorkloadType::CronJob => proto::WorkloadType::Cronjob,
        WorkloadType::Pod => proto::WorkloadType::Pod,
        WorkloadType::Job => proto::WorkloadType::Job,
    }
}

/// A status that is not known is not taken for healthy.
pub(super) fn status(value: i32) -> WorkloadStatus {
    match proto::WorkloadStatus::try_from(value) {
        Ok(proto::WorkloadStatus::Healthy) => WorkloadStatus::Healthy,
        Ok(proto::WorkloadStatus::Unhealthy) | Err(_) => WorkloadStatus::Unhealthy,
    }
}

pub(super) fn status_to_proto(from: WorkloadStatus) -> proto::WorkloadStatus {
    match from {
        WorkloadStatus::Healthy => proto::WorkloadStatus::Healthy,
        WorkloadStatus::Unhealthy => proto::WorkloadStatus::Unhealthy,
    }
}

pub(super) fn application_tunnel(
    from: &proto::ApplicationTunnel,
) -> Result<ApplicationTunnel, InvalidWorkload> {
    let protocol = match application_tunnel::Protocol::try_from(from.protocol) {
        Ok(application_tunnel::Protocol::None) => ApplicationTunnelProtocol::None,
        Ok(application_tunnel::Protocol::Proxy) => ApplicationTunnelProtocol::Proxy,
        Err(_) => return Err(InvalidWorkload::ApplicationTunnel { value: from.protocol }),
    };
    let port = ports::port(from.port).map_err(|source| InvalidWorkload::ApplicationPort { source })?;
    Ok(ApplicationTunnel { protocol, port: (port != 0).then_some(port) })
}

pub(super) fn application_tunnel_to_proto(from: ApplicationTunnel) -> proto::ApplicationTunnel {
    let protocol = match from.protocol {
        ApplicationTunnelProtocol::None => application_tunnel::Protocol::None,
        ApplicationTunnelProtocol::Proxy => application_tunnel::Protocol::Proxy,
    };
    proto::ApplicationTunnel { protocol: protocol.into(), port: from.port.map_or(0, u32::from) }
}
