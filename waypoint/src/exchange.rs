//! One request, from its head to the end of its answer.
//!
//! Everything is decided by `ambit_mesh::http` on one snapshot; what is here carries it out. While a
//! request lasts each new snapshot is asked again, and what is no longer allowed is cut.
//!
//! The way of a request is one: `forward` says to whom, `carry` passes it on and its answer back, `upgrade`
//! carries what is no longer HTTP.

use std::rc::Rc;
use std::time::Duration;

use ambit_mesh::http::{Decision, Destination, Head, NotServed, Outcome, WaypointSnapshot, decide};
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use crate::head::{BodyLength, ConnectionOptions, strip_hop_by_hop};
use crate::ingress::Caller;
use crate::parting::{Question, Serving, Watched};
use crate::record::RequestRecord;
use crate::worker::Worker;

mod body;
mod carry;
mod forward;
mod headers;
mod respond;
mod send;
mod upgrade;

pub use body::{Body, Sink};
pub use respond::{Http1Responder, Reply, Responder, grpc_status};

/// A request, as policies, routes and endpoints see it.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query, as they came.
    pub path: String,
    /// The authority; empty for HTTP/1.0 without.
    pub authority: String,
    /// Headers, without `Host` and those of one connection.
    pub headers: HeaderMap,
    /// The protocol, for the log.
    pub protocol: &'static str,
    /// How long the body is.
    pub length: BodyLength,
    /// The protocol to change to, if it was asked for and may be.
    pub upgrade: Option<&'static str>,
    /// The client waits for `100 Continue`.
    pub expects_continue: bool,
    /// The client reads trailers.
    pub wants_trailers: bool,
}

impl Request {
    fn head(&self) -> Head<'_> {
        Head { method: &self.method, authority: &self.authority, target: &self.path, headers: &self.headers }
    }

    pub(crate) fn is_grpc(&self) -> bool {
        let content = self.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        content.is_some_and(|content| content.starts_with(b"application/grpc"))
    }
}

/// Leaves of a client's headers what policies and routes see of them. Those of one connection are gone
/// before.
pub fn keep_what_counts(headers: &mut HeaderMap) {
    headers::remove_spoofed(headers);
}

/// How a request ended, for its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Another request may follow.
    Reusable,
    /// None may.
    Close,
    /// What was sent is incomplete: the client must not take it for an end.
    Cut,
}

/// Serves one request.
pub async fn run(
    worker: &Rc<Worker>,
    caller: &Rc<Caller>,
    mut request: Request,
    body: Body,
    responder: Responder,
) -> End {
    keep_what_counts(&mut request.headers);
    let request = Rc::new(request);
    let record = RequestRecord::new(worker, caller, Rc::clone(&request));
    // The new configurations that count are those after the one that this is decided by.
    let snapshots = worker.shared.snapshots.from_now();
    let Some(serving) = snapshots.serving(&caller.authority) else { return End::Cut };
    let mut watched = Watched::new(snapshots, serving.as_ref().ok().and_then(|serving| serving.until));
    let call = Call { worker, caller, request: &request, record: &record };
    let end = {
        // What it takes to carry a request is large, and not kept by the connection between requests.
        let serving = Box::pin(call.serve(serving, body, responder));
        tokio::select! {
            end = serving => end,
            why = call.revoked(&mut watched) => {
                record.cut("-", &why);
                End::Cut
            }
        }
    };
    record.finish();
    end
}

/// One request: what all steps of serving it use.
#[derive(Clone, Copy)]
struct Call<'a> {
    worker: &'a Rc<Worker>,
    caller: &'a Caller,
    request: &'a Request,
    record: &'a RequestRecord,
}

/// What came of trying to forward a request.
enum Forwarded {
    /// The answer was passed on to its end.
    Done { is_whole: bool },
    /// Nothing was sent to the client yet.
    Failed(Reply),
    /// The answer was cut, or the client is gone.
    Cut,
}

impl Call<'_> {
    async fn serve(
        self,
        serving: Result<Serving, NotServed>,
        mut body: Body,
        mut responder: Responder,
    ) -> End {
        let (snapshot, destination) = match serving {
            Ok(Serving { snapshot, destination, .. }) => (snapshot, destination),
            Err(error) => {
                let reply = Reply::new(StatusCode::NOT_FOUND, "", "NR", "route_not_found").because(error);
                return self.reply(reply, &mut body, &mut responder).await;
            }
        };
        let decision = self.decide(&snapshot, &destination);
        self.record.decided(&decision);
        let reply = match decision.outcome {
            Outcome::Forward(forward) => {
                let forwarded = self.forward(&snapshot, &forward, &mut body, &mut responder).await;
                match forwarded {
                    Forwarded::Done { is_whole } => {
                        let reusable = is_whole && responder.is_persistent() && body.is_done();
                        return if reusable { End::Reusable } else { End::Close };
                    }
                    Forwarded::Cut => return End::Cut,
                    Forwarded::Failed(mut reply) => {
                        forward.response.apply(&mut reply.headers);
                        return self.reply(reply, &mut body, &mut responder).await;
                    }
                }
            }
            Outcome::Redirect { status, location, response } => {
                let mut reply = Reply::new(status_of(status), "", "-", "direct_response");
                if let Ok(location) = HeaderValue::from_str(&location) {
                    reply.headers.insert(header::LOCATION, location);
                }
                response.apply(&mut reply.headers);
                reply
            }
            Outcome::Respond { status, body: text, response } => {
                let mut reply = Reply::new(status_of(status), text.to_vec(), "-", "direct_response");
                response.apply(&mut reply.headers);
                reply
            }
            Outcome::Deny(denied) => {
                let reply = Reply::new(StatusCode::FORBIDDEN, "RBAC: access denied", "-", &denied.details());
                reply.because(denied)
            }
            Outcome::NoRoute => Reply::new(StatusCode::NOT_FOUND, "", "NR", "route_not_found"),
            Outcome::NoBackend { status, why } => {
                Reply::new(status_of(status), "", "NC", "cluster_not_found").because(why)
            }
            Outcome::Refuse { status, why } => {
                Reply::new(status_of(status), format!("{why}\n"), "DPE", "request_refused").because(why)
            }
        };
        self.reply(reply, &mut body, &mut responder).await
    }

    fn decide(self, snapshot: &WaypointSnapshot, destination: &Destination) -> Decision {
        self.record.destination(destination);
        let head = self.request.head();
        let rng = &mut *self.worker.rng.borrow_mut();
        decide(snapshot, destination, &self.caller.client, &head, rng)
    }

    /// Waits until a new snapshot no longer allows the request, and says why.
    async fn revoked(self, watched: &mut Watched) -> String {
        loop {
            let (snapshot, destination) = match watched.next(&self.caller.authority, self.worker).await {
                Question::Allowed(snapshot, destination) => (snapshot, destination),
                Question::Over(not_served) => return not_served.to_string(),
            };
            let rng = &mut *self.worker.rng.borrow_mut();
            let decision = decide(&snapshot, &destination, &self.caller.client, &self.request.head(), rng);
            match decision.outcome {
                Outcome::Deny(denied) => return format!("policy has changed: {denied}"),
                // A policy that looks at paths is new, and this one has no one reading.
                Outcome::Refuse { why, .. } => return format!("policy has changed: {why}"),
                Outcome::Forward(_)
                | Outcome::Redirect { .. }
                | Outcome::Respond { .. }
                | Outcome::NoRoute
                | Outcome::NoBackend { .. } => {}
            }
        }
    }

    /// Sends an answer of our own.
    async fn reply(self, reply: Reply, body: &mut Body, responder: &mut Responder) -> End {
        // What is small is read to its end, so that the connection can go on; a client that waits for
        // leave to send is told the answer instead.
        if !self.request.expects_continue {
            body.discard(DISCARD, DISCARD_TIME).await;
        }
        let (grpc_status, reply) = if self.request.is_grpc() {
            let (status, reply) = reply.for_grpc();
            (Some(status), reply)
        } else {
            (None, reply)
        };
        let mut reply = reply;
        if self.request.method == Method::HEAD {
            reply.body = bytes::Bytes::new();
        }
        self.record.replied(&reply, grpc_status);
        // Who has a body to send must not have its octets taken for the next request.
        let is_leaving = self.caller.leaving(self.worker).is_some() || !body.is_done();
        match reply.send(responder, is_leaving).await {
            Ok(()) if responder.is_persistent() && body.is_done() => End::Reusable,
            Ok(()) => End::Close,
            Err(_) => End::Cut,
        }
    }
}

fn without_hop_fields(mut headers: HeaderMap) -> HeaderMap {
    strip_hop_by_hop(&mut headers, &ConnectionOptions::default());
    headers
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// Octets of a refused request's body that are worth reading to keep its connection.
const DISCARD: usize = 64 * 1024;

/// How long they may take.
const DISCARD_TIME: Duration = Duration::from_secs(1);
