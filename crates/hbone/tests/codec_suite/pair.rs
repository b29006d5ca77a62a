//! A client and a server of ours, back to back.

use ambit_hbone::codec::{Codec, ConnectRequest, Event, Reason, Settings};

use crate::support::{Pair, send};

fn pair() -> Pair {
    Pair::new(Settings::CLIENT, Settings::SERVER)
}

#[test]
fn a_connect_carries_its_authority_and_headers_both_ways() {
    let mut pair = pair();
    let headers = [("forwarded", "for=\"10.0.0.2:4711\""), ("baggage", "k8s.namespace.name=shop")];
    let id = pair.client.open(&ConnectRequest { authority: "10.0.0.1:80", headers: &headers }).unwrap();
    let (_, events) = pair.exchange();
    let [Event::Request { stream, head }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(*stream, id);
    assert!(head.is_connect());
    assert_eq!(head.authority(), "10.0.0.1:80");
    assert_eq!(head.headers().text("forwarded"), Some("for=\"10.0.0.2:4711\""));
    assert_eq!(head.headers().text("baggage"), Some("k8s.namespace.name=shop"));
    assert_eq!(head.headers().len(), 2);

    pair.server.respond(id, 200, &[("baggage", "k8s.namespace.name=bank")]);
    let (events, _) = pair.exchange();
    let [Event::Response { status: 200, headers, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(headers.text("baggage"), Some("k8s.namespace.name=bank"));
}

#[test]
fn each_side_ends_on_its_own() {
    let mut pair = pair();
    let id = pair.tunnel();
    assert_eq!(send(&mut pair.client, id, b"question"), 8);
    pair.client.end(id);
    let (_, events) = pair.exchange();
    assert_eq!(events, [Event::Data { stream: id, payload: b"question" }, Event::End { stream: id }]);
    pair.server.release(id, 8);

    assert_eq!(send(&mut pair.server, id, b"answer"), 6);
    pair.server.end(id);
    let (events, _) = pair.exchange();
    assert_eq!(events, [Event::Data { stream: id, payload: b"answer" }, Event::End { stream: id }]);
    pair.client.release(id, 6);
    assert_eq!((pair.client.open_streams(), pair.server.open_streams()), (0, 0));
}

#[test]
fn a_reset_is_never_an_end() {
    for reason in [Reason::NoError, Reason::Cancel, Reason::ConnectError, Reason::Other(4711)] {
        let mut pair = pair();
        let id = pair.tunnel();
        send(&mut pair.client, id, b"half");
        pair.client.reset(id, reason);
        let (_, events) = pair.exchange();
        assert_eq!(
            events,
            [Event::Data { stream: id, payload: b"half" }, Event::Reset { stream: id, reason }]
        );
    }
}

#[test]
fn an_idle_connection_owns_no_buffer_and_little_else() {
    let mut pair = pair();
    pair.tunnel();
    for codec in [&mut pair.client, &mut pair.server] {
        assert!(codec.take_buffer().is_some());
        assert!(codec.take_buffer().is_none() && codec.output().is_empty());
    }
    let octets = size_of::<Codec>();
    assert!(octets <= 768, "a codec has {octets} octets");
}
