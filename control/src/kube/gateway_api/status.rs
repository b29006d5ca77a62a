//! What the status of an object of the Gateway API is to be, beside what others wrote. Pure.

use serde_json::{Map, Value, json};

use super::gateway::{GatewayStatus, is_said};
use crate::translate::Condition;

/// Under this name we write in lists that controllers share.
pub const CONTROLLER: &str = "ambit.dev/waypoint";

/// What conditions are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says<'a> {
    /// The object: a Service, or a GatewayClass.
    OfItself {
        /// The one type of which anything is said; it goes where nothing is said of it.
        only: Option<&'a str>,
    },
    /// A Gateway of ours.
    OfGateway {
        /// What is said besides conditions.
        status: Option<&'a GatewayStatus>,
    },
    /// Each of its parents: a route of this namespace.
    OfParents {
        /// The namespace.
        namespace: &'a str,
    },
}

/// The status to apply; none where what is there says the same. `there` is the object as it was read, `generation`
/// that of which `conditions` speak, `now` in RFC 3339.
pub fn desired(
    says: Says<'_>,
    there: &Value,
    generation: Option<i64>,
    conditions: &[Condition],
    now: &str,
) -> Option<Value> {
    match says {
        Says::OfItself { only } => of_itself(only, there, generation, conditions, now),
        Says::OfGateway { status: None } => of_itself(None, there, generation, conditions, now),
        Says::OfGateway { status: Some(status) } => of_gateway(status, there, generation, conditions, now),
        Says::OfParents { namespace } => of_parents(namespace, there, generation, conditions, now),
    }
}

fn of_gateway(
    status: &GatewayStatus,
    there: &Value,
    generation: Option<i64>,
    conditions: &[Condition],
    now: &str,
) -> Option<Value> {
    let old = &there["status"]["conditions"];
    let new: Vec<Value> = conditions
        .iter()
        .map(|condition| written(condition, find(old, condition.kind), generation, now))
        .collect();
    let (addresses, listeners) = status.parts(there, generation, now);
    let is_there = new.iter().all(|condition| find(old, text(condition, "type")) == Some(condition))
        && is_said(there, &addresses, &listeners);
    (!is_there).then(|| json!({"conditions": new, "addresses": addresses, "listeners": listeners}))
}

fn of_itself(
    only: Option<&str>,
    there: &Value,
    generation: Option<i64>,
    conditions: &[Condition],
    now: &str,
) -> Option<Value> {
    let old = &there["status"]["conditions"];
    let is_stale = conditions.is_empty() && only.is_some_and(|kind| find(old, kind).is_some());
    let of_object = conditions.iter().filter(|condition| condition.parent.is_none());
    let new: Vec<Value> =
        of_object.map(|condition| written(condition, find(old, condition.kind), generation, now)).collect();
    // Applied types of a list that is kept by type: those of others stay.
    let is_there = new.iter().all(|condition| find(old, text(condition, "type")) == Some(condition));
    (!is_there || is_stale).then(|| json!({ "conditions": new }))
}

fn of_parents(
    namespace: &str,
    there: &Value,
    generation: Option<i64>,
    conditions: &[Condition],
    now: &str,
) -> Option<Value> {
    let old = there["status"]["parents"].as_array().cloned().unwrap_or_default();
    let (ours, others): (Vec<Value>, Vec<Value>) =
        old.iter().cloned().partition(|entry| text(entry, "controllerName") == CONTROLLER);
    let mut parents = others;
    for reference in there["spec"]["parentRefs"].as_array().into_iter().flatten() {
        let at = place(reference, namespace);
        let before = ours.iter().find(|entry| &entry["parentRef"] == reference);
        let before = before.map_or(&Value::Null, |entry| &entry["conditions"]);
        let said: Vec<Value> = conditions
            .iter()
            .filter(|condition| condition.parent.as_deref() == Some(at.as_str()))
            .map(|condition| written(condition, find(before, condition.kind), generation, now))
            .collect();
        // Of a parent that is nothing to us nothing is said.
        if !said.is_empty() {
            parents.push(json!({
                "parentRef": reference,
                "controllerName": CONTROLLER,
                "conditions": said,
            }));
        }
    }
    (parents != old).then(|| json!({ "parents": parents }))
}

/// As translated conditions name a parent.
fn place(reference: &Value, namespace: &str) -> String {
    let word = |key: &str| reference[key].as_str();
    let kind = word("kind").unwrap_or("Gateway");
    let namespace = word("namespace").unwrap_or(namespace);
    let name = word("name").unwrap_or_default();
    let port = reference["port"].as_u64().map(|port| format!(":{port}")).unwrap_or_default();
    let section = word("sectionName").map(|section| format!("#{section}")).unwrap_or_default();
    format!("{kind}/{namespace}/{name}{port}{section}")
}

/// The time of a transition stays where there was none.
pub(super) fn written(
    condition: &Condition,
    before: Option<&Value>,
    generation: Option<i64>,
    now: &str,
) -> Value {
    let status = if condition.status { "True" } else { "False" };
    let since = before.filter(|before| text(before, "status") == status);
    let since = since.and_then(|before| before["lastTransitionTime"].as_str()).unwrap_or(now);
    let mut written = Map::new();
    for (key, value) in [
        ("type", condition.kind),
        ("status", status),
        ("reason", condition.reason),
        ("message", &condition.message),
        ("lastTransitionTime", since),
    ] {
        written.insert(key.to_owned(), value.into());
    }
    if let Some(generation) = generation {
        written.insert("observedGeneration".to_owned(), generation.into());
    }
    Value::Object(written)
}

pub(super) fn find<'a>(conditions: &'a Value, kind: &str) -> Option<&'a Value> {
    conditions.as_array()?.iter().find(|condition| text(condition, "type") == kind)
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(parent: Option<&str>, status: bool) -> Condition {
        let reason = if status { "Accepted" } else { "NoMatchingParent" };
        Condition {
            parent: parent.map(str::to_owned),
            kind: "Accepted",
            status,
            reason,
            message: "said".to_owned(),
        }
    }

    fn route(parents: &Value) -> Value {
        json!({
            "spec": {"parentRefs": [
                {"group": "", "kind": "Service", "name": "web", "port": 80},
                {"name": "edge"},
            ]},
            "status": {"parents": parents},
        })
    }

    #[test]
    fn a_route_says_it_of_each_parent_beside_what_other_controllers_say() {
        let theirs =
            json!({"parentRef": {"name": "edge"}, "controllerName": "edge.example", "conditions": []});
        let says = Says::OfParents { namespace: "shop" };
        let conditions = [accepted(Some("Service/shop/web:80"), true)];
        let first = desired(says, &route(&json!([theirs])), Some(3), &conditions, "T1").unwrap();
        let parents = first["parents"].as_array().unwrap();
        assert_eq!(parents.len(), 2, "of the Gateway nothing is ours to say: {first}");
        assert_eq!(parents[0], theirs);
        assert_eq!(parents[1]["parentRef"]["port"], 80);
        let condition = &parents[1]["conditions"][0];
        assert_eq!((&condition["status"], &condition["observedGeneration"]), (&json!("True"), &json!(3)));

        let there = route(&first["parents"]);
        assert_eq!(desired(says, &there, Some(3), &conditions, "T2"), None, "the same is not written again");
        let newer = desired(says, &there, Some(4), &conditions, "T2").unwrap();
        assert_eq!(newer["parents"][1]["conditions"][0]["lastTransitionTime"], "T1", "it was so before");
        let refused = [accepted(Some("Service/shop/web:80"), false)];
        let refused = desired(says, &there, Some(4), &refused, "T2").unwrap();
        assert_eq!(refused["parents"][1]["conditions"][0]["lastTransitionTime"], "T2");
        // A parent that is taken away takes what was said of it along.
        let gone = desired(says, &there, Some(5), &[], "T3").unwrap();
        assert_eq!(gone["parents"], json!([theirs]));
    }

    #[test]
    fn parents_that_differ_in_their_section_alone_are_told_apart() {
        let reference =
            |section: &str| json!({"group": "", "kind": "Service", "name": "web", "sectionName": section});
        let there = json!({"spec": {"parentRefs": [reference("http"), reference("none")]}});
        let conditions =
            [accepted(Some("Service/shop/web#http"), true), accepted(Some("Service/shop/web#none"), false)];
        let said = desired(Says::OfParents { namespace: "shop" }, &there, Some(1), &conditions, "T").unwrap();
        for (at, status) in [(0, "True"), (1, "False")] {
            let said = said["parents"][at]["conditions"].as_array().unwrap();
            assert_eq!(said.len(), 1, "a list by type may hold a type once: {said:?}");
            assert_eq!(said[0]["status"], status);
        }
    }

    #[test]
    fn an_object_says_it_of_itself_and_only_when_it_changes() {
        let conditions = [accepted(None, true)];
        let there = json!({"status": {"conditions": [{"type": "Theirs", "status": "True"}]}});
        let says = Says::OfItself { only: None };
        let first = desired(says, &there, Some(1), &conditions, "T1").unwrap();
        assert_eq!(first["conditions"].as_array().unwrap().len(), 1, "only ours are applied");
        let there = json!({"status": {"conditions": [first["conditions"][0], {"type": "Theirs"}]}});
        assert_eq!(desired(says, &there, Some(1), &conditions, "T2"), None);
        assert!(desired(says, &there, Some(2), &conditions, "T2").is_some());
    }

    #[test]
    fn a_service_that_is_bound_no_more_does_not_say_so() {
        let says = Says::OfItself { only: Some("Accepted") };
        let bound =
            json!({"status": {"conditions": [{"type": "Accepted", "status": "True"}, {"type": "Theirs"}]}});
        assert_eq!(desired(says, &bound, None, &[], "T1"), Some(json!({"conditions": []})));
        let unbound = json!({"status": {"conditions": [{"type": "Theirs"}]}});
        assert_eq!(desired(says, &unbound, None, &[], "T1"), None);
    }
}
