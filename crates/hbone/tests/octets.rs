//! A stream of a tunnel as octets that its owner reads and writes, as a waypoint does: no application's socket.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]

mod support;

use std::time::Duration;

use ambit_hbone::relay::{RelayCause, Stop, relay};
use support::{DEFAULT, PATIENT, application, open, pattern, run, tunnel_pair};
use tokio::io::AsyncReadExt;
use tokio::task::spawn_local;

#[test]
fn octets_pass_both_ways_and_a_reader_that_stops_stops_the_writer() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        let (mut near, mut far) = open(&client, &server).await;
        let sent = pattern(9 << 20, 3);
        let expected = sent.clone();
        let mut writing = spawn_local(async move {
            let mut left = &sent[..];
            while !left.is_empty() {
                let n = std::future::poll_fn(|cx| near.poll_transmit(cx, left)).await.unwrap();
                left = &left[n..];
            }
            near.end();
            let mut room = [0; 16];
            let n = std::future::poll_fn(|cx| near.poll_receive(cx, &mut room)).await.unwrap();
            assert_eq!(&room[..n], b"thanks");
            let end = std::future::poll_fn(|cx| near.poll_receive(cx, &mut room)).await.unwrap();
            assert_eq!(end, 0);
        });
        let early = tokio::time::timeout(Duration::from_millis(200), &mut writing).await;
        assert!(early.is_err(), "nobody has read yet: the window holds it");
        let (mut received, mut room) = (Vec::new(), vec![0; 64 * 1024]);
        loop {
            match std::future::poll_fn(|cx| far.poll_receive(cx, &mut room)).await.unwrap() {
                0 => break,
                n => received.extend_from_slice(&room[..n]),
            }
        }
        assert!(received == expected);
        let n = std::future::poll_fn(|cx| far.poll_transmit(cx, b"thanks")).await.unwrap();
        assert_eq!(n, 6);
        far.end();
        writing.await.unwrap();
    });
}

/// As a proxy does that lets an idle connection of HTTP/2 go: nobody is to take it for a failure.
#[test]
fn who_has_said_all_and_reads_no_more_ends_the_connection_without_an_error() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        let (mut near, far) = open(&client, &server).await;
        let (mut application, socket) = application();
        let ending = spawn_local(relay(far, socket, PATIENT, Stop::<()>::default()));
        let n = std::future::poll_fn(|cx| near.poll_transmit(cx, b"bye")).await.unwrap();
        assert_eq!(n, 3);
        near.end();
        drop(near);
        let mut received = Vec::new();
        application.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, b"bye");
        let end = ending.await.unwrap();
        assert!(matches!(end.cause, RelayCause::Finished), "{:?}", end.cause);
        assert_eq!(client.open_streams() + server.open_streams(), 0);
    });
}

#[test]
fn an_aborted_stream_is_an_error_at_the_far_end_and_never_an_end() {
    run(async {
        let (client, server) = tunnel_pair(DEFAULT).await;
        let (mut near, mut far) = open(&client, &server).await;
        let n = std::future::poll_fn(|cx| near.poll_transmit(cx, b"half")).await.unwrap();
        assert_eq!(n, 4);
        let mut room = [0; 16];
        let n = std::future::poll_fn(|cx| far.poll_receive(cx, &mut room)).await.unwrap();
        assert_eq!(&room[..n], b"half");
        near.abort();
        std::future::poll_fn(|cx| far.poll_receive(cx, &mut room)).await.unwrap_err();
    });
}
