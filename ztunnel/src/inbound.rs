//! Tunnels that others open to a pod: handshake, authorization, and the application behind.
//!
//! A CONNECT is answered with 200 only after its application accepted; until then an error is an
//! HTTP status, afterwards a reset. What is allowed is decided by `ambit_mesh`; the connect to the
//! application cannot be made without its [`Permit`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_hbone::codec::{Codec, Reason, RequestHead, Settings};
use ambit_hbone::headers;
use ambit_hbone::relay::relay;
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{self, HandshakeError, Keepalive, StreamError, Tunnel, TunnelStream};
use ambit_identity::verify::{PeerRefused, VerifiedPeer, accepted_peer};
use ambit_mesh::address::Authority;
use ambit_mesh::decide::{
    InboundDecision, InboundError, InboundRequest, InboundTarget, ResponseFlag, inbound,
};
use ambit_mesh::identity::SpiffeId;
use ambit_mesh::policy::{Peer, Permit, authorize};
use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::Workload;
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::accept::Accepted;
use crate::application::{ApplicationError, connect_app};
use crate::flows::Listed;
use crate::record::{Carried, Record};
use crate::worker::Pod;

/// Serves one connection to the HBONE port until its tunnel is over.
pub async fn serve(pod: Rc<Pod>, accepted: Accepted) {
    let Ok(local) = accepted.local() else {
        debug!(peer = %accepted.peer, "connection lost at accept");
        return;
    };
    let Accepted { socket, peer, pending } = accepted;
    let (tunnel, verified, expiry) = match secure(&pod, socket).await {
        Ok(secured) => secured,
        Err(refused) => {
            Record::inbound(peer, local).fail(refused.flag(), &refused);
            return;
        }
    };
    debug!(%peer, %local, peer.identity = %verified.id(), "tunnel accepted");
    let _listed = pod.accepted.list(&tunnel);
    let _counted = pod.worker.flows.tunnel();
    drop(pending);
    let connection = Rc::new(Connection { peer: verified, peer_address: peer, local });
    let last_moment =
        sleep(until_last_moment(expiry, SystemTime::now(), pod.worker.shared.config.tunnel_grace));
    tokio::pin!(last_moment);
    loop {
        let request = tokio::select! {
            // A request that was not taken waits for the next look.
            request = tunnel.next_request() => request,
            () = &mut last_moment, if !tunnel.is_leaving() => {
                debug!(%peer, "the tunnel's certificates expired longer ago than the grace: closed");
                tunnel.close(Reason::NoError);
                continue;
            }
        };
        let Some((head, stream)) = request else { return };
        spawn_local(serve_stream(Rc::clone(&pod), Rc::clone(&connection), head, stream));
    }
}

/// How long a tunnel may live that was opened with certificates of which the first expires at
/// `expiry`.
fn until_last_moment(expiry: SystemTime, now: SystemTime, grace: Duration) -> Duration {
    expiry.duration_since(now).unwrap_or_default().saturating_add(grace)
}

/// The tunnels that others opened to a pod, on one worker.
#[derive(Clone, Default)]
pub struct AcceptedTunnels {
    table: Rc<RefCell<Tunnels>>,
}

#[derive(Default)]
struct Tunnels {
    next: u64,
    open: BTreeMap<u64, Tunnel>,
    /// Whether peers are asked to open no more streams, also those that are in their handshake.
    leaving: bool,
}

impl AcceptedTunnels {
    /// Asks every peer to open no more streams; open ones finish.
    pub fn shutdown(&self) {
        let mut table = self.table.borrow_mut();
        table.leaving = true;
        table.open.values().for_each(Tunnel::shutdown);
    }

    fn list(&self, tunnel: &Tunnel) -> ListedTunnel {
        let mut table = self.table.borrow_mut();
        let key = table.next;
        table.next += 1;
        table.open.insert(key, tunnel.clone());
        if table.leaving {
            tunnel.shutdown();
        }
        ListedTunnel { tunnels: self.clone(), key }
    }
}

struct ListedTunnel {
    tunnels: AcceptedTunnels,
    key: u64,
}

impl Drop for ListedTunnel {
    fn drop(&mut self) {
        self.tunnels.table.borrow_mut().open.remove(&self.key);
    }
}

/// What all streams of one tunnel share.
struct Connection {
    peer: VerifiedPeer,
    peer_address: SocketAddr,
    local: SocketAddr,
}

/// Why a connection to the HBONE port did not become a tunnel.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no certificate for this pod yet: check that control is reachable and grants it to this node")]
    NoIdentity,
    #[error("no TLS handshake within {seconds} s")]
    Timeout { seconds: u64 },
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Peer(#[from] PeerRefused),
}

impl Refused {
    fn flag(&self) -> ResponseFlag {
        match self {
            Self::NoIdentity => ResponseFlag::IdentityError,
            Self::Handshake(HandshakeError::Alpn) => ResponseFlag::Http2HandshakeFailure,
            Self::Timeout { .. } | Self::Handshake(_) | Self::Peer(_) => ResponseFlag::TlsFailure,
        }
    }
}

async fn secure(pod: &Rc<Pod>, socket: Socket) -> Result<(Tunnel, VerifiedPeer, SystemTime), Refused> {
    let identity = pod.identity().await.ok_or(Refused::NoIdentity)?;
    let limit = pod.worker.shared.config.connect_timeout;
    let session = TlsSession::server(Arc::clone(&identity.server)).map_err(HandshakeError::Tls)?;
    let secured = timeout(limit, tunnel::handshake(socket, session, &pod.worker.buffers))
        .await
        .map_err(|_| Refused::Timeout { seconds: limit.as_secs() })??;
    let verified = accepted_peer(secured.peer_certificates())?;
    let codec = Codec::server(Settings::SERVER);
    let (tunnel, driver) = Tunnel::new(secured, codec, pod.worker.buffers.clone(), Keepalive::default());
    spawn_local(async move {
        let end = driver.await;
        debug!(reason = %end, "accepted tunnel closed");
    });
    let expiry = identity.not_after.min(verified.not_after());
    Ok((tunnel, verified, expiry))
}

/// Why a CONNECT was not served.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the request is not a plain CONNECT (RFC 9113 section 8.5)")]
    NotConnect,
    #[error("{} is not one SPIFFE identity", headers::AMBIT_ORIGINAL_SOURCE)]
    OriginalSource,
    #[error("no configuration yet: check that control is reachable")]
    NoSnapshot,
    #[error(transparent)]
    Inbound(#[from] InboundError),
    #[error(transparent)]
    Application(#[from] ApplicationError),
    #[error("the peer gave up before the application answered: {0}")]
    Abandoned(StreamError),
}

impl Failure {
    fn status(&self) -> u16 {
        match self {
            Self::NotConnect | Self::OriginalSource => 400,
            Self::Inbound(error) => error.status(),
            Self::NoSnapshot | Self::Application(_) | Self::Abandoned(_) => 503,
        }
    }

    fn flag(&self) -> ResponseFlag {
        match self {
            Self::Inbound(error) => error.reason(),
            Self::NotConnect
            | Self::OriginalSource
            | Self::NoSnapshot
            | Self::Application(_)
            | Self::Abandoned(_) => ResponseFlag::ConnectFailure,
        }
    }
}

async fn serve_stream(pod: Rc<Pod>, connection: Rc<Connection>, head: RequestHead, mut stream: TunnelStream) {
    let mut record = Record::inbound(connection.peer_address, connection.local);
    record.peer(connection.peer.id());
    // What it takes to admit a connection is large, and not kept while the connection lasts.
    let admitted = Box::pin(admit(&pod, &connection, &head, &stream, &mut record)).await;
    drop(head);
    match admitted {
        Ok(Admitted { application, workload, listed }) => {
            stream.accept(&[(headers::BAGGAGE, &pod.baggage.of(&workload))]);
            drop(workload);
            record.opened();
            let end = relay(stream, Rc::new(application), pod.worker.idle, listed.stop.clone()).await;
            record.finish(Carried::inbound(end));
        }
        Err(failure) => {
            stream.refuse(failure.status(), &[]);
            record.fail(failure.flag(), &failure);
        }
    }
}

/// An application that accepted a permitted connection.
struct Admitted {
    application: Socket,
    /// The pod, as the decision saw it.
    workload: Arc<Workload>,
    listed: Listed,
}

async fn admit(
    pod: &Rc<Pod>,
    connection: &Connection,
    head: &RequestHead,
    stream: &TunnelStream,
    record: &mut Record,
) -> Result<Admitted, Failure> {
    if !head.is_connect() {
        return Err(Failure::NotConnect);
    }
    let authority: Authority = head.authority().parse().map_err(InboundError::from)?;
    let forwarded_host = head.headers().text(headers::FORWARDED).and_then(headers::parse_forwarded_host);
    let original_source = original_source(head)?;
    let request = InboundRequest {
        workload: &pod.uid,
        local: connection.local,
        target: InboundTarget::Connect {
            authority: &authority,
            forwarded_host,
            original_source: original_source.as_ref(),
        },
        peer: Peer::Verified(connection.peer.id().clone()),
        peer_ip: connection.peer_address.ip(),
    };
    let snapshot = known_pod(pod).await.ok_or(Failure::NoSnapshot)?;
    let decision = inbound(&snapshot, &request)?;
    record.inbound_decided(&snapshot, &decision);
    let (permit, listed) = permit(pod, &snapshot, &decision)?;
    record.permitted(&permit);
    let application = tokio::select! {
        // Dropping the attempt closes its socket.
        application = connect_app(pod, &permit) => application?,
        reason = stream.abandoned() => return Err(Failure::Abandoned(reason)),
    };
    Ok(Admitted { application, workload: decision.workload, listed })
}

/// For whom the peer says that it speaks. A word that cannot be read is refused: without it the peer
/// might be allowed what its client is not.
fn original_source(head: &RequestHead) -> Result<Option<SpiffeId>, Failure> {
    let mut values = head.headers().all(headers::AMBIT_ORIGINAL_SOURCE);
    let Some(value) = values.next() else { return Ok(None) };
    let text = std::str::from_utf8(value).ok().filter(|_| values.next().is_none());
    text.and_then(|text| text.parse().ok()).map(Some).ok_or(Failure::OriginalSource)
}

/// A snapshot that knows the pod; after the wait, whatever there is.
pub(crate) async fn known_pod(pod: &Pod) -> Option<Arc<Snapshot>> {
    let shared = &pod.worker.shared;
    let found = shared
        .snapshots
        .wait_for(shared.config.unknown_wait, |snapshot| snapshot.workload(&pod.uid).map(|_| ()))
        .await;
    found.map(|(snapshot, ())| snapshot).or_else(|| shared.snapshots.load())
}

/// Authorizes, and lists the connection in the same step: no policy change falls in between.
pub(crate) fn permit(
    pod: &Pod,
    snapshot: &Snapshot,
    decision: &InboundDecision,
) -> Result<(Permit, Listed), InboundError> {
    let permit = authorize(snapshot, &decision.workload, &decision.connection)?;
    Ok((permit, pod.worker.flows.list(&pod.uid, Some(decision.connection.clone()))))
}
