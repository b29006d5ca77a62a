//! HTTP/1 through a waypoint, with raw sockets at both ends.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use support::{Mesh, Setup, deny, deny_account, open, read_message, read_until, run, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::spawn_local;

/// An application that answers each request with what it received; counts connections and requests.
fn echo_heads(listener: TcpListener) -> Rc<(Cell<usize>, Cell<usize>)> {
    let counts = Rc::new((Cell::new(0), Cell::new(0)));
    let shared = Rc::clone(&counts);
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            shared.0.set(shared.0.get() + 1);
            let shared = Rc::clone(&shared);
            spawn_local(async move {
                let mut octets = Vec::new();
                let mut room = [0; 4096];
                loop {
                    while let Some(end) = octets.windows(4).position(|part| part == b"\r\n\r\n") {
                        let head: Vec<u8> = octets.drain(..end + 4).collect();
                        let head = String::from_utf8(head).unwrap();
                        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                        let length: usize = length.map_or(0, |length| length.parse().unwrap());
                        while octets.len() < length {
                            let n = stream.read(&mut room).await.unwrap();
                            octets.extend_from_slice(&room[..n]);
                        }
                        let body: Vec<u8> = octets.drain(..length).collect();
                        shared.1.set(shared.1.get() + 1);
                        let answer = [head.as_bytes(), &body].concat();
                        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", answer.len());
                        stream.write_all(&[head.as_bytes(), &answer].concat()).await.unwrap();
                    }
                    match stream.read(&mut room).await {
                        Ok(0) | Err(_) => return,
                        Ok(n) => octets.extend_from_slice(&room[..n]),
                    }
                }
            });
        }
    });
    counts
}

#[test]
fn connections_to_endpoints_are_kept_and_shared_by_one_clients_connections() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let counts = echo_heads(mesh.backend().await);
        for _ in 0..3 {
            let mut client = mesh.connect().await;
            for _ in 0..3 {
                write(&mut client, "GET /a?b=%2F HTTP/1.1\r\nHost: web\r\nX-One: 1\r\n\r\n").await;
                let (head, body) = read_message(&mut client).await;
                assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
                assert!(body.starts_with("GET /a?b=%2F HTTP/1.1\r\nhost: web\r\n"), "{body}");
                assert!(
                    body.contains("x-one: 1\r\n") && body.contains("x-forwarded-proto: http\r\n"),
                    "{body}"
                );
                assert!(body.contains("URI=spiffe://cluster.local/ns/test/sa/client"), "{body}");
            }
        }
        assert_eq!((counts.0.get(), counts.1.get()), (1, 9));
    });
}

#[test]
fn a_decision_is_of_one_request_alone() {
    run(async {
        let mut mesh = Mesh::start(Setup::default());
        mesh.apply([deny("/secret")]);
        let counts = echo_heads(mesh.backend().await);
        let mut client = mesh.connect().await;
        for round in 0..100 {
            let body = "x".repeat(round * 7);
            for (path, status) in [("/open", "200"), ("/secret", "403")] {
                let request = format!(
                    "POST {path} HTTP/1.1\r\nhost: web\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                write(&mut client, &request).await;
                let (head, text) = read_message(&mut client).await;
                assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
                if status == "403" {
                    assert_eq!(text, "RBAC: access denied");
                } else {
                    assert!(text.ends_with(&body));
                }
            }
            write(&mut client, "GET /secret HTTP/1.1\r\nhost: web\r\n\r\n").await;
            assert!(read_message(&mut client).await.0.starts_with("HTTP/1.1 403 "));
        }
        assert_eq!(counts.1.get(), 100, "no refused request reached the endpoint");
    });
}

#[test]
fn what_has_two_readings_reaches_nobody() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let counts = echo_heads(mesh.backend().await);
        for request in [
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            "GET / HTTP/1.1\nhost: a\n\n",
            "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: x-user\r\nx-user: admin\r\n\r\n",
        ] {
            let mut client = mesh.connect().await;
            write(&mut client, request).await;
            let (head, _) = read_message(&mut client).await;
            assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request:?}: {head}");
            assert!(head.contains("connection: close"));
            assert_eq!(client.read(&mut [0]).await.unwrap(), 0, "{request:?}: goes on");
        }
        let mut client = mesh.connect().await;
        let large = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n", "1".repeat(200 << 10));
        let _ = client.write_all(large.as_bytes()).await;
        let (head, _) = read_message(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 431 "), "{head}");
        assert_eq!(counts.1.get(), 0);
    });
}

#[test]
fn trailers_pass_both_ways() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let listener = mesh.backend().await;
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
            let body = read_until(&mut stream, "\r\n\r\n").await;
            assert_eq!(body, "3\r\none\r\n0\r\nx-sum: 1\r\n\r\n");
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-answer\r\n\r\n4\r\nfour\r\n0\r\nx-answer: 2\r\n\r\n";
            write(&mut stream, answer).await;
            std::future::pending::<()>().await;
        });
        let mut client = mesh.connect().await;
        let request = "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: chunked\r\n\r\n3;e=1\r\none\r\n0\r\nX-Sum: 1\r\ncontent-length: 9\r\n\r\n";
        write(&mut client, request).await;
        read_until(&mut client, "\r\n\r\n").await;
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, "4\r\nfour\r\n0\r\nx-answer: 2\r\n\r\n");
    });
}

#[test]
fn http_1_0_is_answered_as_http_1_0() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let listener = mesh.backend().await;
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.starts_with("GET / HTTP/1.1\r\n"), "{head}");
            write(&mut stream, "HTTP/1.1 200 OK\r\nconnection: hop\r\nhop: 1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
                .await;
            std::future::pending::<()>().await;
        });
        let mut client = mesh.connect().await;
        write(&mut client, "GET / HTTP/1.0\r\n\r\n").await;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer, "HTTP/1.0 200 OK\r\nconnection: close\r\n\r\nok");
    });
}

#[test]
fn a_client_that_asks_first_hears_from_the_endpoint() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let listener = mesh.backend().await;
        spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let head = read_until(&mut stream, "\r\n\r\n").await;
            assert!(head.contains("expect: 100-continue\r\n"), "{head}");
            write(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
            assert_eq!(read_until(&mut stream, "body").await, "body");
            write(&mut stream, "HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n").await;
            read_until(&mut stream, "\r\n\r\n").await;
            write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            std::future::pending::<()>().await;
        });
        let mut client = mesh.connect().await;
        let head = "PUT / HTTP/1.1\r\nhost: web\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";
        write(&mut client, head).await;
        assert_eq!(read_until(&mut client, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        write(&mut client, "body").await;
        assert!(read_message(&mut client).await.0.starts_with("HTTP/1.1 201 Created\r\n"));
        write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert!(read_message(&mut client).await.0.starts_with("HTTP/1.1 200 OK\r\n"), "it goes on");
    });
}

/// An application that changes the protocol to an echo of octets.
async fn websocket(mesh: &Mesh) {
    let listener = mesh.backend().await;
    spawn_local(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            spawn_local(async move {
                let head = read_until(&mut stream, "\r\n\r\n").await;
                assert!(
                    head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"),
                    "{head}"
                );
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-accept: y\r\n\r\nhello";
                write(&mut stream, answer).await;
                let (mut reading, mut writing) = stream.split();
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
                let _ = writing.shutdown().await;
            });
        }
    });
}

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nhost: web\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: x\r\n\r\n";

#[test]
fn a_websocket_passes_and_ends_with_either_side() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        websocket(&mesh).await;
        let mut client = mesh.connect().await;
        write(&mut client, UPGRADE).await;
        let head = read_until(&mut client, "\r\n\r\n").await;
        assert!(
            head.starts_with("HTTP/1.1 101 Switching Protocols\r\n")
                && head.contains("sec-websocket-accept: y"),
            "{head}"
        );
        assert_eq!(read_until(&mut client, "hello").await, "hello");
        for message in ["one", "two"] {
            write(&mut client, message).await;
            assert_eq!(read_until(&mut client, message).await, message);
        }
        client.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    });
}

#[test]
fn a_new_policy_governs_the_next_request_and_cuts_what_is_open() {
    run(async {
        let mut mesh = Mesh::start(Setup::default());
        websocket(&mesh).await;
        let mut open = mesh.connect().await;
        write(&mut open, UPGRADE).await;
        read_until(&mut open, "hello").await;
        mesh.apply([deny_account("client")]);
        let cut = tokio::time::timeout(Duration::from_secs(1), open.read(&mut [0])).await;
        cut.expect("cut within a second").expect_err("never as an end");
        let mut client = mesh.connect().await;
        write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert!(read_message(&mut client).await.0.starts_with("HTTP/1.1 403 "));
    });
}

#[test]
fn an_answer_that_is_cut_short_is_never_taken_for_whole() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let listener = mesh.backend().await;
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                read_until(&mut stream, "\r\n\r\n").await;
                write(&mut stream, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n")
                    .await;
            }
        });
        let mut client = mesh.connect().await;
        write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        read_until(&mut client, "half\r\n").await;
        client.read(&mut [0]).await.expect_err("reset");
    });
}

/// Octets of a large body.
const SIZE: usize = 64 << 20;

#[test]
fn both_directions_flow_at_once_and_a_stalled_peer_holds_the_other() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let listener = mesh.backend().await;
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                spawn_local(async move {
                    let head = read_until(&mut stream, "\r\n\r\n").await;
                    write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 67108864\r\n\r\n").await;
                    if head.starts_with("POST /stall") {
                        return std::future::pending().await;
                    }
                    let (reading, mut writing) = stream.split();
                    tokio::io::copy(&mut reading.take(SIZE as u64), &mut writing).await.unwrap();
                });
            }
        });
        let request =
            |path: &str| format!("POST {path} HTTP/1.1\r\nhost: web\r\ncontent-length: {SIZE}\r\n\r\n");
        let mut client = mesh.connect().await;
        write(&mut client, &request("/echo")).await;
        read_until(&mut client, "\r\n\r\n").await;
        // One task: a stream wakes nobody else.
        let (mut reading, mut writing) = tokio::io::split(client);
        let sending = async move {
            let piece = vec![7; 1 << 20];
            for _ in 0..SIZE >> 20 {
                writing.write_all(&piece).await.unwrap();
            }
        };
        let receiving = async move {
            let mut received = 0;
            let mut room = vec![0; 64 << 10];
            while received < SIZE {
                let n = reading.read(&mut room).await.unwrap();
                assert!(n > 0 && room[..n].iter().all(|octet| *octet == 7));
                received += n;
            }
        };
        tokio::join!(sending, receiving);

        let mut stalled = mesh.connect().await;
        write(&mut stalled, &request("/stall")).await;
        read_until(&mut stalled, "\r\n\r\n").await;
        let piece = vec![7; 1 << 20];
        let mut taken = 0;
        while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), stalled.write(&piece)).await {
            taken += written.unwrap();
        }
        assert!(taken < 24 << 20, "{taken} octets were taken for an endpoint that reads nothing");
    });
}

#[test]
fn what_is_not_served_here_is_refused() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let tunnel = mesh.tunnel("client").await;
        for authority in ["10.96.0.2:80", "10.96.0.1:81", "8.8.8.8:80"] {
            assert_eq!(open(&tunnel, authority.parse().unwrap()).await.err(), Some(404), "{authority}");
        }
        let mut client = open(&tunnel, mesh.vip).await.unwrap();
        write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        let (head, _) = read_message(&mut client).await;
        assert!(head.starts_with("HTTP/1.1 503 "), "nobody listens there: {head}");
    });
}

#[test]
fn a_waypoint_that_goes_says_so_and_finishes() {
    run(async {
        let mut mesh = Mesh::start(Setup::default());
        let counts = echo_heads(mesh.backend().await);
        let mut client = mesh.connect().await;
        write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert!(!read_message(&mut client).await.0.contains("connection: close"));
        let trigger = mesh.drain.take().unwrap();
        let draining = spawn_local(trigger.drain(Duration::from_secs(20)));
        let mut served = 1;
        loop {
            write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
            served += 1;
            if read_message(&mut client).await.0.contains("connection: close") {
                break;
            }
        }
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        let mut late = mesh.connect().await;
        write(&mut late, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert!(read_message(&mut late).await.0.starts_with("HTTP/1.1 200 "), "who has not heard is served");
        drop((client, late));
        assert_eq!(draining.await.unwrap(), ambit_runtime::drain::Drained::Complete);
        assert_eq!(counts.1.get(), served + 1);
    });
}

#[test]
fn a_head_that_takes_too_long_ends_its_connection_alone() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let _counts = echo_heads(mesh.backend().await);
        let tunnel = mesh.tunnel("client").await;
        let mut slow = open(&tunnel, mesh.vip).await.unwrap();
        let mut quick = open(&tunnel, mesh.vip).await.unwrap();
        write(&mut slow, "GET / HTTP/1.1\r\n").await;
        // One octet now and then does not put the end off.
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..20 {
            pace.tick().await;
            if slow.write_all(b"x").await.is_err() {
                break;
            }
            write(&mut quick, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
            assert!(read_message(&mut quick).await.0.starts_with("HTTP/1.1 200 "));
        }
        let (head, _) = read_message(&mut slow).await;
        assert!(head.starts_with("HTTP/1.1 408 Request Timeout\r\n"), "{head}");
    });
}

#[test]
fn a_connection_that_the_endpoint_closed_meanwhile_costs_no_request() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let listener = mesh.backend().await;
        spawn_local(async move {
            loop {
                // One request a connection, and no word about it.
                let (mut stream, _) = listener.accept().await.unwrap();
                read_until(&mut stream, "\r\n\r\n").await;
                write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        let mut client = mesh.connect().await;
        for _ in 0..50 {
            write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
            assert!(read_message(&mut client).await.0.starts_with("HTTP/1.1 200 "));
        }
    });
}

#[test]
fn a_client_that_goes_frees_the_endpoint() {
    run(async {
        let mesh = Mesh::start(Setup::default());
        let listener = mesh.backend().await;
        let mut client = mesh.connect().await;
        write(&mut client, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        let (mut stream, _) = listener.accept().await.unwrap();
        read_until(&mut stream, "\r\n\r\n").await;
        client.abort();
        let end = tokio::time::timeout(Duration::from_secs(2), stream.read(&mut [0])).await;
        assert!(matches!(end.expect("the endpoint is told"), Ok(0) | Err(_)));
    });
}

#[test]
fn nothing_is_decided_before_the_first_configuration() {
    run(async {
        let mut mesh = Mesh::start(Setup { is_configured: false, ..Setup::default() });
        let _counts = echo_heads(mesh.backend().await);
        let tunnel = mesh.tunnel("client").await;
        let opening = open(&tunnel, mesh.vip);
        tokio::pin!(opening);
        let early = tokio::time::timeout(Duration::from_millis(300), &mut opening).await;
        assert!(early.is_err(), "it waits");
        mesh.apply([deny("/secret")]);
        let mut client = opening.await.unwrap();
        write(&mut client, "GET /secret HTTP/1.1\r\nhost: web\r\n\r\n").await;
        assert!(read_message(&mut client).await.0.starts_with("HTTP/1.1 403 "));
    });
}
