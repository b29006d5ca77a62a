//! Opening connections out of a pod: tunnels to peers, and plain connections past the mesh.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_hbone::codec::{Codec, ConnectRequest, Settings};
use ambit_hbone::patience::is_silence;
use ambit_hbone::pool::{AcquireError, Pool};
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::{TlsError, TlsSession};
use ambit_hbone::tunnel::{self, HandshakeError, Keepalive, Tunnel, TunnelStream};
use ambit_identity::tls::TlsIdentity;
use ambit_identity::verify::{PeerRefused, expect_peer};
use ambit_mesh::decide::ResponseFlag;
use ambit_mesh::identity::IdentitySet;
use socket2::Domain;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tracing::debug;

use crate::capture::socket::{SocketError, outbound_socket, tunnel_socket};
use crate::worker::Pod;

/// What must be equal for two connections of a pod to share a tunnel, besides the certificate's
/// generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TunnelKey {
    /// Where the peer listens for HBONE.
    pub next_hop: SocketAddr,
    /// Who it must be: one of these.
    pub expected: IdentitySet,
}

/// A pod's tunnels on one worker.
pub type TunnelPool = Pool<TunnelKey, DialError>;

/// Why a connection could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No socket.
    #[error("no socket for {next_hop} in the pod's network namespace: {source}")]
    Socket {
        /// Where to.
        next_hop: SocketAddr,
        /// The cause.
        #[source]
        source: SocketError,
    },
    /// TCP did not connect in time.
    #[error("no connection to {next_hop} within {seconds} s: does a NetworkPolicy block port {port}?", port = next_hop.port())]
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
    /// TLS did not finish in time.
    #[error("no TLS with {next_hop} within {seconds} s: is an HBONE proxy listening there?")]
    HandshakeTimeout {
        /// Where to.
        next_hop: SocketAddr,
        /// How long was waited.
        seconds: u64,
    },
    /// TLS failed.
    #[error("no TLS with {next_hop}: {source}")]
    Handshake {
        /// Where to.
        next_hop: SocketAddr,
        /// The cause.
        #[source]
        source: HandshakeError,
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
}

impl DialError {
    /// Whether nothing at all came from there.
    pub fn is_silence(&self) -> bool {
        match self {
            Self::ConnectTimeout { .. } | Self::HandshakeTimeout { .. } => true,
            Self::Connect { source, .. } => is_silence(source),
            Self::Socket { .. } | Self::Handshake { .. } | Self::Peer { .. } => false,
        }
    }

    /// How metrics count it.
    pub fn flag(&self) -> ResponseFlag {
        match self {
            Self::Socket { .. } | Self::Connect { .. } => ResponseFlag::ConnectFailure,
            // A blocked port shows as silence.
            Self::ConnectTimeout { .. } => ResponseFlag::NetworkPolicy,
            Self::Handshake { source: HandshakeError::Alpn, .. } => ResponseFlag::Http2HandshakeFailure,
            Self::HandshakeTimeout { .. } | Self::Handshake { .. } | Self::Peer { .. } => {
                ResponseFlag::TlsFailure
            }
        }
    }
}

/// Opens a stream to `authority` through the peer of `key`, over a shared tunnel.
///
/// # Errors
/// When no tunnel can be dialled, or the peer's tunnels stay full.
pub async fn open_stream(
    pod: &Rc<Pod>,
    key: &TunnelKey,
    identity: &Arc<TlsIdentity>,
    request: &ConnectRequest<'_>,
) -> Result<TunnelStream, AcquireError<DialError>> {
    pod.tunnels.open(key, identity.generation, request, || dial_tunnel(pod, key, identity)).await
}

/// Opens a tunnel to the peer of `key` to see whether it answers, and lets it go.
///
/// # Errors
/// See [`DialError`].
pub async fn try_tunnel(pod: &Rc<Pod>, key: &TunnelKey, identity: &TlsIdentity) -> Result<(), DialError> {
    dial_tunnel(pod, key, identity).await.map(|tunnel| tunnel.shutdown())
}

async fn dial_tunnel(pod: &Rc<Pod>, key: &TunnelKey, identity: &TlsIdentity) -> Result<Tunnel, DialError> {
    let next_hop = key.next_hop;
    let limit = pod.worker.shared.config.connect_timeout;
    let socket = connect_tunnel(pod, next_hop).await?;
    let session = TlsSession::client(Arc::clone(&identity.client))
        .map_err(|error: TlsError| DialError::Handshake { next_hop, source: HandshakeError::Tls(error) })?;
    let secured = timeout(limit, tunnel::handshake(socket, session, &pod.worker.buffers))
        .await
        .map_err(|_| DialError::HandshakeTimeout { next_hop, seconds: limit.as_secs() })?
        .map_err(|source| DialError::Handshake { next_hop, source })?;
    let peer = expect_peer(secured.peer_certificates(), &key.expected)
        .map_err(|source| DialError::Peer { next_hop, source })?;
    let codec = Codec::client(Settings::CLIENT);
    let (tunnel, driver) = Tunnel::new(secured, codec, pod.worker.buffers.clone(), Keepalive::default());
    debug!(%next_hop, peer.identity = %peer.id(), generation = identity.generation, "tunnel opened");
    spawn_local(async move {
        let end = driver.await;
        debug!(%next_hop, reason = %end, "tunnel closed");
    });
    Ok(tunnel)
}

/// Connects a plain socket out of the pod's network namespace, past its redirection.
///
/// # Errors
/// See [`DialError`].
pub async fn connect(pod: &Pod, next_hop: SocketAddr) -> Result<Socket, DialError> {
    let socket = outbound_socket(&pod.netns, &pod.marks, Domain::for_address(next_hop));
    finish_connecting(pod, socket, next_hop).await
}

async fn connect_tunnel(pod: &Pod, next_hop: SocketAddr) -> Result<Socket, DialError> {
    let socket = tunnel_socket(&pod.netns, &pod.marks, Domain::for_address(next_hop));
    finish_connecting(pod, socket, next_hop).await
}

async fn finish_connecting(
    pod: &Pod,
    socket: Result<socket2::Socket, SocketError>,
    next_hop: SocketAddr,
) -> Result<Socket, DialError> {
    let limit = pod.worker.shared.config.connect_timeout;
    let failed = |source| DialError::Connect { next_hop, source };
    let socket = socket.map_err(|source| DialError::Socket { next_hop, source })?;
    match socket.connect(&next_hop.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        outcome => outcome.map_err(failed)?,
    }
    let socket = Socket::of_nonblocking(socket.into()).map_err(failed)?;
    timeout(limit, socket.connected())
        .await
        .map_err(|_| DialError::ConnectTimeout { next_hop, seconds: limit.as_secs() })?
        .map_err(failed)?;
    Ok(socket)
}

/// Keeps a pod's tunnels in order until aborted: lets idle ones go, moves to a new certificate, and
/// ends those whose certificate is too old.
pub async fn upkeep(pod: Rc<Pod>) {
    let config = Arc::clone(&pod.worker.shared.config);
    let mut idle = HashSet::new();
    let mut identities = pod.identities();
    let mut generations = Generations::default();
    let mut sweep = tokio::time::interval(config.tunnel_idle_timeout.max(SWEEP_MIN) / 2);
    loop {
        tokio::select! {
            // Neither arm loses anything when the other is taken.
            _ = sweep.tick() => pod.tunnels.sweep(&mut idle),
            changed = identities.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
        if let Some(identity) = identities.borrow_and_update().as_ref() {
            generations.note(identity);
        }
        let current = generations.current();
        pod.tunnels.retire(|_, generation| generation < current);
        let ended = generations.too_old(SystemTime::now(), config.tunnel_grace);
        pod.tunnels.close(|_, generation| ended.contains(&generation));
    }
}

/// When the certificates of a pod expire, newest last.
#[derive(Default)]
struct Generations {
    known: BTreeMap<u64, SystemTime>,
}

impl Generations {
    fn note(&mut self, identity: &TlsIdentity) {
        self.known.insert(identity.generation, identity.not_after);
    }

    fn current(&self) -> u64 {
        self.known.last_key_value().map_or(0, |(generation, _)| *generation)
    }

    /// Removes and returns those that expired longer than `grace` ago.
    fn too_old(&mut self, now: SystemTime, grace: Duration) -> Vec<u64> {
        let expired = |not_after: SystemTime| not_after.checked_add(grace).is_some_and(|end| end < now);
        let ended: Vec<u64> = self
            .known
            .iter()
            .filter(|(_, not_after)| expired(**not_after))
            .map(|(generation, _)| *generation)
            .collect();
        ended.iter().for_each(|generation| {
            self.known.remove(generation);
        });
        ended
    }
}

/// The shortest idle time that is worth a sweep.
const SWEEP_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_is_too_old_once_its_certificate_expired_longer_ago_than_the_grace() {
        let start = SystemTime::UNIX_EPOCH;
        let at = |seconds| start + Duration::from_secs(seconds);
        let grace = Duration::from_secs(30);
        let mut generations = Generations { known: BTreeMap::from([(1, at(60)), (2, at(120))]) };
        assert_eq!(generations.current(), 2);
        assert!(generations.too_old(at(90), grace).is_empty(), "the grace is not over yet");
        assert_eq!(generations.too_old(at(91), grace), [1]);
        assert!(generations.too_old(at(91), grace).is_empty(), "each is named once");
        assert_eq!(generations.too_old(at(1000), grace), [2]);
    }
}
