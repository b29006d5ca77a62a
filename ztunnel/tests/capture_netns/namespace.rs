//! Entering and leaving namespaces.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use ztunnel::capture::netns::{NamespaceError, NetworkNamespace};

use crate::network::{new_namespace, path};

fn current() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").unwrap().ino()
}

#[test]
fn work_runs_inside_and_the_thread_comes_back() {
    let file = new_namespace();
    let namespace = NetworkNamespace::open(&path(&file)).unwrap();
    let home = current();
    assert_eq!(namespace.run(current).unwrap(), namespace.id().inode);
    assert_eq!(current(), home);
    catch_unwind(AssertUnwindSafe(|| namespace.run(|| panic!("inside")))).unwrap_err();
    assert_eq!(current(), home);
}

#[test]
fn one_namespace_has_one_identity_and_outlives_its_path() {
    let (a, b) = (new_namespace(), new_namespace());
    let open = |file| NetworkNamespace::open(&path(file)).unwrap();
    assert_eq!(open(&a).id(), open(&a).id());
    assert_ne!(open(&a).id(), open(&b).id());
    let namespace = open(&a);
    drop(a);
    assert_eq!(namespace.run(current).unwrap(), namespace.id().inode);
}

#[test]
fn what_is_no_pods_namespace_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    mkfifo(&fifo, Mode::S_IRUSR).unwrap();
    for path in [&fifo, directory.path(), Path::new("/proc/self/status")] {
        let refused = NetworkNamespace::open(path);
        assert!(matches!(refused, Err(NamespaceError::NotANamespace { .. })), "{refused:?}");
    }
    let refused = NetworkNamespace::open(&directory.path().join("absent"));
    assert!(matches!(refused, Err(NamespaceError::Open { .. })), "{refused:?}");
    let refused = NetworkNamespace::open(Path::new("/proc/thread-self/ns/net"));
    assert!(matches!(refused, Err(NamespaceError::Own { .. })), "{refused:?}");
    let other_kind = NetworkNamespace::open(Path::new("/proc/self/ns/uts")).unwrap();
    assert!(matches!(other_kind.run(|| ()), Err(NamespaceError::Enter { .. })));
}
