//! HTTP: from octets to calls, and from replies to octets. One thread, plain HTTP on loopback.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::auth::User;
use super::errors::ApiError;
use super::request::{Call, Method, Query};
use super::state::{Reply, State};

/// As large as a request may be: the limit of the real server.
const MAX_BODY: usize = 3 << 20;
/// Events that wait for a slow watch.
const EVENT_QUEUE: usize = 64;

pub(super) type Body = BoxBody<Bytes, Infallible>;

/// What every connection shares.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) state: Arc<Mutex<State>>,
    /// The latest revision, for watches to wait on.
    pub(super) changed: Arc<watch::Sender<u64>>,
    /// Watches end when it changes.
    pub(super) close_watches: Arc<watch::Sender<()>>,
}

impl Server {
    /// Serves until `stopped` says so, or its sender is gone.
    pub(super) async fn run(self, listener: TcpListener, mut stopped: watch::Receiver<()>) -> io::Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted?;
                    stream.set_nodelay(true)?;
                    let server = self.clone();
                    let service = service_fn(move |request| server.clone().answer(request));
                    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    connections.spawn(connection);
                }
                // What became of a connection is its client's business.
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                _ = stopped.changed() => return Ok(()),
            }
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
        let (head, body) = request.into_parts();
        let reply = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => self.reply(&head, &body.to_bytes()),
            Err(error) => Err(ApiError::bad_request(format!("the body cannot be read: {error}"))),
        };
        Ok(match reply {
            Ok(Reply::Body(code, octets)) => response(code, "application/json", octets),
            Ok(Reply::Watch(watching)) => {
                let (events, queue) = mpsc::channel(EVENT_QUEUE);
                let mut closed = self.close_watches.subscribe();
                let changed = self.changed.subscribe();
                tokio::spawn(async move {
                    tokio::select! {
                        () = watching.run(self.state, changed, events) => {}
                        _ = closed.changed() => {}
                    }
                });
                let frames = ReceiverStream::new(queue).map(|event| Ok(Frame::data(event)));
                let body = BodyExt::boxed(StreamBody::new(frames));
                let mut response = Response::new(body);
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
                response
            }
            Err(error) if error.is_plain_text() => {
                response(error.code, "text/plain", "404 page not found\n".into())
            }
            Err(error) => response(error.code, "application/json", error.status().to_string().into()),
        })
    }

    fn reply(&self, head: &Parts, body: &[u8]) -> Result<Reply, ApiError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.store.revision();
        let user = user(&state, head)?;
        let call = call(head, body, user)?;
        let reply = state.handle(&call);
        let after = state.store.revision();
        if after != before {
            self.changed.send_replace(after);
        }
        reply
    }
}

fn user(state: &State, head: &Parts) -> Result<User, ApiError> {
    let Some(header) = head.headers.get(AUTHORIZATION) else { return Ok(User::master()) };
    let token = header.to_str().ok().and_then(|header| header.strip_prefix("Bearer "));
    let user =
        token.and_then(|token| state.tokens.user(&state.store, token.trim(), OffsetDateTime::now_utc()));
    user.ok_or_else(ApiError::unauthorized)
}

fn call(head: &Parts, body: &[u8], user: User) -> Result<Call, ApiError> {
    let method = Method::named(head.method.as_str()).ok_or_else(ApiError::method_not_allowed)?;
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = match body {
        [] => Value::Null,
        octets => serde_json::from_slice(octets)
            .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))?,
    };
    let content_type = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
    Ok(Call {
        method,
        path: head.uri.path().to_owned(),
        query: Query::parse(head.uri.query().unwrap_or_default()),
        accept: header(ACCEPT).to_owned(),
        content_type,
        user_agent: header(USER_AGENT).to_owned(),
        user,
        body,
    })
}

fn response(code: u16, content_type: &'static str, octets: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(octets).boxed());
    *response.status_mut() = http::StatusCode::from_u16(code).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
