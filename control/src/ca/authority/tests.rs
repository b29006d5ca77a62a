use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ambit_identity::certificate::CertificateRefused;
use ambit_identity::csr::CertificateRequest;
use rcgen::{IsCa, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
use tempfile::TempDir;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use super::*;
use crate::ca::files::unfinished;
use crate::ca::lifetime::BACKDATED;
use crate::ca::testing::{Ca, HOUR, cart, grant, load, own};

struct Received {
    answer: Vec<String>,
    certificate: WorkloadCertificate,
    serial: String,
}

/// Asks as an agent does and checks the answer as an agent does.
fn obtain(authority: &Authority, ttl: i64, now: SystemTime) -> Result<Received, CertificateRefused> {
    let request = CertificateRequest::new(&cart()).unwrap();
    let key = ProvenKey::from_csr(&request.pem, &cart()).unwrap();
    let issued = authority.issue(grant(), &key, ttl, &Lifetimes::default(), now, &mut rand::rng()).unwrap();
    let certificate = WorkloadCertificate::from_issued(&cart(), request.key, &issued.chain, now)?;
    Ok(Received { answer: issued.chain, certificate, serial: issued.serial })
}

fn directory() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn an_own_root_is_made_once_and_kept() {
    let state = directory();
    let now = SystemTime::now();
    let first = own(state.path(), now).unwrap();
    let again = own(state.path(), now).unwrap();
    assert_eq!(first.roots_pem(), again.roots_pem());
    assert!(first.not_after() > now + 24 * HOUR * 3600);
    let mode = fs::metadata(state.path().join("ca-key.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let received = obtain(&again, 0, now).unwrap();
    assert_eq!(
        received.answer,
        [received.answer[0].clone(), first.roots_pem()],
        "leaf and root, nothing between"
    );
}

#[test]
fn a_damaged_own_root_is_named_and_never_replaced() {
    for damaged in ["ca-key.pem", "ca-cert.pem"] {
        let state = directory();
        let now = SystemTime::now();
        own(state.path(), now).unwrap();
        let path = state.path().join(damaged);
        fs::write(&path, "damaged").unwrap();
        let error = own(state.path(), now).unwrap_err().to_string();
        assert!(error.contains(damaged), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "damaged");

        fs::remove_file(&path).unwrap();
        let error = own(state.path(), now).unwrap_err();
        assert!(matches!(&error, AuthorityError::Half { missing, .. } if *missing == path), "{error}");
    }
}

#[test]
fn a_creation_that_was_interrupted_is_completed() {
    let state = directory();
    let now = SystemTime::now();
    let roots = own(state.path(), now).unwrap().roots_pem();
    let key = state.path().join("ca-key.pem");
    fs::rename(&key, unfinished(&key)).unwrap();
    assert_eq!(own(state.path(), now).unwrap().roots_pem(), roots);

    let state = directory();
    fs::write(unfinished(&state.path().join("ca-key.pem")), "half").unwrap();
    own(state.path(), now).unwrap();
}

#[test]
fn a_leaf_says_what_a_workload_may_do_and_no_more() {
    let state = directory();
    let now = SystemTime::now();
    let authority = own(state.path(), now).unwrap();
    let received = obtain(&authority, 3600, now).unwrap();
    let (_, root) = X509Certificate::from_der(&received.certificate.roots()[0]).unwrap();
    let (_, leaf) = X509Certificate::from_der(&received.certificate.chain()[0]).unwrap();

    let san = leaf.subject_alternative_name().unwrap().unwrap();
    assert!(san.critical);
    assert_eq!(san.value.general_names, [GeneralName::URI(&cart().to_string())]);
    assert_eq!(leaf.subject().iter().count(), 0);
    assert_eq!(leaf.issuer(), root.subject());
    assert!(!leaf.basic_constraints().unwrap().unwrap().value.ca);

    let key_usage = leaf.key_usage().unwrap().unwrap().value;
    assert_eq!(key_usage.flags, 1, "digitalSignature alone");
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth && !usage.any && !usage.code_signing);

    let issuing_key = root.iter_extensions().find_map(|extension| {
        let id = extension.parsed_extension();
        if let ParsedExtension::SubjectKeyIdentifier(id) = id { Some(id.clone()) } else { None }
    });
    let authority_key = leaf.iter_extensions().find_map(|extension| {
        let id = extension.parsed_extension();
        if let ParsedExtension::AuthorityKeyIdentifier(id) = id { id.key_identifier.clone() } else { None }
    });
    assert!(issuing_key.is_some());
    assert_eq!(authority_key, issuing_key);

    assert_eq!(received.serial, received.certificate.serial());
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert_eq!(seconds(received.certificate.not_before()), seconds(now - BACKDATED));
    assert_eq!(seconds(received.certificate.not_after()), seconds(now + HOUR));
    assert_ne!(obtain(&authority, 3600, now).unwrap().serial, received.serial);
}

#[test]
fn a_plugged_in_ca_issues_with_its_chain_and_all_its_roots() {
    let now = SystemTime::now();
    let (root, next_root) = (Ca::root("root"), Ca::root("next root"));
    let middle = root.below("middle");
    for algorithm in [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256] {
        let issuing = middle.below_with("issuing", algorithm, |_| ());
        // Istio's chain files begin with the issuing certificate and may end with the root.
        for chain in [&[&middle][..], &[&issuing, &middle], &[&issuing, &middle, &root]] {
            let directory = directory();
            issuing.plug_in(directory.path(), chain, &[&root, &next_root]);
            let received = obtain(&load(directory.path(), now).unwrap(), 0, now).unwrap();
            let expected = [issuing.pem(), middle.pem(), root.pem() + &next_root.pem()];
            assert_eq!(received.answer[1..], expected);
            assert_eq!(received.certificate.roots().len(), 2);
        }
    }
}

#[test]
fn a_root_may_be_plugged_in_without_a_chain() {
    let now = SystemTime::now();
    let directory = directory();
    let root = Ca::root("root");
    root.plug_in(directory.path(), &[], &[&root]);
    fs::remove_file(directory.path().join("cert-chain.pem")).unwrap();
    assert_eq!(obtain(&load(directory.path(), now).unwrap(), 0, now).unwrap().answer.len(), 2);
}

#[test]
fn a_plugged_in_ca_that_does_not_fit_together_is_refused() {
    let now = SystemTime::now();
    let (root, other) = (Ca::root("root"), Ca::root("root"));
    let middle = root.below("middle");
    let issuing = middle.below("issuing");
    let expired = root.below_with("issuing", &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = (now - HOUR).into();
    });
    let leaf = root.below_with("issuing", &PKCS_ECDSA_P256_SHA256, |params| params.is_ca = IsCa::NoCa);
    let unsigning = root.below_with("issuing", &PKCS_ECDSA_P256_SHA256, |params| {
        params.key_usages = vec![rcgen::KeyUsagePurpose::DigitalSignature];
    });
    let refused = |ca: &Ca, chain: &[&Ca], roots: &[&Ca], change: &dyn Fn(&Path)| {
        let directory = directory();
        ca.plug_in(directory.path(), chain, roots);
        change(directory.path());
        load(directory.path(), now).unwrap_err()
    };
    let none: &dyn Fn(&Path) = &|_| ();

    assert!(matches!(refused(&expired, &[], &[&root], none), AuthorityError::NotValidNow { .. }));
    assert!(matches!(refused(&leaf, &[], &[&root], none), AuthorityError::NotAuthority { .. }));
    assert!(matches!(refused(&unsigning, &[], &[&root], none), AuthorityError::NotAuthority { .. }));
    assert!(matches!(refused(&issuing, &[&middle], &[&other], none), AuthorityError::Trial { .. }));
    assert!(matches!(refused(&issuing, &[], &[&root], none), AuthorityError::Trial { .. }));
    let swap_key: &dyn Fn(&Path) = &|files| fs::write(files.join("ca-key.pem"), &other.key_pem).unwrap();
    assert!(matches!(refused(&issuing, &[&middle], &[&root], swap_key), AuthorityError::OtherKey { .. }));
    for part in ["ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"] {
        let damage: &dyn Fn(&Path) =
            &|files| fs::write(files.join(part), "-----BEGIN CERTIFICATE-----\n!").unwrap();
        let error = refused(&issuing, &[&middle], &[&root], damage).to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn nothing_is_issued_beyond_the_issuing_certificate() {
    let now = SystemTime::now();
    let directory = directory();
    let root = Ca::root("root");
    let short = root.below_with("issuing", &PKCS_ECDSA_P256_SHA256, |params| {
        params.not_after = (now + HOUR).into();
    });
    short.plug_in(directory.path(), &[], &[&root]);
    let authority = load(directory.path(), now).unwrap();
    assert_eq!(obtain(&authority, 0, now).unwrap().certificate.not_after(), authority.not_after());

    let request = CertificateRequest::new(&cart()).unwrap();
    let key = ProvenKey::from_csr(&request.pem, &cart()).unwrap();
    let late = now + HOUR;
    let refused = authority.issue(grant(), &key, 0, &Lifetimes::default(), late, &mut rand::rng());
    assert!(matches!(refused, Err(IssueError::Expired(_))));
}

#[test]
fn an_issuer_is_named_exactly_as_its_certificate_is() {
    // rcgen cannot write a name that repeats an attribute, so its octets are put together here:
    // DC=corp, DC=example, and a step of two attributes.
    let step = |attribute: &[u8]| [&[0x31, attribute.len() as u8], attribute].concat();
    let component = |value: &[u8]| {
        let oid = [6, 10, 9, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 1, 25];
        let value = [&[22, value.len() as u8], value].concat();
        [&[0x30, (oid.len() + value.len()) as u8], &oid[..], &value].concat()
    };
    let common_name = |value: &[u8]| {
        let value = [&[12, value.len() as u8], value].concat();
        [&[0x30, 5 + value.len() as u8, 6, 3, 0x55, 4, 3], &value[..]].concat()
    };
    let joined = step(&[common_name(b"a"), component(b"unit")].concat());
    let steps = [step(&component(b"corp")), step(&component(b"example")), joined].concat();
    let name = [&[0x30, steps.len() as u8], &steps[..]].concat();

    let now = SystemTime::now();
    let directory = directory();
    let ca = Ca::root_named(&name);
    ca.plug_in(directory.path(), &[], &[&ca]);
    let received = obtain(&load(directory.path(), now).unwrap(), 0, now).unwrap();
    let (_, leaf) = X509Certificate::from_der(&received.certificate.chain()[0]).unwrap();
    assert_eq!(leaf.issuer().as_raw(), name);
}

#[test]
fn debug_shows_no_key() {
    let state = directory();
    let authority = own(state.path(), SystemTime::now()).unwrap();
    let shown = format!("{authority:?}");
    assert!(shown.starts_with("Authority") && !shown.contains("key"), "{shown}");
}
