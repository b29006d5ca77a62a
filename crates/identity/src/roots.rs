//! How the control plane is trusted: by the roots in a file.
//!
//! The file is read for every connection, so replacing it needs no restart. It has nothing to do
//! with the roots that workloads check each other against: those come with their certificates.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::version::TLS13;

use crate::tls::{ALPN_H2, provider};

/// The configuration for a connection to the control plane: TLS 1.3, the server's name checked
/// against the roots in `file` (PEM, one or more).
///
/// # Errors
/// When the file cannot be read or holds no usable root.
pub async fn client_config(file: &Path) -> Result<Arc<ClientConfig>, RootsError> {
    let path = || file.to_owned();
    let pem = tokio::fs::read(file).await.map_err(|source| RootsError::Read { path: path(), source })?;
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&pem) {
        let root = root.map_err(|source| RootsError::NotPem { path: path(), source })?;
        roots.add(root).map_err(|source| RootsError::Unusable { path: path(), source })?;
    }
    if roots.is_empty() {
        return Err(RootsError::Empty { path: path() });
    }
    let mut config = ClientConfig::builder_with_provider(provider().clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(|source| RootsError::Unusable { path: path(), source })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Why the control plane cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be read.
    #[error("cannot read the control plane's root certificates from {path}: check that it is mounted", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file is not PEM.
    #[error("{path} is not PEM", path = path.display())]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        #[source]
        source: pem::Error,
    },
    /// The file holds no certificate.
    #[error("{path} holds no certificate", path = path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// rustls cannot use what it holds.
    #[error("a certificate in {path} cannot be used as a root", path = path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
}

#[cfg(test)]
mod tests;
