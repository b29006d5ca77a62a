//! What a waypoint counts.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use ambit_mesh::workload::TunnelProtocol;
use ambit_runtime::telemetry::metrics::{Settings, install};
use support::{Mesh, Setup, deny, read_message, read_until, run, write};
use tokio::task::spawn_local;

#[test]
fn requests_are_counted_with_istios_names_and_labels() {
    let metrics = install("waypoint", Settings::default()).unwrap();
    run(async {
        let mut mesh = Mesh::start(Setup { tunnel: TunnelProtocol::Hbone, ..Setup::default() });
        mesh.apply([deny("/secret")]);
        let _said = mesh.node_agent().await;
        let listener = mesh.backend().await;
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                read_until(&mut stream, "\r\n\r\n").await;
                write(&mut stream, "HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        });
        let mut client = mesh.connect().await;
        for (path, status) in [("/", "204"), ("/", "204"), ("/secret", "403"), ("/", "204")] {
            write(
                &mut client,
                &format!("GET {path} HTTP/1.1\r\nhost: anything.{path}x\r\n\r\n").replace("./", "."),
            )
            .await;
            let (head, _) = read_message(&mut client).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        }
    });
    let text = metrics.render();
    let count = |labels: &[&str]| {
        let series = text.lines().filter(|line| line.starts_with("istio_requests_total{"));
        let matching = series.filter(|line| labels.iter().all(|label| line.contains(label)));
        matching.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let known = [
        "reporter=\"waypoint\"",
        "source_principal=\"spiffe://cluster.local/ns/test/sa/client\"",
        "destination_service=\"web.test.svc.cluster.local\"",
        "destination_service_name=\"web\"",
        "request_protocol=\"http\"",
        "connection_security_policy=\"mutual_tls\"",
    ];
    let with = |more: &[&'static str]| count(&[&known[..], more].concat());
    let served = ["response_code=\"204\"", "response_flags=\"-\"", "destination_workload=\"web\""];
    assert_eq!(with(&served), 3, "{text}");
    assert_eq!(
        with(&["destination_principal=\"spiffe://cluster.local/ns/test/sa/web\"", "response_code=\"204\""]),
        3
    );
    assert_eq!(with(&["response_code=\"403\""]), 1, "{text}");
    assert!(text.contains("istio_request_duration_milliseconds_bucket{reporter=\"waypoint\""), "{text}");
    assert!(text.contains("ambit_upstream_connections_total 1\n"), "one dial for three requests: {text}");
    assert!(!text.contains("anything"), "no label is the client's to choose");
}
