use ambit_identity::csr::CertificateRequest;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384,
    PKCS_ECDSA_P521_SHA512, PKCS_ED25519, PKCS_RSA_SHA256, SanType, SignatureAlgorithm,
};

use super::*;
use crate::ca::testing::{cart, web};

fn uri(id: &SpiffeId) -> SanType {
    SanType::URI(id.to_string().try_into().unwrap())
}

fn request(algorithm: &'static SignatureAlgorithm, names: Vec<SanType>) -> String {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    params.serialize_request(&key).unwrap().pem().unwrap()
}

fn checked(pem: &str) -> Result<(), RequestRefused> {
    ProvenKey::from_csr(pem, &cart()).map(drop)
}

fn der(pem: &str) -> Vec<u8> {
    CertificateSigningRequestDer::from_pem_slice(pem.as_bytes()).unwrap().to_vec()
}

fn pem(der: Vec<u8>) -> String {
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der))
}

#[test]
fn a_request_for_the_asked_identity_or_for_none_is_taken() {
    assert_eq!(checked(&CertificateRequest::new(&cart()).unwrap().pem), Ok(()));
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
        assert_eq!(checked(&request(algorithm, vec![uri(&cart())])), Ok(()));
        assert_eq!(checked(&request(algorithm, vec![])), Ok(()));
    }
}

#[test]
fn a_subject_is_neither_needed_nor_used() {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "admin");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    assert_eq!(checked(&request), Ok(()));
}

#[test]
fn a_request_that_names_another_is_refused() {
    let dns = || SanType::DnsName("cart.shop".try_into().unwrap());
    let rows = [
        vec![uri(&web())],
        vec![uri(&cart()), uri(&web())],
        vec![uri(&web()), uri(&cart())],
        vec![dns()],
        vec![uri(&cart()), dns()],
        vec![SanType::IpAddress([10, 0, 0, 1].into())],
        vec![SanType::URI("spiffe://cluster.local/ns/shop/sa/cart/".try_into().unwrap())],
        vec![SanType::URI("https://cluster.local".try_into().unwrap())],
    ];
    for names in rows {
        let refused = checked(&request(&PKCS_ECDSA_P256_SHA256, names.clone()));
        assert!(matches!(refused, Err(RequestRefused::OtherName { .. })), "{names:?}: {refused:?}");
    }
}

#[test]
fn weak_and_unusual_keys_are_refused() {
    for algorithm in [&PKCS_ECDSA_P521_SHA512, &PKCS_ED25519] {
        assert_eq!(checked(&request(algorithm, vec![uri(&cart())])), Err(RequestRefused::Key));
    }
}

#[test]
fn no_octet_of_what_is_signed_or_of_the_signature_can_be_changed() {
    let der = der(&request(&PKCS_ECDSA_P256_SHA256, vec![uri(&cart())]));
    let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
    let place = |part: &[u8]| {
        let start = der.windows(part.len()).position(|window| window == part).unwrap();
        start..start + part.len()
    };
    let signed = place(parsed.certification_request_info.raw);
    let signature = place(&parsed.signature_value.data);
    assert!(signed.len() + signature.len() > 200);
    for index in signed.chain(signature) {
        for bit in [0x01, 0x20, 0x80] {
            let mut tampered = der.clone();
            tampered[index] ^= bit;
            assert!(checked(&pem(tampered)).is_err(), "octet {index}, bit {bit:#x}");
        }
    }
}

#[test]
fn somebody_elses_key_cannot_be_put_into_a_request() {
    let (mine, theirs) = (request(&PKCS_ECDSA_P256_SHA256, vec![]), request(&PKCS_ECDSA_P256_SHA256, vec![]));
    let key_of = |der: &[u8]| {
        let (_, request) = X509CertificationRequest::from_der(der).unwrap();
        request.certification_request_info.subject_pki.subject_public_key.data.to_vec()
    };
    let (mut mine, theirs) = (der(&mine), der(&theirs));
    let (my_key, their_key) = (key_of(&mine), key_of(&theirs));
    let at = mine.windows(my_key.len()).position(|window| window == my_key).unwrap();
    mine[at..at + their_key.len()].copy_from_slice(&their_key);
    assert_eq!(checked(&pem(mine)), Err(RequestRefused::NotProven));
}

#[test]
fn what_is_not_one_request_is_unreadable() {
    let whole = request(&PKCS_ECDSA_P256_SHA256, vec![]);
    let trailing = pem([der(&whole), vec![0]].concat());
    for text in ["", "no PEM", &whole[..60], &trailing, &pem(vec![])] {
        assert_eq!(checked(text), Err(RequestRefused::Unreadable), "{text}");
    }
    let long = whole + &" ".repeat(LONGEST);
    assert!(matches!(checked(&long), Err(RequestRefused::TooLong { .. })));
}
