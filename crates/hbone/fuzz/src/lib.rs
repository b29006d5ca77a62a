//! A shell that does what the fuzzer says, and a model of what the codec may tell it.

use std::collections::BTreeMap;

use ambit_hbone::codec::floods::MAX_UNREAD_REPLIES;
use ambit_hbone::codec::{Codec, ConnectRequest, Event, Reason, Settings, StreamId};

/// Small windows and limits, so that short inputs reach them.
pub fn settings(choice: u8) -> Settings {
    let small = Settings {
        stream_window: 1_000,
        connection_window: 65_535,
        max_header_list_size: 2_000,
        max_concurrent_streams: 5,
        ..Settings::SERVER
    };
    match choice % 3 {
        0 => Settings::SERVER,
        1 => small,
        _ => Settings { header_table_size: 64, stream_window: 1, ..small },
    }
}

/// What is known of the streams that the shell was told of and has not given up.
#[derive(Default)]
struct Model {
    live: BTreeMap<StreamId, Live>,
    highest_request: u32,
    limit: usize,
    /// Payload in the output, ever; everything else there is replies and heads.
    data_sent: usize,
}

#[derive(Default)]
struct Live {
    answered: bool,
    ended: bool,
    held: usize,
}

/// Runs one connection on `data`: each step is one octet that says what, and its operands.
pub fn drive(mut codec: Codec, limit: usize, data: &[u8]) {
    let mut model = Model { limit, ..Model::default() };
    let mut rest = data;
    while let Some(step) = next(&mut rest) {
        if step < 0xc0 {
            let octets = take(&mut rest, usize::from(step) + 1);
            if !model.receive(&mut codec, octets) {
                return;
            }
        } else {
            let operand = next(&mut rest).unwrap_or(0);
            model.act(&mut codec, step, operand);
        }
        model.check(&codec);
    }
}

impl Model {
    /// False when the connection is over.
    fn receive(&mut self, codec: &mut Codec, octets: &[u8]) -> bool {
        let mut input = octets;
        loop {
            match codec.receive(&mut input) {
                Ok(Some(event)) => self.on_event(&event),
                Ok(None) => {
                    assert!(input.is_empty());
                    return true;
                }
                Err(error) => {
                    assert!(codec.output().ends_with(&error.reason().code().to_be_bytes()));
                    assert_eq!(codec.receive(&mut input), Err(error));
                    assert_eq!(codec.open_streams(), 0);
                    return false;
                }
            }
        }
    }

    fn on_event(&mut self, event: &Event<'_>) {
        match event {
            Event::Request { stream, head } => {
                assert!(stream.get() > self.highest_request && stream.get() % 2 == 1);
                assert!(!head.is_connect() || !head.authority().is_empty());
                self.highest_request = stream.get();
                self.live.insert(*stream, Live::default());
            }
            Event::Response { stream, status, .. } => {
                assert!((200..1000).contains(status));
                let live = self.live(*stream);
                assert!(!live.answered);
                live.answered = true;
            }
            Event::Data { stream, payload } => {
                let live = self.live(*stream);
                assert!(!live.ended && !payload.is_empty());
                live.held += payload.len();
            }
            Event::End { stream } => {
                let live = self.live(*stream);
                assert!(!live.ended);
                live.ended = true;
            }
            Event::Reset { stream, .. } => {
                self.live(*stream);
                self.live.remove(stream);
            }
            Event::Writable { stream: Some(_) | None }
            | Event::StreamsAvailable
            | Event::GoAway { .. }
            | Event::Pong { .. } => {}
        }
    }

    fn live(&mut self, stream: StreamId) -> &mut Live {
        self.live.get_mut(&stream).expect("an event of a stream that is gone")
    }

    fn act(&mut self, codec: &mut Codec, step: u8, operand: u8) {
        let amount = usize::from(operand) * 17;
        let stream = self.live.keys().nth(usize::from(operand) % self.live.len().max(1)).copied();
        match (step % 16, stream) {
            (0, _) => {
                let request = ConnectRequest { authority: "10.0.0.1:80", headers: &[("baggage", "a=b")] };
                let available = codec.streams_available();
                if let Ok(stream) = codec.open(&request) {
                    assert!(available > 0);
                    self.live.insert(stream, Live::default());
                }
            }
            (1, Some(stream)) => codec.respond(stream, 200, &[("baggage", "a=b")]),
            (2, Some(stream)) => {
                let answered = codec.send_capacity(stream) > 0;
                let before = codec.output().len();
                codec.refuse(stream, 503, &[]);
                if codec.output().len() > before {
                    assert!(!answered);
                    self.live.remove(&stream);
                }
            }
            (3..=5, Some(stream)) => {
                let capacity = codec.send_capacity(stream);
                let slot = codec.data_slot(stream, amount);
                assert!(slot.len() <= amount.min(capacity));
                slot.fill(operand);
                let octets = slot.len();
                codec.commit_data(stream, octets, step % 16 == 5);
                self.data_sent += octets + 9;
            }
            (6, Some(stream)) => codec.end(stream),
            (7, Some(stream)) => {
                codec.reset(stream, Reason::Cancel);
                self.live.remove(&stream);
            }
            (8 | 9, Some(stream)) => {
                let live = self.live(stream);
                let octets = amount.min(live.held);
                live.held -= octets;
                codec.release(stream, octets);
            }
            (10, _) => codec.ping([operand; 8]),
            (11, _) if operand % 16 == 0 => codec.shutdown(),
            (12, _) if operand == 255 => {
                codec.close(Reason::NoError);
                self.live.clear();
            }
            (13, _) => codec.consume_output(amount.min(codec.output().len())),
            (14, _) => codec.consume_output(codec.output().len()),
            (15, _) => {
                let memory = codec.take_buffer().unwrap_or_else(|| vec![operand; amount]);
                codec.lend_buffer(memory);
            }
            _ => {}
        }
    }

    fn check(&self, codec: &Codec) {
        assert!(codec.open_streams() <= self.limit);
        // Heads and pings of our own are bounded by the length of the fuzzer's input.
        assert!(codec.output().len() <= MAX_UNREAD_REPLIES + self.data_sent + (1 << 20));
        for stream in self.live.keys() {
            assert!(codec.send_capacity(*stream) <= i32::MAX as usize);
        }
    }
}

fn next(rest: &mut &[u8]) -> Option<u8> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

fn take<'d>(rest: &mut &'d [u8], octets: usize) -> &'d [u8] {
    let (taken, behind) = rest.split_at(octets.min(rest.len()));
    *rest = behind;
    taken
}
