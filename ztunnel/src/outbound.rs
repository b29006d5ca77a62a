//! A captured outbound connection: where it goes, by which tunnel, and carrying it there.
//!
//! The choice is `ambit_mesh::decide::outbound`; this module does what it says and tries another
//! endpoint when one cannot be reached. A connection that is refused is reset, never passed on.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::codec::{ConnectRequest, OpenError, Reason};
use ambit_hbone::headers;
use ambit_hbone::patience::{Heard, Silence};
use ambit_hbone::pool::AcquireError;
use ambit_hbone::relay::relay;
use ambit_hbone::socket::Socket;
use ambit_hbone::tunnel::{Response, StreamError, TunnelStream};
use ambit_mesh::address::NetworkAddress;
use ambit_mesh::decide::{
    Ask, OutboundDecision, OutboundError, OutboundRequest, Outcome, ResponseFlag, Transport, outbound,
};
use ambit_mesh::identity::IdentitySet;
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::{Workload, WorkloadUid};
use tokio::time::timeout;
use tracing::debug;

use crate::accept::Accepted;
use crate::capture::original_dst;
use crate::dial::{DialError, TunnelKey, connect, open_stream};
use crate::record::{Carried, Record};
use crate::splice::splice;
use crate::worker::Pod;

mod early;
mod silence;

use early::Early;

/// Serves one captured connection from accept to its last line in the log.
pub async fn serve(pod: Rc<Pod>, accepted: Accepted) {
    // What it takes to open a connection is large, and not kept while the connection lasts.
    let Some(Opened { socket, upstream, record }) = Box::pin(open(&pod, accepted)).await else { return };
    record.finish(carry(&pod, socket, upstream).await);
}

/// A connection with an established way to its destination.
struct Opened {
    socket: Socket,
    upstream: Upstream,
    record: Record,
}

/// `None` when the connection was refused; everything is said and counted then.
async fn open(pod: &Rc<Pod>, accepted: Accepted) -> Option<Opened> {
    // Nothing waits between its end here and the listing of the open connection.
    let Accepted { socket, peer, pending: _pending } = accepted;
    let destination = match original_dst::outbound(socket.get(), peer) {
        Ok(destination) => destination,
        Err(error) => {
            debug!(%peer, %error, "a connection to the outbound port was not redirected there: closed");
            socket.reset_on_close();
            return None;
        }
    };
    let mut record = Record::outbound(peer, destination);
    match establish(pod, &socket, peer, destination, &mut record).await {
        Ok(upstream) => {
            record.opened();
            Some(Opened { socket, upstream, record })
        }
        Err(failure) => {
            socket.reset_on_close();
            record.fail(failure.flag(), &failure);
            None
        }
    }
}

/// An established way to the destination.
enum Upstream {
    Tunnel(TunnelStream),
    Plain(Socket),
}

/// Why a connection was not carried.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the pod is not known to control yet: check that control is reachable and serves this node")]
    SourceUnknown,
    #[error(transparent)]
    Refused(#[from] OutboundError),
    #[error("no certificate for this pod yet: check that control is reachable and grants it to this node")]
    NoIdentity,
    #[error(transparent)]
    Dial(Rc<DialError>),
    #[error(transparent)]
    Plain(DialError),
    #[error("the tunnel to {next_hop} has no room for another stream")]
    NoRoom { next_hop: SocketAddr },
    #[error("the tunnel to {next_hop} cannot carry the request: {source}")]
    Request {
        next_hop: SocketAddr,
        #[source]
        source: OpenError,
    },
    #[error("{next_hop} did not answer the CONNECT: {source}")]
    Stream {
        next_hop: SocketAddr,
        #[source]
        source: StreamError,
    },
    #[error("{next_hop} did not answer the CONNECT within {seconds} s")]
    ResponseTimeout { next_hop: SocketAddr, seconds: u64 },
    #[error("{next_hop} is silent, and another endpoint is there: is its node reachable?")]
    Silent { next_hop: SocketAddr },
    #[error("the application gave up before its connection was answered: {0}")]
    Application(#[source] std::io::Error),
    #[error("{next_hop} refused the connection with status {status}{hint}", hint = status_hint(*status))]
    Status { next_hop: SocketAddr, status: u16 },
}

/// What the statuses of an HBONE endpoint mean (Istio's ztunnel and ours).
fn status_hint(status: u16) -> &'static str {
    match status {
        400 => " (it is not the proxy of that address)",
        401 => " (an AuthorizationPolicy of the destination denies it)",
        503 => " (the application does not accept the connection)",
        _ => "",
    }
}

impl Failure {
    /// Whether another endpoint of the service may do better. One that answered "denied" may not be
    /// asked again elsewhere: that is the service's word.
    fn may_try_another(&self) -> bool {
        match self {
            Self::Dial(_)
            | Self::Plain(_)
            | Self::NoRoom { .. }
            | Self::Stream { .. }
            | Self::Silent { .. } => true,
            Self::Status { status, .. } => *status == 503,
            Self::SourceUnknown
            | Self::Refused(_)
            | Self::NoIdentity
            | Self::Request { .. }
            | Self::Application(_)
            | Self::ResponseTimeout { .. } => false,
        }
    }

    /// Whether it is certain that the far application has seen nothing of what went with the CONNECT.
    fn says_not_delivered(&self) -> bool {
        match self {
            // The peer answers so only before its application has accepted.
            Self::Status { .. } => true,
            // RFC 9113 §8.7: REFUSED_STREAM is sent "prior to any processing having occurred".
            Self::Stream { source: StreamError::Reset { reason }, .. } => *reason == Reason::RefusedStream,
            // No stream was opened, so nothing went.
            Self::SourceUnknown
            | Self::Refused(_)
            | Self::NoIdentity
            | Self::Dial(_)
            | Self::Plain(_)
            | Self::NoRoom { .. }
            | Self::Request { .. } => true,
            Self::Stream { source: StreamError::TunnelLost(_), .. }
            | Self::ResponseTimeout { .. }
            | Self::Silent { .. }
            | Self::Application(_) => false,
        }
    }

    /// Whether nothing at all came from there.
    fn is_silence(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::Dial(error) => error.is_silence(),
            Self::Plain(error) => error.is_silence(),
            Self::SourceUnknown
            | Self::Refused(_)
            | Self::NoIdentity
            | Self::NoRoom { .. }
            | Self::Request { .. }
            | Self::Stream { .. }
            | Self::ResponseTimeout { .. }
            | Self::Application(_)
            | Self::Status { .. } => false,
        }
    }

    /// Whether the same endpoint should be asked again on another tunnel: this one went away before
    /// it took the stream.
    fn is_stale_tunnel(&self) -> bool {
        match self {
            Self::Stream { source: StreamError::Reset { reason }, .. } => *reason == Reason::RefusedStream,
            Self::Stream { source: StreamError::TunnelLost(_), .. } => true,
            Self::Dial(_)
            | Self::Plain(_)
            | Self::NoRoom { .. }
            | Self::Status { .. }
            | Self::SourceUnknown
            | Self::Refused(_)
            | Self::NoIdentity
            | Self::Request { .. }
            | Self::Application(_)
            | Self::Silent { .. }
            | Self::ResponseTimeout { .. } => false,
        }
    }

    fn flag(&self) -> ResponseFlag {
        match self {
            Self::Refused(error) => error.reason(),
            Self::NoIdentity => ResponseFlag::IdentityError,
            Self::Dial(error) => error.flag(),
            Self::Plain(error) => error.flag(),
            Self::Status { status: 401, .. } => ResponseFlag::Denied,
            Self::SourceUnknown
            | Self::NoRoom { .. }
            | Self::Request { .. }
            | Self::Stream { .. }
            | Self::ResponseTimeout { .. }
            | Self::Silent { .. }
            | Self::Application(_)
            | Self::Status { .. } => ResponseFlag::ConnectFailure,
        }
    }
}

async fn establish(
    pod: &Rc<Pod>,
    application: &Socket,
    peer: SocketAddr,
    destination: SocketAddr,
    record: &mut Record,
) -> Result<Upstream, Failure> {
    let shared = &pod.worker.shared;
    let (mut snapshot, source) = shared
        .snapshots
        .wait_for(shared.config.unknown_wait, |snapshot| snapshot.workload(&pod.uid).map(Arc::clone))
        .await
        .ok_or(Failure::SourceUnknown)?;
    record.source(&source);
    let mut early = Early::of(application);
    let mut tried: Vec<WorkloadUid> = Vec::new();
    let suspects = pod.suspects.current();
    let mut failed = None;
    let mut waited = false;
    loop {
        let request = OutboundRequest {
            source: &source,
            destination,
            excluded: &tried,
            suspects: &suspects,
            mesh_ranges: &shared.config.mesh_ranges,
            waited,
        };
        let decision = outbound(&snapshot, &request, &mut *pod.worker.rng.borrow_mut());
        let decision = match decision {
            Ok(decision) => decision,
            Err(Outcome::Ask(Ask::Wait { address })) => {
                snapshot = wait_until_known(pod, snapshot, &address).await;
                waited = true;
                continue;
            }
            // After a failed try, that failure says more than "no other endpoint is left".
            Err(Outcome::Refused(error)) => return Err(failed.unwrap_or(Failure::Refused(error))),
        };
        record.decided(&decision);
        // Asked once an endpoint is silent, not of every connection.
        let is_other_there = || {
            let Some(endpoint) = &decision.endpoint else { return false };
            let excluded: Vec<_> = tried.iter().chain([&endpoint.uid]).cloned().collect();
            let request = OutboundRequest { excluded: &excluded, ..request };
            let other = outbound(&snapshot, &request, &mut *pod.worker.rng.borrow_mut());
            let is_suspect = |one: &Arc<Workload>| suspects.contains(&one.uid);
            // No suspect is waited for less because of another one.
            let is_better = |other: OutboundDecision| {
                is_suspect(endpoint) || !other.endpoint.as_ref().is_some_and(is_suspect)
            };
            other.is_ok_and(is_better) && tried.len() + 1 < MAX_ENDPOINTS_TRIED
        };
        let outcome = connect_to(pod, peer, &source, &decision, &mut early, &is_other_there).await;
        if let Some(endpoint) = &decision.endpoint {
            match &outcome {
                Ok(_) => pod.suspects.clear(&endpoint.uid),
                Err(failure) if failure.is_silence() => silence::suspect(pod, &decision),
                Err(_) => {}
            }
        }
        match outcome {
            Ok(upstream) => return Ok(upstream),
            Err(failure) => match &decision.endpoint {
                Some(endpoint)
                    if failure.may_try_another()
                        && !early.may_have_arrived(&failure)
                        && tried.len() + 1 < MAX_ENDPOINTS_TRIED =>
                {
                    debug!(%destination, next_hop = %decision.next_hop, error = %failure, "trying another endpoint");
                    tried.push(endpoint.uid.clone());
                    failed = Some(failure);
                }
                Some(_) | None => return Err(failure),
            },
        }
    }
}

/// The first snapshot that knows the address, or after the wait the latest one.
async fn wait_until_known(pod: &Pod, current: Arc<Snapshot>, address: &NetworkAddress) -> Arc<Snapshot> {
    let shared = &pod.worker.shared;
    let known = |snapshot: &Snapshot| {
        let workload = snapshot.workload_by_address(address).is_some();
        (workload || !snapshot.services_by_address(address).is_empty()).then_some(())
    };
    match shared.snapshots.wait_for(shared.config.unknown_wait, known).await {
        Some((snapshot, ())) => snapshot,
        None => shared.snapshots.load().unwrap_or(current),
    }
}

async fn connect_to(
    pod: &Rc<Pod>,
    peer: SocketAddr,
    source: &Arc<Workload>,
    decision: &OutboundDecision,
    early: &mut Early<'_>,
    is_other_there: &dyn Fn() -> bool,
) -> Result<Upstream, Failure> {
    let next_hop = decision.next_hop;
    match &decision.transport {
        Transport::Passthrough => {
            let connecting = connect(pod, next_hop);
            let connected = unless_silent(pod, next_hop, is_other_there, connecting).await?;
            connected.map(Upstream::Plain).map_err(Failure::Plain)
        }
        Transport::Hbone { authority, expected } => {
            let authority = *authority;
            let request = Request { peer, source, decision, authority, expected, is_other_there };
            let mut outcome = request_tunnel(pod, &request, early).await;
            if let Err(failure) = &outcome
                && failure.is_stale_tunnel()
                && !early.may_have_arrived(failure)
            {
                outcome = request_tunnel(pod, &request, early).await;
            }
            outcome.map(Upstream::Tunnel)
        }
    }
}

/// Waits for a connection, but not for long where nothing comes of it and another endpoint is there.
async fn unless_silent<T>(
    pod: &Pod,
    next_hop: SocketAddr,
    is_other_there: &dyn Fn() -> bool,
    connecting: impl Future<Output = T>,
) -> Result<T, Failure> {
    tokio::pin!(connecting);
    match pod.worker.patience.wait(&mut connecting).await {
        Ok(outcome) => Ok(outcome),
        Err(Silence) if is_other_there() => Err(Failure::Silent { next_hop }),
        Err(Silence) => Ok(connecting.await),
    }
}

/// What is asked of the peer of a tunnel.
struct Request<'a> {
    peer: SocketAddr,
    source: &'a Arc<Workload>,
    decision: &'a OutboundDecision,
    authority: SocketAddr,
    expected: &'a IdentitySet,
    is_other_there: &'a dyn Fn() -> bool,
}

async fn request_tunnel(
    pod: &Rc<Pod>,
    request: &Request<'_>,
    early: &mut Early<'_>,
) -> Result<TunnelStream, Failure> {
    let Request { peer, source, decision, authority, expected, is_other_there } = *request;
    let next_hop = decision.next_hop;
    let identity = pod.identity().await.ok_or(Failure::NoIdentity)?;
    let service_host = decision.service.as_ref().map(|service| &*service.name.hostname);
    let forwarded = headers::forwarded(peer, service_host);
    let baggage = pod.baggage.of(source);
    let traceparent = headers::TraceParent::random(&mut *pod.worker.rng.borrow_mut()).to_string();
    let authority = authority.to_string();
    let request = ConnectRequest {
        authority: &authority,
        headers: &[
            (headers::FORWARDED, &forwarded),
            (headers::BAGGAGE, &baggage),
            (headers::TRACEPARENT, &traceparent),
        ],
    };
    let key = TunnelKey { next_hop, expected: expected.clone() };
    let opening = open_stream(pod, &key, &identity, &request);
    let opened = unless_silent(pod, next_hop, is_other_there, opening).await?;
    let mut stream = opened.map_err(|error| match error {
        AcquireError::Dial(error) => Failure::Dial(error),
        AcquireError::Full => Failure::NoRoom { next_hop },
        AcquireError::Refused(source) => Failure::Request { next_hop, source },
    })?;
    early.send(&mut stream, decision, &pod.worker.buffers).map_err(Failure::Application)?;
    let response = response(pod, &mut stream, next_hop, is_other_there).await?;
    match response.status {
        200 => {
            let settled = early.settle(&mut stream).await;
            settled.map_err(|source| Failure::Stream { next_hop, source })?;
            Ok(stream)
        }
        status => Err(Failure::Status { next_hop, status }),
    }
}

/// The peer's answer. It may take its time as long as the peer gives a sign of life; one that does not is left
/// where another endpoint is there.
async fn response(
    pod: &Pod,
    stream: &mut TunnelStream,
    next_hop: SocketAddr,
    is_other_there: &dyn Fn() -> bool,
) -> Result<Response, Failure> {
    let tunnel = stream.tunnel();
    let failed = |source| Failure::Stream { next_hop, source };
    let mut answer = pin!(stream.response());
    match pod.worker.patience.listen(&tunnel, answer.as_mut()).await {
        Heard::Answer(response) => return response.map_err(failed),
        Heard::Silence if is_other_there() => return Err(Failure::Silent { next_hop }),
        Heard::Silence | Heard::SignOfLife => {}
    }
    let limit = response_limit(pod);
    timeout(limit, answer)
        .await
        .map_err(|_| Failure::ResponseTimeout { next_hop, seconds: limit.as_secs() })?
        .map_err(failed)
}

/// The far proxy connects to its application within the same limit before it answers.
fn response_limit(pod: &Pod) -> Duration {
    2 * pod.worker.shared.config.connect_timeout
}

async fn carry(pod: &Rc<Pod>, socket: Socket, upstream: Upstream) -> Carried {
    let worker = &pod.worker;
    let listed = worker.flows.list(&pod.uid, None);
    match upstream {
        Upstream::Tunnel(stream) => {
            Carried::outbound(relay(stream, Rc::new(socket), worker.idle, listed.stop.clone()).await)
        }
        Upstream::Plain(upstream) => {
            let memory = worker.splice_memory();
            Carried::plain(splice(socket, upstream, memory, worker.idle, listed.stop.clone()).await)
        }
    }
}

/// Endpoints of a service that one connection tries before it gives up: enough to pass a pod that
/// just died, few enough that a client is answered before its own deadline.
const MAX_ENDPOINTS_TRIED: usize = 3;
