//! Arbitrary values that the mesh can hold.

use std::net::IpAddr;
use std::sync::Arc;

use ambit_mesh::address::{GatewayAddress, GatewayDestination, Network, NetworkAddress, ServiceName};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::policy::{
    Action, AuthorizationPolicy, Clause, Match, PolicyName, PolicyScope, Rule, ServiceAccountMatch,
    StringMatch,
};
use ambit_mesh::service::{
    AppProtocol, HealthPolicy, IpFamilies, LoadBalancing, LoadBalancingMode, PortMapping, Scope, Service,
    WaypointFailure,
};
use ambit_mesh::workload::{
    ApplicationTunnel, ApplicationTunnelProtocol, CaptureExclusions, Locality, NetworkMode, PodBinding,
    TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};
use ipnet::IpNet;
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

pub(crate) fn workload() -> impl Strategy<Value = Workload> {
    let names = (word(), word(), word(), word(), word(), word(), word());
    let choices = (
        select(vec![TunnelProtocol::None, TunnelProtocol::Hbone]),
        select(vec![NetworkMode::Standard, NetworkMode::HostNetwork]),
        select(vec![WorkloadType::Deployment, WorkloadType::CronJob, WorkloadType::Pod, WorkloadType::Job]),
        select(vec![WorkloadStatus::Healthy, WorkloadStatus::Unhealthy]),
        0_u32..5,
    );
    let place = (vec(ip(), 0..3), identity(), network(), locality(), option::of(word()));
    let ways = (
        option::of(gateway()),
        option::of(gateway()),
        option::of(application_tunnel()),
        failure(),
        any::<bool>(),
    );
    let rest =
        (vec(policy_name(), 0..3), btree_map(service_name(), vec(port(), 0..3), 0..3), option::of(pod()));
    (names, choices, place, ways, rest).prop_map(|(names, choices, place, ways, rest)| Workload {
        uid: WorkloadUid(names.0),
        name: names.1,
        namespace: place.1.namespace().into(),
        cluster_id: names.2,
        network: place.2,
        addresses: place.0,
        hostname: place.4,
        identity: place.1,
        tunnel_protocol: choices.0,
        node: names.3,
        network_mode: choices.1,
        workload_type: choices.2,
        workload_name: names.4,
        canonical_name: names.5,
        canonical_revision: names.6,
        waypoint: ways.0.map(Box::new),
        waypoint_failure: ways.3,
        requires_waypoint: ways.4,
        network_gateway: ways.1.map(Box::new),
        application_tunnel: ways.2,
        authorization_policies: rest.0.into(),
        status: choices.3,
        locality: place.3,
        capacity: choices.4,
        services: rest.1.into_iter().collect(),
        pod: rest.2,
    })
}

pub(crate) fn service() -> impl Strategy<Value = Service> {
    let families = vec![IpFamilies::Automatic, IpFamilies::Ipv4Only, IpFamilies::Ipv6Only, IpFamilies::Dual];
    (
        service_name(),
        word(),
        vec(network_address(), 0..3),
        vec(port(), 0..3),
        vec(identity(), 0..2),
        option::of(gateway()),
        load_balancing(),
        select(families),
        any::<bool>(),
        failure(),
    )
        .prop_map(|fields| Service {
            name: fields.0,
            short_name: fields.1,
            addresses: fields.2,
            ports: fields.3,
            subject_alt_names: fields.4,
            waypoint: fields.5,
            waypoint_failure: fields.9,
            load_balancing: fields.6,
            ip_families: fields.7,
            canonical: fields.8,
        })
}

fn failure() -> impl Strategy<Value = WaypointFailure> {
    select(vec![WaypointFailure::Closed, WaypointFailure::Open])
}

pub(crate) fn policy() -> impl Strategy<Value = AuthorizationPolicy> {
    let scopes = vec![PolicyScope::Global, PolicyScope::Namespace, PolicyScope::WorkloadSelector];
    let clause = vec(condition(), 1..3).prop_map(|any_of| Clause { any_of });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses });
    let actions = vec![Action::Allow, Action::Deny];
    (policy_name(), select(scopes), select(actions), vec(rule, 0..3), any::<bool>()).prop_map(
        |(name, scope, action, rules, dry_run)| AuthorizationPolicy { name, scope, action, rules, dry_run },
    )
}

fn condition() -> impl Strategy<Value = Match> {
    let texts = || vec(text(), 0..3);
    let accounts = || vec(service_account(), 0..2);
    let ranges = || vec(range(), 0..2);
    let ports = || vec(any::<u16>(), 0..3);
    (
        (texts(), texts(), texts(), texts()),
        (accounts(), accounts()),
        (ranges(), ranges(), ranges(), ranges()),
        (ports(), ports()),
    )
        .prop_map(|(texts, accounts, ranges, ports)| Match {
            namespaces: texts.0,
            not_namespaces: texts.1,
            principals: texts.2,
            not_principals: texts.3,
            service_accounts: accounts.0,
            not_service_accounts: accounts.1,
            source_ips: ranges.0,
            not_source_ips: ranges.1,
            destination_ips: ranges.2,
            not_destination_ips: ranges.3,
            destination_ports: ports.0,
            not_destination_ports: ports.1,
        })
}

fn word() -> impl Strategy<Value = Arc<str>> {
    "[a-z][a-z0-9-]{0,8}".prop_map(Arc::from)
}

fn text() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        word().prop_map(StringMatch::Exact),
        word().prop_map(StringMatch::Prefix),
        word().prop_map(StringMatch::Suffix),
        Just(StringMatch::Presence),
    ]
}

fn ip() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|ip| ip.to_canonical())
}

fn range() -> impl Strategy<Value = IpNet> {
    (ip(), 0_u8..=128).prop_map(|(ip, length)| {
        let whole = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, length.min(whole)).unwrap().trunc()
    })
}

fn network() -> impl Strategy<Value = Network> {
    word().prop_map(Network)
}

fn network_address() -> impl Strategy<Value = NetworkAddress> {
    (network(), ip()).prop_map(|(network, ip)| NetworkAddress { network, ip })
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    (word(), word(), word()).prop_map(|(domain, namespace, account)| {
        SpiffeId::new(domain.parse().unwrap(), &namespace, &account).unwrap()
    })
}

fn service_name() -> impl Strategy<Value = ServiceName> {
    (word(), word()).prop_map(|(namespace, hostname)| ServiceName { namespace, hostname })
}

fn policy_name() -> impl Strategy<Value = PolicyName> {
    (word(), word()).prop_map(|(namespace, name)| PolicyName { namespace, name })
}

fn service_account() -> impl Strategy<Value = ServiceAccountMatch> {
    (word(), word())
        .prop_map(|(namespace, service_account)| ServiceAccountMatch { namespace, service_account })
}

fn gateway() -> impl Strategy<Value = GatewayAddress> {
    let destination = prop_oneof![
        service_name().prop_map(GatewayDestination::Service),
        network_address().prop_map(GatewayDestination::Address),
    ];
    (destination, any::<u16>())
        .prop_map(|(destination, hbone_mtls_port)| GatewayAddress { destination, hbone_mtls_port })
}

fn application_tunnel() -> impl Strategy<Value = ApplicationTunnel> {
    let protocols = vec![ApplicationTunnelProtocol::None, ApplicationTunnelProtocol::Proxy];
    (select(protocols), option::of(1_u16..)).prop_map(|(protocol, port)| ApplicationTunnel { protocol, port })
}

fn locality() -> impl Strategy<Value = Locality> {
    let anywhere = Just(Locality::default());
    let somewhere =
        (word(), word(), word()).prop_map(|(region, zone, subzone)| Locality { region, zone, subzone });
    prop_oneof![anywhere, somewhere]
}

fn port() -> impl Strategy<Value = PortMapping> {
    let protocols = vec![
        AppProtocol::Unknown,
        AppProtocol::Http11,
        AppProtocol::Http2,
        AppProtocol::Grpc,
        AppProtocol::Tcp,
        AppProtocol::Tls,
    ];
    (any::<u16>(), option::of(1_u16..), select(protocols)).prop_map(
        |(service_port, target_port, app_protocol)| PortMapping { service_port, target_port, app_protocol },
    )
}

fn load_balancing() -> impl Strategy<Value = LoadBalancing> {
    let scopes =
        vec![Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node, Scope::Cluster, Scope::Network];
    let modes = vec![
        LoadBalancingMode::Unspecified,
        LoadBalancingMode::Strict,
        LoadBalancingMode::Failover,
        LoadBalancingMode::Passthrough,
    ];
    let health = vec![HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll];
    (vec(select(scopes), 0..3), select(modes), select(health)).prop_map(
        |(routing_preference, mode, health_policy)| LoadBalancing { routing_preference, mode, health_policy },
    )
}

fn pod() -> impl Strategy<Value = Box<PodBinding>> {
    let ports = || btree_set(1_u16.., 0..3);
    let ranges = btree_set(range(), 0..3);
    (word(), option::of(word()), ports(), ports(), ports(), ranges).prop_map(
        |(pod_uid, netns, probe_ports, inbound_ports, outbound_ports, outbound_destinations)| {
            let exclusions = CaptureExclusions { inbound_ports, outbound_ports, outbound_destinations };
            let network_namespace = netns.map(|name| format!("/run/netns/{name}").into());
            Box::new(PodBinding { pod_uid, network_namespace, probe_ports, exclusions })
        },
    )
}
