//! RFC 9113, rule by rule, against a peer that breaks it or uses it to the full.
//!
//! Long because it is a flat list: a test for each kind of rule, most of it the frames.

use ambit_hbone::codec::{
    Codec, ConnectRequest, ConnectionError, Event, OpenError, Reason, Settings, StreamId,
};

use crate::support::raw::*;
use crate::support::{receive, send};

fn a_server() -> Codec {
    greeted_server(Settings::SERVER)
}

/// A client with one CONNECT under way, on stream 1.
fn a_client() -> (Codec, StreamId) {
    let mut codec = greeted_client(Settings::CLIENT);
    let id = codec.open(&ConnectRequest { authority: "10.0.0.1:80", headers: &[] }).unwrap();
    written(&mut codec);
    (codec, id)
}

/// A client with one tunnel, on stream 1.
fn a_client_tunnel() -> (Codec, StreamId) {
    let (mut codec, id) = a_client();
    receive(&mut codec, &response(1, 0, "200")).unwrap();
    (codec, id)
}

/// A server with one tunnel, on stream 1.
fn a_server_tunnel() -> (Codec, StreamId) {
    let mut codec = a_server();
    let events = receive(&mut codec, &connect(1)).unwrap();
    let id = events[0].stream().unwrap();
    codec.respond(id, 200, &[]);
    written(&mut codec);
    (codec, id)
}

/// The connection ends with this code; a GOAWAY says it, and everything after is in vain.
fn assert_ends(what: &str, codec: &mut Codec, octets: &[u8], reason: Reason) {
    let error = receive(codec, octets).expect_err(what);
    assert_eq!(error.reason(), reason, "{what}: {error}");
    let frames = written(codec);
    let (GOAWAY, _, 0, payload) = frames.last().expect(what) else {
        panic!("{what}: no GOAWAY in {frames:?}")
    };
    assert_eq!(payload[4..], reason.code().to_be_bytes(), "{what}");
    assert_eq!(receive(codec, &frame(PING, 0, 0, &[0; 8])).expect_err(what), error, "{what}");
    assert_eq!(codec.open_streams(), 0, "{what}");
    let again = codec.open(&ConnectRequest { authority: "a:1", headers: &[] });
    assert_eq!(again, Err(OpenError::GoingAway), "{what}");
    codec.ping([0; 8]);
    codec.shutdown();
    codec.close(Reason::NoError);
    assert!(codec.output().is_empty(), "{what}: output behind the GOAWAY");
}

#[test]
fn the_preface_comes_first() {
    let cases: [(&str, Vec<u8>, Reason); 5] = [
        ("another protocol", b"GET / HTTP/1.1\r\n\r\n".to_vec(), Reason::ProtocolError),
        ("PING first", [PREFACE, &frame(PING, 0, 0, &[0; 8])].concat(), Reason::ProtocolError),
        (
            "an acknowledgement first",
            [PREFACE, &frame(SETTINGS, ACK, 0, &[])].concat(),
            Reason::ProtocolError,
        ),
        ("the last octet is wrong", [&PREFACE[..23], b"x"].concat(), Reason::ProtocolError),
        ("a frame without preface", settings(&[]), Reason::ProtocolError),
    ];
    for (what, octets, reason) in cases {
        assert_ends(what, &mut Codec::server(Settings::SERVER), &octets, reason);
    }
    let mut client = Codec::client(Settings::CLIENT);
    assert_ends("HTTP/1.1 server", &mut client, b"HTTP/1.1 400 Bad Request\r\n\r\n", Reason::ProtocolError);
}

#[test]
fn frames_that_break_the_protocol_end_the_connection() {
    let big = vec![0; Settings::SERVER.max_frame_size as usize + 1];
    let interrupted = [frame(HEADERS, 0, 1, &connect_block()), frame(PING, 0, 0, &[0; 8])].concat();
    let other_stream = [frame(HEADERS, 0, 1, &connect_block()), frame(CONTINUATION, 4, 3, &[])].concat();
    let closed = [connect(1), reset(1, 8), connect(1)].concat();
    let lower = [connect(3), connect(1)].concat();
    let overflowing = [connect(1), window_update(1, 1), settings(&[(4, (1 << 31) - 1)])].concat();
    let cases: Vec<(&str, Vec<u8>, Reason)> = vec![
        // RFC 9113 §4.2.
        ("a frame too large", frame(DATA, 0, 1, &big), Reason::FrameSizeError),
        ("an unknown frame too large", frame(99, 0, 1, &big), Reason::FrameSizeError),
        ("SETTINGS of 5 octets", frame(SETTINGS, 0, 0, &[0; 5]), Reason::FrameSizeError),
        ("an acknowledgement with payload", frame(SETTINGS, ACK, 0, &[0; 6]), Reason::FrameSizeError),
        ("PING of 7 octets", frame(PING, 0, 0, &[0; 7]), Reason::FrameSizeError),
        ("WINDOW_UPDATE of 3 octets", frame(WINDOW_UPDATE, 0, 0, &[1; 3]), Reason::FrameSizeError),
        ("RST_STREAM of 5 octets", frame(RST_STREAM, 0, 1, &[0; 5]), Reason::FrameSizeError),
        ("PRIORITY of 4 octets", frame(PRIORITY, 0, 1, &[0; 4]), Reason::FrameSizeError),
        ("GOAWAY of 7 octets", frame(GOAWAY, 0, 0, &[0; 7]), Reason::FrameSizeError),
        // §6: which frames name a stream.
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Reason::ProtocolError),
        ("PING on a stream", frame(PING, 0, 1, &[0; 8]), Reason::ProtocolError),
        ("GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Reason::ProtocolError),
        ("DATA on no stream", frame(DATA, 0, 0, b"x"), Reason::ProtocolError),
        ("HEADERS on no stream", connect(0), Reason::ProtocolError),
        ("PRIORITY on no stream", frame(PRIORITY, 0, 0, &[0; 5]), Reason::ProtocolError),
        ("RST_STREAM on no stream", reset(0, 0), Reason::ProtocolError),
        // §5.1 idle, §5.1.1.
        ("DATA on an idle stream", frame(DATA, 0, 1, b"x"), Reason::ProtocolError),
        ("RST_STREAM on an idle stream", reset(1, 0), Reason::ProtocolError),
        ("WINDOW_UPDATE on an idle stream", window_update(1, 1), Reason::ProtocolError),
        ("a stream that only servers open", connect(2), Reason::ProtocolError),
        ("a stream that closed", closed, Reason::StreamClosed),
        ("a stream below another", lower, Reason::StreamClosed),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), Reason::ProtocolError),
        // §6.10, §4.3.
        ("CONTINUATION of nothing", frame(CONTINUATION, 4, 1, &[]), Reason::ProtocolError),
        ("a block interrupted", interrupted, Reason::ProtocolError),
        ("a block continued on another stream", other_stream, Reason::ProtocolError),
        ("a block that cannot be decoded", frame(HEADERS, 4, 1, &[0x80]), Reason::CompressionError),
        // §6.1, §6.2 padding.
        (
            "DATA that is all padding",
            [connect(1), frame(DATA, PADDED, 1, &[1])].concat(),
            Reason::ProtocolError,
        ),
        (
            "DATA without its pad length",
            [connect(1), frame(DATA, PADDED, 1, &[])].concat(),
            Reason::FrameSizeError,
        ),
        ("HEADERS that is all padding", frame(HEADERS, PADDED | 4, 1, &[1]), Reason::ProtocolError),
        ("HEADERS without its pad length", frame(HEADERS, PADDED | 4, 1, &[]), Reason::FrameSizeError),
        ("HEADERS without its priority", frame(HEADERS, PRIORITIZED | 4, 1, &[0; 4]), Reason::FrameSizeError),
        // §6.5.2.
        ("ENABLE_PUSH = 2", settings(&[(2, 2)]), Reason::ProtocolError),
        ("INITIAL_WINDOW_SIZE = 2^31", settings(&[(4, 1 << 31)]), Reason::FlowControlError),
        ("MAX_FRAME_SIZE = 2^14 - 1", settings(&[(5, 16_383)]), Reason::ProtocolError),
        ("MAX_FRAME_SIZE = 2^24", settings(&[(5, 1 << 24)]), Reason::ProtocolError),
        // §6.9.
        ("WINDOW_UPDATE of 0", window_update(0, 0), Reason::ProtocolError),
        ("a window beyond 2^31-1", window_update(0, (1 << 31) - 1), Reason::FlowControlError),
        ("a setting that overflows a window", overflowing, Reason::FlowControlError),
        // §6.8.
        ("a GOAWAY that takes streams back in", [goaway(1, 0), goaway(3, 0)].concat(), Reason::ProtocolError),
    ];
    for (what, octets, reason) in cases {
        assert_ends(what, &mut a_server(), &octets, reason);
    }
}

#[test]
fn what_only_a_server_can_do_wrong_ends_the_connection() {
    let cases = [
        ("ENABLE_PUSH = 1", settings(&[(2, 1)]), Reason::ProtocolError),
        ("HEADERS on a stream that we did not open", response(3, 0, "200"), Reason::ProtocolError),
        ("HEADERS on a stream of its own", response(2, 0, "200"), Reason::ProtocolError),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2]), Reason::ProtocolError),
    ];
    for (what, octets, reason) in cases {
        assert_ends(what, &mut a_client().0, &octets, reason);
    }
}

#[test]
fn data_beyond_the_connections_window_ends_the_connection() {
    let local = Settings { connection_window: 65_535, stream_window: 1 << 20, ..Settings::SERVER };
    let mut codec = greeted_server(local);
    receive(&mut codec, &[connect(1), frame(DATA, 0, 1, &vec![0; 65_535])].concat()).unwrap();
    assert_ends("one octet more", &mut codec, &frame(DATA, 0, 1, &[0]), Reason::FlowControlError);
}

/// The stream ends with this code, the connection goes on.
fn assert_resets(what: &str, codec: &mut Codec, octets: &[u8], reason: Reason) {
    let events = receive(codec, octets).unwrap_or_else(|error| panic!("{what}: {error}"));
    let resets: Vec<_> = events
        .iter()
        .filter_map(|event| if let Event::Reset { reason, .. } = event { Some(*reason) } else { None })
        .collect();
    assert_eq!(resets, [reason], "{what}: {events:?}");
    let expected = (RST_STREAM, 0, 1, reason.code().to_be_bytes().to_vec());
    assert!(written(codec).contains(&expected), "{what}");
    assert_eq!(codec.open_streams(), 0, "{what}");
    // Frames that were under way are no error.
    let under_way =
        [frame(DATA, 0, 1, b"late"), window_update(1, 1), frame(DATA, 1, 1, &[]), reset(1, 8)].concat();
    assert_eq!(receive(codec, &under_way), Ok(vec![]), "{what}");
    receive(codec, &frame(PING, 0, 0, &[1; 8])).expect(what);
    assert_eq!(written(codec), [(PING, ACK, 0, vec![1; 8])], "{what}");
}

#[test]
fn frames_that_break_a_stream_end_only_that_stream() {
    let local = Settings { stream_window: 100, ..Settings::SERVER };
    let cases = [
        ("DATA beyond the stream's window", frame(DATA, 0, 1, &[0; 101]), Reason::FlowControlError),
        (
            "DATA behind END_STREAM",
            [frame(DATA, 1, 1, b"x"), frame(DATA, 0, 1, b"y")].concat(),
            Reason::StreamClosed,
        ),
        ("HEADERS behind END_STREAM", [frame(DATA, 1, 1, b""), connect(1)].concat(), Reason::StreamClosed),
        // RFC 9113 §8.5.
        ("trailers on a tunnel", frame(HEADERS, 5, 1, &block(&[("a", "b")])), Reason::ProtocolError),
        ("WINDOW_UPDATE of 0", window_update(1, 0), Reason::ProtocolError),
        ("a window beyond 2^31-1", window_update(1, (1 << 31) - 1), Reason::FlowControlError),
    ];
    for (what, octets, reason) in cases {
        for answered in [true, false] {
            let mut codec = greeted_server(local);
            let events = receive(&mut codec, &connect(1)).unwrap();
            if answered {
                codec.respond(events[0].stream().unwrap(), 200, &[]);
            }
            assert_resets(what, &mut codec, &octets, reason);
        }
    }
}

#[test]
fn responses_that_break_a_stream_end_only_that_stream() {
    let cases = [
        ("DATA before the response", frame(DATA, 0, 1, b"x"), Reason::ProtocolError),
        ("a response without status", frame(HEADERS, 4, 1, &block(&[("a", "b")])), Reason::ProtocolError),
        ("a 101", response(1, 0, "101"), Reason::ProtocolError),
        ("a 103 that ends the stream", response(1, END_STREAM, "103"), Reason::ProtocolError),
        (
            "trailers on a tunnel",
            [response(1, 0, "200"), response(1, 1, "200")].concat(),
            Reason::ProtocolError,
        ),
        (
            "trailers that do not end",
            [response(1, 0, "404"), response(1, 0, "404")].concat(),
            Reason::ProtocolError,
        ),
    ];
    for (what, octets, reason) in cases {
        assert_resets(what, &mut a_client().0, &octets, reason);
    }
}

#[test]
fn malformed_requests_are_reset_and_never_seen() {
    let get = [(":method", "GET"), (":scheme", "https"), (":path", "/"), ("Upper", "case")];
    for fields in [&get[..], &[(":method", "CONNECT")], &[]] {
        let mut codec = a_server();
        let events = receive(&mut codec, &frame(HEADERS, END_HEADERS, 1, &block(fields))).unwrap();
        assert_eq!(events, []);
        assert_eq!(written(&mut codec), [(RST_STREAM, 0, 1, vec![0, 0, 0, 1])]);
        assert!(matches!(receive(&mut codec, &connect(3)).unwrap()[..], [Event::Request { .. }]));
    }
}

#[test]
fn a_valid_request_that_is_no_connect_can_be_answered() {
    let mut codec = a_server();
    let get = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")];
    let events = receive(&mut codec, &frame(HEADERS, 5, 1, &block(&get))).unwrap();
    let [Event::Request { stream, head }, Event::End { .. }] = &events[..] else { panic!("{events:?}") };
    assert!(!head.is_connect());
    codec.refuse(*stream, 400, &[]);
    let frames = written(&mut codec);
    assert!(matches!(&frames[..], [(HEADERS, 5, 1, _)]), "the request had ended: no reset; {frames:?}");
    assert_eq!(codec.open_streams(), 0);
}

#[test]
fn a_refusal_asks_the_client_to_stop() {
    let mut codec = a_server();
    let events = receive(&mut codec, &connect(1)).unwrap();
    codec.refuse(events[0].stream().unwrap(), 503, &[("a", "b"), ("Bad Name", "dropped")]);
    let frames = written(&mut codec);
    let [(HEADERS, 5, 1, block), (RST_STREAM, 0, 1, code)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(code, &[0; 4], "NO_ERROR");
    let text = String::from_utf8_lossy(block);
    assert!(text.contains("503") && !text.contains("dropped"), "{text}");
    // What the client sent meanwhile is dropped, and gives the window back.
    assert_eq!(receive(&mut codec, &frame(DATA, 1, 1, b"early")), Ok(vec![]));
    assert_eq!(codec.stats().data_discarded, 5);
}

#[test]
fn padding_is_dropped_but_counts_for_the_window() {
    let mut codec = greeted_server(Settings { stream_window: 100, ..Settings::SERVER });
    let padded = [&[3, 0, 0, 0, 0, 0][..], &connect_block(), &[0; 3]].concat();
    let events =
        receive(&mut codec, &frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, &padded)).unwrap();
    assert!(matches!(events[..], [Event::Request { .. }]));
    let stream = events[0].stream().unwrap();
    let data = [&[90][..], b"payload", &[0; 90]].concat();
    let events = receive(&mut codec, &frame(DATA, PADDED | END_STREAM, 1, &data)).unwrap();
    assert_eq!(events, [Event::Data { stream, payload: b"payload" }, Event::End { stream }]);
    // The 91 octets of padding are announced again at once: more than half of the window.
    assert_eq!(written(&mut codec), [(WINDOW_UPDATE, 0, 1, vec![0, 0, 0, 91])]);
}

#[test]
fn frames_without_meaning_are_ignored() {
    let (mut codec, stream) = a_server_tunnel();
    let octets = [
        frame(99, 255, 7, b"unknown"),
        frame(PRIORITY, 0, 1, &[0; 5]),
        frame(PRIORITY, 0, 77, &[0; 5]),
        settings(&[(4711, 1), (8, 1)]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(PING, ACK, 0, &[9; 8]),
        [&[0, 0, 1, 0, 0, 0x80, 0, 0, 1][..], b"x"].concat(),
    ]
    .concat();
    assert_eq!(receive(&mut codec, &octets), Ok(vec![Event::Data { stream, payload: b"x" }]));
    assert_eq!(written(&mut codec), [(SETTINGS, ACK, 0, vec![])]);
}

#[test]
fn informational_responses_are_passed_over() {
    let (mut codec, stream) = a_client();
    let octets = [response(1, 0, "100"), response(1, 0, "103"), response(1, 0, "200")].concat();
    let events = receive(&mut codec, &octets).unwrap();
    assert!(matches!(&events[..], [Event::Response { status: 200, .. }]), "{events:?}");
    assert!(codec.send_capacity(stream) > 0);
}

#[test]
fn an_answer_that_is_no_tunnel_carries_nothing_of_ours() {
    let (mut codec, stream) = a_client();
    let octets =
        [response(1, 0, "503"), frame(DATA, 0, 1, b"sorry"), response(1, END_STREAM, "503")].concat();
    let events = receive(&mut codec, &octets).unwrap();
    let [Event::Response { status: 503, .. }, Event::Data { .. }, Event::End { .. }] = &events[..] else {
        panic!("{events:?}")
    };
    assert_eq!(codec.send_capacity(stream), 0);
    assert!(codec.data_slot(stream, 10).is_empty());
    codec.reset(stream, Reason::Cancel);
    assert_eq!(codec.open_streams(), 0);
}

#[test]
fn nothing_is_sent_before_the_answer() {
    let (client, stream) = a_client();
    assert_eq!(client.send_capacity(stream), 0);
    let mut server = a_server();
    let stream = receive(&mut server, &connect(1)).unwrap()[0].stream().unwrap();
    assert_eq!(server.send_capacity(stream), 0);
    server.end(stream);
    assert!(server.output().is_empty(), "END_STREAM before HEADERS");
    server.respond(stream, 200, &[]);
    assert!(server.send_capacity(stream) > 0);
    written(&mut server);
    server.respond(stream, 200, &[]);
    server.refuse(stream, 503, &[]);
    assert!(server.output().is_empty(), "a second answer");
}

#[test]
fn a_shrunk_initial_window_makes_windows_negative() {
    let (mut codec, stream) = a_client_tunnel();
    assert_eq!(send(&mut codec, stream, &[0; 10_000]), 10_000);
    assert_eq!(receive(&mut codec, &settings(&[(4, 4_000)])), Ok(vec![]));
    assert_eq!(codec.send_capacity(stream), 0);
    assert_eq!(receive(&mut codec, &window_update(1, 6_000)), Ok(vec![]));
    assert_eq!(codec.send_capacity(stream), 0);
    let writable = Event::Writable { stream: Some(stream) };
    assert_eq!(receive(&mut codec, &window_update(1, 5)), Ok(vec![writable]));
    assert_eq!(codec.send_capacity(stream), 5);
    let all_writable = Event::Writable { stream: None };
    assert_eq!(receive(&mut codec, &settings(&[(4, 5_000)])), Ok(vec![all_writable]));
    assert_eq!(codec.send_capacity(stream), 1_005);
}

#[test]
fn data_keeps_to_the_peers_frame_size_and_both_windows() {
    let (mut codec, stream) = a_client_tunnel();
    codec.lend_buffer(vec![0; 256 * 1024]);
    assert_eq!(codec.data_slot(stream, 1 << 20).len(), 16_384);
    codec.commit_data(stream, 0, false);
    receive(&mut codec, &[settings(&[(5, 100_000), (4, 1 << 20)])].concat()).unwrap();
    written(&mut codec);
    assert_eq!(codec.data_slot(stream, 1 << 20).len(), 65_535, "the connection's window");
    codec.commit_data(stream, 65_535, false);
    assert_eq!(codec.send_capacity(stream), 0);
    let writable = Event::Writable { stream: None };
    assert_eq!(receive(&mut codec, &window_update(0, 1 << 20)), Ok(vec![writable]));
    assert_eq!(codec.data_slot(stream, 1 << 20).len(), 100_000, "the peer's frame size");
    codec.commit_data(stream, 7, true);
    let frames = written(&mut codec);
    let sizes: Vec<_> =
        frames.iter().map(|(kind, flags, _, payload)| (*kind, *flags, payload.len())).collect();
    assert_eq!(sizes, [(DATA, 0, 65_535), (DATA, END_STREAM, 7)]);
    assert_eq!(codec.send_capacity(stream), 0);
}

#[test]
fn a_default_window_may_be_used_until_ours_is_acknowledged() {
    let mut codec = Codec::server(Settings { stream_window: 1_000, ..Settings::SERVER });
    let opening = [PREFACE, &settings(&[]), &connect(1), &frame(DATA, 0, 1, &[0; 16_000])].concat();
    let events = receive(&mut codec, &opening).unwrap();
    assert_eq!(events.len(), 2);
    let stream = events[0].stream().unwrap();
    receive(&mut codec, &frame(SETTINGS, ACK, 0, &[])).unwrap();
    // The peer's view is 1,000 - 16,000; it may go on when that was released and 1,000 more.
    codec.release(stream, 16_000);
    assert!(written(&mut codec).contains(&(WINDOW_UPDATE, 0, 1, 16_000_u32.to_be_bytes().to_vec())));
    receive(&mut codec, &frame(DATA, 0, 1, &[0; 1_000])).unwrap();
    assert_resets("one octet more", &mut codec, &frame(DATA, 0, 1, &[0]), Reason::FlowControlError);
}

#[test]
fn window_updates_are_batched() {
    let mut codec =
        greeted_server(Settings { stream_window: 1_000, connection_window: 100_000, ..Settings::SERVER });
    let stream = receive(&mut codec, &connect(1)).unwrap()[0].stream().unwrap();
    let mut updates = Vec::new();
    for _ in 0..1_000 {
        receive(&mut codec, &frame(DATA, 0, 1, &[0; 100])).unwrap();
        codec.release(stream, 100);
        updates.extend(written(&mut codec));
    }
    let of = |id: u32| {
        updates.iter().filter(|(kind, _, stream, _)| (*kind, *stream) == (WINDOW_UPDATE, id)).count()
    };
    assert_eq!((of(1), of(0)), (200, 2), "every 500 and every 50,000 octets");
}

#[test]
fn what_a_lost_stream_held_gives_the_connections_window_back() {
    type Loss = fn(&mut Codec, StreamId);
    let losses: [(&str, Loss); 3] = [
        ("reset by us", |codec, stream| codec.reset(stream, Reason::Cancel)),
        ("reset by the peer", |codec, stream| {
            receive(codec, &reset(stream.get(), 8)).unwrap();
        }),
        ("refused", |codec, stream| codec.refuse(stream, 503, &[])),
    ];
    for (what, lose) in losses {
        let local = Settings { connection_window: 70_000, stream_window: 70_000, ..Settings::SERVER };
        let mut codec = greeted_server(local);
        for round in 0..10 {
            let id = 2 * round + 1;
            let octets = [connect(id), frame(DATA, 0, id, &vec![0; 60_000])].concat();
            let events = receive(&mut codec, &octets).unwrap_or_else(|error| panic!("{what}: {error}"));
            lose(&mut codec, events[0].stream().unwrap());
            codec.release(events[0].stream().unwrap(), 60_000);
            assert!(
                written(&mut codec).contains(&(WINDOW_UPDATE, 0, 0, 60_000_u32.to_be_bytes().to_vec())),
                "{what}"
            );
        }
    }
}

#[test]
fn a_reset_in_the_middle_of_a_frame_discards_the_rest() {
    let (mut codec, stream) = a_server_tunnel();
    let data = frame(DATA, END_STREAM, 1, &[7; 1_000]);
    assert_eq!(receive(&mut codec, &data[..500]).unwrap().len(), 1);
    codec.reset(stream, Reason::ConnectError);
    assert_eq!(receive(&mut codec, &data[500..]), Ok(vec![]));
    assert_eq!(codec.stats().data_discarded, 509);
}

#[test]
fn events_of_a_stream_end_with_its_reset() {
    let mut codec = a_server();
    let octets = frame(HEADERS, END_HEADERS | END_STREAM, 1, &connect_block());
    let mut input = &octets[..];
    let Some(Event::Request { stream, .. }) = codec.receive(&mut input).unwrap() else {
        panic!("no request")
    };
    codec.reset(stream, Reason::Cancel);
    assert_eq!(codec.receive(&mut input), Ok(None), "the END_STREAM of a stream that is gone");
}

#[test]
fn a_closed_stream_fills_the_window_until_its_payload_is_taken() {
    let (mut codec, stream) = a_server_tunnel();
    codec.end(stream);
    let events = receive(&mut codec, &frame(DATA, END_STREAM, 1, &[0; 4_000])).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(codec.open_streams(), 0);
    assert_eq!(receive(&mut codec, &reset(1, 0)), Ok(vec![]), "the peer knows it as closed");
    codec.release(stream, 4_000);
    codec.reset(stream, Reason::Cancel);
    assert!(written(&mut codec).iter().all(|(kind, ..)| *kind == DATA), "nothing is said of a closed stream");
}

#[test]
fn streams_beyond_the_limit_are_refused_for_another_try() {
    let mut codec = greeted_server(Settings { max_concurrent_streams: 2, ..Settings::SERVER });
    receive(&mut codec, &[connect(1), connect(3)].concat()).unwrap();
    assert_eq!(receive(&mut codec, &connect(5)), Ok(vec![]));
    assert_eq!(written(&mut codec), [(RST_STREAM, 0, 5, vec![0, 0, 0, 7])]);
    receive(&mut codec, &reset(1, 8)).unwrap();
    assert_eq!(receive(&mut codec, &connect(7)).unwrap().len(), 1);
    assert_eq!((codec.open_streams(), codec.stats().streams_refused), (2, 1));
}

#[test]
fn a_head_larger_than_our_settings_is_answered_with_431() {
    let mut codec = greeted_server(Settings { max_header_list_size: 1_000, ..Settings::SERVER });
    let large = block(&[(":method", "CONNECT"), (":authority", "a:1"), ("a", &"x".repeat(950))]);
    assert_eq!(receive(&mut codec, &frame(HEADERS, END_HEADERS, 1, &large)), Ok(vec![]));
    let frames = written(&mut codec);
    let [(HEADERS, 5, 1, block), (RST_STREAM, 0, 1, _)] = &frames[..] else { panic!("{frames:?}") };
    assert!(String::from_utf8_lossy(block).contains("431"));
    assert_eq!(codec.stats().header_lists_refused, 1);
}

#[test]
fn the_peers_limits_hold_for_requests() {
    let (mut codec, _) = a_client_tunnel();
    let limits = settings(&[(3, 2), (6, 200)]);
    receive(&mut codec, &limits).unwrap();
    assert_eq!(codec.streams_available(), 1);
    let value = "x".repeat(100);
    let large = ConnectRequest { authority: "a:1", headers: &[("a", &value)] };
    assert!(matches!(codec.open(&large), Err(OpenError::HeadersTooLarge { limit: 200, .. })));
    let invalid = ConnectRequest { authority: "a:1", headers: &[("a", "b\r\nc")] };
    assert!(matches!(codec.open(&invalid), Err(OpenError::InvalidHeader { .. })));
    let nowhere = ConnectRequest { authority: "", headers: &[] };
    assert!(matches!(codec.open(&nowhere), Err(OpenError::InvalidAuthority { .. })));

    let request = ConnectRequest { authority: "a:1", headers: &[] };
    codec.open(&request).unwrap();
    assert_eq!(codec.open(&request), Err(OpenError::NoStreams { limit: 2 }));
    assert_eq!(receive(&mut codec, &settings(&[(3, 3)])), Ok(vec![Event::StreamsAvailable]));
    codec.open(&request).unwrap();
    let events = receive(&mut codec, &reset(5, 8)).unwrap();
    assert!(matches!(events[..], [Event::Reset { .. }, Event::StreamsAvailable]), "{events:?}");
}

#[test]
fn a_head_larger_than_the_peers_frames_is_continued() {
    let (mut codec, _) = a_client_tunnel();
    let value = "x".repeat(40_000);
    codec.open(&ConnectRequest { authority: "a:1", headers: &[("a", &value)] }).unwrap();
    let frames = written(&mut codec);
    let shape: Vec<_> =
        frames.iter().map(|(kind, flags, stream, payload)| (*kind, *flags, *stream, payload.len())).collect();
    let [first, second, (CONTINUATION, END_HEADERS, 3, _)] = shape[..] else { panic!("{shape:?}") };
    assert_eq!((first, second), ((HEADERS, 0, 3, 16_384), (CONTINUATION, 0, 3, 16_384)));
    let mut server = a_server();
    let octets: Vec<_> = frames
        .iter()
        .flat_map(|(kind, flags, stream, payload)| frame(*kind, *flags, *stream, payload))
        .collect();
    let events = receive(&mut server, &octets).unwrap();
    let [Event::Request { head, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(head.headers().text("a"), Some(&value[..]));
}

#[test]
fn a_goaway_gives_unprocessed_streams_back_for_another_try() {
    let (mut codec, first) = a_client_tunnel();
    let request = ConnectRequest { authority: "a:1", headers: &[] };
    let second = codec.open(&request).unwrap();
    let third = codec.open(&request).unwrap();
    let events = receive(&mut codec, &goaway((1 << 31) - 1, 0)).unwrap();
    assert_eq!(events, [Event::GoAway { last_stream: (1 << 31) - 1, reason: Reason::NoError }]);
    assert_eq!(codec.open(&request), Err(OpenError::GoingAway));
    assert_eq!(codec.streams_available(), 0);

    let long =
        frame(GOAWAY, 0, 0, &[&1_u32.to_be_bytes()[..], &11_u32.to_be_bytes(), b"debug data"].concat());
    let events = receive(&mut codec, &long).unwrap();
    let refused = |stream| Event::Reset { stream, reason: Reason::RefusedStream };
    let gone = Event::GoAway { last_stream: 1, reason: Reason::EnhanceYourCalm };
    assert_eq!(events, [gone, refused(second), refused(third)]);
    assert_eq!(send(&mut codec, first, b"goes on"), 7);
    assert_eq!(codec.open_streams(), 1);
}

#[test]
fn a_server_shuts_down_in_two_steps() {
    let (mut codec, _) = a_server_tunnel();
    codec.shutdown();
    codec.shutdown();
    let frames = written(&mut codec);
    let [(GOAWAY, 0, 0, announced), (PING, 0, 0, ping)] = &frames[..] else { panic!("{frames:?}") };
    assert_eq!(announced[..], [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    // A request that was under way is still taken.
    assert_eq!(receive(&mut codec, &connect(3)).unwrap().len(), 1);
    assert_eq!(receive(&mut codec, &frame(PING, ACK, 0, ping)), Ok(vec![]));
    assert_eq!(written(&mut codec), [(GOAWAY, 0, 0, vec![0, 0, 0, 3, 0, 0, 0, 0])]);
    assert_eq!(receive(&mut codec, &connect(5)), Ok(vec![]));
    assert_eq!(written(&mut codec), [(RST_STREAM, 0, 5, vec![0, 0, 0, 7])]);
    assert_eq!(codec.open_streams(), 2);
}

#[test]
fn a_client_that_leaves_says_so_once() {
    let (mut codec, stream) = a_client_tunnel();
    codec.shutdown();
    assert_eq!(written(&mut codec), [(GOAWAY, 0, 0, vec![0; 8])]);
    assert_eq!(send(&mut codec, stream, b"rest"), 4);
    codec.close(Reason::NoError);
    assert_eq!(codec.open_streams(), 0);
    assert_eq!(written(&mut codec).len(), 2);
    assert_eq!(receive(&mut codec, b"whatever"), Ok(vec![]));
}

#[test]
fn a_ping_is_answered_and_ours_come_back() {
    let mut codec = a_server();
    receive(&mut codec, &frame(PING, 0, 0, b"question")).unwrap();
    codec.ping(*b"are you?");
    assert_eq!(
        written(&mut codec),
        [(PING, ACK, 0, b"question".to_vec()), (PING, 0, 0, b"are you?".to_vec())]
    );
    let pong = Event::Pong { payload: *b"are you?" };
    assert_eq!(receive(&mut codec, &frame(PING, ACK, 0, b"are you?")), Ok(vec![pong]));
    assert_eq!(receive(&mut codec, &frame(PING, ACK, 0, b"are you?")), Ok(vec![]), "answered twice");
}

#[test]
fn a_smaller_header_table_holds_from_its_acknowledgement_on() {
    let local = Settings { header_table_size: 0, ..Settings::SERVER };
    let mut codec = Codec::server(local);
    // A literal with incremental indexing, and its index.
    let indexed = [&[0x42, 7][..], b"CONNECT", &[0x41, 3], b"a:1"].concat();
    let opening =
        [PREFACE, &settings(&[]), &frame(HEADERS, 4, 1, &indexed), &frame(HEADERS, 4, 3, &[0xbe, 0xbf])];
    assert_eq!(receive(&mut codec, &opening.concat()).unwrap().len(), 2);
    receive(&mut codec, &frame(SETTINGS, ACK, 0, &[])).unwrap();
    assert_ends("the old table", &mut codec, &frame(HEADERS, 4, 5, &[0xbe, 0xbf]), Reason::CompressionError);
}

#[test]
fn connection_errors_say_what_the_peer_did() {
    let error = receive(&mut a_server(), &frame(PING, 0, 0, &[0; 7])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the peer broke HTTP/2 (FRAME_SIZE_ERROR): a frame's length does not fit its type"
    );
    let error = receive(&mut a_server(), &frame(HEADERS, 4, 1, &[0x80])).unwrap_err();
    assert!(matches!(error, ConnectionError::Compression { .. }));
    assert_eq!(
        error.to_string(),
        "a header block of the peer cannot be decoded: index 0 is in neither table"
    );
}
