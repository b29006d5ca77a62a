//! A service is bound to a waypoint no more: nothing is lost in the moment of the change, and nothing is left after it.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::time::{Duration, Instant};

use ambit_mesh::service::AppProtocol;
use support::{Mesh, Setup, deny, open, read_message, read_until, run, unbound, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;
use waypoint::parting::PARTING;
use waypoint::wire::Wire;

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: web\r\n\r\n";

/// An application that answers every head; one that asks for `/slow` with a piece of a body that goes on.
fn application(listener: TcpListener) {
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            spawn_local(async move {
                loop {
                    let head = read_until(&mut stream, "\r\n\r\n").await;
                    if head.starts_with("GET /slow") {
                        let begun = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nbegun\r\n";
                        write(&mut stream, begun).await;
                        return std::future::pending().await;
                    }
                    if head.is_empty() {
                        return;
                    }
                    write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
                }
            });
        }
    });
}

/// A client whose answer has begun and goes on.
async fn begin(mesh: &Mesh) -> Wire {
    let mut slow = mesh.connect().await;
    write(&mut slow, "GET /slow HTTP/1.1\r\nhost: web\r\n\r\n").await;
    read_until(&mut slow, "begun\r\n").await;
    slow
}

#[test]
fn a_service_that_goes_to_another_waypoint_is_served_until_everybody_knows_and_not_longer() {
    run(async {
        let mut mesh = Mesh::start(Setup::default());
        application(mesh.backend().await);
        mesh.apply([deny("/admin")]);
        let (mut kept, mut idle) = (mesh.connect().await, mesh.connect().await);
        for client in [&mut kept, &mut idle] {
            write(client, REQUEST).await;
            let (head, _) = read_message(client).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("connection: close"), "{head}");
        }
        let mut slow = begin(&mesh).await;

        let gone = unbound(&mut mesh);
        mesh.apply([gone]);
        let changed = Instant::now();
        // The waypoint's worker hears of it in its own time.
        loop {
            let mut client = mesh.connect().await;
            write(&mut client, REQUEST).await;
            let (head, _) = read_message(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
            if head.contains("connection: close") {
                break;
            }
            assert!(changed.elapsed() < PARTING, "nobody is asked to go");
        }
        write(&mut kept, REQUEST).await;
        let (head, _) = read_message(&mut kept).await;
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("connection: close"), "{head}");
        assert_eq!(kept.read(&mut [0]).await.unwrap(), 0);
        let mut refused = mesh.connect().await;
        write(&mut refused, "GET /admin HTTP/1.1\r\nhost: web\r\n\r\n").await;
        let (head, _) = read_message(&mut refused).await;
        assert!(head.starts_with("HTTP/1.1 403 "), "its policies go on as long: {head}");

        // A connection that is idle ends in good order, an answer that goes on is cut.
        assert_eq!(idle.read(&mut [0]).await.unwrap(), 0);
        assert!(changed.elapsed() >= PARTING - Duration::from_millis(100), "{:?}", changed.elapsed());
        slow.read(&mut [0]).await.expect_err("never as an end");
        let tunnel = mesh.tunnel("client").await;
        assert_eq!(open(&tunnel, mesh.vip).await.unwrap_err(), 404);
        let _ = slow.shutdown().await;
    });
}

#[test]
fn a_client_of_http2_is_told_to_go_where_its_service_went() {
    run(async {
        let mut mesh = Mesh::start(Setup { protocol: AppProtocol::Http11, ..Setup::default() });
        application(mesh.backend().await);
        let (client, connection) = h2::client::handshake(mesh.connect().await).await.unwrap();
        let connection = spawn_local(connection);
        let gone = unbound(&mut mesh);
        mesh.apply([gone]);
        // What is begun before it has heard is answered.
        let mut answered = 0;
        while let Ok(mut ready) = client.clone().ready().await {
            let request = http::Request::get("http://web/").body(()).unwrap();
            let Ok((response, _)) = ready.send_request(request, true) else { break };
            assert_eq!(response.await.unwrap().status(), 200);
            answered += 1;
        }
        assert!(answered > 0);
        drop(client);
        connection.await.unwrap().unwrap();
    });
}

#[test]
fn a_service_that_comes_back_in_time_keeps_what_is_in_progress() {
    run(async {
        let mut mesh = Mesh::start(Setup::default());
        application(mesh.backend().await);
        let mut slow = begin(&mesh).await;
        let service = mesh.state_now().mesh().service(&support::service_name()).unwrap().clone();
        let gone = unbound(&mut mesh);
        mesh.apply([gone]);
        mesh.apply([ambit_mesh::snapshot::Change::Service(service)]);
        let over = tokio::time::timeout(PARTING + Duration::from_secs(1), slow.read(&mut [0])).await;
        over.expect_err("it goes on");
        let mut client = mesh.connect().await;
        write(&mut client, REQUEST).await;
        assert!(!read_message(&mut client).await.0.contains("connection: close"));
    });
}

#[test]
fn a_waypoint_that_stops_and_is_no_instance_any_more_lets_what_is_in_progress_finish() {
    run(async {
        let mut mesh = Mesh::start(Setup::default());
        application(mesh.backend().await);
        let mut slow = begin(&mesh).await;
        let draining = spawn_local(mesh.drain.take().unwrap().drain(PARTING * 3));
        loop {
            let mut client = mesh.connect().await;
            write(&mut client, REQUEST).await;
            if read_message(&mut client).await.0.contains("connection: close") {
                break;
            }
        }
        let gone = unbound(&mut mesh);
        mesh.apply([gone]);
        let over = tokio::time::timeout(PARTING + Duration::from_secs(1), slow.read(&mut [0])).await;
        over.expect_err("it goes on");
        drop(slow);
        draining.await.unwrap();
    });
}
