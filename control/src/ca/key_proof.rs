//! What a certificate signing request proves: that its sender holds the private key.
//!
//! Nothing else is taken from it. The identity is the granted one; a request that names another is
//! refused, because its sender believes something that is not so.

use ambit_mesh::identity::SpiffeId;
use rcgen::{
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, PublicKeyData, SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA};
use x509_parser::prelude::{FromDer, X509CertificationRequest};
use x509_parser::public_key::PublicKey;

/// The longest request that is looked at, in octets. One with an RSA key of 4096 bits has 1,700.
const LONGEST: usize = 16 * 1024;
/// Bits of RSA keys: fewer are weak, more make every handshake slow.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// A public key whose private half the requester has used.
#[derive(Debug)]
pub struct ProvenKey(SubjectPublicKeyInfo);

impl ProvenKey {
    /// Checks a PEM request made for `requested`.
    ///
    /// # Errors
    /// See [`RequestRefused`].
    pub fn from_csr(pem: &str, requested: &SpiffeId) -> Result<Self, RequestRefused> {
        if pem.len() > LONGEST {
            return Err(RequestRefused::TooLong { octets: pem.len() });
        }
        let der = CertificateSigningRequestDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| RequestRefused::Unreadable)?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|_| RequestRefused::Unreadable)?;
        if !rest.is_empty() {
            return Err(RequestRefused::Unreadable);
        }
        let key = accepted_key(&request)?;
        request.verify_signature().map_err(|_| RequestRefused::NotProven)?;
        refuse_other_names(&request, requested)?;
        Ok(Self(key))
    }

    pub(super) fn public_key(&self) -> &SubjectPublicKeyInfo {
        &self.0
    }
}

fn accepted_key(request: &X509CertificationRequest<'_>) -> Result<SubjectPublicKeyInfo, RequestRefused> {
    let info = &request.certification_request_info.subject_pki;
    let sha1 = [OID_PKCS1_SHA1WITHRSA, OID_SHA1_WITH_RSA].contains(&request.signature_algorithm.algorithm);
    let key = SubjectPublicKeyInfo::from_der(info.raw).map_err(|_| RequestRefused::Key)?;
    let accepted = if key.algorithm() == &PKCS_RSA_SHA256 {
        matches!(info.parsed(), Ok(PublicKey::RSA(rsa)) if RSA_BITS.contains(&rsa.key_size()))
    } else {
        [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384].contains(&key.algorithm())
    };
    if accepted && !sha1 { Ok(key) } else { Err(RequestRefused::Key) }
}

fn refuse_other_names(
    request: &X509CertificationRequest<'_>,
    requested: &SpiffeId,
) -> Result<(), RequestRefused> {
    for attribute in request.certification_request_info.iter_attributes() {
        let ParsedCriAttribute::ExtensionRequest(asked) = attribute.parsed_attribute() else { continue };
        for extension in &asked.extensions {
            refuse_other_name(extension.parsed_extension(), requested)?;
        }
    }
    Ok(())
}

fn refuse_other_name(extension: &ParsedExtension<'_>, requested: &SpiffeId) -> Result<(), RequestRefused> {
    if let ParsedExtension::ParseError { .. } = extension {
        return Err(RequestRefused::Unreadable);
    }
    let ParsedExtension::SubjectAlternativeName(names) = extension else { return Ok(()) };
    for name in &names.general_names {
        let GeneralName::URI(uri) = name else {
            return Err(RequestRefused::OtherName { named: name.to_string(), requested: requested.clone() });
        };
        if uri.parse().ok().as_ref() != Some(requested) {
            return Err(RequestRefused::OtherName { named: (*uri).to_owned(), requested: requested.clone() });
        }
    }
    Ok(())
}

/// Why a request is not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestRefused {
    /// It is longer than any reasonable one.
    #[error("the CSR has {octets} octets; at most {LONGEST} are read")]
    TooLong {
        /// How long.
        octets: usize,
    },
    /// It is not a PKCS#10 request in PEM.
    #[error("the CSR cannot be read as one PKCS#10 request in PEM")]
    Unreadable,
    /// Its key or signature is of a kind that is not issued to.
    #[error("the CSR's key is not accepted: use P-256, P-384 or RSA of 2048 to 4096 bits, and no SHA-1")]
    Key,
    /// The signature is not by the key.
    #[error("the CSR's signature is not by its own key: the sender has not proven that it holds the key")]
    NotProven,
    /// It names somebody else.
    #[error("the CSR names {named:?}, but {requested} was asked for")]
    OtherName {
        /// Whom the request names.
        named: String,
        /// Who was asked for.
        requested: SpiffeId,
    },
}

#[cfg(test)]
mod tests;
