use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::testing::{Authority, HOUR, cart, web};

fn store() -> (TempDir, CertificateStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = CertificateStore::open(directory.path().join("identities")).unwrap();
    (directory, store)
}

#[test]
fn a_certificate_comes_back_with_its_key_and_all_its_roots() {
    let (_directory, store) = store();
    let now = SystemTime::now();
    let (authority, next) = (Authority::root("root"), Authority::root("next"));
    let leaf = crate::testing::Leaf::of(&cart(), now);
    let saved = authority.certificate_with(&cart(), &leaf, vec![authority.der(), next.der()], now);
    store.save(&saved).unwrap();
    store.save(&saved).unwrap();
    let loaded = store.load(&cart(), now).unwrap().unwrap();
    assert_eq!(loaded.serial(), saved.serial());
    assert_eq!(loaded.key().secret_der(), saved.key().secret_der());
    assert_eq!((loaded.chain(), loaded.roots()), (saved.chain(), saved.roots()));
    assert!(store.load(&web(), now).unwrap().is_none());
}

#[test]
fn files_and_directory_are_their_owners_alone() {
    let (_directory, store) = store();
    let now = SystemTime::now();
    store.save(&Authority::root("root").certificate(&cart(), now)).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&store.directory), 0o700);
    assert_eq!(mode(&store.path(&cart())), 0o600);
}

#[test]
fn a_directory_open_to_others_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o750)).unwrap();
    let opened = CertificateStore::open(directory.path().to_owned());
    assert!(matches!(opened, Err(StoreError::Rights { .. })));
}

#[test]
fn what_fails_its_check_is_removed() {
    let now = SystemTime::now();
    let authority = Authority::root("root");
    let certificate = authority.certificate(&cart(), now);
    let whole = encode(&certificate);
    let other_key = encode(&authority.certificate(&cart(), now));
    let key_end = whole.find("-----BEGIN CERTIFICATE").unwrap();
    let other_key_end = other_key.find("-----BEGIN CERTIFICATE").unwrap();
    let foreign_root = Authority::root("root").pem();
    let roots = whole.find(ROOTS_FOLLOW).unwrap() + ROOTS_FOLLOW.len();
    let rows = [
        ("empty", String::new()),
        ("cut off", whole[..whole.len() / 2].to_owned()),
        ("without its key", whole[key_end..].to_owned()),
        ("with another key", [&other_key[..other_key_end], &whole[key_end..]].concat()),
        ("of another root", [&whole[..roots], &foreign_root].concat()),
        ("of another workload", encode(&authority.certificate(&web(), now))),
    ];
    for (name, content) in rows {
        let (_directory, store) = store();
        fs::write(store.path(&cart()), content).unwrap();
        let loaded = store.load(&cart(), now);
        assert!(matches!(loaded, Err(StoreError::Content { .. })), "{name}: {loaded:?}");
        assert!(!store.path(&cart()).exists(), "{name}");
    }
}

#[test]
fn an_expired_certificate_is_removed() {
    let (_directory, store) = store();
    let now = SystemTime::now();
    store.save(&Authority::root("root").certificate(&cart(), now)).unwrap();
    assert!(matches!(store.load(&cart(), now + 2 * HOUR), Err(StoreError::Content { .. })));
    assert!(store.load(&cart(), now).unwrap().is_none());
}

#[test]
fn only_the_named_identities_are_kept() {
    let (_directory, store) = store();
    let now = SystemTime::now();
    let authority = Authority::root("root");
    store.save(&authority.certificate(&cart(), now)).unwrap();
    store.save(&authority.certificate(&web(), now)).unwrap();
    fs::write(store.directory.join("half.pem.unfinished"), "x").unwrap();
    store.keep_only(&[web()].into()).unwrap();
    let left: Vec<_> = fs::read_dir(&store.directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, [store.path(&web())]);
    store.remove(&web()).unwrap();
    store.remove(&web()).unwrap();
}
