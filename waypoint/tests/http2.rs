//! HTTP/2 and gRPC through a waypoint, with `h2` at both ends.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ambit_mesh::service::AppProtocol;
use ambit_mesh::workload::TunnelProtocol;
use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response};
use support::{Mesh, Setup, deny, deny_account, read_message, run, write};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

const GRPC: Setup = Setup { protocol: AppProtocol::Grpc, tunnel: TunnelProtocol::Hbone, is_configured: true };

/// An application that sends each message back as it comes, the request's trailers with `grpc-status` at
/// the end. Counts connections.
fn echo_messages(listener: TcpListener) -> Rc<Cell<usize>> {
    let connections = Rc::new(Cell::new(0));
    let counted = Rc::clone(&connections);
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.set(counted.get() + 1);
            spawn_local(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    spawn_local(async move {
                        assert_eq!(request.headers().get("te").unwrap(), "trailers");
                        assert!(request.headers().get("connection").is_none());
                        let path = request.uri().path().to_owned();
                        let response = Response::builder()
                            .header("content-type", "application/grpc")
                            .header("x-path", path)
                            .header("x-authority", request.uri().authority().unwrap().as_str())
                            .body(())
                            .unwrap();
                        let mut sending = respond.send_response(response, false).unwrap();
                        let mut body = request.into_body();
                        while let Some(data) = body.data().await {
                            let Ok(data) = data else { return };
                            body.flow_control().release_capacity(data.len()).unwrap();
                            sending.send_data(data, false).unwrap();
                        }
                        let mut trailers = body.trailers().await.unwrap().unwrap_or_default();
                        trailers.insert("grpc-status", "0".parse().unwrap());
                        sending.send_trailers(trailers).unwrap();
                    });
                }
            });
        }
    });
    connections
}

async fn client(mesh: &Mesh) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(mesh.connect().await).await.unwrap();
    spawn_local(connection);
    client
}

fn call(path: &str) -> Request<()> {
    Request::post(format!("http://web:80{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap()
}

#[test]
fn each_message_arrives_before_the_next_is_sent_and_trailers_follow() {
    run(async {
        let mesh = Mesh::start(GRPC);
        let _said = mesh.node_agent().await;
        let connections = echo_messages(mesh.backend().await);
        let client = client(&mesh).await;
        for round in 0..3 {
            let mut client = client.clone().ready().await.unwrap();
            let (response, mut sending) = client.send_request(call("/pkg.Svc/Method"), false).unwrap();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(response.headers().get("x-path").unwrap(), "/pkg.Svc/Method");
            assert_eq!(response.headers().get("x-authority").unwrap(), "web:80");
            let mut body = response.into_body();
            for message in 0..10 {
                let message = Bytes::from(format!("{round}-{message}"));
                sending.send_data(message.clone(), false).unwrap();
                assert_eq!(body.data().await.unwrap().unwrap(), message);
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", "10".parse().unwrap());
            sending.send_trailers(trailers).unwrap();
            assert!(body.data().await.is_none());
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!(trailers.get("grpc-status").unwrap(), "0");
            assert_eq!(trailers.get("x-sum").unwrap(), "10");
        }
        assert_eq!(connections.get(), 1);
    });
}

#[test]
fn a_client_that_cancels_frees_the_endpoint() {
    run(async {
        let mesh = Mesh::start(GRPC);
        let _said = mesh.node_agent().await;
        let listener = mesh.backend().await;
        let (cancelled, mut seen) = tokio::sync::mpsc::unbounded_channel();
        let (arrived, mut arrival) = tokio::sync::mpsc::unbounded_channel();
        spawn_local(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(stream).await.unwrap();
            while let Some(Ok((request, respond))) = connection.accept().await {
                arrived.send(()).unwrap();
                let cancelled = cancelled.clone();
                spawn_local(async move {
                    let _respond = respond;
                    let ended = request.into_body().data().await;
                    cancelled.send(matches!(ended, Some(Err(error)) if error.is_reset())).unwrap();
                });
            }
        });
        let mut client = client(&mesh).await.ready().await.unwrap();
        let (response, mut sending) = client.send_request(call("/a"), false).unwrap();
        let response = spawn_local(response);
        arrival.recv().await.unwrap();
        sending.send_reset(h2::Reason::CANCEL);
        assert!(seen.recv().await.unwrap());
        response.abort();
    });
}

#[test]
fn refusals_speak_grpc_to_grpc() {
    run(async {
        let mut mesh = Mesh::start(GRPC);
        mesh.apply([deny("/pkg.Svc/Secret")]);
        let mut client = client(&mesh).await.ready().await.unwrap();
        let (response, _) = client.send_request(call("/pkg.Svc/Secret"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("grpc-status").unwrap(), "7");
        assert_eq!(response.headers().get("grpc-message").unwrap(), "RBAC: access denied");
        let (response, _) = client.send_request(call("/pkg.Svc/Open"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers().get("grpc-status").unwrap(), "14", "nobody listens there");
    });
}

#[test]
fn an_open_stream_is_cut_by_a_new_policy() {
    run(async {
        let mut mesh = Mesh::start(GRPC);
        let _said = mesh.node_agent().await;
        let _connections = echo_messages(mesh.backend().await);
        let mut client = client(&mesh).await.ready().await.unwrap();
        let (response, _sending) = client.send_request(call("/a"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        mesh.apply([deny_account("client")]);
        let cut = tokio::time::timeout(Duration::from_secs(1), body.data()).await;
        cut.expect("within a second").unwrap().expect_err("never as an end");
    });
}

/// HTTP/1 clients of a service of HTTP/2, and the other way round.
#[test]
fn both_sides_may_speak_different_versions() {
    run(async {
        let mesh = Mesh::start(GRPC);
        let _said = mesh.node_agent().await;
        let _connections = echo_messages(mesh.backend().await);
        let mut client = mesh.connect().await;
        let request = "POST /up HTTP/1.1\r\nhost: web\r\nte: trailers\r\nconnection: te\r\ncontent-length: 5\r\n\r\nhello";
        write(&mut client, request).await;
        let head = support::read_until(&mut client, "\r\n\r\n").await;
        assert!(
            head.contains("x-path: /up\r\n") && head.contains("transfer-encoding: chunked\r\n"),
            "{head}"
        );
        let body = support::read_until(&mut client, "grpc-status: 0\r\n\r\n").await;
        assert!(body.contains("hello"), "{body}");

        let mesh = Mesh::start(Setup { protocol: AppProtocol::Http11, ..Setup::default() });
        let listener = mesh.backend().await;
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (head, body) = read_message(&mut stream).await;
            assert!(head.starts_with("POST /down HTTP/1.1\r\nhost: web:80\r\n"), "{head}");
            assert_eq!(body, "hello");
            write(
                &mut stream,
                "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-end: 1\r\n\r\n",
            )
            .await;
            std::future::pending::<()>().await;
        });
        let mut client = self::client(&mesh).await.ready().await.unwrap();
        let request = Request::post("http://web:80/down").header("content-length", "5").body(()).unwrap();
        let (response, mut sending) = client.send_request(request, false).unwrap();
        sending.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let mut body = response.await.unwrap().into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "ok");
        assert!(body.data().await.is_none());
        assert_eq!(body.trailers().await.unwrap().unwrap().get("x-end").unwrap(), "1");
    });
}

#[test]
fn a_waypoint_that_goes_lets_streams_finish() {
    run(async {
        let mut mesh = Mesh::start(GRPC);
        let _said = mesh.node_agent().await;
        let _connections = echo_messages(mesh.backend().await);
        let mut client = client(&mesh).await.ready().await.unwrap();
        let (response, mut sending) = client.send_request(call("/a"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        let trigger = mesh.drain.take().unwrap();
        let draining = spawn_local(trigger.drain(Duration::from_secs(20)));
        while client.clone().ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        sending.send_data(Bytes::from_static(b"still"), false).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "still");
        sending.send_data(Bytes::new(), true).unwrap();
        while body.data().await.is_some() {}
        assert_eq!(body.trailers().await.unwrap().unwrap().get("grpc-status").unwrap(), "0");
        drop(client);
        assert_eq!(draining.await.unwrap(), ambit_runtime::drain::Drained::Complete);
    });
}

/// RFC 8441, to an application of HTTP/1.
#[test]
fn a_websocket_of_http2_reaches_an_application_of_http1() {
    run(async {
        let mesh = Mesh::start(Setup { protocol: AppProtocol::Http11, ..Setup::default() });
        let listener = mesh.backend().await;
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = support::read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.starts_with("GET /ws HTTP/1.1\r\nhost: web:80\r\n"), "{head}");
            for part in ["upgrade: websocket\r\n", "connection: upgrade\r\n", "sec-websocket-key: "] {
                assert!(head.contains(part), "{head}");
            }
            let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: y\r\nx-more: 1\r\n\r\nhello";
            write(&mut stream, answer).await;
            assert_eq!(support::read_until(&mut stream, "there").await, "there");
            let (mut reading, mut writing) = stream.split();
            let _ = tokio::io::copy(&mut reading, &mut writing).await;
            tokio::io::AsyncWriteExt::shutdown(&mut writing).await.unwrap();
        });
        let (client, connection) = h2::client::handshake(mesh.connect().await).await.unwrap();
        spawn_local(connection);
        let mut client = client.ready().await.unwrap();
        while !client.is_extended_connect_protocol_enabled() {
            tokio::task::yield_now().await;
        }
        let request = Request::connect("http://web:80/ws")
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(())
            .unwrap();
        let (response, mut sending) = client.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers().get("x-more").unwrap(), "1");
        assert!(response.headers().get("sec-websocket-accept").is_none());
        let mut body = response.into_body();
        assert_eq!(body.data().await.unwrap().unwrap(), "hello");
        sending.send_data(Bytes::from_static(b"there"), false).unwrap();
        sending.send_data(Bytes::from_static(b"echo"), true).unwrap();
        assert_eq!(body.data().await.unwrap().unwrap(), "echo");
        while let Some(data) = body.data().await {
            assert!(data.unwrap().is_empty(), "both sides ended");
        }
    });
}
