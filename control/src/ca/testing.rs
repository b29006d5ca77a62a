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
use super::files::plugged_in;
use super::grant::{Caller, Grant, NodeIdentities, authorize};
use super::issuing_key::{ISSUER_FIELD, sign_with_fields};
use super::own_root;

/// RFC 5280 §4.1: `.. issuer, validity, subject ..`.
const SUBJECT_FIELD: usize = 5;
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn cart() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/cart".parse().unwrap()
}

pub(crate) fn web() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap()
}

/// `cart` runs on `node-1` and `web` on `node-2`.
pub(crate) fn facts() -> NodeIdentities {
    NodeIdentities { by_node: [("node-1".into(), [cart()].into()), ("node-2".into(), [web()].into())].into() }
}

pub(crate) fn grant() -> Grant {
    authorize(&Caller::authenticated("node-1".into()), &cart(), &facts()).unwrap()
}

pub(crate) fn own(state: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
    Authority::load(&own_root::open(state, now)?, now)
}

pub(crate) fn load(directory: &Path, now: SystemTime) -> Result<Authority, AuthorityError> {
    Authority::load(&plugged_in(directory)?, now)
}

/// A CA with its key, as an administrator's tool would make it.
pub(crate) struct Ca {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub(crate) fn root(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = params(name);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, key_pem: key.serialize_pem(), issuer: Issuer::new(params, key) }
    }

    /// A root whose subject and issuer are the octets of `name`.
    pub(crate) fn root_named(name: &[u8]) -> Self {
        let root = Self::root("placeholder");
        let names = [(ISSUER_FIELD, name), (SUBJECT_FIELD, name)];
        let certificate = sign_with_fields(&root.certificate, &names, root.issuer.key()).unwrap();
        Self { certificate, ..root }
    }

    pub(crate) fn below(&self, name: &str) -> Self {
        self.below_with(name, &PKCS_ECDSA_P256_SHA256, |_| ())
    }

    pub(crate) fn below_with(
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

    pub(crate) fn pem(&self) -> String {
        let block = pem::Pem::new("CERTIFICATE", self.certificate.as_ref());
        pem::encode_config(&block, pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF))
    }

    /// Writes this CA into `directory` as Istio's `cacerts` are laid out.
    pub(crate) fn plug_in(&self, directory: &Path, chain: &[&Self], roots: &[&Self]) {
        let join = |cas: &[&Self]| cas.iter().map(|ca| ca.pem()).collect::<String>();
        fs::write(directory.join("ca-cert.pem"), self.pem()).unwrap();
        fs::write(directory.join("ca-key.pem"), &self.key_pem).unwrap();
        fs::write(directory.join("root-cert.pem"), join(roots)).unwrap();
        fs::write(directory.join("cert-chain.pem"), join(chain)).unwrap();
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
