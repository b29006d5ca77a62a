//! One request through the gate.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;

use super::faults::{Faults, Passed, Way};

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// Parts of an answer that wait for a slow client.
const QUEUE: usize = 16;

pub(super) async fn forward(
    client: Client,
    faults: Arc<Faults>,
    request: Request<Incoming>,
) -> Result<Answer, Infallible> {
    let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let answer = answer(client, &faults, request, &query).await;
    // A watch says it in an event, behind a status of 200.
    let is_expired = answer.extensions().get::<Expired>().is_some();
    let code = if is_expired { 410 } else { answer.status().as_u16() };
    let comes_too_late = answer.extensions().get::<TooLate>().is_some();
    faults.note(Passed { method, path, query, code, comes_too_late });
    Ok(answer)
}

async fn answer(client: Client, faults: &Arc<Faults>, request: Request<Incoming>, query: &str) -> Answer {
    open(faults).await;
    sleep(faults.delay()).await;
    if let Some(seconds) = faults.take_throttled() {
        let mut answer = status(429, "TooManyRequests", "the gate was told to throttle");
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        return answer;
    }
    if faults.take_expired(query) {
        return expired(query);
    }
    let hidden = faults.hidden();
    let path = request.uri().path().to_owned();
    if let Some(group) = &hidden
        && path.split('/').nth(2) == Some(group)
    {
        return not_found();
    }
    let (mut head, body) = request.into_parts();
    for header in [HOST, CONNECTION, AUTHORIZATION] {
        head.headers.remove(header);
    }
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return status(400, "BadRequest", &format!("the body cannot be read: {error}")),
    };
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse();
    head.uri = target.unwrap_or_default();
    match client.send(Request::from_parts(head, Body::from(body))).await {
        Ok(response) if path == "/apis" && hidden.is_some() => {
            groups_without(response, &hidden.unwrap_or_default()).await
        }
        Ok(response) if response.status() == StatusCode::FORBIDDEN => refused(response).await,
        Ok(response) => {
            let (head, body) = response.into_parts();
            let (parts, queue) = mpsc::channel(QUEUE);
            tokio::spawn(pump(body, parts, Arc::clone(faults), query.contains("watch=")));
            Response::from_parts(head, StreamBody::new(ReceiverStream::new(queue)).boxed_unsync())
        }
        Err(error) => status(502, "BadGateway", &format!("the gate does not reach the API server: {error}")),
    }
}

/// Moves an answer's parts while the way is open.
async fn pump(
    mut body: Body,
    parts: mpsc::Sender<Result<Frame<Bytes>, io::Error>>,
    faults: Arc<Faults>,
    is_watch: bool,
) {
    let mut cut = faults.cut.subscribe();
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = cut.changed(), if is_watch => return,
            () = parts.closed() => return,
        };
        let Some(frame) = frame else { return };
        open(&faults).await;
        if parts.send(frame.map_err(io::Error::other)).await.is_err() {
            return;
        }
    }
}

async fn open(faults: &Faults) {
    // The sender is part of what is held here.
    let _ = faults.way.subscribe().wait_for(|way| *way != Way::Hanging).await;
}

/// As a server answers for a group that it does not know.
fn not_found() -> Answer {
    let mut answer = Response::new(full("404 page not found\n".to_owned()));
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}

/// A namespace that is being deleted is told from a missing permission by the cause alone.
async fn refused(response: Response<Body>) -> Answer {
    let (head, body) = response.into_parts();
    let octets = body.collect_bytes().await.unwrap_or_default();
    let said = String::from_utf8_lossy(&octets).into_owned();
    let comes_too_late = said.contains("NamespaceTerminating");
    let mut answer = Response::from_parts(head, full(said));
    if comes_too_late {
        answer.extensions_mut().insert(TooLate);
    }
    answer
}

/// Marks a request for a namespace that is being deleted.
#[derive(Clone, Copy, Debug)]
struct TooLate;

/// The list of groups, without one.
async fn groups_without(response: Response<Body>, group: &str) -> Answer {
    let octets = match response.into_body().collect_bytes().await {
        Ok(octets) => octets,
        Err(error) => return status(502, "BadGateway", &format!("the list of groups is cut off: {error}")),
    };
    let mut list: Value = serde_json::from_slice(&octets).unwrap_or_default();
    if let Some(groups) = list["groups"].as_array_mut() {
        groups.retain(|known| known["name"] != group);
    }
    let mut answer = Response::new(full(list.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// Marks a watch that was told that its revision is gone.
#[derive(Clone, Copy, Debug)]
struct Expired;

/// As an API server says it: within a watch, or by the status of a list.
fn expired(query: &str) -> Answer {
    if query.contains("watch=") {
        let error =
            json!({"type": "ERROR", "object": body(410, "Expired", "too old resource version: 1 (2)")});
        let mut answer = Response::new(full(format!("{error}\n")));
        answer.extensions_mut().insert(Expired);
        return answer;
    }
    status(410, "Expired", "The provided continue parameter is too old")
}

fn status(code: u16, reason: &str, message: &str) -> Answer {
    let mut answer = Response::new(full(body(code, reason, message).to_string()));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap_or_default();
    answer
}

fn body(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message,
        "reason": reason, "code": code,
    })
}

fn full(text: String) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}
