//! Properties that hold for any way octets are cut, and for any order in which two ends act.

use std::collections::BTreeMap;

use ambit_hbone::codec::{Codec, ConnectRequest, Event, Settings, StreamId};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::support::raw::*;
use crate::support::{drain, receive};

/// Events as they are whatever way the input was cut: payload that follows payload is one.
fn joined(events: Vec<Event<'static>>) -> Vec<(Event<'static>, Vec<u8>)> {
    let mut joined: Vec<(Event<'static>, Vec<u8>)> = Vec::new();
    for event in events {
        let Event::Data { stream, payload } = event else {
            joined.push((event, Vec::new()));
            continue;
        };
        match joined.last_mut() {
            Some((Event::Data { stream: last, .. }, octets)) if *last == stream => octets.extend(payload),
            _ => joined.push((Event::Data { stream, payload: &[] }, payload.to_vec())),
        }
    }
    joined
}

/// A frame that may come on a server's connection, mostly valid.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let id = (0_u32..6).prop_map(|n| 2 * n + 1);
    let flags = prop_oneof![Just(0_u8), Just(END_STREAM), Just(PADDED), Just(END_STREAM | PADDED)];
    prop_oneof![
        6 => id.clone().prop_map(connect),
        8 => (id.clone(), flags, 1_u8..30, vec(any::<u8>(), 30..200))
            .prop_map(|(id, flags, padding, payload)| frame(DATA, flags, id, &[&[padding], &payload[..]].concat())),
        1 => (id.clone(), 0_u32..16).prop_map(|(id, code)| reset(id, code)),
        1 => (id.clone(), 1_u32..1000).prop_map(|(id, increment)| window_update(id, increment)),
        1 => any::<[u8; 8]>().prop_map(|payload| frame(PING, 0, 0, &payload)),
        1 => (0_u32..100_000).prop_map(|window| settings(&[(4, window), (77, 1)])),
        1 => (10_u8..30, vec(any::<u8>(), 0..40)).prop_map(|(kind, payload)| frame(kind, 0xff, 5, &payload)),
        1 => (id, 0_usize..15).prop_map(|(id, cut)| {
            let block = connect_block();
            [frame(HEADERS, 0, id, &block[..cut]), frame(CONTINUATION, END_HEADERS, id, &block[cut..])].concat()
        }),
    ]
}

proptest! {
    #[test]
    fn any_cut_of_the_input_gives_the_same_events(
        frames in vec(any_frame(), 0..40),
        cuts in vec(1_usize..60, 1..200),
    ) {
        let octets = frames.concat();
        let mut whole = greeted_server(Settings::SERVER);
        let mut input = &octets[..];
        let mut expected = Vec::new();
        let outcome = loop {
            match whole.receive(&mut input) {
                Ok(Some(event)) => expected.push(crate::support::owned(event)),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };

        let mut pieces = greeted_server(Settings::SERVER);
        let mut events = Vec::new();
        let mut rest = &octets[..];
        let mut failure = None;
        for cut in cuts.iter().cycle() {
            let (mut piece, behind) = rest.split_at((*cut).min(rest.len()));
            rest = behind;
            while failure.is_none() {
                match pieces.receive(&mut piece) {
                    Ok(Some(event)) => events.push(crate::support::owned(event)),
                    Ok(None) => break,
                    Err(error) => failure = Some(error),
                }
            }
            if rest.is_empty() || failure.is_some() {
                break;
            }
        }
        prop_assert_eq!(failure, outcome);
        prop_assert_eq!(joined(events), joined(expected));
        prop_assert_eq!(drain(&mut pieces), drain(&mut whole));
    }

    #[test]
    fn any_octets_are_survived(octets in vec(any::<u8>(), 0..300), server in any::<bool>()) {
        let mut codec = if server { greeted_server(Settings::SERVER) } else { greeted_client(Settings::CLIENT) };
        let _ = receive(&mut codec, &octets);
    }

    #[test]
    fn whatever_two_ends_do_all_octets_arrive(
        windows in (1_u32..300, 1_u32..300),
        frame_sizes in (16_384_u32..20_000, 16_384_u32..20_000),
        steps in vec(any_step(), 0..400),
    ) {
        let small = |stream_window, max_frame_size| Settings {
            stream_window,
            max_frame_size,
            connection_window: 65_535,
            max_concurrent_streams: 4,
            ..Settings::SERVER
        };
        let mut session = Session::new(small(windows.0, frame_sizes.0), small(windows.1, frame_sizes.1));
        steps.into_iter().for_each(|step| session.step(step));
        session.finish();
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    /// This many octets of this side's next output arrive at the other.
    Carry(Side, usize),
    Send(Side, usize, usize),
    Release(Side, usize, usize),
    End(Side, usize),
    Ping(Side),
    Lend(Side),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

fn any_step() -> impl Strategy<Value = Step> {
    let side = || any::<bool>().prop_map(|client| if client { Side::Client } else { Side::Server });
    prop_oneof![
        2 => Just(Step::Open),
        8 => (side(), 1_usize..200).prop_map(|(side, octets)| Step::Carry(side, octets)),
        6 => (side(), 0_usize..8, 0_usize..500).prop_map(|(side, nth, octets)| Step::Send(side, nth, octets)),
        4 => (side(), 0_usize..8, 1_usize..300).prop_map(|(side, nth, octets)| Step::Release(side, nth, octets)),
        1 => (side(), 0_usize..8).prop_map(|(side, nth)| Step::End(side, nth)),
        1 => side().prop_map(Step::Ping),
        1 => side().prop_map(Step::Lend),
    ]
}

/// One end and what it knows to be true.
struct End {
    codec: Codec,
    streams: BTreeMap<u32, Flow>,
}

#[derive(Default)]
struct Flow {
    id: Option<StreamId>,
    sent: usize,
    received: usize,
    held: usize,
    said_end: bool,
    heard_end: bool,
    answered: bool,
}

struct Session {
    client: End,
    server: End,
}

/// The octet at a place of a stream, different for each direction.
fn octet(stream: u32, from: Side, place: usize) -> u8 {
    (place.wrapping_mul(31) + stream as usize * 7 + from as usize * 101) as u8
}

impl Session {
    fn new(client: Settings, server: Settings) -> Self {
        let end = |codec| End { codec, streams: BTreeMap::new() };
        Self { client: end(Codec::client(client)), server: end(Codec::server(server)) }
    }

    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open => self.open(),
            Step::Carry(side, octets) => self.carry(side, octets),
            Step::Send(side, nth, octets) => {
                if let Some(id) = self.nth(side, nth) {
                    self.send(side, id, octets);
                }
            }
            Step::Release(side, nth, octets) => {
                if let Some(id) = self.nth(side, nth) {
                    self.release(side, id, octets);
                }
            }
            Step::End(side, nth) => {
                if let Some(id) = self.nth(side, nth) {
                    self.say_end(side, id);
                }
            }
            Step::Ping(side) => self.end(side).codec.ping([1; 8]),
            Step::Lend(side) => drop(self.end(side).codec.lend_buffer(vec![0; 100])),
        }
    }

    fn open(&mut self) {
        let request = ConnectRequest { authority: "10.0.0.1:80", headers: &[("baggage", "a=b")] };
        if let Ok(id) = self.client.codec.open(&request) {
            self.client.streams.insert(id.get(), Flow { id: Some(id), ..Flow::default() });
        }
    }

    fn nth(&mut self, side: Side, nth: usize) -> Option<StreamId> {
        let flows = &self.end(side).streams;
        flows.values().rev().nth(nth % flows.len().max(1)).and_then(|flow| flow.id)
    }

    fn send(&mut self, side: Side, id: StreamId, octets: usize) {
        let end = self.end(side);
        let flow = end.streams.get_mut(&id.get()).unwrap();
        let capacity = end.codec.send_capacity(id);
        let slot = end.codec.data_slot(id, octets);
        assert!(slot.len() <= octets.min(capacity));
        let octets = slot.len();
        for (place, target) in slot.iter_mut().enumerate() {
            *target = octet(id.get(), side, flow.sent + place);
        }
        flow.sent += octets;
        end.codec.commit_data(id, octets, false);
        assert_eq!(end.codec.send_capacity(id), capacity - octets);
    }

    fn release(&mut self, side: Side, id: StreamId, octets: usize) {
        let end = self.end(side);
        let flow = end.streams.get_mut(&id.get()).unwrap();
        let octets = octets.min(flow.held);
        flow.held -= octets;
        end.codec.release(id, octets);
    }

    fn say_end(&mut self, side: Side, id: StreamId) {
        let end = self.end(side);
        let flow = end.streams.get_mut(&id.get()).unwrap();
        if flow.answered && !flow.said_end {
            flow.said_end = true;
            end.codec.end(id);
        }
    }

    fn carry(&mut self, from: Side, octets: usize) {
        let output = self.end(from).codec.output();
        let octets = output[..octets.min(output.len())].to_vec();
        self.end(from).codec.consume_output(octets.len());
        let to = if from == Side::Client { Side::Server } else { Side::Client };
        let events = receive(&mut self.end(to).codec, &octets).unwrap();
        events.into_iter().for_each(|event| self.end(to).on_event(from, event));
    }

    /// Everything is carried, released and ended: then everything has arrived.
    fn finish(&mut self) {
        for side in [Side::Client, Side::Server].repeat(10_000) {
            let ids: Vec<StreamId> = self.end(side).streams.values().filter_map(|flow| flow.id).collect();
            for id in ids {
                self.release(side, id, usize::MAX);
                self.say_end(side, id);
            }
            self.carry(side, usize::MAX);
            if self.client.codec.output().is_empty()
                && self.server.codec.output().is_empty()
                && self.client.streams.values().chain(self.server.streams.values()).all(|flow| flow.heard_end)
            {
                break;
            }
        }
        assert_eq!((self.client.codec.open_streams(), self.server.codec.open_streams()), (0, 0));
        assert_eq!(self.client.streams.len(), self.server.streams.len());
        for (id, flow) in &self.client.streams {
            let other = &self.server.streams[id];
            assert_eq!((flow.sent, flow.received), (other.received, other.sent), "stream {id}");
            assert!(flow.heard_end && other.heard_end, "stream {id}");
        }
        assert!(self.client.codec.take_buffer().is_some() || self.client.codec.output().is_empty());
    }
}

impl End {
    fn on_event(&mut self, from: Side, event: Event<'_>) {
        match event {
            Event::Request { stream, .. } => {
                self.codec.respond(stream, 200, &[]);
                let flow = Flow { id: Some(stream), answered: true, ..Flow::default() };
                self.streams.insert(stream.get(), flow);
            }
            Event::Response { stream, status, .. } => {
                assert_eq!(status, 200);
                self.flow(stream).answered = true;
            }
            Event::Data { stream, payload } => {
                let flow = self.flow(stream);
                assert!(!flow.heard_end);
                for (place, octet_received) in payload.iter().enumerate() {
                    assert_eq!(*octet_received, octet(stream.get(), from, flow.received + place));
                }
                flow.received += payload.len();
                flow.held += payload.len();
            }
            Event::End { stream } => self.flow(stream).heard_end = true,
            Event::Writable { .. } | Event::StreamsAvailable | Event::Pong { .. } => {}
            Event::Reset { .. } | Event::GoAway { .. } => panic!("{event:?}"),
        }
    }

    fn flow(&mut self, stream: StreamId) -> &mut Flow {
        self.streams.get_mut(&stream.get()).unwrap()
    }
}
