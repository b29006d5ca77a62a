use std::time::SystemTime;

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};

use super::*;
use crate::testing::{Authority, Leaf, cart, web};

fn read(change: impl FnOnce(&mut Leaf)) -> Result<SpiffeId, NotASpiffeLeaf> {
    let mut leaf = Leaf::of(&cart(), SystemTime::now());
    change(&mut leaf);
    let (certificate, _) = Authority::root("root").sign(&leaf);
    from_certificate(certificate.der())
}

#[test]
fn a_leaf_names_its_workload() {
    assert_eq!(read(|_| ()), Ok(cart()));
}

#[test]
fn exactly_one_uri_is_an_identity() {
    assert_eq!(read(|leaf| leaf.uris.clear()), Err(NotASpiffeLeaf::NoUri));
    let several = Err(NotASpiffeLeaf::SeveralUris { count: 2 });
    assert_eq!(read(|leaf| leaf.uris.push(web().to_string())), several);
    assert_eq!(read(|leaf| leaf.uris.push("https://example.com".into())), several);
}

#[test]
fn other_uris_are_refused() {
    for uri in ["https://cluster.local/ns/shop/sa/cart", "spiffe://cluster.local/shop/cart", "spiffe://"] {
        let read = read(|leaf| leaf.uris = vec![uri.into()]);
        assert!(matches!(read, Err(NotASpiffeLeaf::Uri(_))), "{uri}: {read:?}");
    }
}

#[test]
fn an_authority_is_not_a_workload() {
    let authority = Err(NotASpiffeLeaf::Authority);
    assert_eq!(read(|leaf| leaf.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)), authority);
    assert_eq!(read(|leaf| leaf.key_usages.push(KeyUsagePurpose::KeyCertSign)), authority);
    assert_eq!(read(|leaf| leaf.key_usages.push(KeyUsagePurpose::CrlSign)), authority);
}

#[test]
fn what_is_not_one_certificate_is_unreadable() {
    let (certificate, _) = Authority::root("root").sign(&Leaf::of(&cart(), SystemTime::now()));
    let trailing = [certificate.der().as_ref(), b"x"].concat();
    for der in [&b""[..], b"\x30\x00", &trailing, &certificate.der()[..100]] {
        assert_eq!(from_certificate(&CertificateDer::from(der)), Err(NotASpiffeLeaf::Unreadable));
    }
}
