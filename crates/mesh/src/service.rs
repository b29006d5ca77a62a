//! A service: a name, virtual addresses, ports, and how its endpoints are chosen.

use std::sync::Arc;

use crate::address::{GatewayAddress, NetworkAddress, ServiceName};
use crate::identity::SpiffeId;

/// One service. Field meanings follow `istio.workload.Service`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and host name.
    pub name: ServiceName,
    /// The short name, such as `web`.
    pub short_name: Arc<str>,
    /// Virtual addresses; empty for a headless service.
    pub addresses: Vec<NetworkAddress>,
    /// Ports.
    pub ports: Vec<PortMapping>,
    /// Identities that may serve it beside its endpoints' own.
    pub subject_alt_names: Vec<SpiffeId>,
    /// The waypoint for traffic addressed to it.
    pub waypoint: Option<GatewayAddress>,
    /// What becomes of that traffic while no instance of the waypoint takes it.
    pub waypoint_failure: WaypointFailure,
    /// How endpoints are chosen.
    pub load_balancing: LoadBalancing,
    /// Which address families its endpoints are reached by.
    pub ip_families: IpFamilies,
    /// Whether it is the one of several services with this host name that answers by default.
    pub canonical: bool,
}

/// What becomes of traffic whose waypoint is missing or not ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WaypointFailure {
    /// It is refused: going around the waypoint would skip its policies.
    #[default]
    Closed,
    /// It goes around the waypoint, by the wish of the destination's owner.
    Open,
}

/// A service port and where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PortMapping {
    /// The port that clients use.
    pub service_port: u16,
    /// The port that the pod listens on; `None` where it differs between endpoints.
    pub target_port: Option<u16>,
    /// The application protocol, where declared.
    pub app_protocol: AppProtocol,
}

/// The application protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AppProtocol {
    /// Not declared.
    Unknown,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque TCP.
    Tcp,
    /// TLS that the application itself ends.
    Tls,
}

/// How endpoints are chosen (`istio.workload.LoadBalancing`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancing {
    /// Scopes in order of preference.
    pub routing_preference: Vec<Scope>,
    /// What a mismatch in a scope means.
    pub mode: LoadBalancingMode,
    /// Which endpoints count.
    pub health_policy: HealthPolicy,
}

/// A scope of locality in which an endpoint may match its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Same region.
    Region,
    /// Same zone.
    Zone,
    /// Same subzone.
    Subzone,
    /// Same node.
    Node,
    /// Same cluster.
    Cluster,
    /// Same network.
    Network,
}

/// What a mismatch in a preferred scope means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoadBalancingMode {
    /// No preference.
    #[default]
    Unspecified,
    /// Only endpoints that match every scope.
    Strict,
    /// Endpoints that match most scopes in order, then the next best.
    Failover,
    /// No choice: connect to the address that was asked for.
    Passthrough,
}

/// Which endpoints count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthPolicy {
    /// Healthy ones.
    #[default]
    OnlyHealthy,
    /// All.
    AllowAll,
}

/// Which address families a service's endpoints are reached by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IpFamilies {
    /// As the endpoints have them.
    #[default]
    Automatic,
    /// IPv4.
    Ipv4Only,
    /// IPv6.
    Ipv6Only,
    /// Both.
    Dual,
}
