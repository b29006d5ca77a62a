//! The two directions of a request to an endpoint, on HTTP/1 or HTTP/2.

use std::io;
use std::pin::Pin;
use std::task::Poll;

use ambit_mesh::http::Forward;
use h2::Reason;
use h2::client::ResponseFuture;
use h2::ext::Protocol;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode, Version};

use super::Request;
use super::body::{Body, Broken, Sink, pass};
use super::respond::AnswerHead;
use crate::h1::{BodyReader, BodyWriter, Framing, ReadError, Shared, request_head};
use crate::head::{BodyLength, body_length, parse_response, strip_hop_by_hop};
use crate::record::Flow;
use crate::upstream::{DialError, Http2Stream, Lease, Session};

/// Why an exchange with an endpoint failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The connection ended before an answer began.
    #[error("{0}")]
    BeforeAnswer(String),
    /// The same, and not the endpoint ended it but what carries it: its node agent, whose policies have changed, or
    /// the tunnel.
    #[error("{0}")]
    CutOff(String),
    /// What carries it gives no sign of life, and there is another endpoint.
    #[error("the endpoint's node agent gives no sign of life")]
    Silent,
    /// It was not sent again: nothing connects.
    #[error("{0}")]
    NotSent(DialError),
    /// The endpoint said that it has not looked at the request, and will not.
    #[error("{0}")]
    Unprocessed(String),
    /// The answer has no one reading.
    #[error("{0}")]
    BadAnswer(String),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// The client sends its body too slowly.
    #[error("the body took too long")]
    SlowBody,
    /// The answer was cut off.
    #[error("{0}")]
    InAnswer(String),
    /// The client went away.
    #[error("{0}")]
    Client(String),
}

impl SendError {
    pub(super) fn is_before_answer(&self) -> bool {
        matches!(self, Self::BeforeAnswer(_))
    }

    pub(super) fn is_cut_off(&self) -> bool {
        matches!(self, Self::CutOff(_))
    }

    /// Whether another endpoint may do better, or the same one on another way.
    pub(super) fn is_not_the_endpoints(&self) -> bool {
        matches!(self, Self::CutOff(_) | Self::Silent)
    }

    pub(super) fn is_unprocessed(&self) -> bool {
        matches!(self, Self::Unprocessed(_))
    }

    fn of_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::ConnectionAborted {
            Self::CutOff(error.to_string())
        } else {
            Self::BeforeAnswer(error.to_string())
        }
    }

    /// RFC 9113 §8.7: a stream beyond the last that a GOAWAY names, or reset with REFUSED_STREAM, was not
    /// processed.
    fn of_h2(error: &h2::Error) -> Self {
        if let Some(error) = error.get_io() {
            return Self::of_io(error);
        }
        let said = error.is_remote() && (error.is_go_away() || error.is_reset());
        match error.reason() {
            Some(Reason::NO_ERROR) if said && error.is_go_away() => Self::Unprocessed(error.to_string()),
            Some(Reason::REFUSED_STREAM) if said => Self::Unprocessed(error.to_string()),
            Some(_) | None => Self::BeforeAnswer(error.to_string()),
        }
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
    Http2 { stream: Http2Stream, response: ResponseFuture, body: Option<Body> },
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
            if let Some(protocol) = request.upgrade {
                headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
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
            wire.write_all(&head).await.map_err(|error| SendError::of_io(&error))?;
            let sink = Sink::Http1(BodyWriter::new(wire.clone(), framing));
            Ok((Inflow::Http1 { wire, body: None, closes: true }, sink))
        }
        Session::Http2(mut stream) => {
            // Of a changed protocol what follows is not known to end.
            let ends = request.length == BodyLength::None && request.upgrade.is_none();
            let head = http2_head(request, forward, headers)
                .ok_or_else(|| SendError::BadAnswer("the request cannot be written as HTTP/2".to_owned()))?;
            let (response, sending) = stream.send(head, ends).map_err(|error| SendError::of_h2(&error))?;
            let sink = if ends { Sink::Nothing } else { Sink::Http2(sending) };
            Ok((Inflow::Http2 { stream, response, body: None }, sink))
        }
    }
}

fn http2_head(request: &Request, forward: &Forward, mut headers: HeaderMap) -> Option<http::Request<()>> {
    // What came in digits goes out in ours.
    match request.length {
        BodyLength::Exactly(octets) => headers.insert(header::CONTENT_LENGTH, HeaderValue::from(octets)),
        BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose => {
            headers.remove(header::CONTENT_LENGTH)
        }
    };
    if request.expects_continue {
        headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    }
    let mut head = http::Request::new(());
    let uri = http::Uri::builder().path_and_query(forward.target.as_str());
    *head.uri_mut() = if forward.authority.is_empty() {
        // A client of HTTP/1.0 has said none, so that none is sent: what is not HTTP/2 yet may lack it.
        *head.version_mut() = Version::HTTP_11;
        uri.build().ok()?
    } else {
        *head.version_mut() = Version::HTTP_2;
        uri.scheme("http").authority(forward.authority.as_str()).build().ok()?
    };
    *head.method_mut() = request.method.clone();
    if let Some(protocol) = request.upgrade {
        *head.method_mut() = Method::CONNECT;
        head.extensions_mut().insert(Protocol::from_static(protocol));
        // RFC 8441 §5: HTTP/2's own rules take the place of the key.
        headers.remove(header::SEC_WEBSOCKET_KEY);
    }
    *head.headers_mut() = headers;
    Some(head)
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
                    Err(ReadError::Io(error)) => return Err(SendError::of_io(&error)),
                    Err(error @ ReadError::Truncated) => {
                        return Err(SendError::BeforeAnswer(error.to_string()));
                    }
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
            Self::Http2 { response, body, .. } => http2_answer(response, body).await,
        }
    }

    /// Passes the body behind the last head on.
    pub(super) async fn pass_body(
        &mut self,
        sink: &mut Sink,
        flow: &Flow,
        seen: &dyn Fn(&mut HeaderMap),
    ) -> Result<(), Broken> {
        match self {
            Self::Http1 { body: Some(body), .. } | Self::Http2 { body: Some(body), .. } => {
                pass(body, sink, flow, seen).await
            }
            Self::Http1 { body: None, .. } | Self::Http2 { body: None, .. } => Ok(()),
        }
    }

    /// Whether an answer with this status says that the protocol has changed.
    pub(super) fn is_switched(&self, request: &Request, status: StatusCode) -> bool {
        match self {
            Self::Http1 { .. } => status == StatusCode::SWITCHING_PROTOCOLS,
            Self::Http2 { .. } => request.upgrade.is_some() && status.is_success(),
        }
    }

    /// Whether the connection may carry another request.
    pub(super) fn is_reusable(&mut self) -> bool {
        match self {
            Self::Http1 { body, closes, .. } => !*closes && body.take().is_some_and(|body| body.is_done()),
            // Its connection is shared already.
            Self::Http2 { .. } => false,
        }
    }
}

async fn http2_answer(
    response: &mut ResponseFuture,
    body: &mut Option<Body>,
) -> Result<AnswerHead, SendError> {
    let head = std::future::poll_fn(|cx| {
        // What comes before the answer comes first.
        match response.poll_informational(cx) {
            Poll::Ready(Some(Ok(head))) => return Poll::Ready(Ok(Err(head))),
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) | Poll::Pending => {}
        }
        Pin::new(&mut *response).poll(cx).map_ok(Ok)
    });
    let head = match head.await.map_err(|error| SendError::of_h2(&error))? {
        Ok(answer) => answer,
        Err(early) => {
            let (parts, ()) = early.into_parts();
            return Ok(AnswerHead { status: parts.status, headers: parts.headers, length: BodyLength::None });
        }
    };
    let (parts, mut stream) = head.into_parts();
    let ends = stream.is_end_stream();
    if ends {
        check_end(&mut stream).await?;
    }
    let length = match content_length(&parts.headers)? {
        _ if ends => BodyLength::None,
        Some(octets) => BodyLength::Exactly(octets),
        None => BodyLength::Chunked,
    };
    *body = Some(Body::Http2(stream));
    Ok(AnswerHead { status: parts.status, headers: parts.headers, length })
}

/// `h2` calls a stream ended that was reset as well. One that is over has nothing to say, and says it at once.
async fn check_end(stream: &mut h2::RecvStream) -> Result<(), SendError> {
    match stream.data().await {
        None => Ok(()),
        Some(Ok(_)) => Err(SendError::BadAnswer("octets follow the end of the answer".to_owned())),
        // RFC 9113 §8.1: it has answered and wants no more of the request.
        Some(Err(error)) if error.is_remote() && error.reason() == Some(Reason::NO_ERROR) => Ok(()),
        Some(Err(error)) => Err(SendError::InAnswer(error.to_string())),
    }
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, SendError> {
    match body_length(headers) {
        Ok(Some(BodyLength::Exactly(octets))) => Ok(Some(octets)),
        Ok(None) => Ok(None),
        Ok(Some(BodyLength::None | BodyLength::Chunked | BodyLength::UntilClose)) => {
            Err(SendError::BadAnswer("HTTP/2 has no transfer codings".to_owned()))
        }
        Err(refusal) => Err(SendError::BadAnswer(refusal.to_string())),
    }
}

/// Any 16 octets in base64 (RFC 6455 §4.1): they only show that the server knows the protocol.
const WEBSOCKET_KEY: &str = "YW1iaXQgd2F5cG9pbnQhIQ==";
