//! The tunnel's protocol: HTTP/2 (RFC 9113) for endpoints that speak only CONNECT, in both roles.
//!
//! A [`Codec`] is one connection without its IO: octets of the peer go in and [`Event`]s come out;
//! what is to be sent is written into an output that the shell takes when it can. There is no
//! socket, lock, waker, clock or random number here, so that one implementation serves every IO
//! backend, the tests and the fuzzer. When to read, write, ping, wait or give up is the shell's.
//!
//! ```text
//! socket -> octets -> receive() -> Event        open() respond() end() reset() ... -> output() -> socket
//!                        \-- release() when delivered     data_slot() commit_data() -/
//! ```
//!
//! Payload is never buffered on its way in: an [`Event::Data`] borrows the input. On its way out the
//! application's socket is read straight into the output, behind room for the frame header. An idle
//! codec owns no buffer, and everything a peer can make it keep or write has a limit ([`floods`]).
//!
//! # The shell's part
//! * After each read: [`receive`](Codec::receive) until `None`. On an error: write the output, close.
//! * After anything: write [`output`](Codec::output), and do not read while much of it waits.
//! * [`release`](Codec::release) every octet of payload when the application took it.
//! * [`ping`](Codec::ping) every few seconds: it finds dead peers, and restores the flood budgets.

use std::collections::VecDeque;
use std::fmt;

use crate::hpack;

mod block;
mod closing;
mod error;
mod event;
mod fields;
pub mod floods;
mod frame;
mod output;
mod parser;
mod payload;
mod receive;
mod requests;
mod settings;
mod stats;
mod streams;
mod window;

pub use error::{ConnectionError, OpenError, Reason};
pub use event::Event;
pub use fields::{Headers, RequestHead};
pub use floods::Flood;
pub use requests::ConnectRequest;
pub use settings::Settings;
pub use stats::Stats;
pub use streams::{MAX_REMEMBERED_RESETS, StreamId};

use closing::Phase;
use floods::Floods;
use frame::{FrameHead, Kind, flag};
use output::Output;
use parser::{PREFACE, Parser};
use settings::PeerSettings;
use streams::Streams;
use window::{DEFAULT_WINDOW, ReceiveWindow, SendWindow};

/// One connection. See the [module](self).
pub struct Codec {
    role: Role,
    local: Settings,
    peer: PeerSettings,
    parser: Parser,
    decoder: hpack::Decoder,
    encoder: hpack::Encoder,
    streams: Streams,
    /// Of the connection, as is `receive_window`.
    send_window: SendWindow,
    receive_window: ReceiveWindow,
    output: Output,
    /// Events of the frame that was read last; drained before the next is read.
    events: VecDeque<Event<'static>>,
    floods: Floods,
    stats: Stats,
    settings_acknowledged: bool,
    pings_unanswered: u32,
    /// A client has seen that no stream was available, and was not told otherwise since.
    starved: bool,
    phase: Phase,
    /// The last stream that the peer's GOAWAY names.
    peer_goaway: Option<u32>,
    /// The highest stream of a request that the shell was told of; 0 for none.
    last_accepted: u32,
}

/// Which end of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Client,
    Server,
}

impl Codec {
    /// The side that opens tunnels. The preface and SETTINGS are in the output.
    #[must_use]
    pub fn client(settings: Settings) -> Self {
        Self::new(Role::Client, settings.bounded())
    }

    /// The side that accepts tunnels. SETTINGS are in the output.
    #[must_use]
    pub fn server(settings: Settings) -> Self {
        Self::new(Role::Server, settings.bounded())
    }

    fn new(role: Role, local: Settings) -> Self {
        let mut codec = Self {
            role,
            local,
            peer: PeerSettings::default(),
            parser: Parser::new(role, local.max_frame_size, local.max_header_list_size),
            // The peer may use the default table until it acknowledges a smaller one.
            decoder: hpack::Decoder::new(local.header_table_size.max(hpack::DEFAULT_TABLE_SIZE)),
            encoder: hpack::Encoder::default(),
            streams: Streams::default(),
            send_window: SendWindow::new(DEFAULT_WINDOW),
            receive_window: ReceiveWindow::new(local.connection_window),
            output: Output::default(),
            events: VecDeque::new(),
            floods: Floods::new(),
            stats: Stats::default(),
            settings_acknowledged: false,
            pings_unanswered: 0,
            starved: false,
            phase: Phase::Running,
            peer_goaway: None,
            last_accepted: 0,
        };
        codec.write_preface();
        codec
    }

    /// RFC 9113 §3.4. The connection's window has no setting: it is enlarged by WINDOW_UPDATE.
    fn write_preface(&mut self) {
        if self.role == Role::Client {
            self.output.octets(PREFACE);
        }
        self.write(Kind::Settings, 0, 0, &self.local.payload(self.role));
        let increment = self.local.connection_window - DEFAULT_WINDOW;
        if increment > 0 {
            self.write(Kind::WindowUpdate, 0, 0, &increment.to_be_bytes());
        }
    }

    /// What is to be written to the peer.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        self.output.waiting()
    }

    /// The first `octets` of [`output`](Self::output) were written.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn consume_output(&mut self, octets: usize) {
        self.output.consume(octets);
    }

    /// The output's memory, if it has any and nothing waits in it: an idle connection keeps none.
    pub fn take_buffer(&mut self) -> Option<Vec<u8>> {
        self.output.take_memory()
    }

    /// Memory to write into, as it came from [`take_buffer`](Self::take_buffer) or initialised by
    /// the shell: its length is used, whatever is in it. Returns the memory that is not used: what
    /// the codec had before, or `memory` itself if output waits in no less; perhaps empty.
    pub fn lend_buffer(&mut self, memory: Vec<u8>) -> Vec<u8> {
        self.output.lend_memory(memory)
    }

    /// Octets of output that fit into the memory at hand, frame headers included. A slot for payload
    /// is best asked for only while it is large: beyond it the codec makes memory of its own.
    #[must_use]
    pub fn output_spare(&self) -> usize {
        self.output.spare()
    }

    /// How many streams [`open`](Self::open) would open now; 0 for a server.
    #[must_use]
    pub fn streams_available(&self) -> usize {
        let may_open =
            self.role == Role::Client && self.phase == Phase::Running && self.peer_goaway.is_none();
        if !may_open || self.streams.next_own().is_none() {
            return 0;
        }
        self.stream_limit().saturating_sub(self.streams.open())
    }

    /// Streams that are open in at least one direction.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.open()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { frames_received: self.parser.frames(), ..self.stats }
    }

    /// How many streams may be open (RFC 9113 §5.1.2).
    fn stream_limit(&self) -> usize {
        let ours = self.local.max_concurrent_streams;
        match self.role {
            Role::Server => ours as usize,
            Role::Client => self.peer.max_concurrent_streams.map_or(ours, |peers| peers.min(ours)) as usize,
        }
    }

    /// Writes a frame of our own accord.
    fn write(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        self.stats.frames_sent += 1;
        self.output.frame(FrameHead { length: payload.len(), kind, flags, stream }, payload);
    }

    /// Writes a frame that the peer can provoke; those that it does not read are bounded.
    fn reply(&mut self, kind: Kind, flags: u8, stream: u32, payload: &[u8]) {
        self.stats.frames_sent += 1;
        self.output.reply(FrameHead { length: payload.len(), kind, flags, stream }, payload);
    }
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Codec")
            .field("role", &self.role)
            .field("phase", &self.phase)
            .field("open_streams", &self.streams.open())
            .field("output", &self.output.waiting().len())
            .finish_non_exhaustive()
    }
}
