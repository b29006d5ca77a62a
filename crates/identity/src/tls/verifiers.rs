//! What a handshake demands of the far end's certificate.
//!
//! Chain, validity and usage are webpki's; the SPIFFE identity and its trust domain are ours. DNS
//! names play no part.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ambit_mesh::identity::TrustDomain;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    SignatureScheme,
};

use super::provider;
use super::verified_chains::VerifiedChains;
use crate::spiffe;
use crate::verify::PeerRefused;

/// The server's side: the client must present a certificate of an accepted trust domain.
pub(super) struct MeshClientVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domains: BTreeSet<TrustDomain>,
    verified: VerifiedChains,
}

impl MeshClientVerifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        trust_domains: BTreeSet<TrustDomain>,
    ) -> Result<Self, VerifierBuilderError> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, provider().clone()).build()?;
        Ok(Self { chain, trust_domains, verified: VerifiedChains::default() })
    }
}

impl ClientCertVerifier for MeshClientVerifier {
    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.verified.contains(leaf, intermediates, now) {
            return Ok(ClientCertVerified::assertion());
        }
        let verified = self.chain.verify_client_cert(leaf, intermediates, now)?;
        let id = spiffe::from_certificate(leaf).map_err(|refused| refusal(refused.into()))?;
        if !self.trust_domains.contains(id.trust_domain()) {
            return Err(refusal(PeerRefused::TrustDomain { presented: id }));
        }
        self.verified.insert(leaf, intermediates);
        Ok(verified)
    }

    fn client_auth_mandatory(&self) -> bool {
        true
    }

    /// None: a workload has one certificate, so there is nothing to choose by hints.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

impl fmt::Debug for MeshClientVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeshClientVerifier")
            .field("trust_domains", &self.trust_domains)
            .finish_non_exhaustive()
    }
}

/// The client's side: the server must be some workload of the mesh.
#[derive(Debug)]
pub(super) struct MeshServerVerifier {
    roots: RootCertStore,
    verified: VerifiedChains,
}

impl MeshServerVerifier {
    pub(super) fn new(roots: RootCertStore) -> Self {
        Self { roots, verified: VerifiedChains::default() }
    }
}

impl ServerCertVerifier for MeshServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.verified.contains(leaf, intermediates, now) {
            return Ok(ServerCertVerified::assertion());
        }
        let algorithms = provider().signature_verification_algorithms.all;
        let parsed = ParsedCertificate::try_from(leaf)?;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        spiffe::from_certificate(leaf).map_err(|refused| refusal(refused.into()))?;
        self.verified.insert(leaf, intermediates);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &provider().signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn refusal(refused: PeerRefused) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))
}

fn tls12() -> Error {
    Error::General("TLS 1.2 is not spoken inside the mesh".into())
}
