//! A root of control's own, made once and kept in the state directory.
//!
//! Key and certificate appear together or not at all, also when the process is killed in between:
//! both are written beside their places first, and a start that finds only the certificate moved
//! moves the key after it. A root is never replaced: everything that trusts it would be cut off.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};

use super::authority::AuthorityError;
use super::files::{finish, prepare, read, unfinished};
use super::leaf;
use super::parts::{CA_CERT, CA_KEY, Part, Parts, Place};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Ten years: an own root is replaced by plugging in another, not by waiting.
const LIFE: Duration = Duration::from_secs(3650 * 24 * 3600);
/// Wide enough for any clock that TLS could work with at all.
const BACKDATED: Duration = DAY;
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// A root as PEM. Has the key in it, so it cannot be printed.
pub(crate) struct NewRoot {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// Makes a root that nobody knows so far.
pub(crate) fn generate(now: SystemTime) -> Result<NewRoot, AuthorityError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(AuthorityError::Create)?;
    let certificate = params(now).self_signed(&key).map_err(AuthorityError::Create)?;
    Ok(NewRoot { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// The own root in `state`, made if neither of its files is there.
pub(super) fn open(state: &Path, now: SystemTime) -> Result<Parts, AuthorityError> {
    let (certificate, key) = (state.join(CA_CERT), state.join(CA_KEY));
    match (certificate.exists(), key.exists()) {
        (true, true) => {}
        (false, false) => create(&certificate, &key, now)?,
        (true, false) if unfinished(&key).exists() => finish(&key)?,
        (true, false) => return Err(half(&certificate, &key)),
        (false, true) => return Err(half(&key, &certificate)),
    }
    let part = |path: &Path| Ok(Part::new(Place::from(path), read(path)?));
    Ok(Parts::of_root(part(&certificate)?, part(&key)?))
}

fn half(present: &Path, missing: &Path) -> AuthorityError {
    AuthorityError::Half { present: present.to_owned(), missing: missing.to_owned() }
}

fn create(certificate: &Path, key: &Path, now: SystemTime) -> Result<(), AuthorityError> {
    let root = generate(now)?;
    prepare(certificate, root.certificate.as_bytes(), CERTIFICATE_MODE)?;
    prepare(key, root.key.as_bytes(), KEY_MODE)?;
    finish(certificate)?;
    finish(key)
}

fn params(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Ambit");
    params.distinguished_name.push(DnType::CommonName, "Ambit mesh root");
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + LIFE).into();
    params.serial_number = Some(leaf::serial(&mut rand::rng()));
    // It signs leaves alone.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}
