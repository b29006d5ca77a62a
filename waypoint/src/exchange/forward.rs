//! To whom a request goes: an endpoint, a connection to it, and what is tried again.

use ambit_mesh::http::{Forward, WaypointSnapshot};
use ambit_mesh::service::AppProtocol;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};
use tracing::debug;

use super::body::Body;
use super::respond::{Reply, Responder};
use super::send::SendError;
use super::{Call, Forwarded};
use crate::upstream::{Carrier, Choice, DialError, Key, Lease, OnBehalf, Protocol, Session, client_of};

/// What holds for sending a request once.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    /// How it goes out.
    pub(super) forward: &'a Forward,
    /// By when it has to be answered.
    pub(super) deadline: Option<Instant>,
    /// The endpoint gives no sign of life: whether to leave it.
    pub(super) is_silent: &'a dyn Fn() -> bool,
}

impl Call<'_> {
    pub(super) async fn forward(
        self,
        snapshot: &WaypointSnapshot,
        forward: &Forward,
        body: &mut Body,
        responder: &mut Responder,
    ) -> Forwarded {
        let limit = [forward.timeouts.request, forward.timeouts.backend_request].into_iter().flatten().min();
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut choice = Choice::new(self.worker, snapshot, &forward.backend);
        let mut was_cut_off = false;
        loop {
            let upstream = match choice.choose() {
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
            let client = client_of(snapshot.mesh(), &upstream, &self.caller.identity);
            let mut key = Key {
                carrier: Carrier::of(&upstream),
                protocol: upstream_protocol(forward.backend.protocol, responder),
                // New policies may be why it was cut off.
                client: client.or_else(|| was_cut_off.then(|| self.caller.identity.clone())),
            };
            let is_other_there = || choice.is_other_there(&upstream);
            let caller = self.on_behalf(&is_other_there);
            let error = match self.acquire(&mut key, &caller, was_cut_off, deadline).await {
                Ok(lease) => {
                    if !lease.reused {
                        choice.answered(&upstream);
                    }
                    let is_silent = || {
                        choice.suspect(&upstream);
                        is_other_there()
                    };
                    let attempt = Attempt { forward, deadline, is_silent: &is_silent };
                    match self.attempt(lease, key, &attempt, &caller, body, responder).await {
                        Ok(forwarded) => return forwarded,
                        Err(SendError::Silent) => DialError::Silent { next_hop: upstream.next_hop },
                        Err(SendError::NotSent(error)) => error,
                        Err(error) if error.is_cut_off() && !was_cut_off => {
                            was_cut_off = true;
                            continue;
                        }
                        Err(error) => return self.broken(&error),
                    }
                }
                Err(None) => return Forwarded::Failed(timed_out()),
                Err(Some(error)) => error,
            };
            self.record.not_connected(&error);
            if !choice.failed(&upstream, &error) {
                return Forwarded::Failed(not_connected(&error));
            }
        }
    }

    /// A session on a connection of this key. Where a websocket cannot pass an endpoint's HTTP/2 (RFC 8441 is
    /// an option of it), HTTP/1 is what is left, and what the key says then.
    async fn acquire(
        self,
        key: &mut Key,
        caller: &OnBehalf<'_>,
        fresh: bool,
        deadline: Option<Instant>,
    ) -> Result<Lease, Option<DialError>> {
        let limit = self.worker.shared.config.connect_timeout;
        let is_upgrade = self.request.upgrade.is_some();
        let first = by(deadline, self.lease(key, caller, fresh)).await.ok_or(None)?;
        match first {
            Ok(Lease { session: Session::Http2(stream), .. })
                if is_upgrade && !by(deadline, stream.takes_extended_connect(limit)).await.ok_or(None)? => {}
            Err(DialError::Http2(_)) if is_upgrade => {}
            lease => return lease.map_err(Some),
        }
        key.protocol = Protocol::Http1;
        by(deadline, self.lease(key, caller, fresh)).await.ok_or(None)?.map_err(Some)
    }

    /// A session on a connection that is open or, if it has to be, a fresh one. (Of HTTP/2 those that may be
    /// over are left anyway.)
    async fn lease(self, key: &mut Key, caller: &OnBehalf<'_>, fresh: bool) -> Result<Lease, DialError> {
        let connections = &self.worker.connections;
        loop {
            let lease = if fresh && key.protocol != Protocol::Http2 {
                connections.fresh(self.worker, key, caller).await
            } else {
                connections.acquire(self.worker, key, caller).await
            };
            match lease {
                // Its policies may know more than we: they are asked again about the client.
                Err(error) if error.is_denied() && key.client.is_none() => {
                    key.client = Some(self.caller.identity.clone());
                }
                lease => return lease,
            }
        }
    }

    fn on_behalf<'a>(&'a self, is_other_there: &'a dyn Fn() -> bool) -> OnBehalf<'a> {
        OnBehalf { address: self.caller.address, service: self.record.service_host(), is_other_there }
    }

    /// Sends the request on this session, and again on a fresh one to the same endpoint where that was over
    /// before.
    ///
    /// # Errors
    /// When it may be sent again, and to another endpoint: this one cannot be connected to any more or is silent, or
    /// the way to it was cut off.
    async fn attempt(
        self,
        lease: Lease,
        mut key: Key,
        attempt: &Attempt<'_>,
        caller: &OnBehalf<'_>,
        body: &mut Body,
        responder: &mut Responder,
    ) -> Result<Forwarded, SendError> {
        // Nothing of its body is gone. RFC 9112 §9.3.1: a request on a connection that was closed meanwhile
        // may be sent again where that does no harm, and so may one whose endpoint took no part in the end of
        // its connection; RFC 9113 §8.7: what an endpoint says that it has not processed, always.
        let is_whole = body.is_done();
        let (reused, is_harmless) = (lease.reused, self.request.method.is_idempotent());
        let may_repeat = is_whole && is_harmless;
        // A silent endpoint is waited for where the request cannot go elsewhere.
        let is_left = || (attempt.is_silent)() && may_repeat;
        let sent = Attempt { is_silent: &is_left, ..*attempt };
        let error = match self.exchange(lease, &key, &sent, body, responder).await {
            Err(error) if may_repeat && error.is_not_the_endpoints() => return Err(error),
            Err(error) if error.is_unprocessed() && is_whole => error,
            Err(error) if error.is_before_answer() && may_repeat && reused => error,
            outcome => return Ok(outcome.unwrap_or_else(|error| self.broken(&error))),
        };
        debug!(%error, "sent again: its connection was over");
        let lease = match by(attempt.deadline, self.lease(&mut key, caller, true)).await {
            None => return Ok(Forwarded::Failed(timed_out())),
            Some(lease) => lease.map_err(SendError::NotSent)?,
        };
        match self.exchange(lease, &key, &sent, body, responder).await {
            Err(error) if may_repeat && error.is_not_the_endpoints() => Err(error),
            outcome => Ok(outcome.unwrap_or_else(|error| self.broken(&error))),
        }
    }

    fn broken(self, error: &SendError) -> Forwarded {
        match error {
            SendError::BeforeAnswer(_)
            | SendError::CutOff(_)
            | SendError::Silent
            | SendError::NotSent(_)
            | SendError::Unprocessed(_) => {
                let text = "upstream connect error or disconnect/reset before headers. reset reason: connection termination";
                let reply = Reply::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    text,
                    "UC",
                    "upstream_reset_before_response_started",
                );
                Forwarded::Failed(reply.because(error))
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
            SendError::SlowBody => {
                let text = "the body took too long\n";
                let reply = Reply::new(StatusCode::REQUEST_TIMEOUT, text, "SI", "stream_idle_timeout");
                Forwarded::Failed(reply.because("nothing of the request's body came within the idle timeout"))
            }
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
}

/// As declared; where nothing is, as the client speaks.
fn upstream_protocol(declared: AppProtocol, responder: &Responder) -> Protocol {
    match (declared, responder) {
        (AppProtocol::Http2 | AppProtocol::Grpc, _) => Protocol::Http2,
        (AppProtocol::Unknown, Responder::Http2(_)) => Protocol::Http2,
        (AppProtocol::Unknown | AppProtocol::Http11 | AppProtocol::Tcp | AppProtocol::Tls, _) => {
            Protocol::Http1
        }
    }
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

pub(super) async fn by<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => timeout_at(deadline, future).await.ok(),
        None => Some(future.await),
    }
}
