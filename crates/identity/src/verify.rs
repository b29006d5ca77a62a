//! Who the far end of a finished handshake is.
//!
//! The handshake proved that the certificate is one of the mesh; this module says whose, and
//! whether it is one of those that were wanted.

use std::time::SystemTime;

use ambit_mesh::identity::{IdentitySet, SpiffeId};
use ambit_mesh::policy::Peer;
use rustls::pki_types::CertificateDer;

use crate::certificate;
use crate::spiffe::{self, NotASpiffeLeaf};

/// A peer whose certificate was verified by a handshake and read here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VerifiedPeer {
    id: SpiffeId,
    not_after: SystemTime,
}

impl VerifiedPeer {
    /// Who it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// When the certificate that it proved this with expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }
}

impl From<VerifiedPeer> for Peer {
    fn from(peer: VerifiedPeer) -> Self {
        Self::Verified(peer.id)
    }
}

/// The peer of an accepted connection. `presented` is what
/// `rustls::ServerConnection::peer_certificates` gives after a handshake with
/// [`crate::tls::TlsIdentity::server`], which has already checked the trust domain.
///
/// # Errors
/// When no certificate was presented or it names no workload; neither happens with that
/// configuration.
pub fn accepted_peer(presented: &[CertificateDer<'_>]) -> Result<VerifiedPeer, PeerRefused> {
    let leaf = presented.first().ok_or(PeerRefused::NoCertificate)?;
    let leaf = spiffe::parse(leaf)?;
    let (_, not_after) = certificate::validity(&leaf);
    Ok(VerifiedPeer { id: spiffe::from_parsed(&leaf)?, not_after })
}

/// The peer of an opened connection, which must be one of `expected`. `presented` is what
/// `rustls::ClientConnection::peer_certificates` gives after a handshake with
/// [`crate::tls::TlsIdentity::client`]. To be called before any CONNECT is sent.
///
/// # Errors
/// When the peer is somebody else.
pub fn expect_peer(
    presented: &[CertificateDer<'_>],
    expected: &IdentitySet,
) -> Result<VerifiedPeer, PeerRefused> {
    let peer = accepted_peer(presented)?;
    if expected.contains(&peer.id) {
        return Ok(peer);
    }
    Err(PeerRefused::Unexpected { presented: peer.id, expected: expected.clone() })
}

/// Why a peer is not talked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerRefused {
    /// It presented nothing.
    #[error("the peer presented no certificate")]
    NoCertificate,
    /// Its certificate names no workload.
    #[error(transparent)]
    Leaf(#[from] NotASpiffeLeaf),
    /// It belongs to a trust domain that is not accepted.
    #[error("the peer is {presented}, whose trust domain is neither ours nor one of its aliases")]
    TrustDomain {
        /// Who it is.
        presented: SpiffeId,
    },
    /// It is somebody else.
    #[error("the peer is {presented}, but {expected} was expected: its address may have been reused")]
    Unexpected {
        /// Who it is.
        presented: SpiffeId,
        /// Who was wanted.
        expected: IdentitySet,
    },
}
