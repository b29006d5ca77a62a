use std::fs;

use tempfile::TempDir;

use super::*;
use crate::ca::testing::Ca;

struct Place {
    directory: TempDir,
    state: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), state: tempfile::tempdir().unwrap() }
    }

    fn open(&self) -> Result<(Authority, Source), AuthorityError> {
        Source::open(self.directory.path(), Some(self.state.path()), SystemTime::now())
    }

    fn published_roots(&self) -> String {
        fs::read_to_string(self.state.path().join("root-cert.pem")).unwrap()
    }
}

#[test]
fn a_replaced_ca_takes_over_and_its_roots_are_published() {
    let place = Place::new();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    old.plug_in(place.directory.path(), &[], &[&old]);
    let (authority, mut source) = place.open().unwrap();
    assert_eq!(place.published_roots(), old.pem());
    assert!(source.look(SystemTime::now()).unwrap().is_none(), "nothing has changed");

    old.plug_in(place.directory.path(), &[], &[&old, &new]);
    let both = source.look(SystemTime::now()).unwrap().unwrap();
    assert_eq!(both.roots_pem(), authority.roots_pem() + &new.pem());
    new.plug_in(place.directory.path(), &[], &[&old, &new]);
    assert!(source.look(SystemTime::now()).unwrap().is_some());
    assert_eq!(place.published_roots(), old.pem() + &new.pem());
}

#[test]
fn a_broken_edit_is_reported_once_and_the_repair_is_taken() {
    let place = Place::new();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    old.plug_in(place.directory.path(), &[], &[&old]);
    let (_, mut source) = place.open().unwrap();

    // Half of a replacement: the key is new, the certificate is not.
    fs::write(place.directory.path().join("ca-key.pem"), &new.key_pem).unwrap();
    assert!(matches!(source.look(SystemTime::now()), Err(AuthorityError::OtherKey { .. })));
    assert!(source.look(SystemTime::now()).unwrap().is_none());
    assert_eq!(place.published_roots(), old.pem());

    new.plug_in(place.directory.path(), &[], &[&new]);
    assert!(source.look(SystemTime::now()).unwrap().is_some());
    assert_eq!(place.published_roots(), new.pem());
}

#[test]
fn a_ca_that_is_broken_at_the_start_is_an_error() {
    let place = Place::new();
    assert!(matches!(place.open(), Err(AuthorityError::Missing { .. })));
    assert!(!place.state.path().join("root-cert.pem").exists());
}

/// What cert-manager writes: the issuing certificate with what follows it, and one root.
fn by_cert_manager(directory: &Path, chain: &[&Ca], key: &Ca, root: &Ca) {
    let chain: String = chain.iter().map(|ca| ca.pem()).collect();
    for (name, content) in [("tls.crt", chain), ("tls.key", key.key_pem.clone()), ("ca.crt", root.pem())] {
        fs::write(directory.join(name), content).unwrap();
    }
}

#[test]
fn cert_managers_names_are_understood_and_a_bundle_beside_them() {
    let place = Place::new();
    let directory = place.directory.path();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    let middle = old.below("middle");
    let issuing = middle.below("issuing");
    by_cert_manager(directory, &[&issuing, &middle], &issuing, &old);
    let (_, mut source) = place.open().unwrap();
    assert_eq!(place.published_roots(), old.pem());

    fs::write(directory.join("root-cert.pem"), old.pem() + &new.pem()).unwrap();
    assert!(source.look(SystemTime::now()).unwrap().is_some());
    assert_eq!(place.published_roots(), old.pem() + &new.pem(), "each root once");
    let renewed = new.below("renewed");
    by_cert_manager(directory, &[&renewed], &renewed, &new);
    assert!(source.look(SystemTime::now()).unwrap().is_some());
    assert_eq!(place.published_roots(), new.pem() + &old.pem());
    fs::remove_file(directory.join("root-cert.pem")).unwrap();
    assert!(source.look(SystemTime::now()).unwrap().is_some());
    assert_eq!(place.published_roots(), new.pem());

    fs::remove_file(directory.join("ca.crt")).unwrap();
    let error = source.look(SystemTime::now()).err().unwrap().to_string();
    assert!(error.ends_with("ca.crt is missing"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_watched_ca_is_replaced_for_its_subscribers() {
    let place = Place::new();
    let (old, new) = (Ca::root("old"), Ca::root("new"));
    old.plug_in(place.directory.path(), &[], &[&old]);
    let origin = Origin::PluggedIn(place.directory.path().to_owned());
    let current = CurrentAuthority::open(&origin, place.state.path()).unwrap();
    let mut subscription = current.subscribe();
    new.plug_in(place.directory.path(), &[], &[&old, &new]);
    subscription.changed().await.unwrap();
    assert_eq!(subscription.borrow().roots_pem(), old.pem() + &new.pem());
    drop(current);
    assert!(subscription.changed().await.is_err(), "nobody watches any more");
}

#[tokio::test]
async fn an_own_root_stays_readable() {
    let state = tempfile::tempdir().unwrap();
    let current = CurrentAuthority::open(&Origin::OwnRoot, state.path()).unwrap();
    let published = fs::read_to_string(state.path().join("root-cert.pem")).unwrap();
    assert_eq!(current.subscribe().borrow().roots_pem(), published);
    fs::write(state.path().join("root-cert.pem"), "changed by hand").unwrap();
    CurrentAuthority::open(&Origin::OwnRoot, state.path()).unwrap();
    assert_eq!(fs::read_to_string(state.path().join("root-cert.pem")).unwrap(), published);
}
