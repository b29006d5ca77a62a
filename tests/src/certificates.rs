//! Certificate authorities and credentials of the scenarios' own, good and bad, and a client that
//! presents them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use time::OffsetDateTime;

use crate::control::state_directory;
use crate::mesh::Mesh;
use crate::namespace::Namespace;
use crate::pod::Pod;

/// A root of trust.
#[derive(Debug)]
pub struct Authority {
    certificate: String,
    key: String,
}

/// A certificate and its key, as PEM.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// When a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// Now.
    Current,
    /// It ended an hour ago.
    Expired,
}

impl Authority {
    /// A new root named `name`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn generate(name: &str) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.distinguished_name.push(DnType::OrganizationName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem() })
    }

    /// The root that control made for itself.
    ///
    /// # Errors
    /// When control has not made one.
    pub fn of_control() -> Result<Self> {
        let read = |file: &str| {
            let path = state_directory().join(file);
            fs::read_to_string(&path).with_context(|| path.display().to_string())
        };
        Ok(Self { certificate: read("ca-cert.pem")?, key: read("ca-key.pem")? })
    }

    /// Its certificate, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// A certificate for `identity`, a URI or an IP address, for use at both ends of a connection.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn issue(&self, identity: &str, validity: Validity) -> Result<Credentials> {
        let key = KeyPair::generate()?;
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.subject_alt_names = vec![match identity.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::URI(Ia5String::try_from(identity)?),
        }];
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let end = match validity {
            Validity::Current => OffsetDateTime::now_utc() + Duration::from_secs(3600),
            Validity::Expired => OffsetDateTime::now_utc() - Duration::from_secs(3600),
        };
        parameters.not_before = end - Duration::from_secs(3 * 3600);
        parameters.not_after = end;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, KeyPair::from_pem(&self.key)?)?;
        let certificate = parameters.signed_by(&key, &issuer)?.pem();
        Ok(Credentials { certificate, key: key.serialize_pem() })
    }

    /// Writes it as a plugged-in CA for control, trusting `roots` beside itself.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn plug_in(&self, directory: &Path, roots: &[&Self]) -> Result<()> {
        fs::create_dir_all(directory)?;
        let trusted: String = roots.iter().map(|root| root.certificate.as_str()).collect();
        for (file, content) in [
            ("ca-cert.pem", self.certificate.as_str()),
            ("ca-key.pem", &self.key),
            ("cert-chain.pem", &self.certificate),
            ("root-cert.pem", &trusted),
        ] {
            fs::write(directory.join(file), content).with_context(|| file.to_owned())?;
        }
        Ok(())
    }
}

/// What became of a [`knock`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server spoke HTTP/2.
    Accepted,
    /// The server ended the connection without a word of HTTP/2.
    Refused {
        /// How the client saw it.
        why: String,
    },
}

/// Connects to an HBONE port with these credentials and begins HTTP/2.
///
/// A TLS 1.3 client learns of the server's judgement only when it reads, so what counts is whether
/// one octet of HTTP/2 comes back.
///
/// # Errors
/// When the port does not accept at all.
pub fn knock(from: &Namespace, to: SocketAddr, credentials: Option<&Credentials>) -> Result<Answer> {
    // RFC 9113 §3.4: the preface, and an empty SETTINGS frame.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let mut tls = connect(from, to, credentials)?;
    let mut answer = [0; 9];
    let spoken = tls.write_all(PREFACE).and_then(|()| tls.flush()).and_then(|()| tls.read(&mut answer));
    Ok(match spoken {
        Ok(0) => Answer::Refused { why: "closed".to_owned() },
        Ok(_) => Answer::Accepted,
        Err(error) => Answer::Refused { why: error.to_string() },
    })
}

/// The certificate that the mesh presents for a pod at this moment, in DER.
///
/// # Errors
/// When nobody does.
pub fn of_pod(mesh: &Mesh, pod: &Pod) -> Result<Vec<u8>> {
    let probe = "spiffe://cluster.local/ns/shop/sa/probe";
    let credentials = Authority::of_control()?.issue(probe, Validity::Current)?;
    served_certificate(mesh.control().namespace(), pod.at(15008), &credentials)
}

/// The certificate that an HBONE port presents, in DER.
///
/// # Errors
/// When the handshake fails.
pub fn served_certificate(from: &Namespace, to: SocketAddr, credentials: &Credentials) -> Result<Vec<u8>> {
    let mut tls = connect(from, to, Some(credentials))?;
    tls.conn.complete_io(&mut tls.sock).with_context(|| format!("handshake with {to}"))?;
    let chain = tls.conn.peer_certificates().context("a completed handshake has a server certificate")?;
    Ok(chain.first().context("a certificate chain is not empty")?.to_vec())
}

fn connect(
    from: &Namespace,
    to: SocketAddr,
    credentials: Option<&Credentials>,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let stream = from.connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let name = ServerName::IpAddress(to.ip().into());
    let connection = ClientConnection::new(Arc::new(client_configuration(credentials)?), name)?;
    Ok(StreamOwned::new(connection, stream))
}

fn client_configuration(credentials: Option<&Credentials>) -> Result<ClientConfig> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let builder = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer { algorithms }));
    let mut configuration = match credentials {
        None => builder.with_no_client_auth(),
        Some(Credentials { certificate, key }) => builder.with_client_auth_cert(
            CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?,
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?,
    };
    configuration.alpn_protocols = vec![b"h2".to_vec()];
    configuration.enable_sni = false;
    Ok(configuration)
}

/// The client under scrutiny is our own: whom it talks to is not the question here.
#[derive(Debug)]
struct AnyServer {
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("this client speaks TLS 1.3 alone".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
