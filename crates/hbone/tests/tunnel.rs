//! Two of our tunnels back to back, over real sockets and real TLS.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

mod support;

use std::cell::Cell;
use std::collections::HashSet;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::codec::{Reason, Settings};
use ambit_hbone::pool::Pool;
use ambit_hbone::pool::policy::Limits;
use ambit_hbone::relay::{IdleLimits, RelayCause, RelayEnd, Stop, relay};
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{HandshakeError, Tunnel, TunnelStream, handshake};
use support::{DEFAULT, PATIENT, REQUEST, Root, application, open, pattern, run, tcp_pair, tunnel_pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::spawn_local;

type Ending = tokio::task::JoinHandle<RelayEnd<&'static str>>;

/// A client application and a server application joined by a tunnelled connection.
struct Joined {
    client: tokio::net::TcpStream,
    server: tokio::net::TcpStream,
    near: Ending,
    far: Ending,
    stop: Stop<&'static str>,
}

fn join(near: TunnelStream, far: TunnelStream, limits: IdleLimits) -> Joined {
    let (client, near_socket) = application();
    let (server, far_socket) = application();
    let stop = Stop::default();
    let near = spawn_local(relay(near, near_socket, limits, stop.clone()));
    let far = spawn_local(relay(far, far_socket, limits, Stop::default()));
    Joined { client, server, near, far, stop }
}

async fn joined() -> (Tunnel, Tunnel, Joined) {
    let (client, server) = tunnel_pair(DEFAULT).await;
    let (near, far) = open(&client, &server).await;
    let joined = join(near, far, PATIENT);
    (client, server, joined)
}

#[test]
fn octets_arrive_intact_both_ways_at_once() {
    run(async {
        let (_client, _server, joined) = joined().await;
        let (mut client_read, mut client_write) = joined.client.into_split();
        let (mut server_read, mut server_write) = joined.server.into_split();
        let (up, down) = (pattern(20 << 20, 1), pattern(13 << 20, 2));
        let (sent_up, sent_down) = (up.clone(), down.clone());
        spawn_local(async move { client_write.write_all(&sent_up).await.unwrap() });
        spawn_local(async move { server_write.write_all(&sent_down).await.unwrap() });
        let (mut got_up, mut got_down) = (Vec::new(), Vec::new());
        let (a, b) =
            tokio::join!(server_read.read_to_end(&mut got_up), client_read.read_to_end(&mut got_down));
        a.unwrap();
        b.unwrap();
        assert!(got_up == up, "client to server differs");
        assert!(got_down == down, "server to client differs");
        let (near, far) = (joined.near.await.unwrap(), joined.far.await.unwrap());
        assert!(matches!(near.cause, RelayCause::Finished), "{:?}", near.cause);
        assert!(matches!(far.cause, RelayCause::Finished), "{:?}", far.cause);
        assert_eq!((near.from_application, near.to_application), (20 << 20, 13 << 20));
        assert_eq!((far.from_application, far.to_application), (13 << 20, 20 << 20));
    });
}

/// What a flow reads in one turn ends in the middle of a packet; the rest must not wait for more.
#[test]
fn a_message_arrives_whole_though_nothing_follows_it() {
    run(async {
        let (_client, _server, mut joined) = joined().await;
        let budget = BufferPool::PIECE / 2;
        for length in [budget - 1, budget, budget + 1, 2 * budget, 3 * budget, 16 * budget] {
            let sent = pattern(length, 3);
            let mut got = vec![0; length];
            // Less than the tunnel's PING would take to bring the rest along.
            let exchange =
                async { tokio::join!(joined.client.write_all(&sent), joined.server.read_exact(&mut got)) };
            let (written, read) = tokio::time::timeout(Duration::from_secs(5), exchange)
                .await
                .unwrap_or_else(|_| panic!("the end of {length} octets waits"));
            written.unwrap();
            read.unwrap();
            assert!(got == sent, "{length} octets differ");
        }
    });
}

#[test]
fn either_side_may_end_first_and_still_receive() {
    run(async {
        for client_first in [true, false] {
            let (_tunnels, _server, joined) = joined().await;
            let (mut first, mut second) =
                if client_first { (joined.client, joined.server) } else { (joined.server, joined.client) };
            first.write_all(b"last words").await.unwrap();
            first.shutdown().await.unwrap();
            let mut heard = Vec::new();
            second.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"last words", "client first: {client_first}");
            second.write_all(b"an answer after the end").await.unwrap();
            drop(second);
            let mut answer = Vec::new();
            first.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"an answer after the end", "client first: {client_first}");
            assert!(matches!(joined.near.await.unwrap().cause, RelayCause::Finished));
        }
    });
}

#[test]
fn a_truncated_transfer_is_a_reset_and_never_an_end() {
    run(async {
        for client_breaks in [true, false] {
            let (_tunnels, _server, joined) = joined().await;
            let (mut breaking, mut other) =
                if client_breaks { (joined.client, joined.server) } else { (joined.server, joined.client) };
            breaking.write_all(b"the first part").await.unwrap();
            let mut first = [0; 14];
            other.read_exact(&mut first).await.unwrap();
            breaking.set_zero_linger().unwrap();
            drop(breaking);
            let end = other.read(&mut first).await;
            let kind = end.map_err(|error| error.kind());
            assert_eq!(kind, Err(ErrorKind::ConnectionReset), "client breaks: {client_breaks}");
        }
    });
}

#[test]
fn a_lost_tunnel_resets_its_connections() {
    run(async {
        let (client, _server, mut joined) = joined().await;
        client.close(Reason::NoError);
        let mut octet = [0; 1];
        for application in [&mut joined.client, &mut joined.server] {
            let end = application.read(&mut octet).await.map_err(|error| error.kind());
            assert_eq!(end, Err(ErrorKind::ConnectionReset));
        }
        assert!(matches!(joined.near.await.unwrap().cause, RelayCause::TunnelLost(_)));
    });
}

#[test]
fn a_stopped_relay_resets_both_applications_and_says_why() {
    run(async {
        let (_client, _server, mut joined) = joined().await;
        joined.stop.stop("denied by policy");
        let end = joined.near.await.unwrap();
        assert!(matches!(end.cause, RelayCause::Stopped("denied by policy")), "{:?}", end.cause);
        let mut octet = [0; 1];
        for application in [&mut joined.client, &mut joined.server] {
            let end = application.read(&mut octet).await.map_err(|error| error.kind());
            assert_eq!(end, Err(ErrorKind::ConnectionReset));
        }
    });
}

#[test]
fn a_slow_reader_stops_its_own_stream_alone() {
    run(async {
        let (client, server, slow) = joined().await;
        let (near, far) = open(&client, &server).await;
        let mut quick = join(near, far, PATIENT);
        // More than the stream's window: the sender must come to rest while nobody reads.
        let mut flood = slow.client;
        let mut blocked = false;
        let chunk = vec![7; 1 << 20];
        for _ in 0..64 {
            if tokio::time::timeout(Duration::from_millis(500), flood.write_all(&chunk)).await.is_err() {
                blocked = true;
                break;
            }
        }
        assert!(blocked, "64 MiB were taken although nobody reads them");
        quick.client.write_all(b"ping").await.unwrap();
        let mut heard = [0; 4];
        quick.server.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"ping");
    });
}

#[test]
fn a_silent_connection_ends_after_its_idle_time() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        let (near, far) = open(&client, &server).await;
        let limits = IdleLimits { open: Duration::from_millis(20), half_closed: Duration::from_millis(20) };
        let joined = join(near, far, limits);
        assert!(matches!(joined.near.await.unwrap().cause, RelayCause::Idle | RelayCause::Reset(_)));
    });
}

#[test]
fn a_refused_request_is_a_status_and_leaves_the_tunnel_usable() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        let mut refused = client.open(&REQUEST).unwrap();
        let (_, far) = server.next_request().await.unwrap();
        far.refuse(401, &[]);
        assert_eq!(refused.response().await.unwrap().status, 401);
        drop(refused);
        open(&client, &server).await;
        assert_eq!(client.open_streams(), 0, "dropped streams stay listed");
    });
}

#[test]
fn a_tunnel_that_shuts_down_finishes_its_streams_first() {
    run(async {
        let (client, server, mut joined) = joined().await;
        server.shutdown();
        while !client.is_leaving() {
            tokio::task::yield_now().await;
        }
        assert!(client.open(&REQUEST).is_err(), "a leaving tunnel took a stream");
        joined.client.write_all(b"still here").await.unwrap();
        let mut heard = [0; 10];
        joined.server.read_exact(&mut heard).await.unwrap();
        drop((joined.client, joined.server));
        assert!(matches!(joined.near.await.unwrap().cause, RelayCause::Finished));
        assert!(server.next_request().await.is_none());
    });
}

/// A peer cannot know of a GOAWAY that is on its way.
#[test]
fn a_request_that_crosses_the_goaway_is_served() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        server.shutdown();
        let (near, far) = open(&client, &server).await;
        assert!(client.open(&REQUEST).is_err(), "by now the client knows");
        drop((near, far));
        while !(client.is_over() && server.is_over()) {
            tokio::task::yield_now().await;
        }
    });
}

/// A draining peer sends the last octets, the end of the stream and the end of the tunnel in one go;
/// the application takes its time.
#[test]
fn a_complete_transfer_survives_the_tunnel_that_closes_behind_it() {
    run(async {
        let (_client, server, mut joined) = joined().await;
        let sent = pattern(300_000, 3);
        joined.client.shutdown().await.unwrap();
        assert_eq!(joined.server.read(&mut [0]).await.unwrap(), 0);
        server.shutdown();
        joined.server.write_all(&sent).await.unwrap();
        drop(joined.server);
        let far = joined.far.await.unwrap();
        assert!(matches!(far.cause, RelayCause::Finished), "{:?}", far.cause);
        assert!(server.next_request().await.is_none(), "the tunnel stays open");
        let mut received = Vec::new();
        joined.client.read_to_end(&mut received).await.unwrap();
        assert!(received == sent, "the client has {} of {} octets", received.len(), sent.len());
        let near = joined.near.await.unwrap();
        assert!(matches!(near.cause, RelayCause::Finished), "{:?}", near.cause);
    });
}

#[test]
fn early_octets_arrive_first_and_count() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        let mut near = client.open(&REQUEST).unwrap();
        assert!(near.send_early(b"early "), "a window of the default size has room");
        let (_, mut far) = server.next_request().await.unwrap();
        far.accept(&[]);
        assert_eq!(near.response().await.unwrap().status, 200);
        let mut joined = join(near, far, PATIENT);
        joined.client.write_all(b"and late").await.unwrap();
        joined.client.shutdown().await.unwrap();
        let mut received = String::new();
        joined.server.read_to_string(&mut received).await.unwrap();
        assert_eq!(received, "early and late");
        drop(joined.server);
        assert_eq!(joined.near.await.unwrap().from_application, 14);
        assert_eq!(joined.far.await.unwrap().to_application, 14);
    });
}

#[test]
fn early_octets_that_a_small_window_does_not_take_go_after_the_answer() {
    run(async {
        let small = Settings { stream_window: 10, ..Settings::SERVER };
        let (client, server) = tunnel_pair((Settings::CLIENT, small)).await;
        // The server's SETTINGS are known once it has answered anything.
        let (first, _far) = open(&client, &server).await;
        drop(first);
        let mut near = client.open(&REQUEST).unwrap();
        assert!(!near.send_early(b"more than ten octets"));
        let (_, mut far) = server.next_request().await.unwrap();
        far.accept(&[]);
        assert_eq!(near.response().await.unwrap().status, 200);
        let sending = spawn_local(async move {
            near.send_all(b"more than ten octets").await.unwrap();
            near
        });
        let (mut application, socket) = application();
        spawn_local(relay(far, socket, PATIENT, Stop::<()>::default()));
        let mut received = [0; 20];
        application.read_exact(&mut received).await.unwrap();
        assert_eq!(&received, b"more than ten octets");
        drop(sending.await.unwrap());
    });
}

#[test]
fn early_octets_of_a_refused_request_reach_nobody_and_leave_the_tunnel_usable() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        for _ in 0..200 {
            let mut near = client.open(&REQUEST).unwrap();
            assert!(near.send_early(&[7; 16 * 1024]), "the connection's window was not given back");
            let (_, far) = server.next_request().await.unwrap();
            far.refuse(401, &[]);
            assert_eq!(near.response().await.unwrap().status, 401);
        }
        open(&client, &server).await;
    });
}

#[test]
fn a_thousand_streams_share_tunnels_within_the_peers_limit() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        let room = client.streams_available();
        assert!(room >= 100, "{room}");
        for _ in 0..10 {
            let streams: Vec<_> = (0..100).map(|_| client.open(&REQUEST).unwrap()).collect();
            for _ in 0..100 {
                let (_, far) = server.next_request().await.unwrap();
                far.refuse(503, &[]);
            }
            for mut stream in streams {
                assert_eq!(stream.response().await.unwrap().status, 503);
            }
        }
    });
}

#[test]
fn a_client_of_another_root_is_refused_by_the_handshake() {
    run(async {
        let (ours, theirs) = (Root::new(), Root::new());
        let (connected, accepted) = tcp_pair();
        let buffers = BufferPool::new();
        let client = TlsSession::client(Arc::clone(&theirs.workload("client").client)).unwrap();
        let server = TlsSession::server(Arc::clone(&ours.workload("server").server)).unwrap();
        let (client, server) =
            tokio::join!(handshake(connected, client, &buffers), handshake(accepted, server, &buffers));
        assert!(matches!(client.err(), Some(HandshakeError::Tls(_))));
        assert!(server.is_err());
    });
}

#[test]
fn a_retired_tunnel_keeps_its_streams_until_it_is_closed() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        let pool = Pool::<&str, std::io::Error>::new(Limits::default());
        let dial = || {
            let client = client.clone();
            async move { Ok(client) }
        };
        let mut near = pool.open(&"key", 1, &REQUEST, dial).await.unwrap();
        let (_, mut far) = server.next_request().await.unwrap();
        far.accept(&[]);
        near.response().await.unwrap();
        let mut joined = join(near, far, PATIENT);

        pool.retire(|_, generation| generation < 2);
        joined.client.write_all(b"still here").await.unwrap();
        let mut heard = [0; 10];
        joined.server.read_exact(&mut heard).await.unwrap();
        assert_eq!(pool.tunnels(), 1, "a tunnel with a stream was forgotten");

        pool.close(|_, generation| generation < 2);
        assert!(matches!(joined.near.await.unwrap().cause, RelayCause::TunnelLost(_)));
        pool.sweep(&mut HashSet::new());
        assert_eq!(pool.tunnels(), 0);
    });
}

#[test]
fn flows_that_ask_during_a_dial_share_its_tunnel_or_its_failure() {
    run(async {
        let (client, _server) = tunnel_pair(DEFAULT).await;
        let dials = Cell::new(0);
        for fails in [true, false] {
            dials.set(0);
            let pool = Pool::<&str, &str>::new(Limits::default());
            let dial = || {
                dials.set(dials.get() + 1);
                let client = client.clone();
                async move {
                    tokio::task::yield_now().await;
                    if fails { Err("nobody there") } else { Ok(client) }
                }
            };
            let (a, b) =
                tokio::join!(pool.open(&"key", 1, &REQUEST, &dial), pool.open(&"key", 1, &REQUEST, &dial),);
            assert_eq!((a.is_err(), b.is_err()), (fails, fails));
            assert_eq!(dials.get(), 1, "fails: {fails}");
        }
    });
}
