use serde_json::{Value, json};

use super::*;
use crate::kube::testing::{Control, custom_policy, generation, object, policy};

/// `truth reason (generation): message`
fn accepted(generation: &Generation, name: &str) -> String {
    let all = desired(generation, &|_| None);
    let (_, desired) = all.iter().find(|(key, _)| *key.name == *name).expect("it has a status");
    let Condition { truth, reason, message } = &desired.accepted;
    let observed = desired.generation.map_or_else(|| "?".to_owned(), |generation| generation.to_string());
    format!("{} {reason} ({observed}): {message}", truth.label())
}

fn with(policy: Value, path: &str, value: Value) -> Value {
    let mut policy = policy;
    *policy.pointer_mut(path).expect("the place is there") = value;
    policy
}

#[test]
fn what_became_of_a_policy_is_its_condition() {
    let layer_7 = json!([{"to": [{"operation": {"methods": ["GET"]}}]}]);
    let peers = |spec: Value| json!({"spec": spec});
    let peer = |name: &str, spec| object("security.istio.io/v1", "PeerAuthentication", name, 4, peers(spec));
    let rows = [
        (policy("plain", 3), "True Accepted (3): in force"),
        (
            custom_policy("custom", 3),
            "True EnforcedStricter (3): no external authorizer can be asked at layer 4: what the rules match is \
             denied",
        ),
        (
            with(policy("layer-7", 2), "/spec/rules", layer_7),
            "True EnforcedStricter (2): rules[0] uses methods, which layer 4 cannot evaluate: it \
             denies everything",
        ),
        (
            with(policy("nothing", 2), "/spec/rules", json!([])),
            "True NoEffect (2): without `rules` the policy never matches: add an empty rule `{}` to match everything",
        ),
        (peer("strict", json!({"mtls": {"mode": "STRICT"}})), "True Accepted (4): in force"),
    ];
    for (document, expected) in rows {
        let name = document["metadata"]["name"].as_str().unwrap().to_owned();
        assert_eq!(accepted(&generation(&[document]), &name), expected);
    }
}

#[test]
fn of_two_with_the_same_reach_one_is_not_in_force() {
    let spec = json!({"spec": {"mtls": {"mode": "STRICT"}}});
    let peer = |name: &str| object("security.istio.io/v1", "PeerAuthentication", name, 1, spec.clone());
    let generation = generation(&[peer("first"), peer("second")]);
    assert!(accepted(&generation, "first").starts_with("True Accepted"));
    assert!(accepted(&generation, "second").starts_with("False Conflict (1): PeerAuthentication shop/first"));
}

#[test]
fn a_policy_that_cannot_be_read_says_what_holds_instead() {
    let broken = |generation| with(policy("a", generation), "/spec/action", json!("REFUSE"));
    let mut control = Control::default();
    let closed = accepted(&control.show(&[broken(5)]), "a");
    assert!(closed.starts_with("False Closed (5): "), "{closed}");
    assert!(closed.ends_with("what it selects is denied until it can be read"), "{closed}");

    let mut control = Control::default();
    assert!(accepted(&control.show(&[policy("a", 5)]), "a").starts_with("True Accepted (5)"));
    let kept = accepted(&control.show(&[broken(6)]), "a");
    assert!(kept.starts_with("False LastGoodKept (6): "), "{kept}");
}

#[test]
fn how_many_proxies_have_it_is_its_other_condition() {
    let progress = |acknowledged, wanted, refusals: &[&str]| Progress {
        layer: Layer::Four,
        acknowledged,
        wanted,
        refused: u32::try_from(refusals.len()).unwrap(),
        refusals: refusals.iter().map(|said| (*said).to_owned()).collect(),
    };
    let rows = [
        (progress(0, 0, &[]), "Unknown NoProxies: no proxy is connected"),
        (
            Progress { layer: Layer::Seven, ..progress(0, 0, &[]) },
            "Unknown NoProxies: no waypoint is connected",
        ),
        (progress(0, 3, &[]), "False Pending: programmed on 0 of 3 proxies"),
        (progress(3, 3, &[]), "True Programmed: programmed on 3 of 3 proxies"),
        (
            progress(2, 3, &["n1: too large"]),
            "False Refused: programmed on 2 of 3 proxies, refused by 1: n1: too large",
        ),
        (
            progress(0, 9, &["a: x", "b: x", "c: x", "d: x"]),
            "False Refused: programmed on 0 of 9 proxies, refused by 4: a: x; b: x; c: x",
        ),
    ];
    let generation = generation(&[policy("a", 1)]);
    for (progress, expected) in rows {
        let all = desired(&generation, &|name| {
            assert_eq!(name.to_string(), "shop/a");
            Some(progress.clone())
        });
        let Condition { truth, reason, message } =
            all.values().next().and_then(|desired| desired.programmed.clone()).expect("it has the condition");
        assert_eq!(format!("{} {reason}: {message}", truth.label()), expected);
    }
}

#[test]
fn a_peer_authentication_is_programmed_where_it_becomes_a_policy_of_its_own() {
    let spec = json!({"spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "mtls": {"mode": "STRICT"},
        "portLevelMtls": {"8080": {"mode": "PERMISSIVE"}},
    }});
    let peer = object("security.istio.io/v1", "PeerAuthentication", "web", 1, spec);
    let generation = generation(&[peer]);
    let asked = std::cell::RefCell::new(Vec::new());
    desired(&generation, &|name| {
        asked.borrow_mut().push(name.clone());
        None
    });
    let asked = asked.into_inner();
    assert_eq!(asked.len(), 1);
    assert!(generation.translated.policies.contains_key(&asked[0]), "{} is what it becomes", asked[0]);
}

#[test]
fn only_policies_have_a_status() {
    let pod =
        object("v1", "Pod", "web", 1, json!({"spec": {"nodeName": "n"}, "status": {"podIP": "10.0.0.1"}}));
    assert!(desired(&generation(&[pod]), &|_| None).is_empty());
}

#[test]
fn a_message_is_cut_at_a_character() {
    let long = shortened("\u{e9}".repeat(2_000));
    assert!(long.len() <= LONGEST_MESSAGE && long.ends_with("\u{e9}..."), "{} octets", long.len());
    assert_eq!(shortened("short".to_owned()), "short");
}
