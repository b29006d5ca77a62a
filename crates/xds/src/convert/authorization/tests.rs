use ambit_mesh::policy::{Clause, Match, StringMatch};
use proptest::prelude::*;

use super::*;
use crate::samples;
use crate::samples::arbitrary;

/// A policy whose only rule has one clause with these matches.
fn policy(action: proto::Action, matches: Vec<proto::Match>) -> proto::Authorization {
    proto::Authorization {
        name: "p".into(),
        namespace: "shop".into(),
        action: action.into(),
        rules: vec![proto::Rule { clauses: vec![proto::Clause { matches }] }],
        ..proto::Authorization::default()
    }
}

fn text(match_type: proto::string_match::MatchType) -> proto::StringMatch {
    proto::StringMatch { match_type: Some(match_type) }
}

fn exact(value: &str) -> proto::StringMatch {
    text(proto::string_match::MatchType::Exact(value.into()))
}

/// A way to compare text that this build does not know.
fn unknown_text() -> proto::StringMatch {
    proto::StringMatch { match_type: None }
}

fn unknown_condition() -> Vec<proto::Extension> {
    vec![proto::Extension { name: "example.com/condition".into(), config: None }]
}

fn rules_of(policy: &proto::Authorization) -> Vec<Rule> {
    decode(&policy.encode_to_vec()).unwrap().rules
}

fn namespaces(values: &[&str]) -> Vec<StringMatch> {
    values.iter().map(|&value| StringMatch::Exact(value.into())).collect()
}

fn one_match(condition: Match) -> Vec<Rule> {
    vec![Rule { clauses: vec![Clause { any_of: vec![condition] }] }]
}

const MATCHES_EVERYTHING: [Rule; 1] = [Rule { clauses: Vec::new() }];

#[test]
fn an_allow_with_an_unenforceable_condition_never_matches() {
    let enforceable = proto::Match { namespaces: vec![exact("a")], ..Default::default() };
    let cases = [
        ("extension", proto::Match { extensions: unknown_condition(), ..enforceable.clone() }),
        ("only an extension", proto::Match { extensions: unknown_condition(), ..Default::default() }),
        ("unknown text", proto::Match { principals: vec![unknown_text()], ..enforceable.clone() }),
        (
            "one unknown of two",
            proto::Match { namespaces: vec![exact("a"), unknown_text()], ..Default::default() },
        ),
        ("unknown negation", proto::Match { not_namespaces: vec![unknown_text()], ..enforceable.clone() }),
    ];
    for (case, condition) in cases {
        let alone = policy(proto::Action::Allow, vec![condition.clone()]);
        assert_eq!(rules_of(&alone), [], "{case}");
        let beside = policy(proto::Action::Allow, vec![condition, enforceable.clone()]);
        let rest = Match { namespaces: namespaces(&["a"]), ..Match::default() };
        assert_eq!(rules_of(&beside), one_match(rest), "{case}, beside one that can be enforced");
    }
}

#[test]
fn a_deny_matches_on_what_is_left_and_denies_all_if_nothing_is() {
    let a = Match { namespaces: namespaces(&["a"]), ..Match::default() };
    let not_a = Match { not_namespaces: namespaces(&["a"]), ..Match::default() };
    let in_a = || proto::Match { namespaces: vec![exact("a")], ..Default::default() };
    let cases = [
        ("extension", proto::Match { extensions: unknown_condition(), ..in_a() }, one_match(a.clone())),
        (
            "only an extension",
            proto::Match { extensions: unknown_condition(), ..Default::default() },
            MATCHES_EVERYTHING.to_vec(),
        ),
        ("another group", proto::Match { principals: vec![unknown_text()], ..in_a() }, one_match(a)),
        (
            "anyone may meet a group with an unknown value",
            proto::Match { namespaces: vec![exact("a"), unknown_text()], ..Default::default() },
            MATCHES_EVERYTHING.to_vec(),
        ),
        (
            "an unknown value may exclude nobody, the known one still does",
            proto::Match { not_namespaces: vec![exact("a"), unknown_text()], ..Default::default() },
            one_match(not_a),
        ),
    ];
    for (case, condition, expected) in cases {
        assert_eq!(rules_of(&policy(proto::Action::Deny, vec![condition])), expected, "{case}");
    }
}

/// Appends field 99, which no message of this build has.
fn with_unknown_field(message: &impl Message) -> Vec<u8> {
    let mut octets = message.encode_to_vec();
    octets.extend([0x98, 0x06, 0x01]);
    octets
}

#[test]
fn a_field_that_is_not_known_is_a_condition_that_cannot_be_enforced() {
    let condition = proto::Match { namespaces: vec![exact("a")], ..Default::default() };
    let encode = |action: proto::Action, level: usize| {
        let condition = if level == 0 { with_unknown_field(&condition) } else { condition.encode_to_vec() };
        let wrap = |inner: Vec<u8>, field: u8, unknown: bool| {
            let mut octets = vec![field << 3 | 2, u8::try_from(inner.len()).unwrap()];
            octets.extend(inner);
            if unknown {
                octets.extend([0x98, 0x06, 0x01]);
            }
            octets
        };
        let clause = wrap(condition, 2, level == 1);
        let rule = wrap(clause, 1, level == 2);
        let head = proto::Authorization { rules: Vec::new(), ..policy(action, Vec::new()) };
        [head.encode_to_vec(), wrap(rule, 5, false)].concat()
    };
    let left = one_match(Match { namespaces: namespaces(&["a"]), ..Match::default() });
    for (level, denies) in [(0, left.clone()), (1, MATCHES_EVERYTHING.to_vec()), (2, left.clone())] {
        assert_eq!(decode(&encode(proto::Action::Allow, level)).unwrap().rules, [], "level {level}");
        assert_eq!(decode(&encode(proto::Action::Deny, level)).unwrap().rules, denies, "level {level}");
    }
    assert_eq!(decode(&encode(proto::Action::Allow, 3)).unwrap().rules, left, "nothing unknown");
}

#[test]
fn clauses_and_matches_without_conditions_keep_their_meaning() {
    let empty_rule =
        proto::Authorization { rules: vec![proto::Rule::default()], ..policy(proto::Action::Allow, vec![]) };
    assert_eq!(rules_of(&empty_rule), MATCHES_EVERYTHING);
    assert_eq!(rules_of(&policy(proto::Action::Allow, Vec::new())), MATCHES_EVERYTHING);
    // The mesh skips a match without conditions; with the clause left empty it would be true.
    let skipped = policy(proto::Action::Deny, vec![proto::Match::default()]);
    assert_eq!(rules_of(&skipped), one_match(Match::default()));
    let no_rules = proto::Authorization { rules: Vec::new(), ..policy(proto::Action::Allow, vec![]) };
    assert_eq!(rules_of(&no_rules), []);
}

#[test]
fn a_policy_that_would_be_enforced_differently_is_refused_as_a_whole() {
    let range = |address: &[u8], length| proto::Address { address: address.into(), length };
    let condition = |condition| policy(proto::Action::Deny, vec![condition]);
    let whole = |change: fn(&mut proto::Authorization)| {
        let mut policy = policy(proto::Action::Deny, Vec::new());
        change(&mut policy);
        policy
    };
    let source = |range| condition(proto::Match { source_ips: vec![range], ..Default::default() });
    let cases = [
        ("no name", whole(|policy| policy.name.clear())),
        ("no namespace", whole(|policy| policy.namespace.clear())),
        ("unknown scope", whole(|policy| policy.scope = 3)),
        ("unknown action", whole(|policy| policy.action = 2)),
        ("prefix too long for IPv4", source(range(&[10, 0, 0, 0], 33))),
        ("prefix too long for IPv6", source(range(&[1; 16], 129))),
        ("prefix beyond an octet", source(range(&[10, 0, 0, 0], 264))),
        ("odd address", source(range(&[10, 0], 8))),
        ("port", condition(proto::Match { destination_ports: vec![80, 65_536], ..Default::default() })),
    ];
    for (case, policy) in cases {
        assert!(decode(&policy.encode_to_vec()).is_err(), "{case} was accepted");
    }
    assert!(matches!(decode(&[0xff]), Err(InvalidAuthorization::Decode(_))));
}

#[test]
fn ranges_are_compared_as_addresses_are() {
    let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3];
    let ranges = [(&[10, 1, 2, 3][..], 8), (&mapped[..], 104), (&[0, 0, 0, 0][..], 0)];
    let source_ips = ranges.map(|(address, length)| proto::Address { address: address.into(), length });
    let condition = proto::Match { source_ips: source_ips.into(), ..Default::default() };
    let expected = ["10.0.0.0/8", "10.0.0.0/8", "0.0.0.0/0"].map(|range| range.parse().unwrap());
    let condition_read = Match { source_ips: expected.into(), ..Match::default() };
    assert_eq!(rules_of(&policy(proto::Action::Deny, vec![condition])), one_match(condition_read));
}

#[test]
fn principals_are_compared_without_their_scheme() {
    let condition = proto::Match {
        principals: vec![exact("spiffe://td/ns/shop/sa/web"), exact("td/ns/shop/sa/api")],
        ..Default::default()
    };
    let expected =
        Match { principals: namespaces(&["td/ns/shop/sa/web", "td/ns/shop/sa/api"]), ..Match::default() };
    assert_eq!(rules_of(&policy(proto::Action::Allow, vec![condition])), one_match(expected));
}

#[test]
fn what_stands_in_denies_what_can_be_told_of_the_selection() {
    let name = || samples::policy("shop", "p", Action::Deny).name;
    let broken = |scope, dry_run| proto::Authorization {
        scope,
        dry_run,
        action: 9,
        ..policy(proto::Action::Allow, Vec::new())
    };
    let stand_in = |octets: &[u8]| {
        let policy = stand_in(name(), octets);
        assert_eq!((policy.action, policy.rules), (Action::Deny, MATCHES_EVERYTHING.to_vec()));
        (policy.scope, policy.dry_run)
    };
    assert_eq!(stand_in(&broken(2, false).encode_to_vec()), (PolicyScope::WorkloadSelector, false));
    assert_eq!(stand_in(&broken(1, true).encode_to_vec()), (PolicyScope::Namespace, true));
    assert_eq!(stand_in(&broken(3, false).encode_to_vec()), (PolicyScope::Global, false));
    assert_eq!(stand_in(&[0xff]), (PolicyScope::Global, false));
}

proptest! {
    #[test]
    fn a_policy_reads_back_as_it_was_written(policy in arbitrary::policy()) {
        prop_assert_eq!(decode(&to_proto(&policy).encode_to_vec()), Ok(policy));
    }

    #[test]
    fn whatever_octets_can_be_read_keep_their_meaning_when_written(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
        if let Ok(policy) = decode(&octets) {
            prop_assert_eq!(decode(&to_proto(&policy).encode_to_vec()), Ok(policy));
        }
    }
}
