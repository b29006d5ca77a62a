//! Two codecs back to back, and raw frames for peers that do not keep to the rules.

use ambit_hbone::codec::{Codec, ConnectRequest, ConnectionError, Event, Settings, StreamId};

/// An event without its borrow.
pub(crate) fn owned(event: Event<'_>) -> Event<'static> {
    match event {
        Event::Data { stream, payload } => Event::Data { stream, payload: payload.to_vec().leak() },
        Event::Request { stream, head } => Event::Request { stream, head },
        Event::Response { stream, status, headers } => Event::Response { stream, status, headers },
        Event::End { stream } => Event::End { stream },
        Event::Reset { stream, reason } => Event::Reset { stream, reason },
        Event::Writable { stream } => Event::Writable { stream },
        Event::StreamsAvailable => Event::StreamsAvailable,
        Event::GoAway { last_stream, reason } => Event::GoAway { last_stream, reason },
        Event::Pong { payload } => Event::Pong { payload },
    }
}

/// Everything that comes of `octets`.
pub(crate) fn receive(codec: &mut Codec, octets: &[u8]) -> Result<Vec<Event<'static>>, ConnectionError> {
    let mut input = octets;
    let mut events = Vec::new();
    while let Some(event) = codec.receive(&mut input)? {
        events.push(owned(event));
    }
    assert!(input.is_empty(), "the codec left input behind");
    Ok(events)
}

/// Takes all output.
pub(crate) fn drain(codec: &mut Codec) -> Vec<u8> {
    let octets = codec.output().to_vec();
    codec.consume_output(octets.len());
    octets
}

/// Appends payload to a stream's output as a shell does, as much as the windows take.
pub(crate) fn send(codec: &mut Codec, stream: StreamId, payload: &[u8]) -> usize {
    let slot = codec.data_slot(stream, payload.len());
    let octets = slot.len();
    slot.copy_from_slice(&payload[..octets]);
    codec.commit_data(stream, octets, false);
    octets
}

/// A client and a server that have exchanged their prefaces.
pub(crate) struct Pair {
    pub(crate) client: Codec,
    pub(crate) server: Codec,
}

impl Pair {
    pub(crate) fn new(client: Settings, server: Settings) -> Self {
        let mut pair = Self { client: Codec::client(client), server: Codec::server(server) };
        pair.exchange();
        pair
    }

    /// Carries output across until neither side has any; returns the events of client and server.
    pub(crate) fn exchange(&mut self) -> (Vec<Event<'static>>, Vec<Event<'static>>) {
        let mut events = (Vec::new(), Vec::new());
        while !self.client.output().is_empty() || !self.server.output().is_empty() {
            let octets = drain(&mut self.client);
            events.1.extend(receive(&mut self.server, &octets).unwrap());
            let octets = drain(&mut self.server);
            events.0.extend(receive(&mut self.client, &octets).unwrap());
        }
        events
    }

    /// A stream that was answered with 200.
    pub(crate) fn tunnel(&mut self) -> StreamId {
        let id = self.client.open(&ConnectRequest { authority: "10.0.0.1:80", headers: &[] }).unwrap();
        let (_, events) = self.exchange();
        assert!(matches!(&events[..], [Event::Request { stream, .. }] if *stream == id), "{events:?}");
        self.server.respond(id, 200, &[]);
        let (events, _) = self.exchange();
        assert!(matches!(&events[..], [Event::Response { status: 200, .. }]), "{events:?}");
        id
    }
}

/// Frames as a hostile or unusual peer would write them.
pub(crate) mod raw {
    use ambit_hbone::codec::{Codec, Settings};
    use ambit_hbone::hpack::{Encoder, StaticName};

    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;

    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITIZED: u8 = 32;

    pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    pub(crate) fn settings(entries: &[(u16, u32)]) -> Vec<u8> {
        let entry = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        frame(SETTINGS, 0, 0, &entries.iter().flat_map(entry).collect::<Vec<u8>>())
    }

    pub(crate) fn window_update(stream: u32, increment: u32) -> Vec<u8> {
        frame(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
    }

    pub(crate) fn reset(stream: u32, code: u32) -> Vec<u8> {
        frame(RST_STREAM, 0, stream, &code.to_be_bytes())
    }

    pub(crate) fn goaway(last: u32, code: u32) -> Vec<u8> {
        frame(GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat())
    }

    pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut encoder = Encoder::default();
        let mut out = Vec::new();
        let mut block = encoder.begin(&mut out);
        fields.iter().for_each(|(name, value)| block.field(name.as_bytes(), value.as_bytes()));
        out
    }

    pub(crate) fn connect_block() -> Vec<u8> {
        let mut encoder = Encoder::default();
        let mut out = Vec::new();
        let mut block = encoder.begin(&mut out);
        block.known(StaticName::Method, b"CONNECT");
        block.known(StaticName::Authority, b"10.0.0.1:80");
        out
    }

    pub(crate) fn connect(stream: u32) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, stream, &connect_block())
    }

    pub(crate) fn response(stream: u32, flags: u8, status: &str) -> Vec<u8> {
        frame(HEADERS, END_HEADERS | flags, stream, &block(&[(":status", status)]))
    }

    /// A server whose peer has sent its preface, acknowledged the server's and read everything.
    pub(crate) fn greeted_server(local: Settings) -> Codec {
        let mut codec = Codec::server(local);
        let preface = [PREFACE, &settings(&[]), &frame(SETTINGS, ACK, 0, &[])].concat();
        super::receive(&mut codec, &preface).unwrap();
        super::drain(&mut codec);
        codec
    }

    /// A client whose peer has done the same.
    pub(crate) fn greeted_client(local: Settings) -> Codec {
        let mut codec = Codec::client(local);
        super::receive(&mut codec, &[settings(&[]), frame(SETTINGS, ACK, 0, &[])].concat()).unwrap();
        super::drain(&mut codec);
        codec
    }

    /// Kind, flags, stream and payload of each frame that the codec has written, behind a preface.
    pub(crate) fn written(codec: &mut Codec) -> Vec<(u8, u8, u32, Vec<u8>)> {
        let octets = super::drain(codec);
        let mut rest = octets.strip_prefix(PREFACE).unwrap_or(&octets);
        let mut frames = Vec::new();
        while let Some((head, behind)) = rest.split_at_checked(9) {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            frames.push((head[3], head[4], stream, behind[..length].to_vec()));
            rest = &behind[length..];
        }
        frames
    }
}
