//! What a head says, read strictly: one reading, or none. HTTP/1 is read from octets; of HTTP/2, what
//! `h2` has read and left open.
//!
//! Two servers that read one message differently can be played against each other. What more than
//! one reading has is refused here, before anything is decided, and what is accepted is forwarded in
//! one canonical form made from these values, never from the octets that came. Pure: octets in,
//! values out. How octets come and go is [`crate::h1`]'s work.

use http::{HeaderMap, Method, StatusCode};

mod fields;
mod host;
mod http2;
mod request;
mod response;

pub use fields::{
    ConnectionOptions, body_length, connection_options, parse_trailers, strip_hop_by_hop, strip_trailers,
};
pub use host::is_authority;
pub use http2::{Http2Head, read_http2};
pub use request::parse_request;
pub use response::parse_response;

/// A request's head.
#[derive(Clone, Debug)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Path and query as they came: no octet was changed.
    pub path: String,
    /// The host and port that are asked for, of `Host` and of an absolute target, which must agree. `None`
    /// for HTTP/1.0 alone, whose clients need not say.
    pub authority: Option<String>,
    /// The version.
    pub version: Version,
    /// All fields, as they came.
    pub headers: HeaderMap,
    /// How the body is delimited.
    pub body: BodyLength,
    /// What `Connection` asks for.
    pub connection: ConnectionOptions,
    /// The client waits for `100 Continue` before it sends its body.
    pub expects_continue: bool,
}

impl RequestHead {
    /// Whether the connection may carry another request after this one.
    pub fn is_persistent(&self) -> bool {
        match self.version {
            Version::Http10 => self.connection.keep_alive && !self.connection.close,
            Version::Http11 => !self.connection.close,
        }
    }

    /// The protocol that the client would like to change to, where it may: websockets alone. What is asked
    /// behind any other (`h2c` above all) would pass without a decision; RFC 9110 §7.8 lets a server ignore
    /// the wish, and so it is not passed on.
    pub fn upgrade(&self) -> Option<&'static str> {
        if !self.connection.upgrade || self.version == Version::Http10 || self.method != Method::GET {
            return None;
        }
        let mut wanted = self.headers.get_all(http::header::UPGRADE).iter();
        let is_websocket = wanted.next()?.as_bytes().eq_ignore_ascii_case(b"websocket");
        (is_websocket && wanted.next().is_none()).then_some("websocket")
    }
}

/// A response's head.
#[derive(Clone, Debug)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The version.
    pub version: Version,
    /// All fields, as they came.
    pub headers: HeaderMap,
    /// How the body is delimited, for a request whose answers have one.
    pub body: BodyLength,
    /// What `Connection` asks for.
    pub connection: ConnectionOptions,
}

/// A version of HTTP/1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is none.
    None,
    /// So many octets.
    Exactly(u64),
    /// In chunks, with trailers behind.
    Chunked,
    /// By the end of the connection; responses only.
    UntilClose,
}

/// Why a head is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It does not end within the limit.
    #[error("the head is larger than {} octets", MAX_HEAD)]
    TooLarge,
    /// It has too many fields.
    #[error("the head has more than {} fields", MAX_FIELDS)]
    TooManyFields,
    /// A line ends with LF alone, or has CR inside.
    #[error("a line does not end with CR LF")]
    LineEnd,
    /// The first line is not one of HTTP/1.
    #[error("the first line is malformed")]
    FirstLine,
    /// Another version than 1.0 or 1.1.
    #[error("the version is neither HTTP/1.0 nor HTTP/1.1")]
    Version,
    /// The method is no token, or is CONNECT for anything but a websocket.
    #[error("the method is malformed or not served")]
    Method,
    /// The target is in no form that is served, or has octets that no URI has.
    #[error("the request target is malformed")]
    Target,
    /// A field's name is no token, or is not followed by its colon.
    #[error("a field name is malformed")]
    FieldName,
    /// A field's value has control characters, or goes on in the next line.
    #[error("a field value is malformed or folded")]
    FieldValue,
    /// No `Host`, more than one, or one that is no host.
    #[error("Host is missing, repeated or malformed")]
    Host,
    /// `Host` and an absolute target differ.
    #[error("Host and the absolute request target name different authorities")]
    HostMismatch,
    /// `Content-Length` is repeated or no number.
    #[error("Content-Length is repeated or malformed")]
    ContentLength,
    /// `Transfer-Encoding` is anything but `chunked`.
    #[error("Transfer-Encoding is anything but chunked, once")]
    TransferEncoding,
    /// Both of them.
    #[error("both Content-Length and Transfer-Encoding are present")]
    AmbiguousLength,
    /// `Connection` names a field that is not for one connection.
    #[error("Connection names a field that is meant for the far end")]
    Connection,
    /// `Expect` is anything but `100-continue`.
    #[error("Expect is anything but 100-continue")]
    Expect,
    /// An upgrade with a body.
    #[error("a request to upgrade has a body")]
    UpgradeBody,
    /// A chunk's size or end is malformed.
    #[error("the chunked body is malformed")]
    Chunk,
}

impl Refusal {
    /// The answer to a client.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLarge | Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Expect => StatusCode::EXPECTATION_FAILED,
            Self::LineEnd
            | Self::FirstLine
            | Self::Method
            | Self::Target
            | Self::FieldName
            | Self::FieldValue
            | Self::Host
            | Self::HostMismatch
            | Self::ContentLength
            | Self::TransferEncoding
            | Self::AmbiguousLength
            | Self::Connection
            | Self::UpgradeBody
            | Self::Chunk => StatusCode::BAD_REQUEST,
        }
    }
}

/// A head that may go on: octets that it takes, and its lines, without their ends.
struct Lines<'a> {
    taken: usize,
    lines: Vec<&'a [u8]>,
}

/// Splits a head into lines; `None` when its end has not come yet.
///
/// RFC 9112 §2.2 lets a server take LF alone for a line's end. Others do not, so this is where two
/// readings begin: it is refused.
fn lines(octets: &[u8]) -> Result<Option<Lines<'_>>, Refusal> {
    let mut lines = Vec::new();
    let mut start = 0;
    while let Some(length) = octets[start..].iter().position(|octet| *octet == b'\n') {
        let line = &octets[start..start + length];
        let line = line.strip_suffix(b"\r").ok_or(Refusal::LineEnd)?;
        if line.contains(&b'\r') {
            return Err(Refusal::LineEnd);
        }
        start += length + 1;
        if start > MAX_HEAD {
            return Err(Refusal::TooLarge);
        }
        if line.is_empty() {
            return Ok(Some(Lines { taken: start, lines }));
        }
        lines.push(line);
        // The first line is none of them.
        if lines.len() > MAX_FIELDS + 1 {
            return Err(Refusal::TooManyFields);
        }
    }
    if octets.len() > MAX_HEAD { Err(Refusal::TooLarge) } else { Ok(None) }
}

fn version(octets: &[u8]) -> Result<Version, Refusal> {
    match octets {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        _ if octets.starts_with(b"HTTP/") => Err(Refusal::Version),
        _ => Err(Refusal::FirstLine),
    }
}

/// Octets of a head, its lines and their ends together. Envoy's limit is 60 KiB.
pub const MAX_HEAD: usize = 64 * 1024;

/// Fields of a head. Envoy's limit is 100.
pub const MAX_FIELDS: usize = 128;

#[cfg(test)]
mod tests;
