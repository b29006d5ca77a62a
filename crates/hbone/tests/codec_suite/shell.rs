//! A small shell around the codec for conversations with implementations that are not ours: it reads
//! and writes at the same time, carries a known pattern on each stream, and checks what comes.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ambit_hbone::codec::{Codec, ConnectRequest, Event, RequestHead, StreamId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

/// The pattern that either side sends, from a place on; at most a mebibyte of it.
pub(crate) fn pattern(place: usize, octets: usize) -> &'static [u8] {
    const PERIOD: usize = 251;
    static OCTETS: LazyLock<Vec<u8>> =
        LazyLock::new(|| (0..PERIOD + (1 << 20)).map(|place| (place % PERIOD) as u8).collect());
    &OCTETS[place % PERIOD..][..octets]
}

pub(crate) struct Shell<T> {
    pub(crate) codec: Codec,
    reader: ReadHalf<T>,
    writer: WriteHalf<T>,
    /// One entry for each stream ever seen.
    pub(crate) flows: BTreeMap<StreamId, Flow>,
    /// Events that are not about payload, in their order.
    pub(crate) events: Vec<Event<'static>>,
    answer: fn(&RequestHead) -> Answer,
}

/// What a server of these tests does with a request.
pub(crate) enum Answer {
    /// 200, and then the plan.
    Tunnel(Plan),
    Refuse(u16),
}

/// What is sent on a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Octets of the pattern.
    pub(crate) octets: usize,
    pub(crate) end: When,
}

/// When END_STREAM is sent; in every case behind the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    AtOnce,
    AfterThePeers,
    Never,
}

#[derive(Debug)]
pub(crate) struct Flow {
    plan: Plan,
    /// It carries a text about an error, not the pattern.
    refused: bool,
    pub(crate) sent: usize,
    pub(crate) received: usize,
    pub(crate) said_end: bool,
    pub(crate) heard_end: bool,
}

impl Flow {
    pub(crate) fn is_over(&self) -> bool {
        self.said_end && self.heard_end
    }
}

impl<T: AsyncRead + AsyncWrite> Shell<T> {
    pub(crate) fn client(codec: Codec, io: T) -> Self {
        Self::server(codec, io, |_| panic!("a client got a request"))
    }

    pub(crate) fn server(codec: Codec, io: T, answer: fn(&RequestHead) -> Answer) -> Self {
        let (reader, writer) = tokio::io::split(io);
        Self { codec, reader, writer, flows: BTreeMap::new(), events: Vec::new(), answer }
    }

    pub(crate) fn open(&mut self, authority: &str, plan: Plan) -> StreamId {
        let headers =
            [("forwarded", "for=\"10.0.0.2:4711\";host=a.b"), ("baggage", "k8s.namespace.name=shop")];
        let id = self.codec.open(&ConnectRequest { authority, headers: &headers }).unwrap();
        self.flows.insert(id, Flow::new(plan));
        id
    }

    /// Works until `done` and all is written, or until the connection is over; says whether `done`.
    pub(crate) async fn run_until(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            self.fill();
            if done(self) && self.codec.output().is_empty() {
                return true;
            }
            let octets = tokio::select! {
                written = self.writer.write(self.codec.output()), if !self.codec.output().is_empty() => {
                    let Ok(written @ 1..) = written else { return done(self) };
                    self.codec.consume_output(written);
                    continue;
                }
                read = self.reader.read(&mut buffer) => match read {
                    Ok(octets @ 1..) => octets,
                    Ok(0) | Err(_) => return done(self),
                },
            };
            let mut input = &buffer[..octets];
            while let Some(event) = self.codec.receive(&mut input).unwrap() {
                Self::on_event(&mut self.codec, &mut self.flows, &mut self.events, self.answer, event);
            }
        }
    }

    fn on_event(
        codec: &mut Codec,
        flows: &mut BTreeMap<StreamId, Flow>,
        events: &mut Vec<Event<'static>>,
        answer: fn(&RequestHead) -> Answer,
        event: Event<'_>,
    ) {
        match event {
            Event::Data { stream, payload } => {
                let flow = flows.get_mut(&stream).unwrap();
                let expected = pattern(flow.received, payload.len());
                assert!(flow.refused || payload == expected, "payload differs");
                flow.received += payload.len();
                codec.release(stream, payload.len());
            }
            Event::End { stream } => flows.get_mut(&stream).unwrap().heard_end = true,
            Event::Request { stream, ref head } => {
                match answer(head) {
                    Answer::Tunnel(plan) => {
                        flows.insert(stream, Flow::new(plan));
                        codec.respond(stream, 200, &[("baggage", "k8s.namespace.name=bank")]);
                    }
                    Answer::Refuse(status) => codec.refuse(stream, status, &[]),
                }
                events.push(crate::support::owned(event));
            }
            Event::Response { stream, status, .. } => {
                flows.get_mut(&stream).unwrap().refused = status != 200;
                events.push(crate::support::owned(event));
            }
            Event::Reset { .. }
            | Event::Writable { .. }
            | Event::StreamsAvailable
            | Event::GoAway { .. }
            | Event::Pong { .. } => events.push(crate::support::owned(event)),
        }
    }

    /// Puts into the output what the plans, the windows and a bound of our own allow.
    fn fill(&mut self) {
        const MAX_OUTPUT: usize = 256 * 1024;
        for (id, flow) in &mut self.flows {
            while flow.sent < flow.plan.octets && self.codec.output().len() < MAX_OUTPUT {
                let slot = self.codec.data_slot(*id, flow.plan.octets - flow.sent);
                if slot.is_empty() {
                    break;
                }
                let octets = slot.len();
                slot.copy_from_slice(pattern(flow.sent, octets));
                self.codec.commit_data(*id, octets, false);
                flow.sent += octets;
            }
            let due = match flow.plan.end {
                When::AtOnce => true,
                When::AfterThePeers => flow.heard_end,
                When::Never => false,
            };
            if due && flow.sent == flow.plan.octets && !flow.said_end {
                self.codec.end(*id);
                flow.said_end = true;
            }
        }
    }
}

impl Flow {
    fn new(plan: Plan) -> Self {
        Self { plan, refused: false, sent: 0, received: 0, said_end: false, heard_end: false }
    }
}
