//! A workload: one pod, or one machine outside Kubernetes, as the mesh knows it.

mod services;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;

pub use services::ServicePorts;

use crate::address::{GatewayAddress, Network};
use crate::identity::SpiffeId;
use crate::policy::PolicyNames;
use crate::service::WaypointFailure;

/// One workload. Field meanings follow `istio.workload.Workload`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The unique name, such as `Kubernetes//Pod/shop/web-0`.
    pub uid: WorkloadUid,
    /// The pod's name.
    pub name: Arc<str>,
    /// The pod's namespace.
    pub namespace: Arc<str>,
    /// The cluster it runs in; `Kubernetes` by default.
    pub cluster_id: Arc<str>,
    /// The network its addresses belong to.
    pub network: Network,
    /// Its addresses; empty for a scheduled pod that has none yet.
    pub addresses: Vec<IpAddr>,
    /// A host name to resolve, for a workload without addresses.
    pub hostname: Option<Arc<str>>,
    /// Who it is.
    pub identity: SpiffeId,
    /// How to reach it.
    pub tunnel_protocol: TunnelProtocol,
    /// The node it runs on.
    pub node: Arc<str>,
    /// Whether it shares its node's network.
    pub network_mode: NetworkMode,
    /// The kind of its owner.
    pub workload_type: WorkloadType,
    /// The name of its owner.
    pub workload_name: Arc<str>,
    /// Canonical service name, for telemetry.
    pub canonical_name: Arc<str>,
    /// Canonical service revision, for telemetry.
    pub canonical_revision: Arc<str>,
    /// The waypoint for traffic addressed to the workload itself.
    pub waypoint: Option<Box<GatewayAddress>>,
    /// What becomes of that traffic while no instance of the waypoint takes it.
    pub waypoint_failure: WaypointFailure,
    /// Whether it takes nothing but what came through the waypoint that it, or a service of it, is bound to.
    pub requires_waypoint: bool,
    /// The gateway that leads to its network.
    pub network_gateway: Option<Box<GatewayAddress>>,
    /// How the application behind it expects tunnelled traffic.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Policies that select it by label; namespace-wide and mesh-wide ones are found by scope.
    pub authorization_policies: PolicyNames,
    /// Whether it may receive traffic through services.
    pub status: WorkloadStatus,
    /// Where it runs.
    pub locality: Locality,
    /// Its weight among the endpoints of a service; 0 takes no traffic.
    pub capacity: u32,
    /// The services it is an endpoint of, with the target port of each service port.
    pub services: ServicePorts,
    /// Which pod this is on its node: known only where our own control says so, and kept only on that
    /// node.
    pub pod: Option<Box<PodBinding>>,
}

/// The unique name of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadUid(pub Arc<str>);

impl fmt::Display for WorkloadUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TunnelProtocol {
    /// Plain TCP.
    None,
    /// HTTP/2 CONNECT in mutual TLS on port 15008.
    Hbone,
}

/// Whether a workload has a network of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkMode {
    /// Its own network namespace and addresses.
    Standard,
    /// The node's: its addresses do not identify it.
    HostNetwork,
}

/// The kind of a workload's owner, for telemetry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadType {
    /// Deployment, and every other owner without a word of its own.
    Deployment,
    /// CronJob.
    CronJob,
    /// A pod without owner.
    Pod,
    /// Job.
    Job,
}

/// Whether a workload takes traffic through services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadStatus {
    /// Ready.
    Healthy,
    /// Not ready, or terminating.
    Unhealthy,
}

/// How the application behind a workload expects tunnelled traffic (`ApplicationTunnel`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApplicationTunnel {
    /// The protocol spoken to the application.
    pub protocol: ApplicationTunnelProtocol,
    /// The port to use instead of the asked one, if any.
    pub port: Option<u16>,
}

/// The protocol of an [`ApplicationTunnel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplicationTunnelProtocol {
    /// The bytes as they are.
    None,
    /// The PROXY protocol, version 2.
    Proxy,
}

/// Region, zone and subzone; empty where unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Locality {
    /// Region.
    pub region: Arc<str>,
    /// Zone.
    pub zone: Arc<str>,
    /// Subzone.
    pub subzone: Arc<str>,
}

/// Which pod of a node a workload is, and how it is captured there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodBinding {
    /// The pod's UID as Kubernetes gave it.
    pub pod_uid: Arc<str>,
    /// Directory mode only: the pod's network namespace (annotation `ambit.dev/netns`).
    pub network_namespace: Option<PathBuf>,
    /// TCP ports of the pod that its node's kubelet calls.
    pub probe_ports: BTreeSet<u16>,
    /// What is not captured, by the wish of the pod's author.
    pub exclusions: CaptureExclusions,
}

/// Traffic of a pod that is not captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaptureExclusions {
    /// Ports of the pod on which clients reach the application directly.
    pub inbound_ports: BTreeSet<u16>,
    /// Ports of servers to which the application connects directly.
    pub outbound_ports: BTreeSet<u16>,
    /// Servers to which the application connects directly.
    pub outbound_destinations: BTreeSet<IpNet>,
}

impl CaptureExclusions {
    /// The most that one pod may have; the rules of a pod are one bounded netlink transaction.
    pub const MAXIMUM: usize = 256;

    /// How many there are.
    pub fn count(&self) -> usize {
        self.inbound_ports.len() + self.outbound_ports.len() + self.outbound_destinations.len()
    }
}
