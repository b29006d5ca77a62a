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
