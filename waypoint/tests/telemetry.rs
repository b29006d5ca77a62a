//! What a waypoint counts and logs: the text that Prometheus reads, and the lines that people read.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[path = "support/http2.rs"]
mod http2;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use ambit_mesh::service::AppProtocol;
use ambit_mesh::workload::TunnelProtocol;
use ambit_runtime::telemetry::metrics::{Metrics, Settings, install};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http2::{client, expect, serve_http2};
use support::{Mesh, Setup, deny, deny_account, open, read_message, read_until, run, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The process has one, whichever test comes first.
fn metrics() -> &'static Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| install("waypoint", Settings::default()).unwrap())
}

/// What the series of a family with all of these labels count together.
fn count(text: &str, family: &str, labels: &[&str]) -> u64 {
    let series = text.lines().filter(|line| line.starts_with(&format!("{family}{{")));
    let matching = series.filter(|line| labels.iter().all(|label| line.contains(label)));
    matching.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

fn with(account: &str, protocol: &str, more: &[&str]) -> Vec<String> {
    let known = [
        "reporter=\"waypoint\"".to_owned(),
        format!("source_principal=\"spiffe://cluster.local/ns/test/sa/{account}\""),
        "destination_service=\"web.test.svc.cluster.local\"".to_owned(),
        "destination_service_name=\"web\"".to_owned(),
        "destination_service_namespace=\"test\"".to_owned(),
        format!("request_protocol=\"{protocol}\""),
        "connection_security_policy=\"mutual_tls\"".to_owned(),
    ];
    known.into_iter().chain(more.iter().map(|label| (*label).to_owned())).collect()
}

fn counted(family: &str, account: &str, protocol: &str, more: &[&str]) -> u64 {
    let labels = with(account, protocol, more);
    count(&metrics().render(), family, &labels.iter().map(String::as_str).collect::<Vec<_>>())
}

/// What the endpoint is, where one was chosen.
const ENDPOINT: [&str; 4] = [
    "destination_workload=\"web\"",
    "destination_workload_namespace=\"test\"",
    "destination_canonical_service=\"web\"",
    "destination_principal=\"spiffe://cluster.local/ns/test/sa/web\"",
];

#[test]
fn requests_are_counted_with_istios_names_and_labels() {
    metrics();
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
        let mut client = open(&mesh.tunnel("http-client").await, mesh.vip).await.unwrap();
        for (path, status) in
            [("/", "204"), ("/a", "204"), ("/secret", "403"), ("/b", "204"), ("/a b", "400")]
        {
            let request = format!("GET {path} HTTP/1.1\r\nhost: anything{}.example\r\n\r\n", path.len());
            write(&mut client, &request).await;
            let (head, _) = read_message(&mut client).await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        }
    });
    let requests = |more: &[&str]| counted("istio_requests_total", "http-client", "http", more);
    let text = metrics().render();
    assert_eq!(
        requests(&[&ENDPOINT[..], &["response_code=\"204\"", "response_flags=\"-\""]].concat()),
        3,
        "{text}"
    );
    assert_eq!(requests(&["response_code=\"403\"", "destination_workload=\"unknown\""]), 1, "{text}");
    assert_eq!(requests(&["response_code=\"400\"", "response_flags=\"DPE\""]), 1, "{text}");
    for family in ["istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes"] {
        let buckets = counted(&format!("{family}_count"), "http-client", "http", &["response_code=\"204\""]);
        assert_eq!(buckets, 3, "{family}");
    }
    for bucket in ["0.5", "1", "2500", "3600000", "+Inf"] {
        let le = format!("le=\"{bucket}\"");
        let family = "istio_request_duration_milliseconds_bucket";
        assert!(text.lines().any(|line| line.starts_with(family) && line.contains(&le)), "{le}: {text}");
    }
    assert!(text.contains("istio_build{component=\"waypoint\""), "{text}");
    assert!(!text.contains("anything"), "no label is the client's to choose");
}

#[test]
fn messages_of_grpc_are_counted_and_so_is_its_status() {
    metrics();
    run(async {
        let setup = Setup { protocol: AppProtocol::Grpc, tunnel: TunnelProtocol::Hbone, ..Setup::default() };
        let mesh = Mesh::start(setup);
        let _said = mesh.node_agent().await;
        serve_http2(mesh.backend().await, |request, mut respond| async move {
            let mut body = request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut sending = respond.send_response(head, false).unwrap();
            sending.send_data(Bytes::from_static(b"\0\0\0\0\x03one"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "5".parse().unwrap());
            sending.send_trailers(trailers).unwrap();
        });
        let mut client = client(&mesh, "grpc-client").await;
        for _ in 0..2 {
            let request =
                Request::post("http://web/a.B/C").header("content-type", "application/grpc").body(());
            let (response, mut sending) = client.send_request(request.unwrap(), false).unwrap();
            for _ in 0..3 {
                sending.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
            }
            sending.send_data(Bytes::new(), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            expect(&mut body, "\0\0\0\0\x03one").await;
            assert!(body.data().await.is_none());
            assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "5");
        }
    });
    let labels = [&ENDPOINT[..], &["response_code=\"200\"", "grpc_response_status=\"5\""]].concat();
    for (family, expected) in [
        ("istio_requests_total", 2),
        ("istio_request_messages_total", 6),
        ("istio_response_messages_total", 2),
    ] {
        assert_eq!(counted(family, "grpc-client", "grpc", &labels), expected, "{family}");
    }
    assert_eq!(counted("istio_request_messages_total", "http-client", "http", &[]), 0);
}

#[test]
fn connections_of_tcp_are_counted_while_they_last() {
    metrics();
    run(async {
        let setup = Setup { protocol: AppProtocol::Tcp, tunnel: TunnelProtocol::Hbone, ..Setup::default() };
        let mut mesh = Mesh::start(setup);
        let _said = mesh.node_agent().await;
        let listener = mesh.backend().await;
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                spawn_local(async move {
                    let (mut reading, mut writing) = stream.split();
                    let _ = tokio::io::copy(&mut reading, &mut writing).await;
                    let _ = writing.shutdown().await;
                });
            }
        });
        let tcp = |family: &str, more: &[&str]| counted(family, "tcp-client", "tcp", more);
        let mut client = open(&mesh.tunnel("tcp-client").await, mesh.vip).await.unwrap();
        write(&mut client, "hello").await;
        read_until(&mut client, "hello").await;
        for (family, expected) in [
            ("istio_tcp_connections_opened_total", 1),
            ("istio_tcp_received_bytes_total", 5),
            ("istio_tcp_sent_bytes_total", 5),
            ("istio_tcp_connections_closed_total", 0),
        ] {
            assert_eq!(tcp(family, &ENDPOINT), expected, "{family}");
        }
        mesh.apply([deny_account("tcp-client")]);
        client.read(&mut [0]).await.expect_err("cut");
        let mut refused = open(&mesh.tunnel("tcp-client").await, mesh.vip).await.unwrap();
        refused.read(&mut [0]).await.expect_err("refused");
        assert_eq!(tcp("istio_tcp_connections_closed_total", &["response_flags=\"DENY\""]), 1);
        assert_eq!(tcp("istio_tcp_connections_failed_total", &["response_flags=\"DENY\""]), 1);
    });
}

/// Where the lines of a test go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// The only line with this text in it, once it is there.
    async fn with(&self, text: &str) -> String {
        let mut looks = tokio::time::interval(Duration::from_millis(10));
        for _ in 0..500 {
            let octets = self.0.lock().unwrap().clone();
            if let Some(line) = String::from_utf8(octets).unwrap().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            looks.tick().await;
        }
        panic!("no line with {text:?}");
    }
}

#[test]
fn the_access_log_has_the_standard_fields_and_a_refusal_names_its_rule() {
    let (text, json) = (Lines::default(), Lines::default());
    let (to_text, to_json) = (text.clone(), json.clone());
    // The two formats as every program has them.
    tracing_subscriber::registry()
        .with(layer().with_ansi(false).with_writer(move || to_text.clone()))
        .with(
            layer()
                .with_ansi(false)
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_writer(move || to_json.clone()),
        )
        .init();
    run(async {
        let mut mesh = Mesh::start(Setup { tunnel: TunnelProtocol::Hbone, ..Setup::default() });
        mesh.apply([deny("/secret")]);
        let _said = mesh.node_agent().await;
        let listener = mesh.backend().await;
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            loop {
                read_message(&mut stream).await;
                write(&mut stream, "HTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok").await;
            }
        });
        let mut client = open(&mesh.tunnel("log-client").await, mesh.vip).await.unwrap();
        let fields = "user-agent: a\"b\u{e9}\\n\r\nx-request-id: id-1\r\nx-forwarded-for: 10.9.9.9\r\n";
        for path in ["/logged?x=%22", "/secret/logged"] {
            let request =
                format!("POST {path} HTTP/1.1\r\nhost: web:80\r\n{fields}content-length: 5\r\n\r\nhello");
            write(&mut client, &request).await;
            read_message(&mut client).await;
        }
        let line = json.with("/logged?x=%22").await;
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        for (key, expected) in [
            ("method", "POST"),
            ("path", "/logged?x=%22"),
            ("protocol", "HTTP/1.1"),
            ("response_flags", "-"),
            ("response_code_details", "via_upstream"),
            ("x_forwarded_for", "10.9.9.9"),
            ("user_agent", "a\"b\u{e9}\\n"),
            ("request_id", "id-1"),
            ("authority", "web:80"),
            ("upstream_cluster", "web.test.svc.cluster.local"),
            ("src.identity", "spiffe://cluster.local/ns/test/sa/log-client"),
            ("dst.workload", "web"),
            ("allowed_by", "no ALLOW policy applies"),
            ("level", "INFO"),
        ] {
            assert_eq!(record[key], expected, "{key}: {line}");
        }
        for (key, expected) in [("response_code", 201), ("bytes_received", 5), ("bytes_sent", 2)] {
            assert_eq!(record[key], expected, "{key}: {line}");
        }
        for key in [
            "start_time",
            "upstream_host",
            "upstream_local_address",
            "downstream_local_address",
            "downstream_remote_address",
        ] {
            assert!(record[key].is_string(), "{key}: {line}");
        }
        for key in ["duration", "upstream_service_time"] {
            assert!(record[key].is_u64(), "{key}: {line}");
        }

        let line = json.with("/secret/logged").await;
        let record: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(record["response_code"], 403, "{line}");
        assert_eq!(record["level"], "WARN", "{line}");
        let details = "rbac_access_denied_matched_policy[ns[test]-policy[deny]-rule[0]]";
        assert_eq!(record["response_code_details"], details, "{line}");
        let why = "denied by rule 0 (counted from 0) of AuthorizationPolicy test/deny";
        assert_eq!(record["error"], why, "{line}");

        // One line each, whatever a client puts into its words.
        let line = text.with("path=\"/secret/logged\"").await;
        for part in ["response_code=403", "user_agent=\"a\\\"b", why, details] {
            assert!(line.contains(part), "{part}: {line}");
        }
        let line = text.with("path=\"/logged?x=%22\"").await;
        assert!(line.contains("response_code=201") && line.contains("authority=\"web:80\""), "{line}");
    });
}
