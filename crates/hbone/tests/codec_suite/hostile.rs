//! Peers that want to exhaust us. Each flood ends its own connection with ENHANCE_YOUR_CALM, and
//! until then neither output nor streams grow beyond their bounds.

use ambit_hbone::codec::floods::*;
use ambit_hbone::codec::{
    Codec, ConnectRequest, ConnectionError, Event, Flood, MAX_REMEMBERED_RESETS, OpenError, Reason, Settings,
    StreamId,
};

use crate::support::raw::*;
use crate::support::{Pair, receive, send};

/// Feeds what `step` makes, again and again, and reads everything that the codec writes; returns how
/// many steps passed before the connection ended, and why.
fn flood(codec: &mut Codec, limit: u32, step: impl FnMut(u32) -> Vec<u8>) -> (u32, ConnectionError) {
    flood_answered(codec, limit, step, |_, _| {})
}

/// [`flood`], with a shell that does something about the events.
fn flood_answered(
    codec: &mut Codec,
    limit: u32,
    mut step: impl FnMut(u32) -> Vec<u8>,
    mut shell: impl FnMut(&mut Codec, &Event<'_>),
) -> (u32, ConnectionError) {
    for round in 0..limit {
        match receive(codec, &step(round)) {
            Ok(events) => events.iter().for_each(|event| shell(codec, event)),
            Err(error) => return (round, error),
        }
        assert!(codec.output().len() <= 2 * MAX_UNREAD_REPLIES, "output grows without bound");
        assert!(codec.open_streams() <= 200, "streams grow without bound");
        written(codec);
    }
    panic!("{limit} rounds passed");
}

fn assert_flood(codec: &Codec, error: ConnectionError, flood: Flood) {
    assert_eq!(error, ConnectionError::Flood { flood });
    assert_eq!(error.reason(), Reason::EnhanceYourCalm);
    assert_eq!(codec.stats().flood, Some(flood));
    let goaway = codec.output();
    assert_eq!(goaway[goaway.len() - 4..], Reason::EnhanceYourCalm.code().to_be_bytes());
}

fn a_server() -> Codec {
    greeted_server(Settings::SERVER)
}

fn a_server_tunnel() -> (Codec, StreamId) {
    let mut codec = a_server();
    let id = receive(&mut codec, &connect(1)).unwrap()[0].stream().unwrap();
    codec.respond(id, 200, &[]);
    written(&mut codec);
    (codec, id)
}

#[test]
fn rapid_resets_end_the_connection() {
    let mut codec = a_server();
    let (rounds, error) =
        flood(&mut codec, 10_000, |round| [connect(2 * round + 1), reset(2 * round + 1, 8)].concat());
    assert_eq!(rounds, MAX_RAPID_RESETS);
    assert_flood(&codec, error, Flood::RapidReset);
}

#[test]
fn resets_that_the_peer_makes_us_send_end_the_connection() {
    type Fault = fn(u32) -> Vec<u8>;
    let faults: [(&str, Fault); 5] = [
        ("an increment of 0", |id| [connect(id), window_update(id, 0)].concat()),
        ("an overflowing window", |id| [connect(id), window_update(id, (1 << 31) - 1)].concat()),
        ("trailers", |id| [connect(id), connect(id)].concat()),
        ("DATA behind the end", |id| {
            [connect(id), frame(DATA, 1, id, b"a"), frame(DATA, 0, id, b"b")].concat()
        }),
        ("a malformed request", |id| frame(HEADERS, END_HEADERS, id, &[])),
    ];
    for (what, fault) in faults {
        let mut codec = a_server();
        let (rounds, error) = flood(&mut codec, 10_000, |round| fault(2 * round + 1));
        assert_eq!(rounds, MAX_RAPID_RESETS, "{what}");
        assert_flood(&codec, error, Flood::RapidReset);
    }
}

#[test]
fn streams_beyond_the_limit_end_the_connection_in_the_long_run() {
    let mut codec = a_server();
    let (rounds, error) = flood(&mut codec, 10_000, |round| connect(2 * round + 1));
    assert_eq!(rounds, MAX_RAPID_RESETS + Settings::SERVER.max_concurrent_streams);
    assert_flood(&codec, error, Flood::RapidReset);
}

#[test]
fn streams_that_were_answered_may_be_reset_for_ever() {
    let mut codec = a_server();
    for round in 0..20_000 {
        let id = 2 * round + 1;
        let events = receive(&mut codec, &connect(id)).unwrap();
        codec.respond(events[0].stream().unwrap(), 200, &[]);
        receive(&mut codec, &reset(id, 8)).unwrap();
        written(&mut codec);
    }
}

#[test]
fn a_client_may_give_up_every_request_that_is_refused() {
    let mut codec = a_server();
    for round in 0..20_000 {
        let id = 2 * round + 1;
        let events = receive(&mut codec, &connect(id)).unwrap();
        codec.refuse(events[0].stream().unwrap(), 401, &[]);
        receive(&mut codec, &reset(id, 8)).unwrap();
        written(&mut codec);
    }
}

#[test]
fn an_answered_ping_restores_the_budgets() {
    let mut codec = a_server();
    for round in 0..3 * MAX_RAPID_RESETS {
        if round % 1_000 == 0 {
            codec.ping([1; 8]);
            receive(&mut codec, &frame(PING, ACK, 0, &[1; 8])).unwrap();
        }
        // An answer that nobody asked for restores nothing, see below.
        receive(&mut codec, &[connect(2 * round + 1), reset(2 * round + 1, 8)].concat()).unwrap();
        written(&mut codec);
    }
    let (rounds, error) = flood(&mut codec, 10_000, |_| frame(PING, ACK, 0, &[1; 8]));
    assert!(rounds <= MAX_IGNORED);
    assert_flood(&codec, error, Flood::Ignored);
}

#[test]
fn a_continuation_flood_ends_the_connection() {
    for fragment in [&[][..], &[0x88]] {
        let mut codec = a_server();
        receive(&mut codec, &frame(HEADERS, 0, 1, &connect_block())).unwrap();
        let (rounds, error) = flood(&mut codec, 1_000, |_| frame(CONTINUATION, 0, 1, fragment));
        assert_eq!(rounds, MAX_CONTINUATIONS);
        assert_flood(&codec, error, Flood::Continuation);
    }
}

#[test]
fn a_header_block_larger_than_our_settings_ends_the_connection_before_it_is_collected() {
    let mut codec = a_server();
    let error = receive(&mut codec, &frame(HEADERS, 4, 1, &[0; 64 * 1024 + 1])[..9]).unwrap_err();
    assert_flood(&codec, error, Flood::HeaderBlock);

    let mut codec = a_server();
    receive(&mut codec, &frame(HEADERS, 0, 1, &[0; 64 * 1024])).unwrap();
    let error = receive(&mut codec, &frame(CONTINUATION, 4, 1, &[0])[..9]).unwrap_err();
    assert_flood(&codec, error, Flood::HeaderBlock);
}

#[test]
fn an_hpack_bomb_ends_the_connection() {
    // One entry of 4,000 octets in the table, and 60,000 references to it of one octet each.
    let entry = [&[0x40, 1, b'a', 0x7f, 0xa1, 0x1e][..], &[b'x'; 4_000]].concat();
    let bomb = [&entry[..], &vec![0xbe; 60_000]].concat();
    let mut codec = a_server();
    let error = receive(&mut codec, &frame(HEADERS, END_HEADERS, 1, &bomb)).unwrap_err();
    assert_flood(&codec, error, Flood::HeaderList);
}

#[test]
fn a_settings_flood_ends_the_connection() {
    let mut codec = a_server();
    let (rounds, error) = flood(&mut codec, 10_000, |_| settings(&[(4, 70_000)]));
    assert_eq!(rounds, MAX_SETTINGS - 1, "the first was part of the preface");
    assert_flood(&codec, error, Flood::Settings);

    let mut codec = a_server();
    let error = receive(&mut codec, &settings(&vec![(4, 1); MAX_SETTINGS_ENTRIES + 1])[..9]).unwrap_err();
    assert_flood(&codec, error, Flood::Settings);
}

#[test]
fn a_ping_flood_ends_the_connection() {
    let mut codec = a_server();
    let (rounds, error) = flood(&mut codec, 10_000, |_| frame(PING, 0, 0, &[0; 8]));
    assert_eq!(rounds, MAX_PINGS);
    assert_flood(&codec, error, Flood::Ping);
}

#[test]
fn a_peer_may_measure_bandwidth_with_each_burst_of_data() {
    let (mut codec, stream) = a_server_tunnel();
    for _ in 0..100_000 {
        receive(&mut codec, &[frame(DATA, 0, 1, b"burst"), frame(PING, 0, 0, &[0; 8])].concat()).unwrap();
        codec.release(stream, 5);
        written(&mut codec);
    }
}

#[test]
fn an_empty_data_flood_ends_the_connection() {
    for empty in [frame(DATA, 0, 1, &[]), frame(DATA, PADDED, 1, &[0]), frame(DATA, PADDED, 1, &[200; 201])] {
        let (mut codec, _) = a_server_tunnel();
        let (rounds, error) = flood(&mut codec, 10_000, |_| empty.clone());
        assert_eq!(rounds, MAX_EMPTY_DATA);
        assert_flood(&codec, error, Flood::EmptyData);
    }
}

#[test]
fn a_window_update_flood_ends_the_connection() {
    for id in [0, 1] {
        let (mut codec, _) = a_server_tunnel();
        let (rounds, error) = flood(&mut codec, 100_000, |_| window_update(id, 1));
        assert_eq!(rounds, MAX_WINDOW_UPDATES);
        assert_flood(&codec, error, Flood::WindowUpdate);
    }
}

#[test]
fn a_window_dribbled_out_octet_by_octet_ends_the_connection() {
    let mut codec = greeted_server(Settings::SERVER);
    receive(&mut codec, &settings(&[(4, 0)])).unwrap();
    let stream = receive(&mut codec, &connect(1)).unwrap()[0].stream().unwrap();
    codec.respond(stream, 200, &[]);
    let shell = |codec: &mut Codec, event: &Event<'_>| {
        assert_eq!(event, &Event::Writable { stream: Some(stream) });
        assert_eq!(send(codec, stream, b"much to say"), 1);
    };
    let (rounds, error) = flood_answered(&mut codec, 100_000, |_| window_update(1, 1), shell);
    assert_eq!(rounds, MAX_WINDOW_UPDATES);
    assert_flood(&codec, error, Flood::WindowUpdate);
}

#[test]
fn eager_window_updates_for_data_that_we_send_are_no_flood() {
    let (mut codec, stream) = a_server_tunnel();
    for _ in 0..100_000 {
        assert_eq!(send(&mut codec, stream, b"ping"), 4);
        receive(&mut codec, &[window_update(0, 4), window_update(1, 4)].concat()).unwrap();
        written(&mut codec);
    }
    // Bulk, announced in pieces of 4 KiB.
    for _ in 0..10_000 {
        assert_eq!(send(&mut codec, stream, &[0; 16_384]), 16_384);
        let updates = [window_update(0, 4_096), window_update(1, 4_096)].concat().repeat(4);
        receive(&mut codec, &updates).unwrap();
        written(&mut codec);
    }
}

#[test]
fn floods_of_frames_without_effect_end_the_connection() {
    let cases = [
        ("PRIORITY", frame(PRIORITY, 0, 1, &[0; 5])),
        ("an unknown type", frame(99, 0, 1, &[])),
        ("RST_STREAM for a closed stream", reset(1, 8)),
        ("DATA for a forgotten stream", frame(DATA, 0, 1, b"x")),
        ("acknowledgements", frame(SETTINGS, ACK, 0, &[])),
        ("GOAWAY", goaway(0, 0)),
    ];
    for (what, octets) in cases {
        let mut codec = a_server();
        receive(&mut codec, &[connect(1), reset(1, 8)].concat()).unwrap();
        // Streams that we reset afterwards push the first out of the memory of resets.
        for round in 1..=u32::try_from(MAX_REMEMBERED_RESETS).unwrap() {
            let stream = receive(&mut codec, &connect(2 * round + 1)).unwrap()[0].stream().unwrap();
            codec.reset(stream, Reason::Cancel);
        }
        written(&mut codec);
        // DATA for a forgotten stream is refused once, and then ignored as of a stream that was reset.
        if octets == frame(DATA, 0, 1, b"x") {
            receive(&mut codec, &octets).unwrap();
            assert_eq!(written(&mut codec), [(RST_STREAM, 0, 1, vec![0, 0, 0, 5])], "{what}");
            receive(&mut codec, &octets).unwrap();
            assert!(written(&mut codec).is_empty(), "{what}");
            continue;
        }
        let (rounds, error) = flood(&mut codec, 10_000, |_| octets.clone());
        assert!(rounds <= MAX_IGNORED, "{what}");
        assert_flood(&codec, error, Flood::Ignored);
    }
}

#[test]
fn replies_to_a_peer_that_does_not_read_are_bounded() {
    type Step = fn(u32) -> Vec<u8>;
    let steps: [(&str, Step); 3] = [
        ("PING", |_| [frame(DATA, 0, 1, b"x"), frame(PING, 0, 0, &[0; 8])].concat()),
        ("refused requests", |round| connect(2 * round + 3)),
        ("window updates", |_| frame(DATA, 0, 1, &[0; 100])),
    ];
    for (what, step) in steps {
        let mut codec = greeted_server(Settings { stream_window: 100, ..Settings::SERVER });
        let tunnel = receive(&mut codec, &connect(1)).unwrap()[0].stream().unwrap();
        let end = (0..1_000_000).find_map(|round| match receive(&mut codec, &step(round)) {
            Err(error) => Some(error),
            Ok(events) => {
                for event in events {
                    if let Event::Request { stream, .. } = event {
                        codec.refuse(stream, 503, &[("a", "reason")]);
                    } else if let Event::Data { payload, .. } = event {
                        codec.release(tunnel, payload.len());
                    }
                }
                assert!(
                    codec.output().len() < MAX_UNREAD_REPLIES + 1_000,
                    "{what}: {}",
                    codec.output().len()
                );
                None
            }
        });
        assert_flood(&codec, end.expect(what), Flood::UnreadReplies);
    }
}

#[test]
fn a_reader_that_is_slow_but_reads_is_no_flood() {
    let (mut codec, stream) = a_server_tunnel();
    receive(&mut codec, &[settings(&[(4, 1 << 30)]), window_update(0, 1 << 30)].concat()).unwrap();
    // A megabyte always waits in the output, and replies among it, for a gigabyte.
    for _ in 0..1_000 {
        while codec.output().len() < 1 << 20 {
            send(&mut codec, stream, &[0; 16_384]);
        }
        for _ in 0..100 {
            receive(&mut codec, &[frame(DATA, 0, 1, b"x"), frame(PING, 0, 0, &[0; 8])].concat()).unwrap();
            codec.release(stream, 1);
        }
        codec.consume_output(1 << 20);
    }
}

#[test]
fn a_client_whose_peer_does_not_read_opens_no_more_streams() {
    let mut codec = greeted_client(Settings::CLIENT);
    let request = ConnectRequest { authority: "a:1", headers: &[] };
    let error = (0..1_000_000).find_map(|_| match codec.open(&request) {
        Ok(stream) => {
            codec.reset(stream, Reason::Cancel);
            None
        }
        Err(error) => Some(error),
    });
    assert!(matches!(error, Some(OpenError::Congested { .. })), "{error:?}");
    written(&mut codec);
    codec.open(&request).unwrap();
}

#[test]
fn closed_streams_whose_payload_nobody_takes_are_bounded() {
    let mut codec = a_server();
    let mut refused = 0;
    for round in 0..10_000_u32 {
        let id = 2 * round + 1;
        for event in receive(&mut codec, &[connect(id), frame(DATA, 1, id, b"x")].concat()).unwrap() {
            if let Event::Request { stream, .. } = event {
                codec.respond(stream, 200, &[]);
                codec.end(stream);
            }
        }
        refused += written(&mut codec).iter().filter(|(kind, ..)| *kind == RST_STREAM).count();
        if refused > 100 {
            assert_eq!(round, 400 + 100, "twice the limit of streams");
            return;
        }
    }
    panic!("ten thousand closed streams are held");
}

#[test]
fn informational_responses_without_end_end_the_connection() {
    let mut codec = greeted_client(Settings::CLIENT);
    codec.open(&ConnectRequest { authority: "a:1", headers: &[] }).unwrap();
    let (rounds, error) = flood(&mut codec, 10_000, |_| response(1, 0, "102"));
    assert_eq!(rounds, MAX_IGNORED);
    assert_flood(&codec, error, Flood::Ignored);
}

#[test]
fn another_connection_does_not_notice() {
    let mut bystander = Pair::new(Settings::CLIENT, Settings::SERVER);
    let stream = bystander.tunnel();
    let mut codec = a_server();
    flood(&mut codec, 10_000, |_| frame(PING, 0, 0, &[0; 8]));
    assert_eq!(send(&mut bystander.client, stream, b"still here"), 10);
    let (_, events) = bystander.exchange();
    assert_eq!(events, [Event::Data { stream, payload: b"still here" }]);
}
