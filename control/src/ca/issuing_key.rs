//! The key that signs, under its certificate's subject exactly as that is written.
//!
//! rcgen writes certificates but keeps an issuer's name as a map, so a name that repeats an
//! attribute (`DC=corp, DC=example`) or joins two in one step would come out as another name, and
//! nothing would chain. So rcgen's certificate is completed here: the issuer's own octets are put
//! in, and then it is signed.

use std::fmt;

use rcgen::{CertificateParams, Issuer, KeyIdMethod, KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use rustls::pki_types::CertificateDer;
use x509_parser::asn1_rs::{Any, BitString, FromDer, Sequence, ToDer};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::X509Certificate;

/// RFC 5280 §4.1: `version, serialNumber, signature, issuer, ...`.
pub(super) const ISSUER_FIELD: usize = 3;

/// A CA's key with its name and key identifier.
pub(super) struct IssuingKey {
    issuer: Issuer<'static, Unsigned>,
    name: Vec<u8>,
}

impl IssuingKey {
    /// The key of `certificate`; that they belong together is the caller's check.
    pub(super) fn new(certificate: &X509Certificate<'_>, key: KeyPair) -> Self {
        let mut params = CertificateParams::default();
        if let Some(identifier) = subject_key_identifier(certificate) {
            params.key_identifier_method = KeyIdMethod::PreSpecified(identifier);
        }
        let name = certificate.subject().as_raw().to_vec();
        Self { issuer: Issuer::new(params, Unsigned(key)), name }
    }

    /// Issues the certificate that `params` describes for `subject_key`.
    pub(super) fn sign(
        &self,
        params: &CertificateParams,
        subject_key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, rcgen::Error> {
        let unsigned = params.signed_by(subject_key, &self.issuer)?;
        sign_with_fields(unsigned.der(), &[(ISSUER_FIELD, &self.name)], &self.issuer.key().0)
    }
}

impl fmt::Debug for IssuingKey {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuingKey").finish_non_exhaustive()
    }
}

/// Signs what `certificate` says, with some of its fields replaced.
pub(super) fn sign_with_fields(
    certificate: &CertificateDer<'_>,
    replaced: &[(usize, &[u8])],
    key: &KeyPair,
) -> Result<CertificateDer<'static>, rcgen::Error> {
    let [to_be_signed, algorithm, _] = elements(certificate)?[..] else {
        return Err(rcgen::Error::CouldNotParseCertificate);
    };
    let mut fields = elements(to_be_signed)?;
    for (index, content) in replaced {
        *fields.get_mut(*index).ok_or(rcgen::Error::CouldNotParseCertificate)? = content;
    }
    let to_be_signed = sequence(&fields)?;
    let signature = encode(&BitString::new(0, &key.sign(&to_be_signed)?))?;
    Ok(sequence(&[&to_be_signed, algorithm, &signature])?.into())
}

/// Has rcgen write a certificate without signing it.
struct Unsigned(KeyPair);

impl PublicKeyData for Unsigned {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for Unsigned {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Vec::new())
    }
}

fn subject_key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate.iter_extensions().find_map(|extension| {
        if let ParsedExtension::SubjectKeyIdentifier(identifier) = extension.parsed_extension() {
            Some(identifier.0.to_vec())
        } else {
            None
        }
    })
}

/// The elements of a DER sequence, each with its header.
fn elements(der: &[u8]) -> Result<Vec<&[u8]>, rcgen::Error> {
    let unreadable = |_| rcgen::Error::CouldNotParseCertificate;
    let (_, outer) = Any::from_der(der).map_err(unreadable)?;
    let mut rest = outer.data;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (after, _) = Any::from_der(rest).map_err(unreadable)?;
        found.push(&rest[..rest.len() - after.len()]);
        rest = after;
    }
    Ok(found)
}

fn sequence(elements: &[&[u8]]) -> Result<Vec<u8>, rcgen::Error> {
    encode(&Sequence::new(elements.concat().into()))
}

fn encode(value: &impl ToDer) -> Result<Vec<u8>, rcgen::Error> {
    value.to_der_vec().map_err(|_| rcgen::Error::CouldNotParseCertificate)
}
