//! Certificates of workloads, made on the spot.

use std::time::{Duration, SystemTime};

use ambit_identity::certificate::WorkloadCertificate;
use ambit_identity::tls::{TlsIdentity, TrustPolicy};
use ambit_mesh::identity::SpiffeId;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// A root that issues to anybody.
pub(crate) struct Root {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Root {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "test root");
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A workload of this root.
    pub(crate) fn workload(&self, service_account: &str) -> TlsIdentity {
        let id: SpiffeId = format!("spiffe://cluster.local/ns/test/sa/{service_account}").parse().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = SystemTime::now();
        params.not_before = (now - Duration::from_secs(60)).into();
        params.not_after = (now + Duration::from_secs(3600)).into();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let issued = WorkloadCertificate::from_issued(&id, der, &[leaf, self.pem.clone()], now).unwrap();
        TlsIdentity::new(&issued, 1, &TrustPolicy::default()).unwrap()
    }
}
