//! Whom we believe and what we show: the TLS configuration for an API server.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::Config;
use kube::config::AuthInfo;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::ExposeSecret;

/// Why the credentials of a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The server's certificate would not be checked.
    #[error("insecure-skip-tls-verify is not supported: give the cluster's certificate-authority")]
    Insecure,
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Data is not base64.
    #[error("{field} is not base64")]
    NotBase64 {
        /// The field of the kubeconfig.
        field: &'static str,
    },
    /// Data is not PEM.
    #[error("{field} is not PEM")]
    NotPem {
        /// The field of the kubeconfig.
        field: &'static str,
        /// What the reader said.
        source: pem::Error,
    },
    /// rustls cannot use it.
    #[error("certificates or key cannot be used")]
    Unusable(#[from] rustls::Error),
}

/// The configuration for connections to the server of `config`.
pub(crate) fn client_config(config: &Config) -> Result<Arc<ClientConfig>, CredentialsError> {
    if config.accept_invalid_certs {
        return Err(CredentialsError::Insecure);
    }
    let mut roots = RootCertStore::empty();
    for der in config.root_cert.iter().flatten() {
        roots.add(CertificateDer::from(der.clone()))?;
    }
    if let Some(file) = &config.root_cert_file {
        for root in certificates("certificate-authority", &read(file)?)? {
            roots.add(root)?;
        }
    }
    let provider: Arc<CryptoProvider> = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut tls = match identity(&config.auth_info)? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(tls))
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn identity(auth: &AuthInfo) -> Result<Option<Identity>, CredentialsError> {
    const CERTIFICATE: &str = "client-certificate";
    const KEY: &str = "client-key";
    let certificate =
        data(CERTIFICATE, auth.client_certificate_data.as_deref(), auth.client_certificate.as_deref())?;
    let key_data = auth.client_key_data.as_ref().map(|key| key.expose_secret());
    let key = data(KEY, key_data, auth.client_key.as_deref())?;
    let (Some(certificate), Some(key)) = (certificate, key) else { return Ok(None) };
    let key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|source| CredentialsError::NotPem { field: KEY, source })?;
    Ok(Some((certificates(CERTIFICATE, &certificate)?, key)))
}

/// What stands in the kubeconfig itself comes before what it names.
fn data(
    field: &'static str,
    inline: Option<&str>,
    file: Option<&str>,
) -> Result<Option<Vec<u8>>, CredentialsError> {
    match (inline, file) {
        (Some(text), _) => STANDARD.decode(text).map(Some).map_err(|_| CredentialsError::NotBase64 { field }),
        (None, Some(file)) => read(Path::new(file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    std::fs::read(path).map_err(|source| CredentialsError::Read { path: path.to_owned(), source })
}

fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| CredentialsError::NotPem { field, source })
}
