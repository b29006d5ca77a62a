//! A request to an endpoint and its answer back, both at once.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;

use ambit_hbone::patience::{Heard, Patience};
use ambit_hbone::tunnel::Tunnel;
use http::{HeaderMap, StatusCode};
use tokio::time::{Duration, sleep};

use super::body::{Body, Broken, pass};
use super::forward::{Attempt, by};
use super::respond::{AnswerHead, Responder};
use super::send::{self, Answer, Inflow, SendError};
use super::{Call, Forwarded, headers, without_hop_fields};
use crate::h1::Shared;
use crate::head::BodyLength;
use crate::record::Flow;
use crate::upstream::{Key, Lease};

impl Call<'_> {
    pub(super) async fn exchange(
        self,
        lease: Lease,
        key: &Key,
        attempt: &Attempt<'_>,
        body: &mut Body,
        responder: &mut Responder,
    ) -> Result<Forwarded, SendError> {
        let (forward, tunnel, local) = (attempt.forward, lease.tunnel.clone(), lease.local);
        let own = self.worker.identity().await.map(|identity| identity.id.clone());
        let own = own.unwrap_or_else(|| self.caller.identity.clone());
        let mut headers = headers::outgoing(self.request, self.caller.client.ip, &self.caller.identity, &own);
        forward.request.apply(&mut headers);
        let (mut inflow, mut sink) = send::begin(lease, self.request, forward, headers).await?;
        self.record.sent(local);
        let sent = self.record.request();
        sent.restart();
        let (mut is_sent, mut upload_error) = (false, None);
        let watched = responder.wire();
        let answered = {
            let lost = lost(watched);
            let upload = async {
                match self.request.upgrade {
                    // What follows the head is for whom the protocol changes to.
                    Some(_) => Ok(()),
                    None => pass(body, &mut sink, sent, &headers::remove_spoofed_trailers).await,
                }
            };
            let stalled = self.stalled(sent);
            let download = self.answer(&mut inflow, attempt, tunnel.as_ref(), responder);
            tokio::pin!(upload, download, lost, stalled);
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
                    () = &mut stalled, if !is_sent && upload_error.is_none() => break Err(SendError::SlowBody),
                }
            }
        };
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
            Answer::Upgraded(way) => Ok(self.tunnel(inflow, sink, body, way, responder).await),
        }
    }

    /// Receives the answer and passes it on.
    async fn answer(
        self,
        inflow: &mut Inflow,
        attempt: &Attempt<'_>,
        tunnel: Option<&Tunnel>,
        responder: &mut Responder,
    ) -> Result<Answer, SendError> {
        let Attempt { forward, deadline, is_silent } = *attempt;
        let client = |error: std::io::Error| SendError::Client(error.to_string());
        // RFC 9110 §10.1.1 has the endpoint answer who waits for leave to send. Servers of HTTP/2 often do
        // not: we give it, as a client would that waits no longer.
        let mut is_waiting = self.request.expects_continue && matches!(inflow, Inflow::Http2 { .. });
        let patience = sleep(CONTINUE_PATIENCE);
        let mut silent = pin!(silence(&self.worker.patience, tunnel));
        let mut is_heard = false;
        tokio::pin!(patience);
        let head = loop {
            let head = tokio::select! {
                head = by(deadline, inflow.head(&self.request.method)) => head.ok_or(SendError::Timeout)??,
                () = responder.given_up() => return Err(SendError::Client("the client gave up".to_owned())),
                () = &mut patience, if is_waiting => {
                    is_waiting = false;
                    let said = responder.informational(StatusCode::CONTINUE, HeaderMap::new()).await;
                    said.map_err(client)?;
                    continue;
                }
                () = &mut silent, if !is_heard => {
                    if is_silent() {
                        return Err(SendError::Silent);
                    }
                    is_heard = true;
                    continue;
                }
            };
            is_heard = true;
            is_waiting &= head.status != StatusCode::CONTINUE;
            if inflow.is_switched(self.request, head.status) {
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
        let mut sink =
            responder.head(answer, self.caller.leaving(self.worker).is_some()).await.map_err(client)?;
        let received = self.record.response();
        let seen = |trailers: &mut HeaderMap| self.record.trailers(trailers);
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

    /// Waits until nothing of an upload has come for too long. A stream of messages, whose length nobody has
    /// said, may be silent as long as it likes.
    async fn stalled(self, sent: &Flow) {
        let is_upload = matches!(self.request.length, BodyLength::Exactly(_)) && !self.request.is_grpc();
        if !is_upload {
            return pending().await;
        }
        loop {
            let before = sent.octets();
            sleep(self.worker.shared.config.idle_timeout).await;
            if sent.octets() == before {
                return;
            }
        }
    }
}

/// Waits until a client of HTTP/1 that has sent its request is gone. One that only has nothing more to
/// say is not, and neither is one that sends its next request already.
async fn lost(wire: Option<Shared>) {
    if let Some(wire) = wire
        && wire.fill().await.is_err()
    {
        return;
    }
    pending().await
}

/// Waits until the peer of a tunnel, which has been asked, gives no sign of life.
async fn silence(patience: &Patience, tunnel: Option<&Tunnel>) {
    let Some(tunnel) = tunnel else { return pending().await };
    loop {
        match patience.listen(tunnel, pin!(pending::<Infallible>())).await {
            Heard::Silence => return,
            Heard::SignOfLife => {}
            Heard::Answer(never) => match never {},
        }
    }
}

/// How long a client that waits for `100 Continue` waits for an endpoint of HTTP/2 to say it.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);
