//! HTTP/1 from a client: one request after another.

use std::rc::Rc;

use http::{HeaderMap, StatusCode};
use tokio::time::timeout;
use tracing::debug;

use super::idle_end;
use crate::exchange::{self, Body, Http1Responder, Request, Responder};
use crate::h1::{BodyReader, Framing, ReadError, Shared, response_head};
use crate::head::{Version, parse_request, strip_hop_by_hop};
use crate::ingress::Caller;
use crate::record::refused_head;
use crate::wire::Wire;
use crate::worker::Worker;

/// Serves requests until one of both sides closes.
pub(super) async fn serve(worker: &Rc<Worker>, caller: &Rc<Caller>, wire: Wire) {
    let wire = Shared::new(wire);
    loop {
        match next(worker, caller, &wire).await {
            Next::Again => {}
            Next::Close => break,
            Next::Abort => {
                if let Some(wire) = wire.into_wire() {
                    wire.abort();
                }
                return;
            }
        }
    }
    if let Some(wire) = wire.into_wire() {
        wire.close().await;
    }
}

/// What becomes of the connection.
pub(super) enum Next {
    Again,
    Close,
    Abort,
}

async fn next(worker: &Rc<Worker>, caller: &Rc<Caller>, wire: &Shared) -> Next {
    let idle = worker.shared.config.idle_timeout;
    let readable = tokio::select! {
        readable = timeout(idle, wire.readable()) => readable,
        () = idle_end(worker, caller) => return Next::Close,
    };
    match readable {
        Ok(Ok(true)) => {}
        Ok(Ok(false)) | Err(_) => return Next::Close,
        Ok(Err(_)) => return Next::Abort,
    }
    let head = match timeout(worker.shared.config.header_timeout, wire.head(parse_request)).await {
        Ok(Ok(Some(head))) => head,
        Ok(Ok(None)) => return Next::Close,
        Ok(Err(ReadError::Refused(refusal))) => {
            refused_head(worker, caller, refusal);
            return refuse(wire, refusal.status(), &refusal.to_string()).await;
        }
        Ok(Err(error)) => {
            debug!(%error, "lost in the middle of a head");
            return Next::Abort;
        }
        Err(_) => return refuse(wire, StatusCode::REQUEST_TIMEOUT, "the head took too long").await,
    };
    let body = BodyReader::new(wire.clone(), head.body);
    let upgrade = head.upgrade();
    let responder = Http1Responder {
        wire: wire.clone(),
        version: head.version,
        method: head.method.clone(),
        is_persistent: head.is_persistent(),
    };
    let mut headers = head.headers;
    strip_hop_by_hop(&mut headers, &head.connection);
    headers.remove(http::header::HOST);
    headers.remove(http::header::EXPECT);
    let request = Request {
        method: head.method,
        path: head.path,
        authority: head.authority.unwrap_or_default(),
        headers,
        protocol: match head.version {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
        },
        length: head.body,
        upgrade,
        expects_continue: head.expects_continue,
        wants_trailers: head.connection.trailers,
    };
    exchange::run(worker, caller, request, Body::Http1(body), Responder::Http1(responder)).await.into()
}

impl From<exchange::End> for Next {
    fn from(end: exchange::End) -> Self {
        match end {
            exchange::End::Reusable => Self::Again,
            exchange::End::Close => Self::Close,
            exchange::End::Cut => Self::Abort,
        }
    }
}

/// Answers what could not be understood. What follows it cannot be understood either.
async fn refuse(wire: &Shared, status: StatusCode, why: &str) -> Next {
    let mut headers = HeaderMap::new();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("text/plain"));
    let body = format!("{why}\n");
    let framing = Framing::Exactly(body.len() as u64);
    let head = response_head(status, Version::Http11, &headers, framing, Some("close"));
    match wire.write_all(&[&head, body.as_bytes()].concat()).await {
        Ok(()) => Next::Close,
        Err(_) => Next::Abort,
    }
}
