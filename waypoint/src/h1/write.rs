//! Writes heads in their one canonical form, and bodies behind them.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{BodyLength, Shared};
use crate::head::Version;

/// How a body is framed on this connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// No body, and no field that says so.
    None,
    /// As many octets as `content-length` says; the owner keeps to it.
    Exactly(u64),
    /// In chunks.
    Chunked,
    /// Until the connection ends.
    UntilClose,
}

impl From<BodyLength> for Framing {
    fn from(length: BodyLength) -> Self {
        match length {
            BodyLength::None => Self::None,
            BodyLength::Exactly(octets) => Self::Exactly(octets),
            BodyLength::Chunked => Self::Chunked,
            BodyLength::UntilClose => Self::UntilClose,
        }
    }
}

/// A request's head as it goes out. `headers` has neither `host` nor fields of one connection.
pub fn request_head(
    method: &Method,
    path: &str,
    authority: &str,
    headers: &HeaderMap,
    framing: Framing,
    connection: Option<&str>,
) -> Bytes {
    let mut octets = BytesMut::with_capacity(512);
    octets.put_slice(method.as_str().as_bytes());
    octets.put_u8(b' ');
    octets.put_slice(path.as_bytes());
    octets.put_slice(b" HTTP/1.1\r\nhost: ");
    octets.put_slice(authority.as_bytes());
    octets.put_slice(b"\r\n");
    put_fields(&mut octets, headers);
    // RFC 9110 §8.6: a client says so where the method expects a body.
    let says_none = framing == Framing::None && matches!(*method, Method::POST | Method::PUT | Method::PATCH);
    put_framing(&mut octets, if says_none { Framing::Exactly(0) } else { framing });
    put_connection(&mut octets, connection);
    octets.freeze()
}

/// A response's head as it goes out.
pub fn response_head(
    status: StatusCode,
    version: Version,
    headers: &HeaderMap,
    framing: Framing,
    connection: Option<&str>,
) -> Bytes {
    let mut octets = BytesMut::with_capacity(512);
    octets.put_slice(match version {
        Version::Http10 => b"HTTP/1.0 ",
        Version::Http11 => b"HTTP/1.1 ",
    });
    octets.put_slice(status.as_str().as_bytes());
    octets.put_u8(b' ');
    octets.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    octets.put_slice(b"\r\n");
    put_fields(&mut octets, headers);
    put_framing(&mut octets, framing);
    put_connection(&mut octets, connection);
    octets.freeze()
}

fn put_fields(octets: &mut BytesMut, headers: &HeaderMap) {
    for (name, value) in headers {
        // Framing is this connection's, and `host` was written.
        if *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING && *name != header::HOST {
            put_field(octets, name.as_str(), value);
        }
    }
}

fn put_field(octets: &mut BytesMut, name: &str, value: &HeaderValue) {
    octets.put_slice(name.as_bytes());
    octets.put_slice(b": ");
    octets.put_slice(value.as_bytes());
    octets.put_slice(b"\r\n");
}

fn put_framing(octets: &mut BytesMut, framing: Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Exactly(length) => octets.put_slice(format!("content-length: {length}\r\n").as_bytes()),
        Framing::Chunked => octets.put_slice(b"transfer-encoding: chunked\r\n"),
    }
}

fn put_connection(octets: &mut BytesMut, connection: Option<&str>) {
    if let Some(connection) = connection {
        octets.put_slice(b"connection: ");
        octets.put_slice(connection.as_bytes());
        octets.put_slice(b"\r\n");
    }
    octets.put_slice(b"\r\n");
}

/// Writes a body behind a head that was just written to `wire`.
#[derive(Debug)]
pub struct BodyWriter {
    wire: Shared,
    framing: Framing,
    left: u64,
}

impl BodyWriter {
    /// For a body with this framing.
    pub fn new(wire: Shared, framing: Framing) -> Self {
        let left = if let Framing::Exactly(octets) = framing { octets } else { 0 };
        Self { wire, framing, left }
    }

    /// Writes a piece.
    ///
    /// # Errors
    /// When the connection failed, or the body is longer than was said.
    pub async fn data(&mut self, piece: &Bytes) -> io::Result<()> {
        match self.framing {
            _ if piece.is_empty() => Ok(()),
            Framing::None => Ok(()),
            Framing::Exactly(_) => {
                let octets = piece.len() as u64;
                self.left = self.left.checked_sub(octets).ok_or_else(|| other_length("longer"))?;
                self.wire.write_all(piece).await
            }
            Framing::UntilClose => self.wire.write_all(piece).await,
            Framing::Chunked => {
                // One write: a chunk that fits is one frame of the tunnel.
                let mut chunk = BytesMut::with_capacity(piece.len() + 16);
                chunk.put_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                chunk.put_slice(piece);
                chunk.put_slice(b"\r\n");
                self.wire.write_all(&chunk).await
            }
        }
    }

    /// Ends the body. Trailers go out where the framing has a place for them.
    ///
    /// # Errors
    /// When the connection failed, or the body is shorter than was said.
    pub async fn end(&mut self, trailers: Option<&HeaderMap>) -> io::Result<()> {
        match self.framing {
            Framing::None => Ok(()),
            Framing::Exactly(_) if self.left > 0 => Err(other_length("shorter")),
            Framing::Exactly(_) => Ok(()),
            Framing::UntilClose => self.wire.shutdown().await,
            Framing::Chunked => {
                let mut end = BytesMut::from(&b"0\r\n"[..]);
                for (name, value) in trailers.into_iter().flatten() {
                    put_field(&mut end, name.as_str(), value);
                }
                end.put_slice(b"\r\n");
                self.wire.write_all(&end).await
            }
        }
    }
}

fn other_length(how: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the body is {how} than its content-length"))
}
