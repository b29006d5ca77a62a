//! Authorities in temporary directories, and requests to them.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use ambit_mesh::identity::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, SignatureAlgorithm,
};
use rustls::pki_types::CertificateDer;

use super::authority::{Authority, AuthorityError};
use super::files::AuthorityFiles;
use super::grant::{Caller, Grant, NodeIdentities, authorize};
use super::issuing_key::{ISSUER_FIELD, sign_with_fields};
use super::own_root;

/// RFC 5280 §4.1: `.. issuer, validity, subject ..`.
const SUBJECT_FIELD: usize = 5;
pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) fn cart() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

pub(super) fn web() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

/// `cart` runs on `node-1` and `web` on `node-2`.
pub(super) fn facts() -> NodeIdentities {
    NodeIdentities { by_node: [("node-1".into(), [cart()].into()), ("node-2".into(), [web()].into())].into() }
}

pub(super) fn grant() -> Grant {
    authorize(&Caller::authenticated("node-1".into()), &cart(), &facts()).unwrap()
}

pub(super) fn own(state: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
    load(&own_root::ensure(state, now)?, now)
}

pub(super) fn load(files: &AuthorityFiles, now: SystemTime) -> Result<Authority, AuthorityError> {
    Authority::load(files, &files.read()?, now)
}

/// A CA with its key, as an administrator's tool would make it.
pub(super) struct Ca {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(super) fn root(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = params(name);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, key_pem: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// A root whose subject and issuer are the octets of `name`.
    pub(super) fn root_named(name: &[u8]) -> Self {
        let root = Self::root("placeholder");
        let names = [(ISSUER_FIELD, name), (SUBJECT_FIELD, name)];
        let certificate = sign_with_fields(&root.certificate, &names, root.issuer.key()).unwrap();
        Self { certificate, ..root }
    }

    pub(super) fn below(&self, name: &str) -> Self {
        self.below_with(name, &PKCS_ECDSA_P256_SHA256, |_| ())
    }

    pub(super) fn below_with(
        &self,
        name: &str,
        algorithm: &'static SignatureAlgorithm,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let mut params = params(name);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Self { certificate, key_pem: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    pub(super) fn pem(&self) -> String {
        let block = pem::Pem::new("CERTIFICATE", self.certificate.as_ref());
        pem::encode_config(&block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
    }

    /// Writes this CA into `directory` as Istio's `cacerts` are laid out.
    pub(super) fn plug_in(&self, directory: &Path, chain: &[&Self], roots: &[&Self]) -> AuthorityFiles {
        let join = |cas: &[&Self]| cas.iter().map(|ca| ca.pem()).collect::<String>();
        fs::write(directory.join("ca-cert.pem"), self.pem()).unwrap();
        fs::write(directory.join("ca-key.pem"), &self.key_pem).unwrap();
        fs::write(directory.join("root-cert.pem"), join(roots)).unwrap();
        fs::write(directory.join("cert-chain.pem"), join(chain)).unwrap();
        AuthorityFiles::plugged_in(directory)
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params
}
