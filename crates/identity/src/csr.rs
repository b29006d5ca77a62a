//! A new key and the request for its certificate.
//!
//! The key never leaves the process that made it; only the request travels.

use std::fmt;

use ambit_mesh::identity::SpiffeId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A private key and a PKCS#10 request for it.
pub struct CertificateRequest {
    /// The key, PKCS#8.
    pub key: PrivateKeyDer<'static>,
    /// The request, PEM.
    pub pem: String,
}

impl CertificateRequest {
    /// Makes a P-256 key and a request that names `id` in one critical URI and has no subject, as
    /// Istio's agents write it.
    ///
    /// # Errors
    /// When the key cannot be made: no entropy or memory.
    pub fn new(id: &SpiffeId) -> Result<Self, RequestFailed> {
        let failed = |source| RequestFailed { id: id.clone(), source };
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
        let mut params = CertificateParams::default();
        // RFC 5280 §4.2.1.6: with an empty subject the alternative name is critical; rcgen does it.
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().map_err(failed)?)];
        let pem = params.serialize_request(&key).and_then(|request| request.pem()).map_err(failed)?;
        Ok(Self { key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(), pem })
    }
}

impl fmt::Debug for CertificateRequest {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateRequest").field("pem", &self.pem).finish_non_exhaustive()
    }
}

/// A key or its request could not be made.
#[derive(Debug, thiserror::Error)]
#[error("no key and request can be made for {id}")]
pub struct RequestFailed {
    /// For whom.
    pub id: SpiffeId,
    /// What rcgen said.
    #[source]
    pub source: rcgen::Error,
}

#[cfg(test)]
mod tests;
