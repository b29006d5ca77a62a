//! One request, from its head to the end of its answer.
//!
//! Everything is decided by `ambit_mesh::http` on one snapshot; what is here carries it out. While a
//! request lasts each new snapshot is asked again, and what is no longer allowed is cut.
//!
//! It is long because the way of a request is one: what can be told apart (bodies, headers, replies,
//! sending) is in modules of its own.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::http::{Decision, Forward, Head, NotServed, Outcome, WaypointSnapshot, decide};
use ambit_mesh::service::AppProtocol;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use tokio::time::{Instant, timeout_at};

use crate::h1::{BodyReader, BodyWriter, Framing, Shared};
use crate::head::{BodyLength, ConnectionOptions, strip_hop_by_hop};
use crate::ingress::Caller;
use crate::opaque::{MAX_ENDPOINTS_TRIED, both_ways};
use crate::record::RequestRecord;
use crate::upstream::{Carrier, DialError, Key, Lease, OnBehalf, Protocol};
use crate::worker::Worker;

mod body;
mod headers;
mod respond;
mod send;

pub use body::{Body, Sink};
pub use respond::{Http1Responder, Reply, Responder, grpc_status};

use body::{Broken, pass};
use respond::AnswerHead;
use send::{Answer, Inflow, SendError};

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
    pub upgrade: Option<String>,
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
    request: &Request,
    body: Body,
    responder: Responder,
) -> End {
    let mut request = request.clone();
    keep_what_counts(&mut request.headers);
    let record = RequestRecord::new(worker, caller, &request);
    // The new configurations that count are those after the one that this is decided by.
    let mut snapshots = worker.shared.snapshots.from_now();
    let Some(snapshot) = snapshots.load() else { return End::Cut };
    let call = Call { worker, caller, request: &request, record: &record };
    let end = {
        // What it takes to carry a request is large, and not kept by the connection between requests.
        let serving = Box::pin(call.serve(snapshot, body, responder));
        tokio::select! {
            end = serving => end,
            why = call.revoked(&mut snapshots) => {
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
    async fn serve(self, snapshot: Arc<WaypointSnapshot>, mut body: Body, mut responder: Responder) -> End {
        let decision = match self.decide(&snapshot) {
            Ok(decision) => decision,
            Err(error) => {
                let reply = Reply::new(StatusCode::NOT_FOUND, "", "NR", "route_not_found").because(error);
                return self.reply(reply, &mut body, &mut responder).await;
            }
        };
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

    fn decide(self, snapshot: &WaypointSnapshot) -> Result<Decision, NotServed> {
        let destination = snapshot.destination(&self.caller.authority)?;
        self.record.destination(&destination);
        let head = self.request.head();
        let rng = &mut *self.worker.rng.borrow_mut();
        Ok(decide(snapshot, &destination, &self.caller.client, &head, rng))
    }

    /// Waits until a new snapshot no longer allows the request, and says why.
    async fn revoked(self, snapshots: &mut crate::state::SnapshotReader) -> String {
        loop {
            if !snapshots.changed().await {
                return std::future::pending().await;
            }
            let Some(snapshot) = snapshots.load() else { continue };
            let Ok(destination) = snapshot.destination(&self.caller.authority) else { continue };
            let rng = &mut *self.worker.rng.borrow_mut();
            let decision = decide(&snapshot, &destination, &self.caller.client, &self.request.head(), rng);
            if let Outcome::Deny(denied) = decision.outcome {
                return format!("policy has changed: {denied}");
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
        let is_leaving = self.worker.leaving().is_some() || !body.is_done();
        match reply.send(responder, is_leaving).await {
            Ok(()) if responder.is_persistent() && body.is_done() => End::Reusable,
            Ok(()) => End::Close,
            Err(_) => End::Cut,
        }
    }

    async fn forward(
        self,
        snapshot: &WaypointSnapshot,
        forward: &Forward,
        body: &mut Body,
        responder: &mut Responder,
    ) -> Forwarded {
        let limit = [forward.timeouts.request, forward.timeouts.backend_request].into_iter().flatten().min();
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut tried = Vec::new();
        loop {
            let upstream = snapshot.upstream(&forward.backend, &tried, &mut *self.worker.rng.borrow_mut());
            let upstream = match upstream {
                Ok(upstream) => upstream,
                Err(error) => {
                    let reply = Reply::new(
                        StatusCode::SERVICE_UNAVAILABLE,
                        "no healthy upstream",
                        "UH",
                        "no_healthy_upstream",
                    );
                    return Forwarded::Failed(reply.because(error));
                }
            };
            self.record.endpoint(&upstream);
            let key = Key {
                carrier: Carrier::of(&upstream),
                protocol: self.upstream_protocol(forward.backend.protocol, responder),
                client: self.caller.identity.clone(),
            };
            match self.acquire(&key, deadline).await {
                Ok(lease) => return self.attempt(lease, key, forward, body, responder, deadline).await,
                Err(None) => return Forwarded::Failed(timed_out()),
                Err(Some(error)) => match upstream.endpoint {
                    Some(endpoint) if tried.len() + 1 < MAX_ENDPOINTS_TRIED && !error.is_denied() => {
                        tried.push(endpoint.uid.clone());
                    }
                    Some(_) | None => return Forwarded::Failed(not_connected(&error)),
                },
            }
        }
    }

    /// As declared; where nothing is, as the client speaks. A protocol is changed on HTTP/1 alone.
    fn upstream_protocol(self, declared: AppProtocol, responder: &Responder) -> Protocol {
        match (declared, responder) {
            _ if self.request.upgrade.is_some() => Protocol::Http1,
            (AppProtocol::Http2 | AppProtocol::Grpc, _) => Protocol::Http2,
            (AppProtocol::Unknown, Responder::Http2(_)) => Protocol::Http2,
            (AppProtocol::Unknown | AppProtocol::Http11 | AppProtocol::Tcp | AppProtocol::Tls, _) => {
                Protocol::Http1
            }
        }
    }

    fn on_behalf(&self) -> OnBehalf<'_> {
        OnBehalf { address: self.caller.address, service: self.record.service_host() }
    }

    async fn acquire(self, key: &Key, deadline: Option<Instant>) -> Result<Lease, Option<DialError>> {
        let caller = self.on_behalf();
        let lease = self.worker.connections.acquire(self.worker, key, &caller);
        by(deadline, lease).await.ok_or(None)?.map_err(Some)
    }

    async fn attempt(
        self,
        lease: Lease,
        key: Key,
        forward: &Forward,
        body: &mut Body,
        responder: &mut Responder,
        deadline: Option<Instant>,
    ) -> Forwarded {
        // RFC 9112 §9.3.1: a request on a connection that was closed meanwhile may be sent again where
        // that does no harm, and nothing of its body is gone.
        let may_repeat = lease.reused && body.is_done() && self.request.method.is_idempotent();
        match self.exchange(lease, &key, forward, body, responder, deadline).await {
            Err(error) if may_repeat && error.is_before_answer() => {
                let caller = self.on_behalf();
                let again = async {
                    match key.protocol {
                        Protocol::Http1 | Protocol::Opaque => {
                            self.worker.connections.fresh(self.worker, &key, &caller).await
                        }
                        Protocol::Http2 => self.worker.connections.acquire(self.worker, &key, &caller).await,
                    }
                };
                match by(deadline, again).await {
                    None => Forwarded::Failed(timed_out()),
                    Some(Err(error)) => Forwarded::Failed(not_connected(&error)),
                    Some(Ok(lease)) => {
                        let outcome = self.exchange(lease, &key, forward, body, responder, deadline).await;
                        outcome.unwrap_or_else(|error| self.broken(&error))
                    }
                }
            }
            outcome => outcome.unwrap_or_else(|error| self.broken(&error)),
        }
    }

    fn broken(self, error: &SendError) -> Forwarded {
        match error {
            SendError::BeforeAnswer(why) => {
                let text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
                let reply = Reply::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    text,
                    "UC",
                    "upstream_reset_before_response_started",
                );
                Forwarded::Failed(reply.because(why))
            }
            SendError::BadAnswer(why) => {
                let reply = Reply::new(
                    StatusCode::BAD_GATEWAY,
                    "the endpoint's answer is malformed",
                    "UPE",
                    "upstream_protocol_error",
                );
                Forwarded::Failed(reply.because(why))
            }
            SendError::Timeout => Forwarded::Failed(timed_out()),
            SendError::InAnswer(why) => {
                self.record.cut("UC", why);
                Forwarded::Cut
            }
            SendError::Client(why) => {
                self.record.cut("DC", why);
                Forwarded::Cut
            }
        }
    }

    async fn exchange(
        self,
        lease: Lease,
        key: &Key,
        forward: &Forward,
        body: &mut Body,
        responder: &mut Responder,
        deadline: Option<Instant>,
    ) -> Result<Forwarded, SendError> {
        let own = self.worker.identity().await.map(|identity| identity.id.clone());
        let own = own.unwrap_or_else(|| self.caller.identity.clone());
        let mut headers = headers::outgoing(self.request, self.caller.client.ip, &self.caller.identity, &own);
        forward.request.apply(&mut headers);
        let (mut inflow, mut sink) = send::begin(lease, self.request, forward, headers).await?;
        // HTTP/2 to an endpoint has no place for what comes before its answer: we say it.
        if self.request.expects_continue && matches!(inflow, Inflow::Http2(_)) {
            let said = responder.informational(StatusCode::CONTINUE, HeaderMap::new()).await;
            said.map_err(|error| SendError::Client(error.to_string()))?;
        }
        let sent = Cell::new(0);
        let (mut is_sent, mut upload_error) = (false, None);
        let watched = responder.wire();
        let answered = {
            let lost = lost(watched);
            let upload = async {
                match self.request.upgrade {
                    // What follows the head is for whom the protocol changes to.
                    Some(_) => Ok(()),
                    None => pass(body, &mut sink, &sent, &|_| ()).await,
                }
            };
            let download = self.answer(&mut inflow, forward, responder, deadline);
            tokio::pin!(upload, download, lost);
            loop {
                tokio::select! {
                    biased;
                    answered = &mut download => break answered,
                    outcome = &mut upload, if !is_sent && upload_error.is_none() => match outcome {
                        Ok(()) => is_sent = true,
                        Err(Broken::Reading(why)) => break Err(SendError::Client(why)),
                        // The answer may be there all the same.
                        Err(Broken::Writing(error)) => upload_error = Some(error),
                    },
                    // Until then the upload tells.
                    () = &mut lost, if is_sent => {
                        break Err(SendError::Client("the client went away".to_owned()));
                    }
                }
            }
        };
        self.record.request_bytes(sent.get());
        let answered = match (answered, upload_error) {
            (Err(SendError::BeforeAnswer(why)), Some(error)) => {
                return Err(SendError::BeforeAnswer(format!("{why}; sending: {error}")));
            }
            (answered, _) => answered?,
        };
        match answered {
            Answer::Whole => {
                if is_sent
                    && inflow.is_reusable()
                    && let Inflow::Http1 { wire, .. } = inflow
                {
                    drop(sink);
                    self.worker.connections.give_back(key.clone(), wire);
                }
                Ok(Forwarded::Done { is_whole: true })
            }
            Answer::Upgraded(way) => {
                self.tunnel(inflow, body, way, responder).await;
                Ok(Forwarded::Done { is_whole: false })
            }
        }
    }

    /// Receives the answer and passes it on.
    async fn answer(
        self,
        inflow: &mut Inflow,
        forward: &Forward,
        responder: &mut Responder,
        deadline: Option<Instant>,
    ) -> Result<Answer, SendError> {
        let client = |error: std::io::Error| SendError::Client(error.to_string());
        let head = loop {
            let head = tokio::select! {
                head = by(deadline, inflow.head(&self.request.method)) => head.ok_or(SendError::Timeout)??,
                () = responder.given_up() => return Err(SendError::Client("the client gave up".to_owned())),
            };
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return self.switch(head, responder).await;
            }
            if !head.status.is_informational() {
                break head;
            }
            responder.informational(head.status, without_hop_fields(head.headers)).await.map_err(client)?;
        };
        let mut headers = without_hop_fields(head.headers);
        forward.response.apply(&mut headers);
        self.record.answered(head.status, &headers);
        let answer = AnswerHead { status: head.status, headers, length: head.length };
        let mut sink = responder.head(answer, self.worker.leaving().is_some()).await.map_err(client)?;
        let received = self.record.response_counter();
        let seen = |trailers: &HeaderMap| self.record.trailers(trailers);
        let passed = by(deadline, inflow.pass_body(&mut sink, received, &seen)).await;
        match passed {
            None => {
                Err(SendError::InAnswer("the request timeout passed in the middle of the answer".to_owned()))
            }
            Some(Ok(())) => Ok(Answer::Whole),
            Some(Err(Broken::Reading(why))) => Err(SendError::InAnswer(why)),
            Some(Err(Broken::Writing(error))) => Err(client(error)),
        }
    }

    async fn switch(self, head: AnswerHead, responder: &mut Responder) -> Result<Answer, SendError> {
        let protocol = head.headers.get(header::UPGRADE).cloned();
        let (Some(asked), Some(protocol)) = (&self.request.upgrade, protocol) else {
            return Err(SendError::BadAnswer("the protocol was changed unasked".to_owned()));
        };
        if !protocol.as_bytes().eq_ignore_ascii_case(asked.as_bytes()) {
            return Err(SendError::BadAnswer("the protocol was changed to another".to_owned()));
        }
        let client = |error: std::io::Error| SendError::Client(error.to_string());
        let mut headers = without_hop_fields(head.headers);
        self.record.answered(head.status, &headers);
        match responder {
            Responder::Http1(http1) => {
                http1.upgrade(headers, &protocol).await.map_err(client)?;
                Ok(Answer::Upgraded(Sink::Nothing))
            }
            Responder::Http2(_) => {
                // RFC 8441 §5: HTTP/2's own rules take the place of the key.
                headers.remove(header::SEC_WEBSOCKET_ACCEPT);
                let answer = AnswerHead { status: StatusCode::OK, headers, length: BodyLength::Chunked };
                let way = responder.head(answer, false).await.map_err(client)?;
                Ok(Answer::Upgraded(way))
            }
        }
    }

    /// Carries what is no longer HTTP.
    async fn tunnel(self, inflow: Inflow, body: &mut Body, mut way: Sink, responder: &Responder) {
        let Inflow::Http1 { wire: upstream, .. } = inflow else { return };
        let outcome = match responder {
            Responder::Http1(http1) => {
                let idle = self.worker.shared.config.idle_timeout;
                let both = both_ways(&http1.wire, &upstream, idle, self.record).await;
                both.map_err(|cut| format!("{cut:?}"))
            }
            Responder::Http2(_) => {
                let mut forth = Sink::Http1(BodyWriter::new(upstream.clone(), Framing::UntilClose));
                let mut back = Body::Http1(BodyReader::new(upstream, BodyLength::UntilClose));
                let sent = Cell::new(0);
                let both = tokio::try_join!(
                    pass(body, &mut forth, &sent, &|_| ()),
                    pass(&mut back, &mut way, self.record.response_counter(), &|_| ()),
                );
                self.record.request_bytes(sent.get());
                both.map(|_| ()).map_err(|broken| format!("{broken:?}"))
            }
        };
        if let Err(why) = outcome {
            self.record.cut("-", &format!("the changed protocol ended early: {why}"));
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

fn timed_out() -> Reply {
    Reply::new(StatusCode::GATEWAY_TIMEOUT, "upstream request timeout", "UT", "response_timeout")
}

fn not_connected(error: &DialError) -> Reply {
    let text =
        "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure";
    Reply::new(StatusCode::SERVICE_UNAVAILABLE, text, "UF", "upstream_reset_before_response_started")
        .because(error)
}

/// Waits until a client of HTTP/1 that has sent its request is gone. One that only has nothing more to
/// say is not, and neither is one that sends its next request already.
async fn lost(wire: Option<Shared>) {
    if let Some(wire) = wire
        && wire.fill().await.is_err()
    {
        return;
    }
    std::future::pending().await
}

/// Octets of a refused request's body that are worth reading to keep its connection.
const DISCARD: usize = 64 * 1024;

/// How long they may take.
const DISCARD_TIME: Duration = Duration::from_secs(1);

async fn by<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
