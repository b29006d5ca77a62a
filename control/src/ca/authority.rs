//! The issuing key with its chain: checked when loaded, and what it signs.
//!
//! It does not decide who gets what: [`Authority::issue`] takes a [`Grant`] and a [`ProvenKey`].

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ambit_identity::certificate::WorkloadCertificate;
use ambit_identity::csr::CertificateRequest;
use ambit_mesh::identity::{SpiffeId, TrustDomain};
use pem::{EncodeConfig, LineEnding, Pem};
use rand::CryptoRng;
use rcgen::string::Ia5String;
use rcgen::{ExtendedKeyUsagePurpose, KeyPair, PublicKeyData, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::grant::Grant;
use super::issuing_key::IssuingKey;
use super::key_proof::ProvenKey;
use super::leaf;
pub use super::leaf::Issued;
use super::lifetime::{Lifetimes, Validity};
use super::parts::{Part, Parts};
pub use error::{AuthorityError, IssueError, TrialError};

mod error;

/// RFC 5280 §4.2.1.12: a workload is a server and a client.
const WORKLOAD_USAGES: [ExtendedKeyUsagePurpose; 2] =
    [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
const SERVER_USAGES: [ExtendedKeyUsagePurpose; 1] = [ExtendedKeyUsagePurpose::ServerAuth];

/// A key that issues certificates, with the certificates that lead to its roots.
pub struct Authority {
    key: IssuingKey,
    not_after: SystemTime,
    /// From the issuing certificate upwards, without roots.
    intermediates: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
}

impl Authority {
    /// Checks that the parts belong together, the last time by issuing a certificate for trial and
    /// verifying it as a workload would.
    pub(crate) fn load(parts: &Parts, now: SystemTime) -> Result<Self, AuthorityError> {
        let mut chain = certificates(&parts.certificate)?;
        let certificate = chain.remove(0);
        let (key, not_after) = issuing_key(parts, &certificate, now)?;
        let mut roots = Vec::new();
        for part in &parts.roots {
            for root in certificates(part)? {
                if !roots.contains(&root) {
                    roots.push(root);
                }
            }
        }
        if let Some(more) = &parts.chain {
            chain.extend(certificates(more)?);
        }
        let authority =
            Self { key, not_after, intermediates: intermediates(certificate, chain, &roots), roots };
        authority.try_out(now).map_err(|source| AuthorityError::Trial {
            certificate: parts.certificate.place.clone(),
            roots: parts.roots.iter().map(|part| part.place.to_string()).collect::<Vec<_>>().join(" and "),
            source: source.into(),
        })?;
        Ok(authority)
    }

    /// Signs one workload certificate. `ttl_seconds` is what the requester asked for.
    ///
    /// # Errors
    /// When the authority has expired or the signing fails.
    pub fn issue(
        &self,
        grant: Grant,
        key: &ProvenKey,
        ttl_seconds: i64,
        lifetimes: &Lifetimes,
        now: SystemTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Issued, IssueError> {
        let validity = lifetimes.validity(ttl_seconds, self.not_after, now)?;
        self.sign_workload(grant.identity(), key.public_key(), validity, rng)
    }

    /// Whether nobody who trusts the roots of one alone would believe what the other issues.
    pub(crate) fn shares_no_root_with(&self, other: &Self) -> bool {
        !self.roots.iter().any(|root| other.roots.contains(root))
    }

    /// All roots, as one PEM text.
    pub fn roots_pem(&self) -> String {
        self.roots.iter().map(|root| pem(root)).collect()
    }

    /// When the issuing certificate expires, and with it everything it has signed.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Signs a server's certificate and puts the intermediates after it.
    pub(super) fn issue_serving(
        &self,
        names: Vec<SanType>,
        key: &KeyPair,
        now: SystemTime,
        rng: &mut impl CryptoRng,
    ) -> Result<Serving, IssueError> {
        let validity = Lifetimes::default().validity(0, self.not_after, now)?;
        let leaf = self.key.sign(&leaf::params(names, &SERVER_USAGES, validity, rng), key)?;
        let chain = [leaf].into_iter().chain(self.intermediates.iter().cloned()).collect();
        Ok(Serving { chain, not_after: validity.not_after })
    }

    fn sign_workload(
        &self,
        id: &SpiffeId,
        key: &impl PublicKeyData,
        validity: Validity,
        rng: &mut impl CryptoRng,
    ) -> Result<Issued, IssueError> {
        let name = SanType::URI(Ia5String::try_from(id.to_string())?);
        let params = leaf::params(vec![name], &WORKLOAD_USAGES, validity, rng);
        let serial = params.serial_number.as_ref().map(hexadecimal).unwrap_or_default();
        let leaf = pem(&self.key.sign(&params, key)?);
        let intermediates = self.intermediates.iter().map(|certificate| pem(certificate));
        let chain = [leaf].into_iter().chain(intermediates).chain([self.roots_pem()]).collect();
        Ok(Issued { chain, serial, not_after: validity.not_after })
    }

    fn try_out(&self, now: SystemTime) -> Result<(), TrialError> {
        let id = SpiffeId::new(TrustDomain::default(), "trial", "trial").expect("these words are segments");
        let request = CertificateRequest::new(&id)?;
        let key = ProvenKey::from_csr(&request.pem, &id).expect("a request of our own is in order");
        let validity = Lifetimes::default().validity(0, self.not_after, now).map_err(IssueError::from)?;
        let issued = self.sign_workload(&id, key.public_key(), validity, &mut rand::rng())?;
        WorkloadCertificate::from_issued(&id, request.key, &issued.chain, now)?;
        Ok(())
    }
}

impl fmt::Debug for Authority {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("not_after", &self.not_after)
            .field("intermediates", &self.intermediates.len())
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// A server's chain, leaf first.
pub(super) struct Serving {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) not_after: SystemTime,
}

fn certificates(part: &Part) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&part.content).collect();
    let bad = || AuthorityError::Certificates { place: part.place.clone() };
    found.ok().filter(|found| !found.is_empty()).ok_or_else(bad)
}

fn key(part: &Part) -> Result<KeyPair, AuthorityError> {
    PrivateKeyDer::from_pem_slice(&part.content)
        .ok()
        .and_then(|der| KeyPair::try_from(&der).ok())
        .ok_or_else(|| AuthorityError::Key { place: part.place.clone() })
}

/// The key with its certificate's name, and when that expires.
fn issuing_key(
    parts: &Parts,
    certificate: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<(IssuingKey, SystemTime), AuthorityError> {
    let place = || parts.certificate.place.clone();
    let key = key(&parts.key)?;
    let (_, parsed) = X509Certificate::from_der(certificate)
        .map_err(|_| AuthorityError::Certificates { place: place() })?;
    if parsed.public_key().subject_public_key.data != key.der_bytes() {
        return Err(AuthorityError::OtherKey { key: parts.key.place.clone(), certificate: place() });
    }
    let is_ca = matches!(parsed.basic_constraints(), Ok(Some(constraints)) if constraints.value.ca);
    let may_sign =
        parsed.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    if !(is_ca && may_sign) {
        return Err(AuthorityError::NotAuthority { place: place() });
    }
    let [not_before, not_after] = [parsed.validity().not_before, parsed.validity().not_after]
        .map(|time| UNIX_EPOCH + Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)));
    if now < not_before || now >= not_after {
        return Err(AuthorityError::NotValidNow { place: place() });
    }
    Ok((IssuingKey::new(&parsed, key), not_after))
}

/// The issuing certificate and what the chain file adds to it, without repetitions and roots: Istio's
/// chain files begin with the one and often end with the others.
fn intermediates(
    certificate: CertificateDer<'static>,
    chain: Vec<CertificateDer<'static>>,
    roots: &[CertificateDer<'static>],
) -> Vec<CertificateDer<'static>> {
    let mut result: Vec<CertificateDer<'static>> = Vec::new();
    for candidate in [certificate].into_iter().chain(chain) {
        if !roots.contains(&candidate) && !result.contains(&candidate) {
            result.push(candidate);
        }
    }
    result
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let block = Pem::new("CERTIFICATE", certificate.as_ref());
    pem::encode_config(&block, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

/// As x509-parser and openssl print serial numbers: octets in lower case, joined by colons.
fn hexadecimal(serial: &rcgen::SerialNumber) -> String {
    serial.to_bytes().iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests;
