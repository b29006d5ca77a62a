use serde_json::json;

use super::*;
use crate::kube::status::condition::Truth;
use crate::kube::status::desired::{PENDING, PROGRAMMED};
use crate::objects::{Kind, KnownKind};
use k8s_openapi::jiff::Timestamp;

fn key(name: &str) -> ObjectKey {
    let kind = Kind::Known(KnownKind::AuthorizationPolicy);
    ObjectKey { kind, namespace: Some("shop".into()), name: name.into() }
}

fn desired(generation: i64, acknowledged: u32) -> Desired {
    let (truth, reason) = if acknowledged == 3 { (Truth::True, PROGRAMMED) } else { (Truth::False, PENDING) };
    let message = format!("programmed on {acknowledged} of 3 proxies");
    Desired {
        uid: Some("uid".to_owned()),
        generation: Some(generation),
        accepted: Condition { truth: Truth::True, reason: "Accepted", message: "in force".to_owned() },
        programmed: Some(Condition { truth, reason, message }),
    }
}

fn there(version: &str, generation: i64, status: Value) -> There {
    There { uid: "uid".to_owned(), resource_version: version.to_owned(), generation, status }
}

/// What the API server has after a write.
fn written(write: &Write, version: &str) -> There {
    let status = write.desired.merged_into(&write.there.status, Timestamp::UNIX_EPOCH);
    There { resource_version: version.to_owned(), status, ..write.there.clone() }
}

struct Test {
    ledger: Ledger,
    start: Instant,
}

impl Test {
    fn new() -> Self {
        Self { ledger: Ledger::default(), start: Instant::now() }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + Duration::from_secs(seconds)
    }

    fn want(&mut self, rows: &[(&str, Desired)]) {
        self.ledger.want(rows.iter().map(|(name, desired)| (key(name), desired.clone())).collect());
    }

    fn next(&mut self, seconds: u64) -> Option<Write> {
        self.ledger.next(self.at(seconds))
    }

    fn names(&mut self, seconds: u64) -> Vec<String> {
        std::iter::from_fn(|| self.next(seconds)).map(|write| write.key.name.to_string()).collect()
    }

    fn outcome(&mut self, name: &str, outcome: Outcome, seconds: u64) {
        self.ledger.on_outcome(&key(name), outcome, self.at(seconds));
    }

    /// An object whose status was written.
    fn settled() -> (Self, There) {
        let mut test = Self::new();
        test.want(&[("a", desired(1, 3))]);
        test.ledger.see(&key("a"), there("1", 1, json!({})));
        let write = test.next(0).expect("it has no status");
        let now = written(&write, "2");
        test.outcome("a", Outcome::Written(now.clone()), 0);
        assert_eq!(test.next(0), None);
        (test, now)
    }
}

#[test]
fn a_status_is_written_once_and_only_where_both_sides_are_known() {
    let mut test = Test::new();
    test.want(&[("a", desired(1, 3)), ("b", desired(1, 3))]);
    assert_eq!(test.next(0), None, "nothing was seen");
    test.ledger.see(&key("a"), there("1", 1, json!({})));
    test.ledger.see(&key("c"), there("1", 1, json!({})));
    let write = test.next(0).expect("a has no status");
    assert_eq!((&*write.key.name, write.there.resource_version.as_str()), ("a", "1"));
    assert_eq!(test.next(0), None, "it is under way");
    let now = written(&write, "2");
    test.outcome("a", Outcome::Written(now.clone()), 0);
    test.ledger.see(&key("a"), now);
    test.want(&[("a", desired(1, 3)), ("b", desired(1, 3))]);
    assert_eq!((test.next(0), test.next(3_600)), (None, None));
}

#[test]
fn a_late_word_of_an_older_version_changes_nothing() {
    let (mut test, _) = Test::settled();
    test.ledger.see(&key("a"), there("1", 1, json!({})));
    assert_eq!(test.next(0), None);
    // An object of the same name that was made anew begins without status.
    test.ledger.see(&key("a"), There { uid: "other".to_owned(), ..there("1", 1, json!({})) });
    assert_eq!(test.next(0), None, "what was read is of the object before");
    test.want(&[("a", Desired { uid: Some("other".to_owned()), ..desired(1, 3) })]);
    assert!(test.next(0).is_some());
}

#[test]
fn what_another_takes_away_is_written_again() {
    let (mut test, now) = Test::settled();
    test.ledger.see(&key("a"), There { resource_version: "3".to_owned(), status: json!({}), ..now });
    assert_eq!(test.next(1).map(|write| write.there.resource_version), Some("3".to_owned()));
}

#[test]
fn nothing_is_said_of_an_edit_that_was_not_read_yet() {
    let (mut test, now) = Test::settled();
    test.ledger
        .see(&key("a"), There { resource_version: "3".to_owned(), generation: 2, status: json!({}), ..now });
    assert_eq!(test.next(60), None);
    test.want(&[("a", desired(2, 0))]);
    assert!(test.next(60).is_some());
}

#[test]
fn counts_are_written_when_they_have_settled() {
    let (mut test, now) = Test::settled();
    test.want(&[("a", desired(1, 2))]);
    assert_eq!((test.next(10), test.ledger.next_look()), (None, Some(test.at(25))));
    // The proxy is back before it was worth a word.
    test.want(&[("a", desired(1, 3))]);
    assert_eq!(test.names(25), [""; 0]);
    assert_eq!(test.ledger.next_look(), None);

    for (second, acknowledged) in [(30, 0), (40, 1), (50, 2)] {
        test.want(&[("a", desired(1, acknowledged))]);
        assert_eq!(test.next(second), None, "it still changes at {second} s");
    }
    assert_eq!(test.next(64), None);
    let write = test.next(65).expect("it has stayed for 15 s");
    assert_eq!(write.desired, desired(1, 2));
    let next = written(&write, "3");
    test.outcome("a", Outcome::Written(next), 65);

    // What somebody waits for does not wait.
    test.want(&[("a", desired(1, 3))]);
    assert!(test.next(66).is_some());
    let _ = now;
}

#[test]
fn counts_that_never_settle_are_written_now_and_then() {
    let (mut test, _) = Test::settled();
    let mut writes = Vec::new();
    for second in 0..900 {
        let message = format!("programmed on {} of 1000 proxies", second / 5);
        let condition = Condition { truth: Truth::False, reason: PENDING, message };
        test.want(&[("a", Desired { programmed: Some(condition), ..desired(1, 0) })]);
        if let Some(write) = test.next(second) {
            writes.push(second);
            let version = (100 + second).to_string();
            let now = written(&write, &version);
            test.outcome("a", Outcome::Written(now), second);
        }
    }
    assert_eq!(writes, [300, 605], "seconds at which it was written");
}

#[test]
fn what_matters_goes_before_what_is_counted() {
    let mut test = Test::new();
    let names: Vec<String> = (0..5).map(|index| format!("a{index}")).collect();
    let mut rows: Vec<(&str, Desired)> = names.iter().map(|name| (name.as_str(), desired(1, 2))).collect();
    rows.push(("z", desired(1, 3)));
    let with_all = desired(1, 3).merged_into(&json!({}), Timestamp::UNIX_EPOCH);
    for name in &names {
        test.ledger.see(&key(name), there("1", 1, with_all.clone()));
    }
    test.want(&rows);
    assert_eq!(test.next(0), None);
    test.ledger.see(&key("z"), there("1", 1, json!({})));
    assert_eq!(test.names(20), ["z", "a0", "a1", "a2", "a3", "a4"]);
}

#[test]
fn failures_are_retried_ever_later_and_a_newer_version_at_once() {
    let mut test = Test::new();
    test.want(&[("a", desired(1, 3))]);
    test.ledger.see(&key("a"), there("1", 1, json!({})));
    let mut pauses = Vec::new();
    let mut second = 0;
    for _ in 0..9 {
        assert!(test.next(second).is_some(), "at {second} s");
        test.outcome("a", Outcome::Failed, second);
        assert_eq!(test.next(second), None);
        let again = test.ledger.next_look().expect("it is tried again");
        let pause = again.duration_since(test.at(second)).as_secs();
        pauses.push(pause);
        second += pause;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert!(test.next(second).is_some());
    test.outcome("a", Outcome::Conflict, second);
    assert_eq!(test.next(second), None);
    test.ledger.see(&key("a"), there("2", 1, json!({})));
    assert!(test.next(second).is_some(), "the conflict is over");
}

#[test]
fn an_object_that_is_gone_is_no_error() {
    let (mut test, now) = Test::settled();
    test.want(&[("a", desired(2, 0))]);
    test.ledger.see(&key("a"), There { resource_version: "3".to_owned(), generation: 2, ..now });
    assert!(test.next(1).is_some());
    test.ledger.unsee(&key("a"));
    test.outcome("a", Outcome::Gone, 1);
    assert_eq!(test.next(60), None);
    test.want(&[]);
    assert!(test.ledger.rows.is_empty(), "nothing of it is kept");

    let (mut test, _) = Test::settled();
    test.ledger.retain(|_| true, |_| false);
    test.want(&[("a", desired(2, 0))]);
    assert_eq!(test.next(60), None, "a new list did not hold it");
}
