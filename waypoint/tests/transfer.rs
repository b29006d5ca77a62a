//! Bodies without end through peers that stall: they arrive whole, and nobody keeps them meanwhile.
//!
//! `AMBIT_TEST_TRANSFER_BYTES` makes them longer; `scripts/soak` does.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

#[path = "support/http2.rs"]
mod http2;
#[expect(dead_code, reason = "other tests use more of it")]
mod support;

use std::time::Duration;

use ambit_mesh::service::AppProtocol;
use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use http2::{client, expect, serve_http2};
use support::{Mesh, Setup, read_until, run_for, write};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;
use tokio::time::timeout;

/// What memory may grow by: both ends of every connection are in this process, too.
const GROWTH: usize = 50 << 20;

/// Octets that are read before the reader stalls again.
const BETWEEN_STALLS: usize = 64 << 20;

const STALL: Duration = Duration::from_millis(500);

const PIECE: usize = 256 << 10;

fn octets() -> usize {
    std::env::var("AMBIT_TEST_TRANSFER_BYTES").map_or(160 << 20, |octets| octets.parse().unwrap())
}

/// The most memory that this process has had since it was last asked.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak = line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10;
    // proc(5): 5 sets the peak to what is resident now.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak
}

/// Reads nothing for a while.
async fn stall() {
    let _ = timeout(STALL, std::future::pending::<()>()).await;
}

async fn send(writing: &mut (impl AsyncWriteExt + Unpin), octets: usize) {
    let piece = vec![7; PIECE];
    for _ in 0..octets / PIECE {
        writing.write_all(&piece).await.unwrap();
    }
}

async fn receive(reading: &mut (impl AsyncReadExt + Unpin), octets: usize) {
    let (mut received, mut room) = (0, vec![0; PIECE]);
    while received < octets {
        if received % BETWEEN_STALLS < PIECE {
            stall().await;
        }
        let wanted = room.len().min(octets - received);
        let read = reading.read(&mut room[..wanted]).await.unwrap();
        assert!(read > 0 && room[..read].iter().all(|octet| *octet == 7), "after {received} octets");
        received += read;
    }
}

async fn send_http2(sending: &mut SendStream<Bytes>, octets: usize) {
    let piece = Bytes::from(vec![7; PIECE]);
    for _ in 0..octets / PIECE {
        let mut left = piece.clone();
        while !left.is_empty() {
            sending.reserve_capacity(left.len());
            let capacity = std::future::poll_fn(|cx| sending.poll_capacity(cx)).await.unwrap().unwrap();
            sending.send_data(left.split_to(capacity.min(left.len())), false).unwrap();
        }
    }
    sending.send_data(Bytes::new(), true).unwrap();
}

async fn receive_http2(body: &mut RecvStream, octets: usize) {
    let (mut received, mut stalls) = (0, 0);
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        if received >= stalls * BETWEEN_STALLS {
            stalls += 1;
            stall().await;
        }
        received += piece.len();
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    assert_eq!(received, octets);
}

#[test]
fn octets_without_end_pass_stalled_peers_in_bounded_memory() {
    let octets = octets();
    // Well below what even a busy machine does.
    let limit = Duration::from_secs(120 + octets as u64 / (2 << 20));
    run_for(limit, async move {
        let mesh = Mesh::start(Setup { protocol: AppProtocol::Http11, ..Setup::default() });
        let listener = mesh.backend().await;
        spawn_local(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                spawn_local(async move {
                    let head = read_until(&mut stream, "\r\n\r\n").await;
                    if head.starts_with("POST") {
                        receive(&mut stream, octets).await;
                        write(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-whole: yes\r\n\r\n")
                            .await;
                    } else {
                        write(&mut stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {octets}\r\n\r\n"))
                            .await;
                        send(&mut stream, octets).await;
                    }
                });
            }
        });
        let mut up = mesh.connect().await;
        let mut down = mesh.connect().await;
        peak();
        let before = peak();
        write(&mut up, &format!("POST / HTTP/1.1\r\nhost: web\r\ncontent-length: {octets}\r\n\r\n")).await;
        write(&mut down, "GET / HTTP/1.1\r\nhost: web\r\n\r\n").await;
        let sending = async {
            send(&mut up, octets).await;
            assert!(read_until(&mut up, "\r\n\r\n").await.contains("x-whole: yes"));
        };
        let receiving = async {
            read_until(&mut down, "\r\n\r\n").await;
            receive(&mut down, octets).await;
        };
        tokio::join!(sending, receiving);
        let growth = peak().saturating_sub(before);
        assert!(growth < GROWTH, "HTTP/1: memory grew by {growth} octets for {octets}");

        let mesh = Mesh::start(Setup { protocol: AppProtocol::Http2, ..Setup::default() });
        serve_http2(mesh.backend().await, move |request, mut respond| async move {
            if request.method() == http::Method::POST {
                receive_http2(&mut request.into_body(), octets).await;
                let mut sending = respond.send_response(Response::new(()), false).unwrap();
                sending.send_data(Bytes::from_static(b"whole"), true).unwrap();
            } else {
                let mut sending = respond.send_response(Response::new(()), false).unwrap();
                send_http2(&mut sending, octets).await;
            }
        });
        let (mut up, mut down) = (client(&mesh, "client").await, client(&mesh, "client").await);
        peak();
        let before = peak();
        let post = Request::post("http://web/").body(()).unwrap();
        let (whole, mut upload) = up.send_request(post, false).unwrap();
        let (answer, _) = down.send_request(Request::get("http://web/").body(()).unwrap(), true).unwrap();
        let sending = async {
            send_http2(&mut upload, octets).await;
            expect(whole.await.unwrap().body_mut(), "whole").await;
        };
        let receiving = async { receive_http2(answer.await.unwrap().body_mut(), octets).await };
        tokio::join!(sending, receiving);
        let growth = peak().saturating_sub(before);
        assert!(growth < GROWTH, "HTTP/2: memory grew by {growth} octets for {octets}");
    });
}
