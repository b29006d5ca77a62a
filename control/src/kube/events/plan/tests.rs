use serde_json::{Value, json};

use super::*;
use crate::kube::testing::{custom_policy, generation, object, policy};
use crate::objects::KnownKind;

fn namespace() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "shop", "uid": "uid-shop", "labels": {"istio.io/dataplane-mode": "ambient"}}
    })
}

fn pod(name: &str, rest: Value) -> Value {
    let mut pod = object(
        "v1",
        "Pod",
        name,
        0,
        json!({"spec": {"nodeName": "n1"}, "status": {"podIP": "10.0.0.1", "phase": "Running"}}),
    );
    for (path, value) in rest.as_object().into_iter().flatten() {
        let (parent, field) = path.rsplit_once('/').expect("a path");
        pod.pointer_mut(parent).expect("the place is there")[field] = value.clone();
    }
    pod
}

/// `weight reason/action of object: note`
fn lines(tellings: &BTreeSet<Telling>) -> Vec<String> {
    let line = |telling: &Telling| {
        let Telling { key, weight, reason, action, note, .. } = telling;
        format!("{weight:?} {reason}/{action} of {key}: {note}")
    };
    tellings.iter().map(line).collect()
}

fn starts(documents: &[Value], expected: &[&str]) {
    let lines = lines(&tellings(&generation(documents)));
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\nis not\n{expected}");
    }
}

#[test]
fn a_pod_that_cannot_be_in_the_mesh_is_told_of() {
    starts(
        &[namespace(), pod("host", json!({"/spec/hostNetwork": true}))],
        &["Normal NoEffect/Ignore of Pod shop/host: a pod with hostNetwork cannot be in the mesh"],
    );
    starts(
        &[namespace(), pod("sidecar", json!({"/metadata/annotations": {"sidecar.istio.io/status": "{}"}}))],
        &["Warning Conflict/Ignore of Pod shop/sidecar: annotation sidecar.istio.io/status"],
    );
    starts(&[namespace(), pod("web", json!({}))], &[]);
}

#[test]
fn a_policy_is_told_of_when_it_does_not_hold_as_written() {
    let with = |path: &str, value: Value| {
        let mut policy = policy("a", 1);
        *policy.pointer_mut(path).expect("the place is there") = value;
        policy
    };
    starts(&[policy("a", 1)], &[]);
    starts(
        &[custom_policy("a", 1)],
        &["Warning EnforcedStricter/EnforceStricter of AuthorizationPolicy shop/a: no external authorizer"],
    );
    starts(
        &[with("/spec/action", json!("REFUSE"))],
        &["Warning Closed/EnforceStrictest of AuthorizationPolicy shop/a: "],
    );
    // That it does nothing yet, its status says.
    starts(&[with("/spec/rules", json!([]))], &[]);
}

#[test]
fn objects_that_no_api_server_gave_us_are_not_told_of() {
    let mut policy = custom_policy("a", 1);
    policy["metadata"].as_object_mut().unwrap().remove("uid");
    starts(&[policy], &[]);
}

fn telling(name: &str, note: &str, weight: Weight) -> Telling {
    let kind = Kind::Known(KnownKind::Pod);
    Telling {
        key: ObjectKey { kind, namespace: Some("shop".into()), name: name.into() },
        uid: format!("uid-{name}").into(),
        weight,
        reason: "Conflict",
        action: "Ignore",
        note: note.to_owned(),
    }
}

#[test]
fn the_same_is_told_once_while_it_lasts() {
    let (a, b) = (telling("a", "x", Weight::Normal), telling("b", "x", Weight::Warning));
    let mut plan = Plan::default();
    let told = |plan: &mut Plan| std::iter::from_fn(|| plan.take()).collect::<Vec<_>>();
    plan.want([a.clone(), b.clone()].into());
    assert_eq!(told(&mut plan), [b.clone(), a.clone()], "a warning first");
    plan.want([a.clone(), b.clone()].into());
    assert_eq!(told(&mut plan), []);
    plan.want([a.clone()].into());
    plan.want([a.clone(), b.clone()].into());
    assert_eq!(plan.take().as_ref(), Some(&b), "it is so again");

    let changed = telling("a", "y", Weight::Normal);
    plan.want([changed.clone(), b.clone()].into());
    assert_eq!(plan.take().as_ref(), Some(&changed));
    plan.on_failure(changed.clone());
    assert_eq!(plan.take().as_ref(), Some(&changed), "it was not told");
    plan.want([b].into());
    plan.on_failure(changed);
    assert_eq!(plan.waiting(), 0, "it is not so any more");
}

#[test]
fn an_event_is_what_the_api_server_takes() {
    let longest = telling(&"p".repeat(253), &"n".repeat(100), Weight::Warning);
    let event = longest.event(&"i".repeat(300), Timestamp::UNIX_EPOCH);
    let name = event.metadata.name.clone().unwrap();
    assert!(name.len() <= LONGEST_NAME && name.starts_with("ppp"), "{name}");
    assert_eq!(event.metadata.namespace.as_deref(), Some("shop"));
    assert_eq!(event.reporting_instance.map(|instance| instance.len()), Some(LONGEST_INSTANCE));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    let regarding = event.regarding.unwrap();
    assert_eq!(
        (regarding.api_version.as_deref(), regarding.kind.as_deref(), regarding.namespace.as_deref()),
        (Some("v1"), Some("Pod"), Some("shop"))
    );

    let name = |telling: &Telling| telling.event("i", Timestamp::UNIX_EPOCH).metadata.name;
    let a = telling("a", "x", Weight::Warning);
    assert_eq!(name(&a), name(&a.clone()), "the next leader gives it the same name");
    assert_ne!(name(&a), name(&telling("a", "y", Weight::Warning)));
    assert_ne!(name(&a), name(&Telling { uid: "another".into(), ..a.clone() }));

    let cluster = Telling { key: ObjectKey { namespace: None, ..a.key.clone() }, ..a };
    assert_eq!(cluster.namespace(), "default");
    let policy = Kind::Known(KnownKind::AuthorizationPolicy);
    assert_eq!(api_version(&policy), "security.istio.io/v1");
}
