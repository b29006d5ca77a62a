//! From octets to frames: where in the input we are, whatever way it is cut.
//!
//! It owns what must follow what (preface, SETTINGS first, CONTINUATION) and the sizes of frames;
//! it knows no streams and no windows. The payload of DATA is passed on as it arrives; the other
//! frames are small and are collected, from the input itself when they are whole in it.

use std::borrow::Cow;

use super::Role;
use super::block::{Block, BlockAssembly};
use super::error::{ConnectionError, Reason};
use super::floods::{Flood, MAX_SETTINGS_ENTRIES};
use super::frame::{FRAME_HEAD, FrameHead, Kind, flag};

/// RFC 9113 §3.4: what a client sends first.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Debug)]
pub(super) struct Parser {
    state: State,
    /// Octets of a frame header that arrived so far.
    head: [u8; FRAME_HEAD],
    head_length: usize,
    /// Octets of a payload that arrived in an earlier input.
    collected: Vec<u8>,
    /// RFC 9113 §3.4: the first frame of a peer is SETTINGS.
    settings_seen: bool,
    block: BlockAssembly,
    max_frame_size: usize,
    frames: u64,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Item<'a> {
    /// A DATA frame begins.
    DataBegins {
        stream: u32,
        extent: DataExtent,
    },
    /// Some of its payload.
    Data {
        stream: u32,
        payload: &'a [u8],
    },
    /// It ended, and the stream with it (END_STREAM).
    StreamEnds {
        stream: u32,
    },
    /// A whole header block.
    Headers(Block<'a>),
    /// RST_STREAM.
    Reset {
        stream: u32,
        reason: Reason,
    },
    /// SETTINGS; whole entries.
    Settings(Cow<'a, [u8]>),
    SettingsAck,
    Ping([u8; 8]),
    PingAck([u8; 8]),
    /// GOAWAY; its debug data is skipped.
    GoAway {
        last_stream: u32,
        reason: Reason,
    },
    /// WINDOW_UPDATE; stream 0 is the connection.
    WindowUpdate {
        stream: u32,
        increment: u32,
    },
    /// A frame without meaning for us; its payload is skipped.
    Ignored,
}

/// The lengths of a DATA frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DataExtent {
    /// RFC 9113 §6.1: "The entire DATA frame payload is included in flow control, including the Pad
    /// Length and Padding fields if present." Octets.
    pub(super) flow_controlled: usize,
    /// What of it is padding; octets.
    pub(super) overhead: usize,
    /// Whether END_STREAM is set.
    pub(super) ends: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Preface { matched: usize },
    Head,
    PadLength(FrameHead),
    Data { stream: u32, payload: usize, padding: usize, ends: bool },
    Collect { head: FrameHead, length: usize },
    Skip { octets: usize },
}

impl Parser {
    pub(super) fn new(role: Role, max_frame_size: u32, max_block_size: u32) -> Self {
        let state = match role {
            Role::Server => State::Preface { matched: 0 },
            Role::Client => State::Head,
        };
        Self {
            state,
            head: [0; FRAME_HEAD],
            head_length: 0,
            collected: Vec::new(),
            settings_seen: false,
            block: BlockAssembly::new(max_block_size as usize),
            max_frame_size: max_frame_size as usize,
            frames: 0,
        }
    }

    /// Frame headers read so far.
    pub(super) fn frames(&self) -> u64 {
        self.frames
    }

    /// The next item; `None` when the input is used up.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Item<'a>>, ConnectionError> {
        loop {
            let item = match self.state {
                State::Preface { matched } => self.preface(matched, input)?,
                State::Head => self.head(input)?,
                State::PadLength(head) => self.pad_length(head, input)?,
                State::Data { stream, payload, padding, ends } => {
                    self.data(stream, payload, padding, ends, input)
                }
                State::Collect { head, length } => self.collect(head, length, input)?,
                State::Skip { octets } => self.skip(octets, input),
            };
            match item {
                Step::Item(item) => return Ok(Some(item)),
                Step::Starved => return Ok(None),
                Step::Moved => {}
            }
        }
    }

    fn preface<'a>(&mut self, matched: usize, input: &mut &'a [u8]) -> Result<Step<'a>, ConnectionError> {
        let here = take(input, PREFACE.len() - matched);
        if !PREFACE[matched..].starts_with(here) {
            return Err(ConnectionError::protocol("the connection does not begin with the HTTP/2 preface"));
        }
        let matched = matched + here.len();
        if matched < PREFACE.len() {
            self.state = State::Preface { matched };
            return Ok(Step::Starved);
        }
        self.state = State::Head;
        Ok(Step::Moved)
    }

    fn head<'a>(&mut self, input: &mut &'a [u8]) -> Result<Step<'a>, ConnectionError> {
        let here = take(input, FRAME_HEAD - self.head_length);
        self.head[self.head_length..][..here.len()].copy_from_slice(here);
        self.head_length += here.len();
        if self.head_length < FRAME_HEAD {
            return Ok(Step::Starved);
        }
        self.head_length = 0;
        self.frames += 1;
        let head = FrameHead::parse(self.head);
        // RFC 9113 §3.4: the preface of either side contains a SETTINGS frame, which comes first.
        if !self.settings_seen && (head.kind != Kind::Settings || head.has(flag::ACK)) {
            return Err(ConnectionError::protocol("the first frame is not SETTINGS"));
        }
        self.settings_seen = true;
        head.check(self.max_frame_size)?;
        self.block.check(head)?;
        self.begin(head)
    }

    fn begin<'a>(&mut self, head: FrameHead) -> Result<Step<'a>, ConnectionError> {
        let collect = |length| State::Collect { head, length };
        self.state = match head.kind {
            Kind::Data if head.has(flag::PADDED) => State::PadLength(head),
            Kind::Data => return Ok(self.begin_data(head, 0, 0)),
            Kind::Settings if head.length > 6 * MAX_SETTINGS_ENTRIES => {
                return Err(ConnectionError::Flood { flood: Flood::Settings });
            }
            Kind::GoAway => collect(8),
            Kind::Headers
            | Kind::Continuation
            | Kind::Settings
            | Kind::RstStream
            | Kind::Ping
            | Kind::WindowUpdate => collect(head.length),
            Kind::Priority | Kind::PushPromise | Kind::Unknown(_) => {
                self.state = State::Skip { octets: head.length };
                return Ok(Step::Item(Item::Ignored));
            }
        };
        Ok(Step::Moved)
    }

    fn pad_length<'a>(&mut self, head: FrameHead, input: &mut &'a [u8]) -> Result<Step<'a>, ConnectionError> {
        // RFC 9113 §6.1: "If the length of the padding is the length of the frame payload or
        // greater, the recipient MUST treat this as a connection error of type PROTOCOL_ERROR."
        if head.length == 0 {
            return Err(ConnectionError::frame_size("a padded frame has no pad length"));
        }
        let [padding] = take(input, 1) else { return Ok(Step::Starved) };
        let padding = usize::from(*padding);
        if padding >= head.length {
            return Err(ConnectionError::protocol("padding exceeds its frame"));
        }
        Ok(self.begin_data(head, 1, padding))
    }

    fn begin_data<'a>(&mut self, head: FrameHead, pad_length: usize, padding: usize) -> Step<'a> {
        let stream = head.stream;
        let overhead = pad_length + padding;
        let ends = head.has(flag::END_STREAM);
        self.state = State::Data { stream, payload: head.length - overhead, padding, ends };
        let extent = DataExtent { flow_controlled: head.length, overhead, ends };
        Step::Item(Item::DataBegins { stream, extent })
    }

    fn data<'a>(
        &mut self,
        stream: u32,
        payload: usize,
        padding: usize,
        ends: bool,
        input: &mut &'a [u8],
    ) -> Step<'a> {
        if payload > 0 {
            let here = take(input, payload);
            if here.is_empty() {
                return Step::Starved;
            }
            self.state = State::Data { stream, payload: payload - here.len(), padding, ends };
            return Step::Item(Item::Data { stream, payload: here });
        }
        let padding = padding - take(input, padding).len();
        if padding > 0 {
            self.state = State::Data { stream, payload, padding, ends };
            return Step::Starved;
        }
        self.state = State::Head;
        if ends { Step::Item(Item::StreamEnds { stream }) } else { Step::Moved }
    }

    fn collect<'a>(
        &mut self,
        head: FrameHead,
        length: usize,
        input: &mut &'a [u8],
    ) -> Result<Step<'a>, ConnectionError> {
        let here = take(input, length - self.collected.len());
        let payload = if here.len() == length {
            Cow::Borrowed(here)
        } else {
            self.collected.extend_from_slice(here);
            if self.collected.len() < length {
                return Ok(Step::Starved);
            }
            Cow::Owned(std::mem::take(&mut self.collected))
        };
        self.state = State::Skip { octets: head.length - length };
        self.collected_item(head, payload)
    }

    fn collected_item<'a>(
        &mut self,
        head: FrameHead,
        payload: Cow<'a, [u8]>,
    ) -> Result<Step<'a>, ConnectionError> {
        let item = match head.kind {
            Kind::Headers | Kind::Continuation => {
                let block = self.block.add(head, payload)?;
                return Ok(block.map_or(Step::Moved, |block| Step::Item(Item::Headers(block))));
            }
            Kind::Settings if head.has(flag::ACK) => Item::SettingsAck,
            Kind::Settings => Item::Settings(payload),
            Kind::Ping if head.has(flag::ACK) => Item::PingAck(array(&payload)),
            Kind::Ping => Item::Ping(array(&payload)),
            Kind::RstStream => {
                let code = u32::from_be_bytes(array(&payload));
                Item::Reset { stream: head.stream, reason: Reason::from(code) }
            }
            Kind::WindowUpdate => {
                let increment = u32::from_be_bytes(array(&payload)) & WITHOUT_RESERVED_BIT;
                Item::WindowUpdate { stream: head.stream, increment }
            }
            Kind::GoAway => {
                let last_stream = u32::from_be_bytes(array(&payload)) & WITHOUT_RESERVED_BIT;
                Item::GoAway { last_stream, reason: Reason::from(u32::from_be_bytes(array(&payload[4..]))) }
            }
            // These are never collected.
            Kind::Data | Kind::Priority | Kind::PushPromise | Kind::Unknown(_) => Item::Ignored,
        };
        Ok(Step::Item(item))
    }

    fn skip<'a>(&mut self, octets: usize, input: &mut &'a [u8]) -> Step<'a> {
        let octets = octets - take(input, octets).len();
        if octets > 0 {
            self.state = State::Skip { octets };
            return Step::Starved;
        }
        self.state = State::Head;
        Step::Moved
    }
}

enum Step<'a> {
    Item(Item<'a>),
    /// On to the next state.
    Moved,
    /// The input is used up.
    Starved,
}

/// Up to `max` octets from the front of the input.
fn take<'a>(input: &mut &'a [u8], max: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(max.min(input.len()));
    *input = rest;
    taken
}

/// RFC 9113 §4.1, §6.8, §6.9: 31-bit values are preceded by a reserved bit that is ignored.
const WITHOUT_RESERVED_BIT: u32 = 0x7fff_ffff;

/// The first octets of a payload whose length [`FrameHead::check`] has found right.
fn array<const N: usize>(payload: &[u8]) -> [u8; N] {
    *payload.first_chunk().expect("FrameHead::check compared the length with the frame's type")
}
