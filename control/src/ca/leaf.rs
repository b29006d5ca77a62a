//! The certificates at the end of a chain, as this authority writes them.

use std::time::SystemTime;

use rand::CryptoRng;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
    SerialNumber,
};

use super::lifetime::Validity;

/// RFC 5280 §4.1.2.2: at most 20 octets; CA/Browser Forum asks for 64 random bits at least.
const SERIAL_OCTETS: usize = 16;

/// A leaf for `names` without subject, so that the alternative name is critical (RFC 5280
/// §4.2.1.6), for digital signatures in `usages` alone.
pub(super) fn params(
    names: Vec<SanType>,
    usages: &[ExtendedKeyUsagePurpose],
    validity: Validity,
    rng: &mut impl CryptoRng,
) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    params.serial_number = Some(serial(rng));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    params
}

/// Random and positive, without leading zeros.
pub(super) fn serial(rng: &mut impl CryptoRng) -> SerialNumber {
    let mut octets = [0; SERIAL_OCTETS];
    rng.fill_bytes(&mut octets);
    octets[0] = octets[0] & 0x3f | 0x40;
    SerialNumber::from_slice(&octets)
}

/// A signed leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// The answer: leaf, intermediates one by one, all roots together. PEM.
    pub chain: Vec<String>,
    /// The leaf's serial number in hexadecimal, as certificate tools show it.
    pub serial: String,
    /// When it expires.
    pub not_after: SystemTime,
}
