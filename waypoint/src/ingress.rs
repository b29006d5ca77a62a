//! Tunnels of clients' node agents: handshake, and what each CONNECT asks for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_hbone::codec::{Codec, Reason, RequestHead, Settings};
use ambit_hbone::headers::{self, Baggage};
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{self, HandshakeError, Keepalive, Tunnel, TunnelStream};
use ambit_identity::verify::{PeerRefused, VerifiedPeer, accepted_peer};
use ambit_mesh::address::{Authority, InvalidAuthority, canonical_socket};
use ambit_mesh::http::{Client, NotServed, Reading};
use ambit_mesh::policy::Peer;
use ambit_mesh::service::AppProtocol;
use metrics::counter;
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, warn};

use crate::claimed::Claimed;
use crate::downstream;
use crate::parting::{Parting, Serving};
use crate::wire::Wire;
use crate::worker::{Leaving, Worker};

/// Who is at the far end of a connection, and what it was opened for.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Who it is, as policies see it.
    pub client: Client,
    /// Its identity, as the tunnel's certificate proved it.
    pub identity: ambit_mesh::identity::SpiffeId,
    /// Its address.
    pub address: SocketAddr,
    /// Our own end.
    pub local: SocketAddr,
    /// What it asked for.
    pub authority: Authority,
    /// What its node agent says of it.
    pub claimed: Option<Claimed>,
    /// Whether what it asked for is bound to this waypoint no more.
    pub parting: Parting,
}

impl Caller {
    /// Whether its connection is to go, and how.
    pub(crate) fn leaving(&self, worker: &Worker) -> Option<Leaving> {
        worker.leaving().or_else(|| self.parting.end().map(|idle_until| Leaving { idle_until }))
    }

    /// Waits until its connection is to go.
    pub(crate) async fn until_leaving(&self, worker: &Worker) -> Leaving {
        tokio::select! {
            leaving = worker.until_leaving() => leaving,
            idle_until = self.parting.begins() => Leaving { idle_until },
        }
    }
}

/// Serves one connection to the HBONE port until its tunnel is over.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, peer: SocketAddr) {
    let peer = canonical_socket(peer);
    let local = stream.local_addr().map(canonical_socket).unwrap_or(peer);
    // Best effort: without it small messages are late, not wrong.
    let _ = stream.set_nodelay(true);
    let (tunnel, verified, expiry) = match secure(&worker, stream).await {
        Ok(secured) => secured,
        Err(error) => {
            counter!("ambit_downstream_handshakes_failed_total").increment(1);
            warn!(src.addr = %peer, %error, "connection refused");
            return;
        }
    };
    debug!(src.addr = %peer, src.identity = %verified.id(), "tunnel accepted");
    let _listed = worker.accepted.list(&tunnel);
    let last = expiry.duration_since(SystemTime::now()).unwrap_or_default();
    let last_moment = sleep(last.saturating_add(worker.shared.config.tunnel_grace));
    tokio::pin!(last_moment);
    loop {
        let request = tokio::select! {
            // A request that was not taken waits for the next look.
            request = tunnel.next_request() => request,
            () = &mut last_moment, if !tunnel.is_leaving() => {
                tunnel.close(Reason::NoError);
                continue;
            }
        };
        let Some((head, stream)) = request else { return };
        spawn_local(serve_stream(Rc::clone(&worker), verified.clone(), (peer, local), head, stream));
    }
}

/// The tunnels that others opened, on one worker.
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

/// Why a connection to the HBONE port did not become a tunnel.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no certificate for this waypoint yet: check that control is reachable and grants it")]
    NoIdentity,
    #[error("no TLS handshake within {seconds} s")]
    Timeout { seconds: u64 },
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Peer(#[from] PeerRefused),
}

async fn secure(worker: &Worker, stream: TcpStream) -> Result<(Tunnel, VerifiedPeer, SystemTime), Refused> {
    let identity = worker.identity().await.ok_or(Refused::NoIdentity)?;
    let socket = Socket::new(stream).map_err(HandshakeError::Connect)?;
    let session = TlsSession::server(Arc::clone(&identity.server)).map_err(HandshakeError::Tls)?;
    let limit = worker.shared.config.connect_timeout;
    let secured = timeout(limit, tunnel::handshake(socket, session, &worker.buffers))
        .await
        .map_err(|_| Refused::Timeout { seconds: limit.as_secs() })??;
    let verified = accepted_peer(secured.peer_certificates())?;
    let codec = Codec::server(Settings::SERVER);
    let (tunnel, driver) = Tunnel::new(secured, codec, worker.buffers.clone(), Keepalive::default());
    spawn_local(async move {
        let end = driver.await;
        debug!(reason = %end, "accepted tunnel closed");
    });
    let expiry = identity.not_after.min(verified.not_after());
    Ok((tunnel, verified, expiry))
}

/// How long a CONNECT for what is not served here waits to be: what is bound to a waypoint reaches agents and waypoints
/// each at its own time.
const BOUND_WITHIN: Duration = Duration::from_secs(1);

/// Why a CONNECT was not served.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the request is not a plain CONNECT (RFC 9113 section 8.5)")]
    NotConnect,
    #[error("no configuration yet: check that control is reachable")]
    NoSnapshot,
    #[error(transparent)]
    Authority(#[from] InvalidAuthority),
    #[error(transparent)]
    NotServed(#[from] NotServed),
}

impl Failure {
    fn status(&self) -> u16 {
        match self {
            Self::NotConnect | Self::Authority(_) => 400,
            Self::NotServed(NotServed::Unplaced) | Self::NoSnapshot => 503,
            Self::NotServed(
                NotServed::Unknown { .. } | NotServed::NotBound { .. } | NotServed::NoSuchPort { .. },
            ) => 404,
        }
    }
}

async fn serve_stream(
    worker: Rc<Worker>,
    peer: VerifiedPeer,
    (address, local): (SocketAddr, SocketAddr),
    head: RequestHead,
    mut stream: TunnelStream,
) {
    let _counted = worker.count();
    let identity = peer.id().clone();
    let client = Client { peer: Peer::Verified(identity.clone()), ip: address.ip() };
    match admit(&worker, &head, &client).await {
        Ok((authority, protocol, until)) => {
            stream.accept(&[(headers::BAGGAGE, &worker.own_baggage())]);
            let claimed = head.headers().all(headers::BAGGAGE);
            let now = std::time::Instant::now();
            let claimed = worker.claims.borrow_mut().take(&Baggage::parse(claimed), &identity, now);
            let parting = worker.destinations.hold(&authority, until);
            let caller = Caller { client, identity, address, local, authority, claimed, parting };
            downstream::serve(&worker, Rc::new(caller), Wire::of_tunnel(stream), protocol).await;
        }
        Err(failure) => {
            counter!("ambit_downstream_connects_refused_total").increment(1);
            tracing::event!(
                target: "access", parent: None, tracing::Level::WARN,
                src.addr = %address, src.identity = %peer.id(), dst.addr = head.authority(),
                error = %failure, "connection refused"
            );
            stream.refuse(failure.status(), &[]);
        }
    }
}

/// What a CONNECT is for, and the protocol that is spoken there: where a route is of connections nobody looks for
/// requests. And until when, if it is bound to this waypoint no more.
async fn admit(
    worker: &Worker,
    head: &RequestHead,
    client: &Client,
) -> Result<(Authority, AppProtocol, Option<Instant>), Failure> {
    if !head.is_connect() {
        return Err(Failure::NotConnect);
    }
    let authority: Authority = head.authority().parse()?;
    let wait = worker.shared.config.unknown_wait;
    let deadline = Instant::now() + wait.min(BOUND_WITHIN);
    let mut changes = worker.shared.snapshots.from_now();
    worker.shared.snapshots.first(wait).await.ok_or(Failure::NoSnapshot)?;
    let Serving { snapshot, destination, until } = loop {
        match worker.shared.snapshots.serving(&authority).ok_or(Failure::NoSnapshot)? {
            Ok(serving) => break serving,
            Err(not_served) => {
                // Agents may have heard of a binding before we have.
                if !matches!(timeout_at(deadline, changes.changed()).await, Ok(true)) {
                    return Err(not_served.into());
                }
            }
        }
    };
    let protocol = match snapshot.reading(&destination, client) {
        Reading::Requests => destination.protocol,
        Reading::ServerName | Reading::Nothing => AppProtocol::Tcp,
    };
    Ok((authority, protocol, until))
}
