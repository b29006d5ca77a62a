//! What is told, against a model that knows what the API server holds.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::source::kube::reading;

fn node(name: usize, zone: usize) -> Arc<Reading> {
    let node = json!({"metadata": {"name": format!("n{name}"), "labels": {"zone": zone.to_string()}}});
    reading::read(KnownKind::Node, &node.to_string()).unwrap().reading
}

fn key(name: usize) -> ObjectKey {
    ObjectKey::of(KnownKind::Node, None, &format!("n{name}")).unwrap()
}

fn list(held: &mut Held, kind: KnownKind, readings: Vec<Arc<Reading>>) {
    held.apply(Seen::ListBegun(kind));
    held.apply(Seen::Put(kind, readings));
    held.apply(Seen::ListEnded(kind));
}

/// With everything but nodes listed.
fn held() -> Held {
    let mut held = Held::default();
    for kind in KnownKind::ALL.into_iter().filter(|kind| *kind != KnownKind::Node) {
        held.apply(Seen::NotServed(kind));
    }
    held
}

/// `+name` for an object that is told, `-name` for one that is gone.
fn told(held: &mut Held) -> Vec<String> {
    let events = held.take_news().events;
    let sign = |event: &Event| match event {
        Event::Apply(_) => '+',
        Event::Delete(_) => '-',
    };
    events.iter().map(|event| format!("{}{}", sign(event), event.key().name)).collect()
}

#[test]
fn nothing_is_told_before_every_kind_was_listed() {
    let mut held = Held::default();
    list(&mut held, KnownKind::Node, vec![node(1, 0)]);
    for kind in KnownKind::ALL.into_iter().filter(|kind| *kind != KnownKind::Node) {
        assert!(!held.has_news(), "before {}", kind.name());
        held.apply(Seen::ListBegun(kind));
        assert!(!held.has_news(), "while {} is listed", kind.name());
        held.apply(Seen::ListEnded(kind));
    }
    assert!(held.has_news());
    assert_eq!(told(&mut held), ["+n1"]);
    assert!(!held.has_news());
}

#[test]
fn an_empty_cluster_is_told_once() {
    let mut held = held();
    list(&mut held, KnownKind::Node, Vec::new());
    assert!(held.has_news());
    assert!(told(&mut held).is_empty());
    assert!(!held.has_news());
}

#[test]
fn what_a_new_list_leaves_out_is_gone_and_what_it_repeats_is_not_told_again() {
    let mut held = held();
    list(&mut held, KnownKind::Node, vec![node(1, 0), node(2, 0), node(3, 0)]);
    assert_eq!(told(&mut held), ["+n1", "+n2", "+n3"]);

    held.apply(Seen::ListBegun(KnownKind::Node));
    assert!(!held.has_news(), "a list that begins takes nothing back");
    held.apply(Seen::Put(KnownKind::Node, vec![node(1, 0)]));
    // It broke off, and is begun again.
    list(&mut held, KnownKind::Node, vec![node(2, 0), node(3, 7)]);
    assert_eq!(told(&mut held), ["-n1", "+n3"]);
}

#[test]
fn a_kind_that_is_not_served_any_more_takes_its_objects_with_it() {
    let mut held = held();
    list(&mut held, KnownKind::Node, vec![node(1, 0)]);
    assert_eq!(told(&mut held), ["+n1"]);
    held.apply(Seen::NotServed(KnownKind::Node));
    held.apply(Seen::NotServed(KnownKind::Node));
    assert_eq!(told(&mut held), ["-n1"]);
}

#[test]
fn a_pod_that_is_deleted_and_made_again_at_once_is_told_once_as_the_new_one() {
    let pod = |uid| {
        let pod = json!({"metadata": {"name": "db-0", "namespace": "shop", "uid": uid}});
        reading::read(KnownKind::Pod, &pod.to_string()).unwrap().reading
    };
    let mut held = held();
    list(&mut held, KnownKind::Node, Vec::new());
    list(&mut held, KnownKind::Pod, vec![pod("first")]);
    assert_eq!(told(&mut held), ["+db-0"]);
    let (first, second) = (pod("first"), pod("second"));
    held.apply(Seen::Gone(KnownKind::Pod, first.key.clone()));
    held.apply(Seen::Put(KnownKind::Pod, vec![second.clone()]));
    let Batch { events, .. } = held.take_news();
    assert!(matches!(&events[..], [Event::Apply(reading)] if Arc::ptr_eq(reading, &second)), "{events:?}");
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, usize),
    Delete(usize),
    /// Some objects change or go while nobody watches; then everything is listed.
    Relist(Vec<(usize, Option<usize>)>),
    Tell,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..6_usize, 0..3_usize).prop_map(|(name, zone)| Step::Put(name, zone)),
        2 => (0..6_usize).prop_map(Step::Delete),
        1 => prop::collection::vec((0..6_usize, prop::option::of(0..3_usize)), 0..4).prop_map(Step::Relist),
        2 => Just(Step::Tell),
    ]
}

proptest! {
    /// Whoever applies every batch has what the API server has, whatever happened in between.
    #[test]
    fn batches_add_up_to_what_there_is(steps in prop::collection::vec(step(), 1..60)) {
        let mut held = held();
        list(&mut held, KnownKind::Node, Vec::new());
        let (mut server, mut told) = (BTreeMap::new(), BTreeMap::new());
        for step in steps.into_iter().chain([Step::Tell]) {
            match step {
                Step::Put(name, zone) => {
                    server.insert(key(name), node(name, zone).content.clone());
                    held.apply(Seen::Put(KnownKind::Node, vec![node(name, zone)]));
                }
                Step::Delete(name) => {
                    server.remove(&key(name));
                    held.apply(Seen::Gone(KnownKind::Node, key(name)));
                }
                Step::Relist(changes) => {
                    for (name, zone) in changes {
                        match zone {
                            Some(zone) => drop(server.insert(key(name), node(name, zone).content.clone())),
                            None => drop(server.remove(&key(name))),
                        }
                    }
                    let listed = |key: &ObjectKey, content: &_| {
                        let number = key.name[1..].parse().unwrap();
                        let zones = (0..3).map(|zone| node(number, zone));
                        zones.into_iter().find(|node| node.content == *content).unwrap()
                    };
                    let readings = server.iter().map(|(key, content)| listed(key, content)).collect();
                    list(&mut held, KnownKind::Node, readings);
                }
                Step::Tell => {
                    if held.has_news() {
                        let events = held.take_news().events;
                        let keys: BTreeSet<_> = events.iter().map(|event| event.key().clone()).collect();
                        prop_assert_eq!(keys.len(), events.len(), "an object is told twice");
                        for event in events {
                            match event {
                                Event::Apply(reading) => {
                                    drop(told.insert(reading.key.clone(), reading.content.clone()));
                                }
                                Event::Delete(key) => drop(told.remove(&key)),
                            }
                        }
                    }
                    prop_assert_eq!(&told, &server);
                    prop_assert_eq!(held.count(KnownKind::Node), server.len());
                }
            }
        }
    }
}
