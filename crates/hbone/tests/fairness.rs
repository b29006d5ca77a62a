//! What stands before a small message when other streams of its tunnel have more to send than the
//! peer takes: a number of octets, counted and not timed.

#![expect(clippy::unwrap_used, reason = "what fails in a test's own set-up fails the test")]
#![expect(dead_code, reason = "the support of the tests has more than this one uses")]

mod support;

use std::cell::Cell;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::codec::{Codec, ConnectRequest, Event, Settings, StreamId};
use ambit_hbone::relay::{IdleLimits, Stop, relay};
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{Keepalive, Tunnel, TunnelStream, handshake};
use socket2::SockRef;
use support::{Root, application};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::{LocalSet, spawn_local, yield_now};

const REQUEST: ConnectRequest<'static> = ConnectRequest { authority: "10.0.0.1:80", headers: &[] };
const PATIENT: IdleLimits =
    IdleLimits { open: Duration::from_secs(3600), half_closed: Duration::from_secs(3600) };
const MESSAGE: &[u8] = b"a small message";

/// `BACKLOG_LIMIT` of the tunnel: above it no flow reads its application.
const BACKLOG_LIMIT: usize = 2 * BufferPool::PIECE;
/// `READ_BUDGET` of the relay: what a flow takes before others get their turn.
const READ_BUDGET: usize = BufferPool::PIECE / 2;
/// For both buffers of the tunnel's connection in the kernel; the kernel doubles it.
const KERNEL_BUFFER: usize = 32 * 1024;

/// Windows that bound nothing here.
const WIDE: Settings = Settings { stream_window: 256 << 20, connection_window: 1 << 30, ..Settings::SERVER };

#[test]
fn a_small_message_waits_for_a_bounded_number_of_octets() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for bulk_streams in [1, 8] {
        let (ahead, kernel) = LocalSet::new().block_on(&runtime, octets_ahead(bulk_streams));
        // What was queued when the message came, with the turn that went beyond the limit, and two
        // What was queued when the message came, with the turn that went beyond the limit, and a turn
        // of each other stream.
        let bound = kernel + BACKLOG_LIMIT + (bulk_streams + 1) * READ_BUDGET;
        println!("{bulk_streams} bulk streams: {ahead} octets were ahead, {bound} may be");
        assert!(ahead <= bound, "{bulk_streams} bulk streams: {ahead} octets were ahead, {bound} may be");
    }
}

/// Octets of bulk that the peer reads before the message, and those that the kernel may hold.
async fn octets_ahead(bulk_streams: usize) -> (usize, usize) {
    let (client, mut peer, kernel) = tunnel_to_peer().await;
    let mut streams = Vec::new();
    for _ in 0..=bulk_streams {
        let mut stream = client.open(&REQUEST).unwrap();
        while peer.accepted.len() <= streams.len() {
            peer.turn().await;
        }
        assert_eq!(stream.response().await.unwrap().status, 200);
        streams.push(stream);
    }
    let small = peer.accepted.pop().unwrap();
    let mut speaker = relayed(streams.pop().unwrap());
    let speakers: Vec<TcpStream> = streams.into_iter().map(relayed).collect();
    let progress = Rc::new(Cell::new(0_u64));
    for mut application in speakers {
        let progress = Rc::clone(&progress);
        spawn_local(async move {
            let chunk = vec![7; READ_BUDGET];
            while let Ok(octets) = application.write(&chunk).await {
                progress.set(progress.get() + octets as u64);
            }
        });
    }
    until_at_rest(|| progress.get()).await;

    speaker.write_all(MESSAGE).await.unwrap();
    let mut ahead = 0;
    loop {
        for (stream, octets) in peer.turn().await {
            if stream == small {
                assert_eq!(octets, MESSAGE.len());
                return (ahead, kernel);
            }
            ahead += octets;
        }
    }
}

/// Lets every task run until none gets on: the peer reads nothing, so all queues fill up.
async fn until_at_rest(progress: impl Fn() -> u64) {
    const TURNS: u32 = 2_000;
    let (mut last, mut idle_turns) = (progress(), 0);
    while idle_turns < TURNS {
        yield_now().await;
        let now = progress();
        idle_turns = if now == last { idle_turns + 1 } else { 0 };
        last = now;
    }
}

/// An application whose connection goes through the stream.
fn relayed(stream: TunnelStream) -> TcpStream {
    let (client, proxy) = application();
    spawn_local(relay(stream, proxy, PATIENT, Stop::<()>::default()));
    client
}

/// A tunnel of ours, a peer that reads when it is told to, and what the kernel holds between them.
async fn tunnel_to_peer() -> (Tunnel, Peer, usize) {
    let root = Root::new();
    let (client_id, server_id) = (root.workload("client"), root.workload("server"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    SockRef::from(&listener).set_recv_buffer_size(KERNEL_BUFFER).unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    SockRef::from(&connected).set_send_buffer_size(KERNEL_BUFFER).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    let kernel = SockRef::from(&connected).send_buffer_size().unwrap()
        + SockRef::from(&accepted).recv_buffer_size().unwrap();
    let mut peer = Peer {
        stream: TcpStream::from_std(accepted).unwrap(),
        session: TlsSession::server(Arc::clone(&server_id.server)).unwrap(),
        codec: Codec::server(WIDE),
        accepted: Vec::new(),
    };
    let buffers = BufferPool::new();
    let session = TlsSession::client(Arc::clone(&client_id.client)).unwrap();
    // The driver sends what the peer's handshake ends with.
    let client = async {
        let secured = handshake(Socket::new(connected).unwrap(), session, &buffers).await.unwrap();
        let codec = Codec::client(Settings::CLIENT);
        let (tunnel, driver) = Tunnel::new(secured, codec, buffers.clone(), Keepalive::default());
        spawn_local(driver);
        tunnel
    };
    let (tunnel, ()) = tokio::join!(client, peer.shake_hands());
    (tunnel, peer, kernel)
}

/// The other end of the tunnel.
struct Peer {
    stream: TcpStream,
    session: TlsSession,
    codec: Codec,
    /// Streams that were answered with 200.
    accepted: Vec<StreamId>,
}

impl Peer {
    async fn shake_hands(&mut self) {
        while self.session.is_handshaking() {
            self.read().await;
            self.write().await;
        }
    }

    /// One read, and what it held: the payload of each stream in its order.
    async fn turn(&mut self) -> Vec<(StreamId, usize)> {
        self.write().await;
        self.read().await;
        let octets = self.session.plaintext().filled().to_vec();
        self.session.plaintext().consume(octets.len());
        let mut input = octets.as_slice();
        let mut received = Vec::new();
        while let Some(event) = self.codec.receive(&mut input).unwrap() {
            match event {
                Event::Request { stream, .. } => {
                    self.codec.respond(stream, 200, &[]);
                    self.accepted.push(stream);
                }
                Event::Data { stream, payload } => {
                    let octets = payload.len();
                    self.codec.release(stream, octets);
                    received.push((stream, octets));
                }
                Event::Writable { .. } => {}
                Event::Response { .. }
                | Event::End { .. }
                | Event::Reset { .. }
                | Event::StreamsAvailable
                | Event::GoAway { .. }
                | Event::Pong { .. } => panic!("{event:?}"),
            }
        }
        self.write().await;
        received
    }

    async fn read(&mut self) {
        let read = self.stream.read(self.session.wire().spare(READ_BUDGET)).await.unwrap();
        assert!(read > 0, "the tunnel was closed");
        self.session.wire().fill(read);
        self.session.receive().unwrap();
    }

    async fn write(&mut self) {
        if !self.session.is_handshaking() && !self.codec.output().is_empty() {
            let octets = self.codec.output().len();
            self.session.encrypt(self.codec.output()).unwrap();
            self.codec.consume_output(octets);
        }
        let ciphertext = self.session.ciphertext();
        self.stream.write_all(ciphertext.filled()).await.unwrap();
        ciphertext.consume(ciphertext.len());
    }
}
