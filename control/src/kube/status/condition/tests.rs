use super::*;
use crate::kube::status::desired::{NO_PROXIES, PENDING};

fn condition(truth: Truth, reason: &'static str, message: &str) -> Condition {
    Condition { truth, reason, message: message.to_owned() }
}

fn desired(generation: i64) -> Desired {
    Desired {
        uid: None,
        generation: Some(generation),
        accepted: condition(Truth::True, "Accepted", "in force"),
        programmed: Some(condition(Truth::True, PROGRAMMED, "programmed on 3 of 3 proxies")),
    }
}

fn time(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// What Istio's own controller writes, with a field that we do not know.
fn reconciled() -> Value {
    json!({"type": "Reconciled", "status": "True", "lastProbeTime": null, "extra": {"kept": [1, "two"]}})
}

#[test]
fn what_is_written_is_found_the_same_again() {
    for status in [json!({}), json!({"conditions": null}), json!({"conditions": [reconciled()]})] {
        let desired = desired(3);
        assert_eq!(desired.difference(&status), Difference::Matters, "{status}");
        let written = desired.merged_into(&status, time(1_000));
        assert_eq!(desired.difference(&written), Difference::None, "{written}");
        assert_eq!(
            desired.merged_into(&written, time(2_000)),
            written,
            "and writing it again changes nothing"
        );
    }
}

#[test]
fn entries_of_others_stay_as_they_are_and_where_they_are() {
    let other = json!({"type": "example.com/Checked", "status": "False"});
    let ours =
        json!({"type": "AmbitAccepted", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"conditions": [reconciled(), ours, other], "observedGeneration": "2"});
    let written = desired(3).merged_into(&status, time(1_000));
    let conditions = written["conditions"].as_array().unwrap();
    assert_eq!((&conditions[0], &conditions[2]), (&reconciled(), &other));
    assert_eq!(conditions[1]["type"], "AmbitAccepted");
    assert_eq!(conditions[3]["type"], "AmbitProgrammed");
    assert_eq!(written["observedGeneration"], "2", "it speaks of the others' conditions too");
    let alone = desired(3).merged_into(&json!({"conditions": [ours], "observedGeneration": 2}), time(1_000));
    assert_eq!(alone["observedGeneration"], 3);
}

#[test]
fn the_time_of_a_transition_is_that_of_the_last_change_of_status() {
    let times = |status: &Value| {
        let conditions = status["conditions"].as_array().unwrap().clone();
        conditions.iter().map(|condition| condition["lastTransitionTime"].clone()).collect::<Vec<_>>()
    };
    let first = desired(1).merged_into(&Value::Null, time(0));
    assert_eq!(times(&first), ["1970-01-01T00:00:00Z"; 2]);
    let more = Desired {
        programmed: Some(condition(Truth::True, PROGRAMMED, "programmed on 4 of 4 proxies")),
        ..desired(2)
    };
    let second = more.merged_into(&first, time(60));
    assert_eq!(times(&second), ["1970-01-01T00:00:00Z"; 2], "words and generations are no transitions");
    let pending = Desired {
        programmed: Some(condition(Truth::False, PENDING, "programmed on 0 of 4 proxies")),
        ..desired(3)
    };
    let third = pending.merged_into(&second, time(60));
    assert_eq!(times(&third), ["1970-01-01T00:00:00Z", "1970-01-01T00:01:00Z"]);
}

#[test]
fn a_condition_that_has_no_meaning_any_more_goes() {
    let first = desired(1).merged_into(&json!({"conditions": [reconciled()]}), time(0));
    let without = Desired { programmed: None, ..desired(2) };
    assert_eq!(without.difference(&first), Difference::Matters);
    let second = without.merged_into(&first, time(0));
    let types: Vec<_> =
        second["conditions"].as_array().unwrap().iter().map(|of| of["type"].clone()).collect();
    assert_eq!(types, ["Reconciled", "AmbitAccepted"]);
    assert_eq!(without.difference(&second), Difference::None);
}

/// CRDs before Istio 1.28 know no `observedGeneration` of a condition, and drop it.
#[test]
fn a_field_that_the_api_server_drops_is_not_written_for_ever() {
    let mut status = desired(3).merged_into(&Value::Null, time(0));
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition.as_object_mut().unwrap().remove("observedGeneration");
    }
    assert_eq!(desired(3).difference(&status), Difference::None);
    assert_eq!(desired(4).difference(&status), Difference::Matters, "the status's own field tells");
}

#[test]
fn what_is_waited_for_is_told_apart_from_what_is_counted() {
    let with = |programmed: Condition| Desired { programmed: Some(programmed), ..desired(3) };
    let all =
        |count: u32| condition(Truth::True, PROGRAMMED, &format!("programmed on {count} of {count} proxies"));
    let some = |count: u32| condition(Truth::False, PENDING, &format!("programmed on {count} of 3 proxies"));
    let refused = condition(Truth::False, REFUSED, "programmed on 2 of 3 proxies, refused by 1: n: no");
    let nobody = condition(Truth::Unknown, NO_PROXIES, "no proxy is connected");
    let rows = [
        ("the same", all(3), all(3), Difference::None),
        ("a proxy more", all(3), all(4), Difference::Counts),
        ("a proxy comes back", all(3), some(2), Difference::Counts),
        ("control starts", all(3), nobody.clone(), Difference::Counts),
        ("one more has it", some(1), some(2), Difference::Counts),
        ("the last one has it", some(2), all(3), Difference::Matters),
        ("a refusal", some(2), refused.clone(), Difference::Matters),
        ("a refusal later", all(3), refused.clone(), Difference::Matters),
        ("a refusal ends", refused, some(2), Difference::Matters),
        ("the first proxy", nobody, all(1), Difference::Matters),
    ];
    for (what, there, now, expected) in rows {
        let status = with(there).merged_into(&Value::Null, time(0));
        assert_eq!(with(now).difference(&status), expected, "{what}");
    }
    let status = desired(3).merged_into(&Value::Null, time(0));
    let edited = with(some(0));
    let edited = Desired { generation: Some(4), ..edited };
    assert_eq!(edited.difference(&status), Difference::Matters, "an edit");
    let rejected = Desired { accepted: condition(Truth::False, "Invalid", "unreadable"), ..desired(3) };
    assert_eq!(rejected.difference(&status), Difference::Matters, "a verdict");
}
