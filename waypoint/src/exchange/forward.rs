//! To whom a request goes: an endpoint, a connection to it, and what is tried again.

use ambit_mesh::http::{Forward, WaypointSnapshot};
use ambit_mesh::service::AppProtocol;
use http::StatusCode;
use tokio::time::{Instant, timeout_at};

use super::body::Body;
use super::respond::{Reply, Responder};
use super::send::SendError;
use super::{Call, Forwarded};
use crate::opaque::MAX_ENDPOINTS_TRIED;
use crate::upstream::{Carrier, DialError, Key, Lease, OnBehalf, Protocol, Session, client_of};

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
            let mut key = Key {
                carrier: Carrier::of(&upstream),
                protocol: upstream_protocol(forward.backend.protocol, responder),
                client: client_of(snapshot.mesh(), &upstream, &self.caller.identity),
            };
            match self.acquire(&mut key, deadline).await {
                Ok(lease) => return self.attempt(lease, key, forward, body, responder, deadline).await,
                Err(None) => return Forwarded::Failed(timed_out()),
                Err(Some(error)) => {
                    self.record.not_connected(&error);
                    match upstream.endpoint {
                        Some(endpoint) if tried.len() + 1 < MAX_ENDPOINTS_TRIED && !error.is_denied() => {
                            tried.push(endpoint.uid.clone());
                        }
                        Some(_) | None => return Forwarded::Failed(not_connected(&error)),
                    }
                }
            }
        }
    }

    /// A session on a connection of this key. Where a websocket cannot pass an endpoint's HTTP/2 (RFC 8441 is
    /// an option of it), HTTP/1 is what is left, and what the key says then.
    async fn acquire(self, key: &mut Key, deadline: Option<Instant>) -> Result<Lease, Option<DialError>> {
        let limit = self.worker.shared.config.connect_timeout;
        let is_upgrade = self.request.upgrade.is_some();
        let first = match self.lease(key, deadline).await {
            // Its policies may know more than we: they are asked again about the client.
            Err(Some(error)) if error.is_denied() && key.client.is_none() => {
                key.client = Some(self.caller.identity.clone());
                self.lease(key, deadline).await
            }
            first => first,
        };
        match first {
            Ok(Lease { session: Session::Http2(stream), .. })
                if is_upgrade && !stream.takes_extended_connect(limit).await => {}
            Err(Some(DialError::Http2(_))) if is_upgrade => {}
            lease => return lease,
        }
        key.protocol = Protocol::Http1;
        self.lease(key, deadline).await
    }

    async fn lease(self, key: &Key, deadline: Option<Instant>) -> Result<Lease, Option<DialError>> {
        let caller = self.on_behalf();
        let lease = self.worker.connections.acquire(self.worker, key, &caller);
        by(deadline, lease).await.ok_or(None)?.map_err(Some)
    }

    fn on_behalf(&self) -> OnBehalf<'_> {
        OnBehalf { address: self.caller.address, service: self.record.service_host() }
    }

    async fn attempt(
        self,
        lease: Lease,
        mut key: Key,
        forward: &Forward,
        body: &mut Body,
        responder: &mut Responder,
        deadline: Option<Instant>,
    ) -> Forwarded {
        // Nothing of its body is gone. RFC 9112 §9.3.1: a request on a connection that was closed meanwhile
        // may be sent again where that does no harm, and so may one whose endpoint took no part in the end of
        // its connection; RFC 9113 §8.7: what an endpoint says that it has not processed, always.
        let is_whole = body.is_done();
        let (reused, is_harmless) = (lease.reused, self.request.method.is_idempotent());
        let may_repeat = |error: &SendError| {
            let is_over = error.is_cut_off() || (reused && error.is_before_answer());
            is_whole && (error.is_unprocessed() || (is_harmless && is_over))
        };
        let again = match self.exchange(lease, &key, forward, body, responder, deadline).await {
            Err(error) if may_repeat(&error) => {
                // New policies may be why it was cut off.
                if error.is_cut_off() && key.client.is_none() {
                    key.client = Some(self.caller.identity.clone());
                }
                let again = async {
                    match self.again(&key).await {
                        // As when it was acquired: its policies may know more than we.
                        Err(error) if error.is_denied() && key.client.is_none() => {
                            key.client = Some(self.caller.identity.clone());
                            self.again(&key).await
                        }
                        again => again,
                    }
                };
                by(deadline, again).await
            }
            outcome => return outcome.unwrap_or_else(|error| self.broken(&error)),
        };
        match again {
            None => Forwarded::Failed(timed_out()),
            Some(Err(error)) => Forwarded::Failed(not_connected(&error)),
            Some(Ok(lease)) => {
                let outcome = self.exchange(lease, &key, forward, body, responder, deadline).await;
                outcome.unwrap_or_else(|error| self.broken(&error))
            }
        }
    }

    /// A session for a request that was sent in vain: not on a connection that may be over as well.
    async fn again(self, key: &Key) -> Result<Lease, DialError> {
        let (connections, caller) = (&self.worker.connections, self.on_behalf());
        match key.protocol {
            Protocol::Http1 | Protocol::Opaque => connections.fresh(self.worker, key, &caller).await,
            Protocol::Http2 => connections.acquire(self.worker, key, &caller).await,
        }
    }

    fn broken(self, error: &SendError) -> Forwarded {
        match error {
            SendError::BeforeAnswer(why) | SendError::CutOff(why) | SendError::Unprocessed(why) => {
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
