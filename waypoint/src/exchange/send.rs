//! The two directions of a request to an endpoint, on HTTP/1 or HTTP/2.

use std::cell::Cell;

use ambit_mesh::http::Forward;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_http::RequestHeader;

use super::Request;
use super::body::{Body, Broken, Sink, pass};
use super::respond::AnswerHead;
use crate::h1::{BodyReader, BodyWriter, Framing, ReadError, Shared, request_head};
use crate::head::{BodyLength, parse_response, strip_hop_by_hop};
use crate::upstream::{Lease, Session};

/// Why an exchange with an endpoint failed.
#[derive(Debug)]
pub(super) enum SendError {
    /// The connection ended before an answer began.
    BeforeAnswer(String),
    /// The answer has no one reading.
    BadAnswer(String),
    /// It took too long.
    Timeout,
    /// The answer was cut off.
    InAnswer(String),
    /// The client went away.
    Client(String),
}

impl SendError {
    pub(super) fn is_before_answer(&self) -> bool {
        matches!(self, Self::BeforeAnswer(_))
    }
}

/// How an answer ended.
pub(super) enum Answer {
    /// With the end of its body.
    Whole,
    /// In another protocol: the way to the client, where that is a stream of HTTP/2.
    Upgraded(Sink),
}

/// Where an answer comes from.
pub(super) enum Inflow {
    Http1 { wire: Shared, body: Option<Body>, closes: bool },
    Http2(Body),
}

/// Sends a request's head: where its answer comes from, and the way for its body.
pub(super) async fn begin(
    lease: Lease,
    request: &Request,
    forward: &Forward,
    mut headers: HeaderMap,
) -> Result<(Inflow, Sink), SendError> {
    match lease.session {
        Session::Http1(wire) => {
            let framing = Framing::from(request.length);
            let mut connection = None;
            if let Some(protocol) = &request.upgrade
                && let Ok(protocol) = HeaderValue::from_str(protocol)
            {
                headers.insert(header::UPGRADE, protocol);
                connection = Some("upgrade");
                // A client of HTTP/2 sends none (RFC 8441 §5).
                if !headers.contains_key(header::SEC_WEBSOCKET_KEY) {
                    headers.insert(header::SEC_WEBSOCKET_KEY, HeaderValue::from_static(WEBSOCKET_KEY));
                }
            }
            if headers.contains_key(header::TE) {
                connection = connection.or(Some("te"));
            }
            if request.expects_continue {
                headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
            }
            let head = request_head(
                &request.method,
                &forward.target,
                &forward.authority,
                &headers,
                framing,
                connection,
            );
            wire.write_all(&head).await.map_err(|error| SendError::BeforeAnswer(error.to_string()))?;
            let sink = Sink::Http1(BodyWriter::new(wire.clone(), framing));
            Ok((Inflow::Http1 { wire, body: None, closes: true }, sink))
        }
        Session::Http2(mut session) => {
            let ends = request.length == BodyLength::None;
            let head = http2_head(&request.method, forward, headers)
                .ok_or_else(|| SendError::BadAnswer("the request cannot be written as HTTP/2".to_owned()))?;
            session
                .write_request_header(Box::new(head), ends)
                .map_err(|error| SendError::BeforeAnswer(error.to_string()))?;
            let sink = match session.take_request_body_writer() {
                Some(stream) if !ends => Sink::Http2(stream),
                Some(_) | None => Sink::Nothing,
            };
            Ok((Inflow::Http2(Body::Http2Response(session)), sink))
        }
    }
}

fn http2_head(method: &Method, forward: &Forward, headers: HeaderMap) -> Option<RequestHeader> {
    // RFC 9113 §8.3.1: ":authority" must not be empty for the scheme http.
    let authority = if forward.authority.is_empty() { "localhost" } else { forward.authority.as_str() };
    let path = if forward.target == "*" { "/" } else { forward.target.as_str() };
    let uri = http::Uri::builder().scheme("http").authority(authority).path_and_query(path).build().ok()?;
    let mut request = http::Request::new(());
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = headers;
    Some(request.into_parts().0.into())
}

impl Inflow {
    /// The next head, informational ones included.
    pub(super) async fn head(&mut self, method: &Method) -> Result<AnswerHead, SendError> {
        match self {
            Self::Http1 { wire, body, closes } => {
                let head = match wire.head(parse_response).await {
                    Ok(Some(head)) => head,
                    Ok(None) => {
                        let why = "the endpoint closed the connection without an answer";
                        return Err(SendError::BeforeAnswer(why.to_owned()));
                    }
                    Err(ReadError::Refused(refusal)) => {
                        return Err(SendError::BadAnswer(refusal.to_string()));
                    }
                    Err(error) => return Err(SendError::BeforeAnswer(error.to_string())),
                };
                let length = if *method == Method::HEAD { BodyLength::None } else { head.body };
                *closes = head.connection.close || length == BodyLength::UntilClose;
                *body = Some(Body::Http1(BodyReader::new(wire.clone(), length)));
                let mut headers = head.headers;
                let upgrade = headers.get(header::UPGRADE).cloned();
                strip_hop_by_hop(&mut headers, &head.connection);
                // Of 101 alone it says something to us.
                if let Some(upgrade) = upgrade.filter(|_| head.status == StatusCode::SWITCHING_PROTOCOLS) {
                    headers.insert(header::UPGRADE, upgrade);
                }
                Ok(AnswerHead { status: head.status, headers, length })
            }
            Self::Http2(Body::Http2Response(session)) => http2_answer(session).await,
            Self::Http2(_) => Err(SendError::BadAnswer("there is no answer here".to_owned())),
        }
    }

    /// Passes the body behind the last head on.
    pub(super) async fn pass_body(
        &mut self,
        sink: &mut Sink,
        octets: &Cell<u64>,
        seen: &dyn Fn(&HeaderMap),
    ) -> Result<(), Broken> {
        match self {
            Self::Http1 { body: Some(body), .. } | Self::Http2(body) => pass(body, sink, octets, seen).await,
            Self::Http1 { body: None, .. } => Ok(()),
        }
    }

    /// Whether the connection may carry another request.
    pub(super) fn is_reusable(&mut self) -> bool {
        match self {
            Self::Http1 { body, closes, .. } => !*closes && body.take().is_some_and(|body| body.is_done()),
            // Its connection is shared already.
            Self::Http2(_) => false,
        }
    }
}

async fn http2_answer(session: &mut Http2Session) -> Result<AnswerHead, SendError> {
    session.read_response_header().await.map_err(|error| SendError::BeforeAnswer(error.to_string()))?;
    let ends = session.response_finished();
    let head = session.response_header();
    let head = head.ok_or_else(|| SendError::BadAnswer("there is no head".to_owned()))?;
    let declared =
        head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let length = match declared {
        _ if ends => BodyLength::None,
        Some(octets) => BodyLength::Exactly(octets),
        None => BodyLength::Chunked,
    };
    Ok(AnswerHead { status: head.status, headers: head.headers.clone(), length })
}

/// Any 16 octets in base64 (RFC 6455 §4.1): they only show that the server knows the protocol.
const WEBSOCKET_KEY: &str = "YW1iaXQgd2F5cG9pbnQhIQ==";
