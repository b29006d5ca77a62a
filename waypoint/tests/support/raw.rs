//! An application that keeps every octet, and a client of HTTP/2 that sends whatever it is told.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ambit_hbone::hpack::Decoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use waypoint::wire::Wire;

/// What an application received.
#[derive(Default)]
pub(crate) struct Recorded {
    /// Whole requests, head and body, each as it came.
    pub(crate) requests: RefCell<Vec<String>>,
    /// Connections.
    pub(crate) connections: Cell<usize>,
}

impl Recorded {
    /// The requests since this was last asked.
    pub(crate) fn take(&self) -> Vec<String> {
        self.requests.take()
    }
}

/// Answers every whole request with 200, and keeps it.
pub(crate) fn record(listener: TcpListener) -> Rc<Recorded> {
    let recorded = Rc::<Recorded>::default();
    let shared = Rc::clone(&recorded);
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            shared.connections.set(shared.connections.get() + 1);
            spawn_local(keep(stream, Rc::clone(&shared)));
        }
    });
    recorded
}

async fn keep(mut stream: TcpStream, recorded: Rc<Recorded>) -> Option<()> {
    let mut octets = Vec::new();
    loop {
        let end = read_to(&mut stream, &mut octets, 0, b"\r\n\r\n").await?;
        let head = String::from_utf8_lossy(&octets[..end]).into_owned();
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let end = match (field("content-length: "), field("transfer-encoding: ")) {
            (Some(length), _) => {
                let end = end + length.parse::<usize>().unwrap();
                while octets.len() < end {
                    more(&mut stream, &mut octets).await?;
                }
                end
            }
            // The canonical form has no extensions: the last chunk and its trailers end with an empty line.
            (None, Some(_)) => {
                let last = read_to(&mut stream, &mut octets, end - 2, b"\r\n0\r\n").await?;
                read_to(&mut stream, &mut octets, last - 2, b"\r\n\r\n").await?
            }
            (None, None) => end,
        };
        let request: Vec<u8> = octets.drain(..end).collect();
        recorded.requests.borrow_mut().push(String::from_utf8_lossy(&request).into_owned());
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()?;
    }
}

/// Reads until `end` was seen behind `from`, and gives where that ends.
async fn read_to(stream: &mut TcpStream, octets: &mut Vec<u8>, from: usize, end: &[u8]) -> Option<usize> {
    loop {
        let found = octets.get(from..).and_then(|rest| rest.windows(end.len()).position(|part| part == end));
        if let Some(at) = found {
            return Some(from + at + end.len());
        }
        more(stream, octets).await?;
    }
}

async fn more(stream: &mut TcpStream, octets: &mut Vec<u8>) -> Option<()> {
    let mut room = [0; 4096];
    let n = stream.read(&mut room).await.ok().filter(|n| *n > 0)?;
    octets.extend_from_slice(&room[..n]);
    Some(())
}

/// A client of HTTP/2 that is no client of HTTP/2.
pub(crate) struct RawHttp2 {
    wire: Wire,
    decoder: Decoder,
}

/// What became of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// An answer with this status.
    Status(u16),
    /// The stream was reset.
    Reset,
    /// The connection is over.
    Gone,
}

/// Kinds of frames (RFC 9113 §6).
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

impl RawHttp2 {
    pub(crate) async fn begin(mut wire: Wire) -> Self {
        wire.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        wire.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
        Self { wire, decoder: Decoder::new(4096) }
    }

    /// Sends octets; false once the waypoint takes no more.
    pub(crate) async fn send(&mut self, octets: &[u8]) -> bool {
        self.wire.write_all(octets).await.is_ok()
    }

    /// Waits for what becomes of a stream.
    pub(crate) async fn hear(&mut self, stream: u32) -> Heard {
        loop {
            let mut head = [0; 9];
            if self.wire.read_exact(&mut head).await.is_err() {
                return Heard::Gone;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if self.wire.read_exact(&mut payload).await.is_err() {
                return Heard::Gone;
            }
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            match head[3] {
                HEADERS => {
                    let mut status = None;
                    let decoded = self.decoder.decode(&payload, |name, value| {
                        if name == b":status" {
                            status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                        }
                    });
                    decoded.unwrap();
                    // An answer, and not its trailers.
                    if let Some(status) = status.filter(|_| of == stream) {
                        return Heard::Status(status);
                    }
                }
                RST_STREAM if of == stream => return Heard::Reset,
                GOAWAY => return Heard::Gone,
                PING if head[4] == 0 => {
                    let _ = self.send(&frame(PING, 1, 0, &payload)).await;
                }
                _ => {}
            }
        }
    }
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut octets = vec![length[1], length[2], length[3], kind, flags];
    octets.extend_from_slice(&stream.to_be_bytes());
    octets.extend_from_slice(payload);
    octets
}

/// Fields in the plainest form that HPACK has.
pub(crate) fn block(fields: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut octets = Vec::new();
    for (name, value) in fields {
        octets.push(0);
        for text in [name, value] {
            // RFC 7541 §5.1: seven bits, and as many octets as it takes.
            match text.len().checked_sub(127) {
                None => octets.push(u8::try_from(text.len()).unwrap()),
                Some(mut rest) => {
                    octets.push(127);
                    while rest >= 128 {
                        octets.push(u8::try_from(rest % 128).unwrap() | 128);
                        rest /= 128;
                    }
                    octets.push(u8::try_from(rest).unwrap());
                }
            }
            octets.extend_from_slice(text);
        }
    }
    octets
}
