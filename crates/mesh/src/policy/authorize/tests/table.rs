//! One row for each rule.

use Action::{Allow, Deny};
use PolicyScope::{Global, Namespace, WorkloadSelector};

use super::*;
use crate::fixtures::snapshot;
use crate::policy::{AllowedBy, Denied, DryRunVerdict, authorize, dry_run};

/// Every rule is tried in an ALLOW and in a DENY policy of every scope: what matches is allowed by
/// the one and denied by the other.
fn check(rows: impl IntoIterator<Item = (&'static str, Rule, Connection, bool)>) {
    for (row, rule, connection, matches) in rows {
        for scope in [Global, Namespace, WorkloadSelector] {
            for action in [Allow, Deny] {
                let snapshot = snapshot([policy(scope, "p", action, vec![rule.clone()]).into()]);
                let allowed = authorize(&snapshot, &web(&["p"]), &connection).is_ok();
                let expected = match action {
                    Allow => matches,
                    Deny => !matches,
                };
                assert_eq!(allowed, expected, "{row}, {action:?} policy of scope {scope:?}");
            }
        }
    }
}

#[test]
fn conditions_on_who_the_peer_is() {
    let principal = |text| rule(Match { principals: vec![text], ..Match::default() });
    let not_principal = |text| rule(Match { not_principals: vec![text], ..Match::default() });
    let namespace = |text| rule(Match { namespaces: vec![text], ..Match::default() });
    let not_namespace = |text| rule(Match { not_namespaces: vec![text], ..Match::default() });
    let account =
        |ns, name| rule(Match { service_accounts: vec![from_account(ns, name)], ..Match::default() });
    let not_account =
        |ns, name| rule(Match { not_service_accounts: vec![from_account(ns, name)], ..Match::default() });
    let prefix = |text: &str| StringMatch::Prefix(text.into());
    let suffix = |text: &str| StringMatch::Suffix(text.into());
    let client = "cluster.local/ns/shop/sa/client";
    let stranger = || from(Peer::Verified(identity_of("spiffe://other/ns/shop/sa/client")));
    check([
        ("principal, exact", principal(exact(client)), from_client(), true),
        ("principal, of another trust domain", principal(exact(client)), stranger(), false),
        ("principal, in another case", principal(exact(&client.to_uppercase())), from_client(), false),
        ("principal, prefix", principal(prefix("cluster.local/ns/shop/")), from_client(), true),
        ("principal, prefix of another", principal(prefix("cluster.local/ns/sho/")), from_client(), false),
        ("principal, suffix", principal(suffix("/sa/client")), from_client(), true),
        ("principal, suffix of another", principal(suffix("/sa/web")), from_client(), false),
        ("principal, any", principal(StringMatch::Presence), from_client(), true),
        ("not principal, this one", not_principal(exact(client)), from_client(), false),
        ("not principal, another", not_principal(exact("x")), from_client(), true),
        ("not principal, any", not_principal(StringMatch::Presence), from_client(), false),
        ("namespace", namespace(exact("shop")), from_client(), true),
        ("namespace, another", namespace(exact("sho")), from_client(), false),
        ("namespace, prefix", namespace(prefix("sh")), from_client(), true),
        ("namespace, suffix", namespace(suffix("op")), from_client(), true),
        ("not namespace, this one", not_namespace(exact("shop")), from_client(), false),
        ("not namespace, another", not_namespace(exact("other")), from_client(), true),
        ("service account", account("shop", "client"), from_client(), true),
        ("service account, of another trust domain", account("shop", "client"), stranger(), true),
        ("service account, its name elsewhere", account("other", "client"), from_client(), false),
        ("not service account, this one", not_account("shop", "client"), from_client(), false),
        ("not service account, another", not_account("shop", "web"), from_client(), true),
    ]);
}

/// Istio: what is not there matches no positive condition and every negative one.
#[test]
fn conditions_on_a_peer_without_identity() {
    let any = || vec![StringMatch::Presence];
    let account = || vec![from_account("shop", "client")];
    let plain = || from(Peer::Unauthenticated);
    let not_account = Match { not_service_accounts: account(), ..Match::default() };
    check([
        ("any principal", rule(Match { principals: any(), ..Match::default() }), plain(), false),
        ("not any principal", rule(Match { not_principals: any(), ..Match::default() }), plain(), true),
        ("any namespace", rule(Match { namespaces: any(), ..Match::default() }), plain(), false),
        ("not any namespace", rule(Match { not_namespaces: any(), ..Match::default() }), plain(), true),
        ("service account", rule(Match { service_accounts: account(), ..Match::default() }), plain(), false),
        ("not service account", rule(not_account), plain(), true),
        ("its address and port still count", rule(on_port(8080)), plain(), true),
    ]);
}

#[test]
fn conditions_on_addresses_and_ports() {
    let nets = |text: &str| vec![text.parse().unwrap()];
    let source = |text| rule(Match { source_ips: nets(text), ..Match::default() });
    let not_source = |text| rule(Match { not_source_ips: nets(text), ..Match::default() });
    let destination = |text| rule(Match { destination_ips: nets(text), ..Match::default() });
    let not_destination = |text| rule(Match { not_destination_ips: nets(text), ..Match::default() });
    let not_port = |port| rule(Match { not_destination_ports: vec![port], ..Match::default() });
    let between = |source, destination| Connection {
        source_ip: ip(source),
        destination: socket(destination),
        ..from_client()
    };
    let mapped = || between("::ffff:10.0.0.9", "[::ffff:10.0.0.1]:8080");
    let six = || between("fd00::9", "[fd00::1]:8080");
    check([
        ("source, the address itself", source("10.0.0.9/32"), from_client(), true),
        ("source, its block", source("10.0.0.0/8"), from_client(), true),
        ("source, the whole of IPv4", source("0.0.0.0/0"), from_client(), true),
        ("source, another block", source("10.0.1.0/24"), from_client(), false),
        ("source, a block with host bits", source("10.0.0.1/24"), from_client(), true),
        ("source, an IPv4-mapped peer", source("10.0.0.0/24"), mapped(), true),
        ("source, an IPv4-mapped block", source("::ffff:10.0.0.0/120"), from_client(), true),
        ("source, another IPv4-mapped block", source("::ffff:10.0.1.0/120"), from_client(), false),
        ("source, the whole of IPv6 is not IPv4", source("::/0"), from_client(), false),
        ("source, IPv6", source("fd00::/64"), six(), true),
        ("source, the whole of IPv4 is not IPv6", source("0.0.0.0/0"), six(), false),
        ("not source, this one", not_source("10.0.0.9/32"), from_client(), false),
        ("not source, this one IPv4-mapped", not_source("10.0.0.9/32"), mapped(), false),
        ("not source, another", not_source("10.0.0.8/32"), from_client(), true),
        ("destination", destination("10.0.0.1/32"), from_client(), true),
        ("destination, IPv4-mapped", destination("10.0.0.1/32"), mapped(), true),
        ("destination, another", destination("10.0.0.2/32"), from_client(), false),
        ("not destination, this one", not_destination("10.0.0.0/24"), from_client(), false),
        ("not destination, another", not_destination("10.0.1.0/24"), from_client(), true),
        ("port", rule(on_port(8080)), from_client(), true),
        ("port, another", rule(on_port(80)), from_client(), false),
        ("not port, this one", not_port(8080), from_client(), false),
        ("not port, another", not_port(80), from_client(), true),
    ]);
}

#[test]
fn how_conditions_join() {
    let ports = |ports: &[u16]| Match { destination_ports: ports.to_vec(), ..Match::default() };
    let not_ports = Match { not_destination_ports: vec![80, 8080], ..Match::default() };
    let both = |namespace, port| rule(Match { destination_ports: vec![port], ..from_namespace(namespace) });
    let not_client = vec![StringMatch::Suffix("/sa/client".into())];
    let but_not = Match { not_principals: not_client, ..from_namespace("shop") };
    let all = |clauses: Vec<Clause>| Rule { clauses };
    let on_8080 = || any_of([on_port(8080)]);
    check([
        ("values of one kind: any", rule(ports(&[80, 8080])), from_client(), true),
        ("values of one kind: none of them", rule(ports(&[80, 81])), from_client(), false),
        ("unwanted values of one kind: any excludes", rule(not_ports), from_client(), false),
        ("kinds: all", both("shop", 8080), from_client(), true),
        ("kinds: one fails", both("shop", 80), from_client(), false),
        ("wanted and unwanted: both count", rule(but_not), from_client(), false),
        ("matches: any", all(vec![any_of([on_port(80), from_namespace("shop")])]), from_client(), true),
        ("matches: none", all(vec![any_of([on_port(80), from_namespace("x")])]), from_client(), false),
        ("clauses: all", all(vec![on_8080(), any_of([from_namespace("shop")])]), from_client(), true),
        ("clauses: one fails", all(vec![on_8080(), any_of([from_namespace("x")])]), from_client(), false),
        ("a clause without matches is true", all(vec![Clause::default()]), from_client(), true),
        ("a rule without clauses matches everything", everything(), from_client(), true),
    ]);
}

/// Layer 7 conditions leave an empty match behind. It is closed on either side, so it is not a row
/// of [`check`], where one side is always open.
#[test]
fn a_match_without_conditions_is_closed() {
    let decide = |action, rule| {
        let snapshot = snapshot([policy(Namespace, "p", action, vec![rule]).into()]);
        authorize(&snapshot, &web(&[]), &from_client())
    };
    let beside = |port| Rule { clauses: vec![any_of([on_port(port)]), any_of([Match::default()])] };
    for action in [Allow, Deny] {
        assert!(decide(action, rule(Match::default())).is_err(), "alone, {action:?}");
        assert!(decide(action, beside(8080)).is_err(), "beside a clause that matches, {action:?}");
    }
    assert!(decide(Deny, beside(80)).is_ok(), "what layer 4 can check still narrows a DENY");
}

/// A row of [`how_policies_join`]: the policies, those that the workload names, and the outcome.
type Row = (&'static str, Vec<AuthorizationPolicy>, &'static [&'static str], Result<AllowedBy, Denied>);

#[test]
fn how_policies_join() {
    for (row, policies, named, expected) in denying().into_iter().chain(allowing()).chain(on_trial()) {
        let snapshot = snapshot(policies.into_iter().map(Into::into));
        let outcome = authorize(&snapshot, &web(named), &from_client());
        assert_eq!(outcome.map(|permit| permit.allowed_by().clone()), expected, "{row}");
    }
}

const OPEN: Result<AllowedBy, Denied> = Ok(AllowedBy::NoAllowPolicy);

fn by_rule(name: &str, rule: usize) -> Result<AllowedBy, Denied> {
    Err(Denied::ByRule { policy: policy_name("shop", name), rule })
}

fn none_of(names: &[&str]) -> Result<AllowedBy, Denied> {
    let policies: Vec<_> = names.iter().map(|name| policy_name("shop", name)).collect();
    Err(Denied::NoneAllowed { total: policies.len(), policies })
}

fn allow(name: &str, rules: Vec<Rule>) -> AuthorizationPolicy {
    policy(Namespace, name, Allow, rules)
}

fn deny(name: &str, rules: Vec<Rule>) -> AuthorizationPolicy {
    policy(Namespace, name, Deny, rules)
}

fn elsewhere(policy: AuthorizationPolicy) -> AuthorizationPolicy {
    AuthorizationPolicy { name: policy_name("other", &policy.name.name), ..policy }
}

fn port_80() -> Rule {
    rule(on_port(80))
}

fn denying() -> Vec<Row> {
    let selecting = || policy(WorkloadSelector, "d", Deny, vec![everything()]);
    let global = || elsewhere(policy(Global, "d", Deny, vec![everything()]));
    let by_global = Err(Denied::ByRule { policy: policy_name("other", "d"), rule: 0 });
    let missing = Err(Denied::PolicyMissing { policy: policy_name("shop", "gone") });
    let both = vec![allow("a", vec![everything()]), deny("d", vec![everything()])];
    vec![
        ("no policy", vec![], &[], OPEN),
        ("a DENY that does not match", vec![deny("d", vec![port_80()])], &[], OPEN),
        ("a DENY without rules never matches", vec![deny("d", vec![])], &[], OPEN),
        ("any rule of a DENY", vec![deny("d", vec![port_80(), everything()])], &[], by_rule("d", 1)),
        ("DENY wins over ALLOW", both, &[], by_rule("d", 0)),
        ("a DENY of another namespace", vec![elsewhere(deny("d", vec![everything()]))], &[], OPEN),
        ("a mesh-wide DENY, wherever it is", vec![global()], &[], by_global),
        ("a DENY with a selector, not named", vec![selecting()], &[], OPEN),
        ("a DENY with a selector, named", vec![selecting()], &["d"], by_rule("d", 0)),
        ("a named policy is missing", vec![allow("a", vec![everything()])], &["gone"], missing),
        (
            "a matching DENY is reported first",
            vec![deny("d", vec![everything()])],
            &["gone"],
            by_rule("d", 0),
        ),
        ("STRICT, against a proven peer", vec![deny("strict", vec![strict()])], &[], OPEN),
    ]
}

fn allowing() -> Vec<Row> {
    let allowed = |name, rule| Ok(AllowedBy::Rule { policy: policy_name("shop", name), rule });
    let one_matches = vec![allow("a", vec![port_80()]), allow("b", vec![everything()])];
    let none_matches = vec![allow("a", vec![port_80()]), allow("b", vec![port_80()])];
    let selecting = || policy(WorkloadSelector, "a", Allow, vec![]);
    vec![
        ("any rule of an ALLOW", vec![allow("a", vec![port_80(), everything()])], &[], allowed("a", 1)),
        ("any ALLOW policy", one_matches, &[], allowed("b", 0)),
        ("ALLOW policies and none matches", none_matches, &[], none_of(&["a", "b"])),
        ("an ALLOW without rules never matches", vec![allow("a", vec![])], &[], none_of(&["a"])),
        ("an ALLOW of another namespace", vec![elsewhere(allow("a", vec![]))], &[], OPEN),
        ("an ALLOW with a selector, not named", vec![selecting()], &[], OPEN),
        ("an ALLOW with a selector, named", vec![selecting()], &["a"], none_of(&["a"])),
        ("a policy counts once", vec![allow("a", vec![])], &["a"], none_of(&["a"])),
    ]
}

fn trial(policy: AuthorizationPolicy) -> AuthorizationPolicy {
    AuthorizationPolicy { dry_run: true, ..policy }
}

fn on_trial() -> Vec<Row> {
    let beside = vec![trial(allow("a", vec![everything()])), allow("b", vec![])];
    vec![
        ("a DENY on trial does not deny", vec![trial(deny("d", vec![everything()]))], &[], OPEN),
        ("an ALLOW on trial does not close", vec![trial(allow("a", vec![]))], &[], OPEN),
        ("an ALLOW on trial does not allow", beside, &[], none_of(&["b"])),
    ]
}

/// How Istio sends a STRICT PeerAuthentication.
fn strict() -> Rule {
    rule(Match { not_principals: vec![StringMatch::Presence], ..Match::default() })
}

#[test]
fn strict_refuses_plain_text() {
    let snapshot = snapshot([policy(WorkloadSelector, "strict", Deny, vec![strict()]).into()]);
    let denied = authorize(&snapshot, &web(&["strict"]), &from(Peer::Unauthenticated));
    assert_eq!(denied, Err(Denied::ByRule { policy: policy_name("shop", "strict"), rule: 0 }));
}

#[test]
fn policies_on_trial_are_reported_whether_they_match_or_not() {
    let policies = [trial(allow("a", vec![port_80()])), trial(deny("d", vec![everything()]))];
    let snapshot = snapshot(policies.map(Into::into));
    let verdict = |name, action, rule| DryRunVerdict { policy: policy_name("shop", name), action, rule };
    let expected = [verdict("a", Allow, None), verdict("d", Deny, Some(0))];
    assert_eq!(authorize(&snapshot, &web(&[]), &from_client()).unwrap().dry_run(), expected);
    assert_eq!(dry_run(&snapshot, &web(&[]), &from_client()), expected);
}

#[test]
fn a_permit_says_what_may_be_connected() {
    let mapped = Connection {
        source_ip: ip("::ffff:10.0.0.9"),
        destination: socket("[::ffff:10.0.0.1]:8080"),
        ..from_client()
    };
    let permit = authorize(&snapshot([]), &web(&[]), &mapped).unwrap();
    assert_eq!(permit.destination(), socket("10.0.0.1:8080"));
    assert_eq!(permit.source_ip(), ip("10.0.0.9"));
}

#[test]
fn a_denial_names_what_to_look_at() {
    let message = |policies: Vec<AuthorizationPolicy>| {
        let snapshot = snapshot(policies.into_iter().map(Into::into));
        authorize(&snapshot, &web(&[]), &from_client()).unwrap_err().to_string()
    };
    let closed = |count| (0..count).map(|index| allow(&format!("p{index}"), vec![])).collect();
    assert_eq!(
        message(closed(2)),
        "none of the 2 ALLOW policies of the workload matched (shop/p0, shop/p1): \
         add a rule for this peer and port"
    );
    assert!(message(closed(50)).contains(" and 42 more"));
    assert_eq!(
        message(vec![deny("d", vec![everything()])]),
        "denied by rule 0 (counted from 0) of AuthorizationPolicy shop/d"
    );
}
