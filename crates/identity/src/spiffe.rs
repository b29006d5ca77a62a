//! Reads the SPIFFE identity out of an X.509 certificate.
//!
//! It does not verify the certificate: chain, validity and usage are the TLS verifiers' work.

use ambit_mesh::identity::{InvalidSpiffeId, SpiffeId};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The identity that a leaf certificate names.
///
/// Stricter than Istio, which takes the first URI that reads as an identity and ignores the rest:
/// a certificate that names two identities is refused, so that two readers can never disagree
/// about who the peer is.
///
/// # Errors
/// When the certificate is not a leaf as X509-SVID §2 and §4 describe it.
pub fn from_certificate(certificate: &CertificateDer<'_>) -> Result<SpiffeId, NotASpiffeLeaf> {
    from_parsed(&parse(certificate)?)
}

pub(crate) fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, NotASpiffeLeaf> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|_| NotASpiffeLeaf::Unreadable)?;
    if rest.is_empty() { Ok(parsed) } else { Err(NotASpiffeLeaf::Unreadable) }
}

pub(crate) fn from_parsed(certificate: &X509Certificate<'_>) -> Result<SpiffeId, NotASpiffeLeaf> {
    refuse_authority(certificate)?;
    Ok(only_uri(certificate)?.parse()?)
}

fn refuse_authority(certificate: &X509Certificate<'_>) -> Result<(), NotASpiffeLeaf> {
    let constraints = certificate.basic_constraints().map_err(|_| NotASpiffeLeaf::Unreadable)?;
    let usage = certificate.key_usage().map_err(|_| NotASpiffeLeaf::Unreadable)?;
    // X509-SVID §4.1: "the cA field [of leaf certificates] MUST NOT be set to true"; §4.3: "Leaf
    // SVIDs MUST NOT set keyCertSign or cRLSign".
    let may_sign = constraints.is_some_and(|constraints| constraints.value.ca)
        || usage.is_some_and(|usage| usage.value.key_cert_sign() || usage.value.crl_sign());
    if may_sign { Err(NotASpiffeLeaf::Authority) } else { Ok(()) }
}

fn only_uri<'a>(certificate: &X509Certificate<'a>) -> Result<&'a str, NotASpiffeLeaf> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| NotASpiffeLeaf::Unreadable)?
        .map_or(&[][..], |extension| &extension.value.general_names);
    let uris =
        names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    // X509-SVID §2: "An X.509 SVID MUST contain exactly one URI SAN".
    let uris: Vec<&str> = uris.collect();
    match uris.as_slice() {
        [] => Err(NotASpiffeLeaf::NoUri),
        [uri] => Ok(uri),
        several => Err(NotASpiffeLeaf::SeveralUris { count: several.len() }),
    }
}

/// Why a certificate does not name one workload.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotASpiffeLeaf {
    /// It is not DER of one X.509 certificate.
    #[error("the certificate cannot be read as X.509")]
    Unreadable,
    /// It is a CA certificate.
    #[error("the certificate may sign others: a workload presents a leaf, not its authority")]
    Authority,
    /// It has no URI among its alternative names.
    #[error("the certificate has no URI among its subject alternative names: it names no SPIFFE identity")]
    NoUri,
    /// It has more than one URI among its alternative names.
    #[error("the certificate has {count} URIs among its subject alternative names; SPIFFE allows one")]
    SeveralUris {
        /// How many.
        count: usize,
    },
    /// Its URI is not an identity of the mesh.
    #[error(transparent)]
    Uri(#[from] InvalidSpiffeId),
}

#[cfg(test)]
mod tests;
