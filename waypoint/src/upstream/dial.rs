//! Opening connections to endpoints: plain, or as a stream of a tunnel that streams share.

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_hbone::codec::{Codec, ConnectRequest, OpenError, Settings};
use ambit_hbone::headers;
use ambit_hbone::patience::{Heard, Silence, is_silence};
use ambit_hbone::pool::{AcquireError, Pool};
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{self, HandshakeError, Keepalive, Response, StreamError, Tunnel, TunnelStream};
use ambit_identity::tls::TlsIdentity;
use ambit_identity::verify::{PeerRefused, expect_peer};
use ambit_mesh::identity::IdentitySet;
use metrics::counter;
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::debug;

use super::{Carrier, Key};
use crate::wire::Wire;
use crate::worker::Worker;

/// What must be equal for two streams to share a tunnel, besides the certificate's generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Where the peer listens for HBONE.
    pub next_hop: SocketAddr,
    /// Who it must be: one of these.
    pub expected: IdentitySet,
}

/// The tunnels of one worker.
pub type TunnelPool = Pool<TunnelKey, DialError>;

/// Why an endpoint could not be connected to.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// We have no certificate.
    #[error("no certificate for this waypoint yet: check that control is reachable and grants it")]
    NoIdentity,
    /// TCP did not connect in time.
    #[error("no connection to {next_hop} within {seconds} s: does a NetworkPolicy block port {}?", next_hop.port())]
    ConnectTimeout {
        /// Where to.
        next_hop: SocketAddr,
        /// How long was waited.
        seconds: u64,
    },
    /// TCP was refused or failed.
    #[error("no connection to {next_hop}: {source}")]
    Connect {
        /// Where to.
        next_hop: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// TLS failed, or took too long.
    #[error("no TLS with {next_hop}: {source}")]
    Handshake {
        /// Where to.
        next_hop: SocketAddr,
        /// The cause.
        #[source]
        source: HandshakeError,
    },
    /// TLS took too long.
    #[error("no TLS with {next_hop} within {seconds} s: is an HBONE proxy listening there?")]
    HandshakeTimeout {
        /// Where to.
        next_hop: SocketAddr,
        /// How long was waited.
        seconds: u64,
    },
    /// Nothing came from there for a while, and there are others.
    #[error("{next_hop} is silent, and another endpoint is there: is its node reachable?")]
    Silent {
        /// Where to.
        next_hop: SocketAddr,
    },
    /// Somebody else answered.
    #[error("{next_hop} is not who was expected: {source}")]
    Peer {
        /// Where to.
        next_hop: SocketAddr,
        /// The cause.
        #[source]
        source: PeerRefused,
    },
    /// The same, of a dial that another request made for both.
    #[error("{0}")]
    Shared(Rc<DialError>),
    /// No room for another stream.
    #[error("the tunnels to {next_hop} stay full although new ones can be dialled")]
    NoRoom {
        /// Where to.
        next_hop: SocketAddr,
    },
    /// The request cannot be sent.
    #[error("no CONNECT to {next_hop}: {source}")]
    Request {
        /// Where to.
        next_hop: SocketAddr,
        /// The cause.
        #[source]
        source: OpenError,
    },
    /// The stream ended before it was answered.
    #[error("the CONNECT to {next_hop} was not answered: {source}")]
    Stream {
        /// Where to.
        next_hop: SocketAddr,
        /// The cause.
        #[source]
        source: StreamError,
    },
    /// It was answered too late.
    #[error("no answer to the CONNECT from {next_hop} within {seconds} s")]
    ResponseTimeout {
        /// Where to.
        next_hop: SocketAddr,
        /// How long was waited.
        seconds: u64,
    },
    /// It was refused.
    #[error("{next_hop} refused the CONNECT with status {status}{}", if *status == 401 { ": a policy of the endpoint denies it" } else { "" })]
    Status {
        /// Where to.
        next_hop: SocketAddr,
        /// The status.
        status: u16,
    },
    /// HTTP/2 did not start.
    #[error("the endpoint does not speak HTTP/2: {0}")]
    Http2(String),
}

impl DialError {
    /// Whether the endpoint's policy refused it: no other endpoint will think otherwise.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Shared(error) => error.is_denied(),
            Self::Status { status, .. } => *status == 401,
            Self::NoIdentity
            | Self::ConnectTimeout { .. }
            | Self::Connect { .. }
            | Self::Handshake { .. }
            | Self::HandshakeTimeout { .. }
            | Self::Silent { .. }
            | Self::Peer { .. }
            | Self::NoRoom { .. }
            | Self::Request { .. }
            | Self::Stream { .. }
            | Self::ResponseTimeout { .. }
            | Self::Http2(_) => false,
        }
    }

    /// Whether nothing at all came from there.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::Shared(error) => error.is_silence(),
            Self::Silent { .. } | Self::ConnectTimeout { .. } | Self::HandshakeTimeout { .. } => true,
            Self::Connect { source, .. } => is_silence(source),
            Self::NoIdentity
            | Self::Handshake { .. }
            | Self::Peer { .. }
            | Self::NoRoom { .. }
            | Self::Request { .. }
            | Self::Stream { .. }
            | Self::ResponseTimeout { .. }
            | Self::Status { .. }
            | Self::Http2(_) => false,
        }
    }
}

/// Whom a connection is made for.
#[derive(Clone)]
pub struct OnBehalf<'a> {
    /// The client's address.
    pub address: SocketAddr,
    /// Host name of the service that it called.
    pub service: Option<&'a str>,
    /// Whether another endpoint could be connected to instead: asked when this one is silent.
    pub is_other_there: &'a dyn Fn() -> bool,
}

/// Connects to an endpoint.
///
/// # Errors
/// See [`DialError`].
pub async fn connect(worker: &Rc<Worker>, key: &Key, caller: &OnBehalf<'_>) -> Result<Wire, DialError> {
    counter!("ambit_upstream_connections_total").increment(1);
    match &key.carrier {
        Carrier::Plain { address } => {
            let stream = unless_silent(worker, *address, caller, connect_tcp(worker, *address)).await??;
            Ok(Wire::of_plain(stream))
        }
        Carrier::Hbone { next_hop, authority, expected } => {
            let tunnel = TunnelKey { next_hop: *next_hop, expected: expected.clone() };
            let first = request(worker, &tunnel, *authority, key, caller).await;
            match first {
                // The tunnel went away before it took the stream: another one is asked.
                Err(DialError::Stream { .. }) => request(worker, &tunnel, *authority, key, caller).await,
                outcome => outcome,
            }
        }
    }
}

async fn request(
    worker: &Rc<Worker>,
    tunnel: &TunnelKey,
    authority: SocketAddr,
    key: &Key,
    caller: &OnBehalf<'_>,
) -> Result<Wire, DialError> {
    let next_hop = tunnel.next_hop;
    let identity = worker.identity().await.ok_or(DialError::NoIdentity)?;
    let authority = authority.to_string();
    let forwarded = headers::forwarded(caller.address, caller.service);
    let client = key.client.as_ref().map(ToString::to_string);
    let baggage = worker.own_baggage();
    let mut said = vec![(headers::FORWARDED, forwarded.as_str()), (headers::BAGGAGE, baggage.as_str())];
    said.extend(client.as_deref().map(|client| (headers::AMBIT_ORIGINAL_SOURCE, client)));
    let connect = ConnectRequest { authority: &authority, headers: &said };
    let dial = || dial(worker, tunnel, &identity);
    let opening = worker.tunnels.open(tunnel, identity.generation, &connect, dial);
    let opened = unless_silent(worker, next_hop, caller, opening).await?;
    let mut stream = opened.map_err(|error| match error {
        AcquireError::Dial(error) => DialError::Shared(error),
        AcquireError::Full => DialError::NoRoom { next_hop },
        AcquireError::Refused(source) => DialError::Request { next_hop, source },
    })?;
    let response = response(worker, &mut stream, next_hop, caller).await?;
    match response.status {
        200 => Ok(Wire::of_tunnel(stream)),
        status => Err(DialError::Status { next_hop, status }),
    }
}

/// The peer's answer. It may take its time as long as the peer gives a sign of life; one that does not is left
/// where another endpoint is there.
async fn response(
    worker: &Worker,
    stream: &mut TunnelStream,
    next_hop: SocketAddr,
    caller: &OnBehalf<'_>,
) -> Result<Response, DialError> {
    let tunnel = stream.tunnel();
    let failed = |source| DialError::Stream { next_hop, source };
    let mut answer = pin!(stream.response());
    match worker.patience.listen(&tunnel, answer.as_mut()).await {
        Heard::Answer(response) => return response.map_err(failed),
        Heard::Silence if (caller.is_other_there)() => return Err(DialError::Silent { next_hop }),
        Heard::Silence | Heard::SignOfLife => {}
    }
    // The far proxy connects to its application within the same limit before it answers.
    let limit = 2 * worker.shared.config.connect_timeout;
    within(limit, answer, |seconds| DialError::ResponseTimeout { next_hop, seconds }).await?.map_err(failed)
}

/// Waits for a connection, but not for long where nothing comes of it and another endpoint is there.
pub(super) async fn unless_silent<T>(
    worker: &Worker,
    next_hop: SocketAddr,
    caller: &OnBehalf<'_>,
    connecting: impl Future<Output = T>,
) -> Result<T, DialError> {
    let mut connecting = pin!(connecting);
    match worker.patience.wait(&mut connecting).await {
        Ok(outcome) => Ok(outcome),
        Err(Silence) if (caller.is_other_there)() => Err(DialError::Silent { next_hop }),
        Err(Silence) => Ok(connecting.await),
    }
}

/// Connects to an endpoint, or to its node agent, to see whether it answers, and lets the connection go.
///
/// # Errors
/// See [`DialError`].
pub(super) async fn try_carrier(worker: &Worker, carrier: &Carrier) -> Result<(), DialError> {
    match carrier {
        Carrier::Plain { address } => connect_tcp(worker, *address).await.map(drop),
        Carrier::Hbone { next_hop, expected, .. } => {
            let identity = worker.identity().await.ok_or(DialError::NoIdentity)?;
            let key = TunnelKey { next_hop: *next_hop, expected: expected.clone() };
            dial(worker, &key, &identity).await.map(|tunnel| tunnel.shutdown())
        }
    }
}

async fn dial(worker: &Worker, key: &TunnelKey, identity: &TlsIdentity) -> Result<Tunnel, DialError> {
    let next_hop = key.next_hop;
    counter!("ambit_upstream_tunnels_total").increment(1);
    let failed = |source| DialError::Connect { next_hop, source };
    let stream = connect_tcp(worker, next_hop).await?;
    let socket = Socket::new(stream.into_std().map_err(failed)?).map_err(failed)?;
    let handshake_failed = |source| DialError::Handshake { next_hop, source };
    let session = TlsSession::client(Arc::clone(&identity.client))
        .map_err(|error| handshake_failed(HandshakeError::Tls(error)))?;
    let limit = worker.shared.config.connect_timeout;
    let secured = within(limit, tunnel::handshake(socket, session, &worker.buffers), |seconds| {
        DialError::HandshakeTimeout { next_hop, seconds }
    })
    .await?
    .map_err(handshake_failed)?;
    expect_peer(secured.peer_certificates(), &key.expected)
        .map_err(|source| DialError::Peer { next_hop, source })?;
    let codec = Codec::client(Settings::CLIENT);
    let (tunnel, driver) = Tunnel::new(secured, codec, worker.buffers.clone(), Keepalive::default());
    spawn_local(async move {
        let end = driver.await;
        debug!(%next_hop, reason = %end, "tunnel to an endpoint closed");
    });
    Ok(tunnel)
}

async fn connect_tcp(worker: &Worker, next_hop: SocketAddr) -> Result<TcpStream, DialError> {
    let limit = worker.shared.config.connect_timeout;
    let stream = within(limit, TcpStream::connect(next_hop), |seconds| DialError::ConnectTimeout {
        next_hop,
        seconds,
    })
    .await?
    .map_err(|source| DialError::Connect { next_hop, source })?;
    // Best effort: without it small messages are late, not wrong.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn within<T>(
    limit: Duration,
    future: impl Future<Output = T>,
    error: impl FnOnce(u64) -> DialError,
) -> Result<T, DialError> {
    timeout(limit, future).await.map_err(|_| error(limit.as_secs()))
}

/// Keeps a worker's connections in order until aborted: lets idle ones go, those that are for everybody where
/// a new policy names clients, and tunnels of an older certificate, which end with it at the latest after
/// the grace.
pub async fn upkeep(worker: Rc<Worker>) {
    let config = Arc::clone(&worker.shared.config);
    let mut identities = worker.shared.identity.clone();
    let mut snapshots = worker.shared.snapshots.clone();
    let mut idle = HashSet::new();
    let mut expiries: Vec<(u64, SystemTime)> = Vec::new();
    let mut sweeps = tokio::time::interval(config.tunnel_idle_timeout.max(SWEEP_MIN) / 2);
    let mut connections =
        tokio::time::interval(config.upstream_idle_timeout.clamp(SWEEP_MIN, 2 * CONNECTIONS_EVERY) / 2);
    loop {
        tokio::select! {
            // No arm loses anything when another is taken.
            _ = sweeps.tick() => worker.tunnels.sweep(&mut idle),
            _ = connections.tick() => worker.connections.sweep(config.upstream_idle_timeout),
            changed = identities.changed() => if changed.is_err() { return },
            true = snapshots.changed() => {
                if let Some(snapshot) = snapshots.load() {
                    worker.connections.leave_shared(&snapshot);
                }
            }
        }
        let Some(current) = identities.borrow_and_update().clone() else { continue };
        if expiries.last().is_none_or(|(generation, _)| *generation < current.generation) {
            expiries.push((current.generation, current.not_after));
            worker.tunnels.retire(|_, generation| generation < current.generation);
        }
        let now = SystemTime::now();
        let too_old = |end: SystemTime| end.checked_add(config.tunnel_grace).is_some_and(|end| end < now);
        let ended: Vec<u64> =
            expiries.iter().filter(|(_, end)| too_old(*end)).map(|(generation, _)| *generation).collect();
        if !ended.is_empty() {
            worker.tunnels.close(|_, generation| ended.contains(&generation));
            expiries.retain(|(generation, _)| !ended.contains(generation));
        }
    }
}

/// How often idle connections are looked at, at least: an agent that is replaced waits until it is left.
const CONNECTIONS_EVERY: Duration = Duration::from_secs(2);

/// The shortest idle time that is worth a sweep.
const SWEEP_MIN: Duration = Duration::from_secs(1);
