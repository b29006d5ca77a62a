use std::os::unix::fs::PermissionsExt;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

fn store() -> (tempfile::TempDir, MarkStore) {
    let state = tempfile::tempdir().unwrap();
    let store = MarkStore::open(state.path()).unwrap();
    (state, store)
}

#[test]
fn a_restarted_agent_finds_the_same_marks() {
    let (state, store) = store();
    let first = store.load_or_create("uid", &mut SmallRng::seed_from_u64(1)).unwrap();
    let restarted = MarkStore::open(state.path()).unwrap();
    assert_eq!(restarted.load_or_create("uid", &mut SmallRng::seed_from_u64(2)).unwrap(), first);
}

#[test]
fn pods_do_not_share_marks() {
    let (_state, store) = store();
    let rng = &mut SmallRng::seed_from_u64(1);
    assert_ne!(store.load_or_create("a", rng).unwrap(), store.load_or_create("b", rng).unwrap());
}

#[test]
fn only_root_reads_the_file_and_the_directory() {
    let (state, store) = store();
    store.load_or_create("uid", &mut SmallRng::seed_from_u64(1)).unwrap();
    let mode = |path: &str| fs::metadata(state.path().join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("marks"), 0o700);
    assert_eq!(mode("marks/pod-uid"), 0o600);
}

#[test]
fn a_spoilt_file_counts_as_lost() {
    let (state, store) = store();
    let rng = &mut SmallRng::seed_from_u64(1);
    let first = store.load_or_create("uid", rng).unwrap();
    for spoilt in ["", "12", "zz\n", "00000000\n", "616d6269\n", "\u{fffd}"] {
        fs::write(state.path().join("marks/pod-uid"), spoilt).unwrap();
        assert_ne!(store.load_or_create("uid", rng).unwrap(), first, "{spoilt:?}");
    }
}

#[test]
fn forgetting_is_done_once_or_twice() {
    let (_state, store) = store();
    let rng = &mut SmallRng::seed_from_u64(1);
    let first = store.load_or_create("uid", rng).unwrap();
    store.forget("uid").unwrap();
    store.forget("uid").unwrap();
    assert_ne!(store.load_or_create("uid", rng).unwrap(), first);
}

#[test]
fn a_uid_names_no_file_elsewhere() {
    let (state, store) = store();
    for uid in ["../../etc/passwd", "/abs", "..", "", "a.new", "a/b"] {
        assert_eq!(store.path(uid).parent().unwrap(), state.path().join("marks"), "{uid:?}");
    }
    assert_ne!(store.path("a/b"), store.path("a_2fb"));
}

#[test]
fn debug_output_hides_the_mark() {
    let marks = Marks::random(&mut SmallRng::seed_from_u64(1));
    assert_eq!(format!("{marks:?}"), "Marks { .. }");
}
