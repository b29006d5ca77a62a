//! What is more than a request and an answer: websockets, streams of events and messages, what comes before an
//! answer and behind it, and octets without end.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[path = "support/http2.rs"]
mod http2;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::time::Duration;

use ambit_mesh::service::AppProtocol;
use ambit_mesh::workload::TunnelProtocol;
use bytes::Bytes;
use h2::ext::Protocol;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http2::{client, expect, serve_http2};
use support::{Mesh, Setup, read_message, read_until, run, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use tokio::time::{interval, timeout};

const UPGRADE: &str = "GET /ws?x=1 HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: WebSocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Times after which silence ends what may not be silent.
const SHORT: [&str; 4] = ["--idle-timeout", "400ms", "--upstream-idle-timeout", "400ms"];

/// Longer than those, and than the times of support.
const SILENCE: Duration = Duration::from_millis(2_500);

fn setup(protocol: AppProtocol) -> Setup {
    Setup { protocol, ..Setup::default() }
}

fn websocket() -> Request<()> {
    Request::connect("http://web/ws?x=1")
        .extension(Protocol::from_static("websocket"))
        .header("sec-websocket-version", "13")
        .body(())
        .unwrap()
}

/// An application of HTTP/1 that sends back what comes behind the change of protocol.
fn echo_of_http1(listener: TcpListener) {
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            spawn_local(async move {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                if head.starts_with("PRI ") {
                    return;
                }
                assert!(head.starts_with("GET /ws?x=1 HTTP/1.1\r\n"), "{head}");
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                              sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                write(&mut stream, answer).await;
                let (mut reading, mut writing) = stream.split();
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
                let _ = writing.shutdown().await;
            });
        }
    });
}

/// The same of HTTP/2.
fn echo_of_http2(listener: TcpListener) {
    serve_http2(listener, |request, mut respond| async move {
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.extensions().get::<Protocol>().unwrap().as_str(), "websocket");
        assert_eq!(request.uri().path_and_query().unwrap().as_str(), "/ws?x=1");
        assert!(request.headers().get("sec-websocket-key").is_none());
        assert_eq!(request.headers()["sec-websocket-version"], "13");
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        let mut body = request.into_body();
        while let Some(Ok(piece)) = body.data().await {
            body.flow_control().release_capacity(piece.len()).unwrap();
            sending.send_data(piece, false).unwrap();
        }
        sending.send_data(Bytes::new(), true).unwrap();
    });
}

#[test]
fn websockets_pass_between_every_two_versions_and_outlast_silence() {
    run(async {
        for (name, protocol, backend) in [
            ("an application of HTTP/1", AppProtocol::Http11, echo_of_http1 as fn(TcpListener)),
            ("an application of HTTP/2", AppProtocol::Http2, echo_of_http2),
            ("an application of HTTP/1 that nobody has declared", AppProtocol::Unknown, echo_of_http1),
            (
                "an application that is declared to speak HTTP/2 and speaks HTTP/1",
                AppProtocol::Http2,
                echo_of_http1,
            ),
        ] {
            let mesh = Mesh::start_with(setup(protocol), &SHORT);
            backend(mesh.backend().await);

            let mut of_http1 = mesh.connect().await;
            write(&mut of_http1, UPGRADE).await;
            let head = read_until(&mut of_http1, "\r\n\r\n").await;
            assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{name}: {head}");
            for part in [
                "upgrade: websocket\r\n",
                "connection: upgrade\r\n",
                "accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
            ] {
                assert!(head.contains(part), "{name}: {head}");
            }

            let mut of_http2 = client(&mesh, "client").await;
            while !of_http2.is_extended_connect_protocol_enabled() {
                tokio::task::yield_now().await;
            }
            let (response, mut sending) = of_http2.send_request(websocket(), false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{name}");
            let mut body = response.into_body();

            for silence in [Duration::from_millis(1), SILENCE] {
                timeout(silence, of_http1.read(&mut [0])).await.expect_err("nothing comes");
                timeout(Duration::from_millis(1), body.data()).await.expect_err("nothing came");
                write(&mut of_http1, "one").await;
                assert_eq!(read_until(&mut of_http1, "one").await, "one", "{name}");
                sending.send_data(Bytes::from_static(b"two"), false).unwrap();
                expect(&mut body, "two").await;
            }

            // Each side's end arrives as one.
            of_http1.shutdown().await.unwrap();
            assert_eq!(of_http1.read(&mut [0]).await.unwrap(), 0, "{name}");
            sending.send_data(Bytes::new(), true).unwrap();
            while let Some(piece) = body.data().await {
                assert!(piece.unwrap().is_empty(), "{name}");
            }
        }
    });
}

#[test]
fn a_websocket_that_is_refused_or_cut_says_so() {
    run(async {
        let mesh = Mesh::start(setup(AppProtocol::Http2));
        serve_http2(mesh.backend().await, |request, mut respond| async move {
            if request.headers().contains_key("x-cut") {
                let mut sending = respond.send_response(Response::new(()), false).unwrap();
                // What is not sent yet goes with a reset.
                request.into_body().data().await.unwrap().unwrap();
                sending.send_reset(h2::Reason::INTERNAL_ERROR);
            } else {
                let refusal = Response::builder().status(StatusCode::UPGRADE_REQUIRED).body(()).unwrap();
                respond.send_response(refusal, true).unwrap();
            }
        });
        let mut refused = mesh.connect().await;
        write(&mut refused, UPGRADE).await;
        let (head, _) = read_message(&mut refused).await;
        assert!(head.starts_with("HTTP/1.1 426 "), "{head}");
        let mut cut = mesh.connect().await;
        write(&mut cut, &UPGRADE.replace("\r\n\r\n", "\r\nx-cut: 1\r\n\r\n")).await;
        read_until(&mut cut, "\r\n\r\n").await;
        write(&mut cut, "now").await;
        cut.read(&mut [0]).await.expect_err("never as an end");
    });
}

#[test]
fn events_arrive_as_they_are_sent() {
    run(async {
        let mesh = Mesh::start_with(setup(AppProtocol::Http11), &SHORT);
        let listener = mesh.backend().await;
        let (go, mut went) = tokio::sync::mpsc::unbounded_channel::<()>();
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_until(&mut stream, "\r\n\r\n").await;
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
            write(&mut stream, head).await;
            // The next is sent once the client has the one before.
            while went.recv().await.is_some() {
                write(&mut stream, "9\r\ndata: 1\n\n\r\n").await;
            }
            write(&mut stream, "0\r\n\r\n").await;
        });
        let mut client = mesh.connect().await;
        write(&mut client, "GET /events HTTP/1.1\r\nhost: web\r\naccept: text/event-stream\r\n\r\n").await;
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(head.contains("content-type: text/event-stream\r\n"), "{head}");
        for silence in [Duration::from_millis(1), Duration::from_millis(1), SILENCE] {
            timeout(silence, client.read(&mut [0])).await.expect_err("nothing comes");
            go.send(()).unwrap();
            read_until(&mut client, "data: 1\n\n\r\n").await;
        }
        drop(go);
        read_until(&mut client, "0\r\n\r\n").await;
    });
}

#[test]
fn half_closed_streams_and_silent_ones_go_on() {
    run(async {
        let setup = Setup { protocol: AppProtocol::Grpc, tunnel: TunnelProtocol::Hbone, ..Setup::default() };
        let mesh = Mesh::start_with(setup, &SHORT);
        let _said = mesh.node_agent().await;
        serve_http2(mesh.backend().await, |request, mut respond| async move {
            let mut body = request.into_body();
            // Everything is waited for first: the client has closed its half.
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            let mut sending = respond.send_response(Response::new(()), false).unwrap();
            for message in ["one", "two"] {
                let reset = std::future::poll_fn(|cx| sending.poll_reset(cx));
                timeout(SILENCE, reset).await.expect_err("it goes on");
                sending.send_data(Bytes::from(message), false).unwrap();
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            sending.send_trailers(trailers).unwrap();
        });
        let mut client = client(&mesh, "client").await;
        let request =
            Request::post("http://web/a.B/C").header("content-type", "application/grpc").body(()).unwrap();
        let (mut response, mut sending) = client.send_request(request, false).unwrap();
        timeout(SILENCE, &mut response).await.expect_err("nobody has anything to say");
        sending.send_data(Bytes::from_static(b"asked"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        expect(&mut body, "onetwo").await;
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap()["grpc-status"], "0");
    });
}

#[test]
fn what_comes_before_an_answer_passes_from_http2() {
    run(async {
        let mesh = Mesh::start(setup(AppProtocol::Http2));
        let connections = serve_http2(mesh.backend().await, |request, mut respond| async move {
            if request.uri().path() == "/hints" {
                let hints = Response::builder().status(103).header("link", "</a.css>").body(()).unwrap();
                respond.send_informational(hints).unwrap();
                respond.send_response(Response::new(()), true).unwrap();
                return;
            }
            assert_eq!(request.headers()["expect"], "100-continue");
            match request.uri().path() {
                "/asked" => {
                    let go_on = Response::builder().status(100).body(()).unwrap();
                    respond.send_informational(go_on).unwrap();
                }
                "/refused" => {
                    let refusal =
                        Response::builder().status(StatusCode::EXPECTATION_FAILED).body(()).unwrap();
                    respond.send_response(refusal, true).unwrap();
                    return;
                }
                // Says nothing, as many do.
                _ => {}
            }
            let mut body = request.into_body();
            let mut octets = 0;
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).unwrap();
                octets += piece.len();
            }
            let answer = Response::builder().header("x-octets", octets).body(()).unwrap();
            respond.send_response(answer, true).unwrap();
        });
        let request = |path: &str| {
            format!("PUT {path} HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n")
        };
        for path in ["/asked", "/silent"] {
            let mut client = mesh.connect().await;
            write(&mut client, &request(path)).await;
            assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n", "{path}");
            write(&mut client, "body").await;
            let (head, _) = read_message(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("x-octets: 4\r\n"), "{path}: {head}");
        }
        let mut refused = mesh.connect().await;
        write(&mut refused, &request("/refused")).await;
        let (head, _) = read_message(&mut refused).await;
        assert!(head.starts_with("HTTP/1.1 417 "), "{head}");
        let mut hinted = mesh.connect().await;
        write(&mut hinted, "GET /hints HTTP/1.1\r\nhost: web\r\n\r\n").await;
        let hints = read_until(&mut hinted, "\r\n\r\n").await;
        assert_eq!(hints, "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n");
        assert!(read_message(&mut hinted).await.0.starts_with("HTTP/1.1 200 "));

        let mut of_http2 = client(&mesh, "client").await;
        let put = Request::put("http://web/asked").header("expect", "100-continue").body(()).unwrap();
        let (mut response, mut sending) = of_http2.send_request(put, false).unwrap();
        let early = std::future::poll_fn(|cx| response.poll_informational(cx)).await.unwrap().unwrap();
        assert_eq!(early.status(), StatusCode::CONTINUE);
        sending.send_data(Bytes::from_static(b"body"), true).unwrap();
        assert_eq!(response.await.unwrap().headers()["x-octets"], "4");
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn an_upload_that_stalls_ends_itself_alone() {
    run(async {
        let mesh = Mesh::start_with(setup(AppProtocol::Http11), &SHORT);
        let listener = mesh.backend().await;
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                spawn_local(async move {
                    let mut room = [0; 1024];
                    while let Ok(octets) = stream.read(&mut room).await
                        && octets > 0
                    {
                        if room[..octets].starts_with(b"GET") {
                            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                        }
                    }
                });
            }
        });
        let tunnel = mesh.tunnel("client").await;
        let mut slow = support::open(&tunnel, mesh.vip).await.unwrap();
        let mut quick = support::open(&tunnel, mesh.vip).await.unwrap();
        write(&mut slow, "POST / HTTP/1.1\r\nhost: web\r\ncontent-length: 100\r\n\r\n").await;
        // As long as something comes, it may take its time.
        let mut pace = interval(Duration::from_millis(150));
        for _ in 0..8 {
            write(&mut slow, "x").await;
            pace.tick().await;
            write(&mut quick, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
            assert!(read_message(&mut quick).await.0.starts_with("HTTP/1.1 200 "));
        }
        let ended = timeout(Duration::from_secs(3), read_message(&mut slow)).await;
        let (head, _) = ended.expect("it ends");
        assert!(head.starts_with("HTTP/1.1 408 ") && head.contains("connection: close\r\n"), "{head}");
        assert_eq!(slow.read(&mut [0]).await.unwrap(), 0);
        let mut later = support::open(&tunnel, mesh.vip).await.unwrap();
        write(&mut later, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert!(read_message(&mut later).await.0.starts_with("HTTP/1.1 200 "));
    });
}

#[test]
fn an_answer_of_http2_that_is_cut_short_is_never_taken_for_whole() {
    run(async {
        let mesh = Mesh::start(setup(AppProtocol::Http2));
        serve_http2(mesh.backend().await, |request, mut respond| async move {
            let mut sending = respond.send_response(Response::new(()), false).unwrap();
            if request.uri().path() == "/half" {
                sending.send_data(Bytes::from_static(b"half"), false).unwrap();
            }
            sending.send_reset(h2::Reason::INTERNAL_ERROR);
        });
        for path in ["/head", "/half"] {
            let mut of_http1 = mesh.connect().await;
            write(&mut of_http1, &format!("GET {path} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n"))
                .await;
            let mut heard = Vec::new();
            let ended = of_http1.read_to_end(&mut heard).await;
            let heard = String::from_utf8_lossy(&heard);
            let is_refusal = heard.starts_with("HTTP/1.1 503 ");
            assert!(is_refusal || ended.is_err(), "{path}: {heard}");
            assert!(!heard.contains("\r\n0\r\n\r\n"), "{path}: {heard}");

            let mut of_http2 = client(&mesh, "client").await;
            let get = Request::get(format!("http://web{path}")).body(()).unwrap();
            let (response, _) = of_http2.send_request(get, true).unwrap();
            if let Ok(response) = response.await
                && response.status() == StatusCode::OK
            {
                let mut body = response.into_body();
                let mut last = Ok(Bytes::new());
                while let Some(piece) = body.data().await {
                    last = piece;
                }
                assert!(last.is_err() || body.trailers().await.is_err(), "{path}");
            }
        }
    });
}
