use std::thread;
use std::time::Duration;

use ambit_mesh::address::Network;
use ambit_mesh::identity::{SpiffeId, TrustDomain};
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};

use super::super::metrics::{Metrics, Settings};
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
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: Default::default(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: Default::default(),
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
    let metrics = Metrics::detached(Settings::default());
    metrics.record_here(record);
    metrics.render()
}

/// The value of the first series with this name and label.
fn value_of<'a>(text: &'a str, name: &str, label: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(label))?;
    line.rsplit_once(' ').map(|(_, value)| value)
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
    let value = |name, flag| value_of(&text, name, &format!("response_flags=\"{flag}\""));
    assert_eq!(value(OPENED, "-"), Some("2"));
    assert_eq!(value(CLOSED, "DENY"), Some("1"));
    assert_eq!(value(CLOSED, "-"), Some("1"));
    assert_eq!(value(FAILED, "CONNECT"), Some("1"));
    assert_eq!(value(FAILED, "-"), None);
}

#[test]
fn an_idle_connection_keeps_its_series_and_counts_its_later_bytes() {
    let metrics = Metrics::detached(Settings { idle_expiry: Duration::ZERO, ..Settings::default() });
    let (cart, stock) = (workload("cart"), workload("stock"));
    // The handles that a thread keeps go with it.
    let open = || metrics.record_here(|| ConnectionMetrics::open(&labels(&cart, &stock)));
    let quiet = thread::scope(|scope| scope.spawn(open).join().unwrap());
    quiet.record_request_bytes(7);
    for _ in 0..10 {
        metrics.render();
    }
    quiet.record_request_bytes(5);
    quiet.record_response_bytes(3);
    quiet.close(ResponseFlag::None);
    let text = metrics.render();
    let value = |name| value_of(&text, name, "source_workload=\"cart\"");
    assert_eq!(value(OPENED), Some("1"));
    assert_eq!(value(CLOSED), Some("1"));
    assert_eq!(value(RECEIVED_BYTES), Some("12"));
    assert_eq!(value(SENT_BYTES), Some("3"));
}

#[test]
fn series_that_ended_start_again_together_with_the_next_connection() {
    let metrics = Metrics::detached(Settings { idle_expiry: Duration::ZERO, ..Settings::default() });
    let (cart, stock) = (workload("cart"), workload("stock"));
    let connection = |bytes| {
        let connection = ConnectionMetrics::open(&labels(&cart, &stock));
        connection.record_request_bytes(bytes);
        connection
    };
    thread::scope(|scope| scope.spawn(|| metrics.record_here(|| drop(connection(7)))).join().unwrap());
    let shown = |text: &str| [OPENED, CLOSED, RECEIVED_BYTES].map(|name| text.contains(&format!("{name}{{")));
    assert_eq!(shown(&metrics.render()), [true; 3]);
    let is_gone = |text: String| !text.contains("source_workload=");
    assert!((0..1_000_000).any(|_| is_gone(metrics.render())));

    let open = metrics.record_here(|| connection(5));
    let text = metrics.render();
    let value = |name| value_of(&text, name, "source_workload=\"cart\"");
    assert_eq!([OPENED, CLOSED, RECEIVED_BYTES].map(value), [Some("1"), Some("0"), Some("5")]);
    drop(open);
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
