use std::collections::BTreeMap;

use ambit_mesh::address::Network;
use ambit_mesh::identity::{SpiffeId, TrustDomain};
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};

use super::super::metrics::Metrics;
use super::*;

/// A workload of namespace `shop`.
pub(super) fn workload(name: &str) -> Workload {
    Workload {
        uid: WorkloadUid(format!("Kubernetes//Pod/shop/{name}-1").into()),
        name: format!("{name}-1").into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Network::default(),
        addresses: Vec::new(),
        hostname: None,
        identity: SpiffeId::new(TrustDomain::default(), "shop", name).unwrap(),
        tunnel_protocol: TunnelProtocol::Hbone,
        node: "node-1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Deployment,
        workload_name: name.into(),
        canonical_name: name.into(),
        canonical_revision: "v1".into(),
        waypoint: None,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: Vec::new(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: BTreeMap::new(),
        pod: None,
    }
}

pub(super) fn labels<'a>(source: &'a Workload, destination: &'a Workload) -> ConnectionLabels<'a> {
    ConnectionLabels {
        reporter: Reporter::Source,
        source: Some(source),
        source_identity: Some(&source.identity),
        destination: Some(destination),
        destination_identity: Some(&destination.identity),
        destination_service: None,
        security_policy: SecurityPolicy::MutualTls,
    }
}

fn recorded(record: impl FnOnce()) -> String {
    let metrics = Metrics::detached();
    metrics.record_here(record);
    metrics.render()
}

#[test]
fn a_connection_is_counted_with_every_label_of_istio() {
    let (mut cart, stock) = (workload("cart"), workload("stock"));
    cart.locality = Locality { region: "r1".into(), zone: "z1".into(), subzone: "".into() };
    let text = recorded(|| {
        let connection = ConnectionMetrics::open(&labels(&cart, &stock));
        connection.record_request_bytes(10);
        connection.record_response_bytes(2000);
        connection.close(ResponseFlag::None);
    });
    let labels = "reporter=\"source\",source_workload=\"cart\",source_canonical_service=\"cart\",\
         source_canonical_revision=\"v1\",source_workload_namespace=\"shop\",\
         source_principal=\"spiffe://cluster.local/ns/shop/sa/cart\",source_app=\"cart\",\
         source_version=\"v1\",source_cluster=\"Kubernetes\",destination_service=\"unknown\",\
         destination_service_namespace=\"unknown\",destination_service_name=\"unknown\",\
         destination_workload=\"stock\",destination_canonical_service=\"stock\",\
         destination_canonical_revision=\"v1\",destination_workload_namespace=\"shop\",\
         destination_principal=\"spiffe://cluster.local/ns/shop/sa/stock\",destination_app=\"stock\",\
         destination_version=\"v1\",destination_cluster=\"Kubernetes\",request_protocol=\"tcp\",\
         connection_security_policy=\"mutual_tls\",source_region=\"r1\",source_zone=\"z1\",\
         response_flags=\"-\"";
    for line in [
        format!("istio_tcp_connections_opened_total{{{labels}}} 1\n"),
        format!("istio_tcp_connections_closed_total{{{labels}}} 1\n"),
        format!("istio_tcp_received_bytes_total{{{labels}}} 10\n"),
        format!("istio_tcp_sent_bytes_total{{{labels}}} 2000\n"),
        "istio_tcp_sockets_open{reporter=\"source\"} 0\n".into(),
    ] {
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_flag_is_on_what_closed_or_failed_with_it() {
    let (cart, stock) = (workload("flag-cart"), workload("flag-stock"));
    let text = recorded(|| {
        ConnectionMetrics::open(&labels(&cart, &stock)).close(ResponseFlag::Denied);
        ConnectionMetrics::failed(&labels(&cart, &stock), ResponseFlag::ConnectFailure);
        drop(ConnectionMetrics::open(&labels(&cart, &stock)));
    });
    let value = |name: &str, flag: &str| {
        let flag = format!("response_flags=\"{flag}\"");
        text.lines()
            .find(|line| line.starts_with(name) && line.contains(&flag))
            .and_then(|line| line.rsplit_once(' '))
            .map(|(_, value)| value)
    };
    assert_eq!(value(OPENED, "-"), Some("2"));
    assert_eq!(value(CLOSED, "DENY"), Some("1"));
    assert_eq!(value(CLOSED, "-"), Some("1"));
    assert_eq!(value(FAILED, "CONNECT"), Some("1"));
    assert_eq!(value(FAILED, "-"), None);
}

#[test]
fn what_is_not_known_is_called_unknown() {
    let nobody = ConnectionLabels {
        reporter: Reporter::Destination,
        source: None,
        source_identity: None,
        destination: None,
        destination_identity: None,
        destination_service: None,
        security_policy: SecurityPolicy::Unknown,
    };
    let labels = nobody.to_labels();
    let unknown = labels.iter().filter(|label| label.value() == "unknown").count();
    assert_eq!((labels.len(), unknown), (22, 20));
}
