//! A workload's certificate: key, chain and roots, checked to belong together.
//!
//! It owns the checks on what a CA answered. When to ask again is `schedule`'s, and what TLS makes
//! of it is `tls`'s.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_mesh::identity::SpiffeId;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{ASN1Time, X509Certificate};

use crate::spiffe::{self, NotASpiffeLeaf};
use crate::tls::provider;

/// A private key with its certificate chain and the roots that its peers are checked against.
///
/// A value of this type was whole when it was made: the leaf names [`WorkloadCertificate::id`] and
/// nothing else, the key is the leaf's, the chain leads to one of the roots, and the validity
/// covered that moment.
pub struct WorkloadCertificate {
    id: SpiffeId,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl WorkloadCertificate {
    /// Checks what a CA answered (`IstioCertificateResponse.cert_chain`): the leaf first, then
    /// intermediates, and all roots concatenated in the last text.
    ///
    /// # Errors
    /// When the answer is not what was asked for; see [`CertificateRefused`].
    pub fn from_issued<T: AsRef<str>>(
        asked: &SpiffeId,
        key: PrivateKeyDer<'static>,
        answer: &[T],
        now: SystemTime,
    ) -> Result<Self, CertificateRefused> {
        let [chain @ .., roots] = answer else {
            return Err(CertificateRefused::Missing { part: Part::Roots });
        };
        let chain =
            chain.iter().map(|pem| certificates(Part::Chain, pem.as_ref())).collect::<Result<Vec<_>, _>>()?;
        let roots = certificates(Part::Roots, roots.as_ref())?;
        Self::assemble(asked, key, chain.concat(), roots, now)
    }

    pub(crate) fn assemble(
        asked: &SpiffeId,
        key: PrivateKeyDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        roots: Vec<CertificateDer<'static>>,
        now: SystemTime,
    ) -> Result<Self, CertificateRefused> {
        let leaf = chain.first().ok_or(CertificateRefused::Missing { part: Part::Chain })?;
        let parsed = spiffe::parse(leaf)?;
        let id = spiffe::from_parsed(&parsed)?;
        if id != *asked {
            return Err(CertificateRefused::OtherIdentity { asked: asked.clone(), issued: id });
        }
        let (not_before, not_after) = validity(&parsed);
        if now < not_before || now >= not_after {
            return Err(CertificateRefused::NotValidNow { not_before, not_after, now });
        }
        let serial = parsed.raw_serial_as_string();
        verify_chain(&chain, &roots, now)?;
        verify_key(&chain, &key)?;
        Ok(Self { id, serial, not_before, not_after, chain, roots, key })
    }

    /// Whose certificate it is.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// The leaf's serial number in hexadecimal, as the CA's log shows it.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// When the leaf becomes valid; CAs set it a little into the past.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// When the leaf expires.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The leaf and its intermediates, in the order TLS presents them. Never empty.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The roots that peers may chain to: two or more while a root is being replaced.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    pub(crate) fn key(&self) -> &PrivateKeyDer<'static> {
        &self.key
    }
}

impl fmt::Debug for WorkloadCertificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadCertificate")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("chain_length", &self.chain.len())
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateRefused {
    /// A part holds no certificate.
    #[error("there is no certificate in the {part}")]
    Missing {
        /// Which part.
        part: Part,
    },
    /// A part is not PEM.
    #[error("the {part} cannot be read as PEM")]
    NotPem {
        /// Which part.
        part: Part,
        /// What the reader said.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A root cannot be used as one.
    #[error("a certificate among the roots cannot be a trust anchor: check the root file of the CA")]
    Root {
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
    /// The leaf names no workload.
    #[error(transparent)]
    Leaf(#[from] NotASpiffeLeaf),
    /// The leaf names another workload.
    #[error("{asked} was asked for, but the certificate is for {issued}")]
    OtherIdentity {
        /// Who was asked for.
        asked: SpiffeId,
        /// Whom the certificate names.
        issued: SpiffeId,
    },
    /// It is not yet valid, or no more.
    #[error(
        "the certificate is valid from {} to {}, and now is {}: check the clocks",
        Utc(not_before),
        Utc(not_after),
        Utc(now)
    )]
    NotValidNow {
        /// Start of the validity.
        not_before: SystemTime,
        /// End of the validity.
        not_after: SystemTime,
        /// The clock's reading.
        now: SystemTime,
    },
    /// The chain does not lead to a root.
    #[error("the certificate does not chain to the roots that came with it")]
    Chain {
        /// What the verifier said.
        #[source]
        source: rustls::Error,
    },
    /// The private key is another one, or unusable.
    #[error("the certificate is not for the private key it was requested with")]
    Key {
        /// What rustls said.
        #[source]
        source: rustls::Error,
    },
}

/// A part of a CA's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Leaf and intermediates.
    Chain,
    /// The roots.
    Roots,
    /// The private key.
    Key,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "certificate chain",
            Self::Roots => "root certificates",
            Self::Key => "private key",
        })
    }
}

/// Writes a time in UTC for error messages.
struct Utc<'a>(&'a SystemTime);

impl fmt::Display for Utc<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
        let text = time::OffsetDateTime::from(*self.0).format(format).map_err(|_| fmt::Error)?;
        f.write_str(&text)
    }
}

pub(crate) fn certificates(
    part: Part,
    pem: &str,
) -> Result<Vec<CertificateDer<'static>>, CertificateRefused> {
    let found = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| CertificateRefused::NotPem { part, source })?;
    if found.is_empty() { Err(CertificateRefused::Missing { part }) } else { Ok(found) }
}

/// The roots as rustls wants them. One that cannot be an anchor refuses the whole list: trusting
/// fewer roots than the CA named would break handshakes later, far from the cause.
pub(crate) fn root_store(roots: &[CertificateDer<'static>]) -> Result<RootCertStore, CertificateRefused> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone()).map_err(|source| CertificateRefused::Root { source })?;
    }
    Ok(store)
}

/// The start and the end of a certificate's validity.
pub(crate) fn validity(leaf: &X509Certificate<'_>) -> (SystemTime, SystemTime) {
    (system_time(leaf.validity().not_before), system_time(leaf.validity().not_after))
}

/// Times before 1970 count as 1970: nothing that old is valid now either way.
fn system_time(time: ASN1Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0))
}

fn verify_chain(
    chain: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), CertificateRefused> {
    let (leaf, intermediates) =
        chain.split_first().ok_or(CertificateRefused::Missing { part: Part::Chain })?;
    let roots = root_store(roots)?;
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let algorithms = provider().signature_verification_algorithms.all;
    ParsedCertificate::try_from(leaf)
        .and_then(|leaf| {
            verify_server_cert_signed_by_trust_anchor(&leaf, &roots, intermediates, now, algorithms)
        })
        .map_err(|source| CertificateRefused::Chain { source })
}

fn verify_key(
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
) -> Result<(), CertificateRefused> {
    CertifiedKey::from_der(chain.to_vec(), key.clone_key(), provider())
        .map(drop)
        .map_err(|source| CertificateRefused::Key { source })
}

#[cfg(test)]
mod tests;
