//! The TLS configurations of one workload, made once per certificate.
//!
//! A handshake made with them proves that the far end holds a certificate of the mesh. Whether it
//! is the workload that was wanted is [`crate::verify`]'s question.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use ambit_mesh::identity::{SpiffeId, TrustDomain};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::certificate::{CertificateRefused, WorkloadCertificate, root_store};
use verifiers::{MeshClientVerifier, MeshServerVerifier};

mod verified_chains;
mod verifiers;

/// The application protocol of HBONE; both ends insist on it.
pub const ALPN_H2: &[u8] = b"h2";

/// Both roles of one workload's TLS, made from one certificate.
///
/// TLS 1.3 only, without resumption, early data or server name: every connection proves both ends'
/// certificates anew.
#[derive(Clone)]
pub struct TlsIdentity {
    /// Grows with every certificate and never repeats in a process, so that a connection made with
    /// an older one can be told.
    pub generation: u64,
    /// Who it is.
    pub id: SpiffeId,
    /// For accepted connections: demands a certificate of an accepted trust domain.
    pub server: Arc<ServerConfig>,
    /// For opened connections: accepts any workload of the mesh; see [`crate::verify::expect_peer`].
    pub client: Arc<ClientConfig>,
    /// When the certificate expires.
    pub not_after: SystemTime,
}

impl TlsIdentity {
    /// Builds both configurations.
    ///
    /// # Errors
    /// When rustls cannot use the key or the roots.
    pub fn new(
        certificate: &WorkloadCertificate,
        generation: u64,
        trust: &TrustPolicy,
    ) -> Result<Self, TlsIdentityError> {
        Ok(Self {
            generation,
            id: certificate.id().clone(),
            server: Arc::new(server_config(certificate, trust)?),
            client: Arc::new(client_config(certificate)?),
            not_after: certificate.not_after(),
        })
    }
}

impl fmt::Debug for TlsIdentity {
    /// Without the configurations, which hold the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity")
            .field("id", &self.id)
            .field("generation", &self.generation)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

/// Which trust domains may connect, besides a workload's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustPolicy {
    /// `trustDomainAliases` of the mesh.
    pub aliases: BTreeSet<TrustDomain>,
}

impl TrustPolicy {
    fn accepted(&self, own: &TrustDomain) -> BTreeSet<TrustDomain> {
        self.aliases.iter().chain([own]).cloned().collect()
    }
}

/// Why no configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsIdentityError {
    /// The roots cannot be used.
    #[error(transparent)]
    Roots(#[from] CertificateRefused),
    /// rustls refused the key or a parameter.
    #[error("rustls cannot use the certificate of {id}")]
    Rustls {
        /// Whose certificate.
        id: SpiffeId,
        /// What it said.
        #[source]
        source: rustls::Error,
    },
    /// The client verifier cannot be built.
    #[error("no verifier can be built from the roots of {id}")]
    Verifier {
        /// Whose roots.
        id: SpiffeId,
        /// What rustls said.
        #[source]
        source: rustls::server::VerifierBuilderError,
    },
}

/// The one provider of cryptography of all of Ambit's TLS, passed explicitly everywhere.
///
/// AES-128-GCM before AES-256-GCM: it opens a quarter more per core (measured 13.8 against 11 GB/s)
/// and is no weaker than the P-256 keys around it; no ChaCha20, as in Istio. The hybrid key
/// exchange leads and carries an X25519 share of its own, so a peer without it costs no round trip.
pub fn provider() -> &'static Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use aws_lc_rs::{cipher_suite, kx_group};
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
            ],
            kx_groups: vec![
                kx_group::X25519MLKEM768,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ],
            ..aws_lc_rs::default_provider()
        })
    });
    &PROVIDER
}

fn server_config(
    certificate: &WorkloadCertificate,
    trust: &TrustPolicy,
) -> Result<ServerConfig, TlsIdentityError> {
    let id = certificate.id();
    let roots = Arc::new(root_store(certificate.roots())?);
    let verifier = MeshClientVerifier::new(roots, trust.accepted(id.trust_domain()))
        .map_err(|source| TlsIdentityError::Verifier { id: id.clone(), source })?;
    let mut config = ServerConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .map(|builder| builder.with_client_cert_verifier(Arc::new(verifier)))
        .and_then(|builder| {
            builder.with_single_cert(certificate.chain().to_vec(), certificate.key().clone_key())
        })
        .map_err(|source| TlsIdentityError::Rustls { id: id.clone(), source })?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // A resumed session would carry a certificate that was checked under an older policy.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

fn client_config(certificate: &WorkloadCertificate) -> Result<ClientConfig, TlsIdentityError> {
    let id = certificate.id();
    let verifier = MeshServerVerifier::new(root_store(certificate.roots())?);
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .map(|builder| builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)))
        .and_then(|builder| {
            builder.with_client_auth_cert(certificate.chain().to_vec(), certificate.key().clone_key())
        })
        .map_err(|source| TlsIdentityError::Rustls { id: id.clone(), source })?;
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    Ok(config)
}

#[cfg(test)]
mod tests;
