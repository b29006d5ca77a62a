use super::*;
use crate::pods::processes::{Process, sight};

/// What `N` is in these tests: which descriptor it was.
type Table = Found<&'static str>;

fn id(inode: u64) -> NetworkNamespaceId {
    NetworkNamespaceId { device: 4, inode }
}

fn seen(pods: &[(&str, u64)]) -> Sight {
    let process = |(number, (uid, inode)): (u32, &(&str, u64))| Process {
        id: number,
        started: u64::from(number),
        pod_uid: (*uid).into(),
        namespace: id(*inode),
    };
    sight((1..).zip(pods).map(process), &[])
}

fn opened(uids: &[&str]) -> BTreeMap<Arc<str>, &'static str> {
    uids.iter().map(|uid| (Arc::from(*uid), "opened")).collect()
}

fn arrive(table: &mut Table, uid: &str, sandbox: &str, inode: u64) -> Result<(), Contested> {
    table.arrive(&uid.into(), &sandbox.into(), id(inode), "arrived")
}

fn of(table: &Table, uid: &str) -> Option<u64> {
    table.namespace(uid).map(|(id, _)| id.inode)
}

#[test]
fn a_pod_is_found_by_its_processes_and_stays_while_they_are_there() {
    let mut table = Table::default();
    table.see(&seen(&[("a", 20), ("b", 21)]), opened(&["a"]));
    assert_eq!((of(&table, "a"), of(&table, "b")), (Some(20), None), "b was not asked for");
    table.see(&seen(&[("a", 20), ("b", 21)]), opened(&[]));
    assert_eq!(of(&table, "a"), Some(20));
    table.see(&seen(&[("a", 22)]), opened(&[]));
    assert_eq!(of(&table, "a"), None, "another sandbox, to be opened at the next look");
    table.see(&seen(&[("a", 22)]), opened(&["a"]));
    assert_eq!(of(&table, "a"), Some(22));
    table.see(&seen(&[]), opened(&[]));
    assert_eq!(of(&table, "a"), None);
}

#[test]
fn the_runtimes_word_goes_before_what_processes_show() {
    let mut table = Table::default();
    arrive(&mut table, "a", "s1", 20).unwrap();
    table.see(&seen(&[("a", 30)]), opened(&["a"]));
    assert_eq!(of(&table, "a"), Some(20), "a container is in a namespace of its own");
    table.see(&seen(&[]), opened(&[]));
    assert_eq!(of(&table, "a"), Some(20), "no process so far");
    table.see(&seen(&[("b", 20)]), opened(&["b"]));
    assert_eq!(of(&table, "b"), None, "a process of another pod has entered it");
    assert!(table.contested("b").unwrap().others.contains("a"));
    assert!(arrive(&mut table, "b", "s2", 20).is_err(), "nor does the runtime's word for another pod");
    assert_eq!(of(&table, "a"), Some(20));
}

#[test]
fn a_namespace_that_two_pods_claim_is_bound_to_neither_and_stays_whose_it_was() {
    let mut table = Table::default();
    table.see(&seen(&[("a", 20), ("b", 20)]), opened(&["a", "b"]));
    assert_eq!((of(&table, "a"), of(&table, "b")), (None, None));
    assert!(table.contested("a").is_some() && table.contested("b").is_some());

    table.see(&seen(&[("a", 20)]), opened(&["a"]));
    assert_eq!(of(&table, "a"), Some(20), "the other claim has ended");
    assert!(table.contested("a").is_none());
    table.see(&seen(&[("a", 20), ("b", 20)]), opened(&["b"]));
    assert_eq!((of(&table, "a"), of(&table, "b")), (Some(20), None), "it was bound before");
}

#[test]
fn only_the_sandbox_that_a_pod_is_in_ends_it() {
    let mut table = Table::default();
    arrive(&mut table, "a", "s1", 20).unwrap();
    arrive(&mut table, "a", "s2", 21).unwrap();
    assert_eq!(table.depart(&"a".into(), "s1"), Ended::Other, "an earlier sandbox, cleared up late");
    assert_eq!(of(&table, "a"), Some(21));
    assert_eq!(table.depart(&"a".into(), "s2"), Ended::Pod);
    assert_eq!(table.depart(&"a".into(), "s2"), Ended::Other, "told twice");
    table.see(&seen(&[("a", 21)]), opened(&["a"]));
    assert_eq!(of(&table, "a"), None, "its last process is still to be killed");
    arrive(&mut table, "a", "s3", 22).unwrap();
    assert_eq!(of(&table, "a"), Some(22), "it starts anew");

    table.see(&seen(&[("b", 30)]), opened(&["b"]));
    assert_eq!(table.depart(&"b".into(), "s"), Ended::Unsure, "which sandbox that was is not known");
}

#[test]
fn a_restarted_runtime_tells_of_the_namespace_that_processes_showed() {
    let mut table = Table::default();
    table.see(&seen(&[("a", 20)]), opened(&["a"]));
    arrive(&mut table, "a", "s1", 20).unwrap();
    assert_eq!(table.namespace("a").map(|(_, held)| **held), Some("opened"), "the same descriptor");
    assert_eq!(table.depart(&"a".into(), "s1"), Ended::Pod);
}

#[test]
fn a_pod_that_control_has_forgotten_is_let_go_and_one_it_has_not_told_of_is_kept() {
    let mut table = Table::default();
    arrive(&mut table, "a", "s1", 20).unwrap();
    table.prune(&BTreeSet::new());
    assert_eq!(of(&table, "a"), Some(20), "control does not know it yet");
    table.prune(&["a".into()].into());
    table.prune(&BTreeSet::new());
    assert_eq!(of(&table, "a"), None);
}
