//! Answers to a client: those of an endpoint, and our own.

use std::io;

use bytes::Bytes;
use h2::server::SendResponse;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, Response, StatusCode};

use super::body::Sink;
use crate::h1::{BodyWriter, Framing, Shared, response_head};
use crate::head::{BodyLength, Version};

/// Where an answer goes.
pub enum Responder {
    /// A connection of HTTP/1.
    Http1(Http1Responder),
    /// A stream of HTTP/2.
    Http2(SendResponse<Bytes>),
}

/// A connection of HTTP/1 that waits for an answer.
pub struct Http1Responder {
    /// The connection.
    pub wire: Shared,
    /// The client's version: it is answered in it.
    pub version: Version,
    /// The method: answers to HEAD have no body.
    pub method: Method,
    /// Whether the connection may go on. Cleared when the answer says otherwise.
    pub is_persistent: bool,
}

/// The head of an answer.
pub(super) struct AnswerHead {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) length: BodyLength,
}

impl Responder {
    /// Sends a head, and gives the way for its body.
    pub(super) async fn head(&mut self, answer: AnswerHead, is_leaving: bool) -> io::Result<Sink> {
        match self {
            Self::Http1(http1) => http1.head(answer, is_leaving).await,
            Self::Http2(respond) => {
                let mut response = Response::new(());
                *response.status_mut() = answer.status;
                *response.headers_mut() = answer.headers;
                let ends = answer.length == BodyLength::None;
                let stream = respond.send_response(response, ends).map_err(io::Error::other)?;
                Ok(if ends { Sink::Nothing } else { Sink::Http2(stream) })
            }
        }
    }

    /// Sends a head before the head (1xx).
    pub(super) async fn informational(&mut self, status: StatusCode, headers: HeaderMap) -> io::Result<()> {
        match self {
            Self::Http1(http1) if http1.version == Version::Http10 => Ok(()),
            Self::Http1(http1) => {
                let head = response_head(status, http1.version, &headers, Framing::None, None);
                http1.wire.write_all(&head).await
            }
            Self::Http2(respond) => {
                let mut response = Response::new(());
                *response.status_mut() = status;
                *response.headers_mut() = headers;
                respond.send_informational(response).map_err(io::Error::other)
            }
        }
    }

    /// Waits until the client gives up. Of HTTP/1 its connection tells.
    pub(super) async fn given_up(&mut self) {
        match self {
            Self::Http1(_) => std::future::pending().await,
            Self::Http2(respond) => {
                let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            }
        }
    }

    /// The connection of HTTP/1.
    pub(super) fn wire(&self) -> Option<Shared> {
        match self {
            Self::Http1(http1) => Some(http1.wire.clone()),
            Self::Http2(_) => None,
        }
    }

    /// Whether the connection may carry another request.
    pub(super) fn is_persistent(&self) -> bool {
        match self {
            Self::Http1(http1) => http1.is_persistent,
            Self::Http2(_) => true,
        }
    }
}

impl Http1Responder {
    async fn head(&mut self, answer: AnswerHead, is_leaving: bool) -> io::Result<Sink> {
        let AnswerHead { status, headers, length } = answer;
        let framing = match (length, self.version) {
            (BodyLength::None, _)
                if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED =>
            {
                Framing::None
            }
            (BodyLength::None, _) => Framing::Exactly(0),
            (BodyLength::Exactly(octets), _) => Framing::Exactly(octets),
            (BodyLength::Chunked | BodyLength::UntilClose, Version::Http11) => Framing::Chunked,
            (BodyLength::Chunked | BodyLength::UntilClose, Version::Http10) => Framing::UntilClose,
        };
        // RFC 9110 §9.3.2: what HEAD is answered with has the fields of GET and no body.
        let has_body = self.method != Method::HEAD;
        let shown = match (framing, headers.get(header::CONTENT_LENGTH)) {
            (Framing::Exactly(0), Some(length)) if !has_body => declared(length).unwrap_or(Framing::None),
            (Framing::Exactly(0), None) if !has_body => Framing::None,
            _ => framing,
        };
        if is_leaving || (has_body && framing == Framing::UntilClose) {
            self.is_persistent = false;
        }
        let connection = match (self.is_persistent, self.version) {
            (false, _) => Some("close"),
            (true, Version::Http10) => Some("keep-alive"),
            (true, Version::Http11) => None,
        };
        let head = response_head(status, self.version, &headers, shown, connection);
        self.wire.write_all(&head).await?;
        let framing = if has_body { framing } else { Framing::None };
        Ok(Sink::Http1(BodyWriter::new(self.wire.clone(), framing)))
    }

    /// Agrees to change the protocol.
    pub(super) async fn upgrade(&mut self, mut headers: HeaderMap, protocol: &'static str) -> io::Result<()> {
        self.is_persistent = false;
        headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
        let status = StatusCode::SWITCHING_PROTOCOLS;
        let head = response_head(status, self.version, &headers, Framing::None, Some("upgrade"));
        self.wire.write_all(&head).await
    }
}

fn declared(length: &HeaderValue) -> Option<Framing> {
    Some(Framing::Exactly(length.to_str().ok()?.parse().ok()?))
}

/// An answer of our own.
#[derive(Debug)]
pub struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Envoy's flag for the log and the metrics.
    pub(crate) flag: &'static str,
    /// Envoy's `response_code_details`.
    pub(crate) details: String,
    /// What went wrong, in words, for the log.
    pub(crate) error: Option<String>,
}

impl Reply {
    pub(super) fn new(status: StatusCode, body: impl Into<Bytes>, flag: &'static str, details: &str) -> Self {
        let body = body.into();
        let mut headers = HeaderMap::new();
        if !body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        Self { status, headers, body, flag, details: details.to_owned(), error: None }
    }

    pub(super) fn because(mut self, error: impl ToString) -> Self {
        self.error = Some(error.to_string());
        self
    }

    /// The same for a client of gRPC, which reads its own status: 200 with trailers alone.
    pub(super) fn for_grpc(mut self) -> (u16, Self) {
        let status = grpc_status(self.status);
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert("grpc-status", HeaderValue::from(status));
        let message = percent_encoded(&self.body);
        if let Ok(message) = HeaderValue::from_str(&message) {
            headers.insert("grpc-message", message);
        }
        self.headers = headers;
        self.body = Bytes::new();
        self.status = StatusCode::OK;
        (status, self)
    }

    pub(super) async fn send(self, responder: &mut Responder, is_leaving: bool) -> io::Result<()> {
        let length = match self.body.len() {
            0 => BodyLength::None,
            octets => BodyLength::Exactly(octets as u64),
        };
        let mut headers = self.headers;
        if matches!(responder, Responder::Http2(_)) && !self.body.is_empty() {
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(self.body.len()));
        }
        let mut sink =
            responder.head(AnswerHead { status: self.status, headers, length }, is_leaving).await?;
        if self.body.is_empty() {
            return Ok(());
        }
        sink.whole(self.body).await
    }
}

impl Sink {
    /// A body in one piece.
    pub(super) async fn whole(&mut self, body: Bytes) -> io::Result<()> {
        match self {
            Self::Nothing => Ok(()),
            Self::Http1(writer) => {
                writer.data(&body).await?;
                writer.end(None).await
            }
            Self::Http2(stream) => stream.send_data(body, true).map_err(io::Error::other),
        }
    }
}

/// gRPC's own mapping of HTTP statuses (doc/http-grpc-status-mapping.md).
pub fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// gRPC over HTTP/2: `grpc-message` is percent-encoded.
fn percent_encoded(octets: &[u8]) -> String {
    octets.iter().fold(String::new(), |mut text, octet| {
        match octet {
            b' '..=b'~' if *octet != b'%' => text.push(char::from(*octet)),
            other => text.push_str(&format!("%{other:02X}")),
        }
        text
    })
}
