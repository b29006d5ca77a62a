//! Why an inbound connection is not served, and what the peer is told.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::{InvalidAuthority, ServiceName};
use crate::decide::ResponseFlag;
use crate::policy::Denied;
use crate::workload::WorkloadUid;

/// Why an inbound connection is not served.
///
/// It covers the whole way from the CONNECT to the permit, so that one place answers the peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InboundError {
    /// The CONNECT names no target.
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    /// The pod is enrolled but not described yet, or not any more.
    #[error("workload {workload} is not known: check that control is reachable and serves it")]
    UnknownWorkload {
        /// The workload.
        workload: WorkloadUid,
    },
    /// The CONNECT names an address that is not the workload's.
    #[error("{asked} was asked for on {local}, and is not an address of {workload}")]
    OtherAddress {
        /// The address asked for.
        asked: SocketAddr,
        /// The address the connection came to.
        local: SocketAddr,
        /// The workload.
        workload: WorkloadUid,
    },
    /// The CONNECT names a host that is no service of this workload.
    #[error("{host} is not a service of namespace {namespace} that {workload} serves")]
    UnknownService {
        /// The host name.
        host: Arc<str>,
        /// The workload.
        workload: WorkloadUid,
        /// Its namespace.
        namespace: Arc<str>,
    },
    /// The service has no such port, or it leads nowhere on this workload.
    #[error("port {port} of {service} leads to no port of this workload: check the Service's targetPort")]
    UnknownPort {
        /// The service.
        service: ServiceName,
        /// The service port.
        port: u16,
    },
    /// The connection would end at the proxy itself.
    #[error("{destination} is a port of the proxy itself")]
    OwnPort {
        /// The destination.
        destination: SocketAddr,
    },
    /// The application wants the PROXY protocol.
    #[error("{workload} takes tunnelled traffic by the PROXY protocol, which is not supported")]
    ProxyProtocol {
        /// The workload.
        workload: WorkloadUid,
    },
    /// Policy does not allow the connection.
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl InboundError {
    /// The HTTP status that answers a CONNECT, as Istio's ztunnel answers.
    pub fn status(&self) -> u16 {
        match self {
            Self::Authority(_) | Self::OtherAddress { .. } => 400,
            Self::Denied(_) => 401,
            Self::UnknownWorkload { .. }
            | Self::UnknownService { .. }
            | Self::UnknownPort { .. }
            | Self::OwnPort { .. }
            | Self::ProxyProtocol { .. } => 503,
        }
    }

    /// How metrics count it.
    pub fn reason(&self) -> ResponseFlag {
        match self {
            Self::Denied(_) => ResponseFlag::Denied,
            Self::Authority(_)
            | Self::OtherAddress { .. }
            | Self::UnknownWorkload { .. }
            | Self::UnknownService { .. }
            | Self::UnknownPort { .. }
            | Self::OwnPort { .. }
            | Self::ProxyProtocol { .. } => ResponseFlag::ConnectFailure,
        }
    }
}
