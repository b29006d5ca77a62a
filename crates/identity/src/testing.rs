//! A small authority for this crate's tests, able to issue certificates that no CA should.

use std::time::{Duration, SystemTime};

use ambit_mesh::identity::SpiffeId;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::certificate::WorkloadCertificate;

pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

pub(crate) fn cart() -> SpiffeId {
    id("spiffe://cluster.local/ns/shop/sa/cart")
}

pub(crate) fn web() -> SpiffeId {
    id("spiffe://cluster.local/ns/shop/sa/web")
}

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

/// What goes into a leaf.
pub(crate) struct Leaf {
    pub(crate) uris: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) key_usages: Vec<KeyUsagePurpose>,
    pub(crate) is_ca: IsCa,
}

impl Leaf {
    pub(crate) fn of(id: &SpiffeId, now: SystemTime) -> Self {
        Self {
            uris: vec![id.to_string()],
            not_before: now - MINUTE,
            not_after: now + HOUR,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
            key_usages: vec![KeyUsagePurpose::DigitalSignature],
            is_ca: IsCa::ExplicitNoCa,
        }
    }
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = Self::params(name);
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = Self::params(name);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.certificate.der().clone()
    }

    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    pub(crate) fn sign(&self, leaf: &Leaf) -> (Certificate, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names =
            leaf.uris.iter().map(|uri| SanType::URI(uri.as_str().try_into().unwrap())).collect();
        params.not_before = leaf.not_before.into();
        params.not_after = leaf.not_after.into();
        params.extended_key_usages = leaf.usages.clone();
        params.key_usages = leaf.key_usages.clone();
        params.is_ca = leaf.is_ca;
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate, PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }

    /// A certificate as a workload holds it, issued and checked at `now` and good for an hour.
    pub(crate) fn certificate(&self, id: &SpiffeId, now: SystemTime) -> WorkloadCertificate {
        self.certificate_with(id, &Leaf::of(id, now), vec![self.der()], now)
    }

    pub(crate) fn certificate_with(
        &self,
        id: &SpiffeId,
        leaf: &Leaf,
        roots: Vec<CertificateDer<'static>>,
        now: SystemTime,
    ) -> WorkloadCertificate {
        let (certificate, key) = self.sign(leaf);
        WorkloadCertificate::assemble(id, key, vec![certificate.der().clone()], roots, now).unwrap()
    }
}
