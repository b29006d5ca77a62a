//! The kinds of work, each a number of equal units. Every unit checks that it was done.

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::codec::{Codec, ConnectRequest, Event, StreamId};

use crate::ends::{End, Ends};

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A unit is a request of 1 KiB and its answer of 1 KiB on a stream that stays open.
    Requests,
    /// A unit is a stream: CONNECT and 200 with the fields that agents send, a few octets each way,
    /// both ends.
    Streams,
    /// A unit is a mebibyte from client to server on one stream.
    Bulk,
}

impl Work {
    pub(crate) const ALL: [Self; 3] = [Self::Requests, Self::Streams, Self::Bulk];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Bulk => "bulk",
        }
    }

    pub(crate) fn run(self, ends: &mut Ends, units: u64) {
        match self {
            Self::Requests => {
                let stream = open(ends);
                (0..units).for_each(|unit| exchange(ends, stream, unit, MESSAGE));
                close(ends, stream);
            }
            Self::Streams => (0..units).for_each(|unit| {
                let stream = open(ends);
                exchange(ends, stream, unit, SMALL_MESSAGE);
                close(ends, stream);
            }),
            Self::Bulk => {
                let stream = open(ends);
                (0..units).for_each(|_| send_bulk(ends, stream));
                close(ends, stream);
            }
        }
    }
}

const MESSAGE: usize = 1024;
const SMALL_MESSAGE: usize = 16;
const MEBIBYTE: usize = 1 << 20;

/// What a flow reads from its application before others get their turn (`ambit_hbone::relay`).
const READ_BUDGET: usize = BufferPool::PIECE / 2;

/// What an agent sends with a CONNECT.
const REQUEST: ConnectRequest<'static> = ConnectRequest {
    authority: "10.10.2.2:8080",
    headers: &[
        ("forwarded", "for=\"10.10.1.2:40000\";host=web.shop.svc.cluster.local"),
        (
            "baggage",
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=client,\
             service.name=client,service.version=v1",
        ),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ],
};

/// And with its answer.
const ANSWER: &[(&str, &str)] =
    &[("baggage", "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web")];

fn open(ends: &mut Ends) -> StreamId {
    let stream = ends.client.codec.open(&REQUEST).unwrap();
    let mut requested = None;
    ends.carry_to_server(|codec, event| {
        let Event::Request { stream, head } = event else { panic!("{event:?}") };
        assert!(head.is_connect() && head.authority() == REQUEST.authority);
        requested = Some(stream);
        codec.respond(stream, 200, ANSWER);
    });
    assert_eq!(requested, Some(stream));
    let mut answered = false;
    ends.carry_to_client(|_, event| {
        answered |= matches!(event, Event::Response { status: 200, .. });
    });
    assert!(answered);
    stream
}

fn close(ends: &mut Ends, stream: StreamId) {
    let mut ended = 0;
    let mut count = |_: &mut Codec, event: Event<'_>| {
        ended += u32::from(matches!(event, Event::End { stream: of } if of == stream));
    };
    ends.client.codec.end(stream);
    ends.carry_to_server(&mut count);
    ends.server.codec.end(stream);
    ends.carry_to_client(&mut count);
    assert_eq!(ended, 2);
    assert_eq!((ends.client.codec.open_streams(), ends.server.codec.open_streams()), (0, 0));
}

/// A message there and back, which begin with their number.
fn exchange(ends: &mut Ends, stream: StreamId, number: u64, length: usize) {
    write_message(&mut ends.client, stream, number, length);
    let mut received = 0;
    ends.carry_to_server(|codec, event| received += take_message(codec, event, number));
    assert_eq!(received, length);
    write_message(&mut ends.server, stream, number, length);
    ends.carry_to_client(|codec, event| received += take_message(codec, event, number));
    assert_eq!(received, 2 * length);
}

fn write_message(end: &mut End, stream: StreamId, number: u64, length: usize) {
    end.lend();
    let slot = end.codec.data_slot(stream, READ_BUDGET);
    slot[..8].copy_from_slice(&number.to_be_bytes());
    end.codec.commit_data(stream, length, false);
}

fn take_message(codec: &mut Codec, event: Event<'_>, number: u64) -> usize {
    let Event::Data { stream, payload } = event else {
        assert!(matches!(event, Event::Writable { .. }), "{event:?}");
        return 0;
    };
    assert!(payload.starts_with(&number.to_be_bytes()), "another message arrived");
    codec.release(stream, payload.len());
    payload.len()
}

/// In turns of a full read of the application.
fn send_bulk(ends: &mut Ends, stream: StreamId) {
    let mut sent = 0;
    let mut received = 0;
    while sent < MEBIBYTE {
        ends.client.lend();
        let octets = ends.client.codec.data_slot(stream, READ_BUDGET.min(MEBIBYTE - sent)).len();
        assert!(octets > 0, "the window closed although everything was released");
        ends.client.codec.commit_data(stream, octets, false);
        sent += octets;
        ends.carry_to_server(|codec, event| {
            let Event::Data { stream, payload } = event else { panic!("{event:?}") };
            codec.release(stream, payload.len());
            received += payload.len();
        });
        ends.carry_to_client(|_, event| assert!(matches!(event, Event::Writable { .. }), "{event:?}"));
    }
    assert_eq!((sent, received), (MEBIBYTE, MEBIBYTE));
}
