//! The semantics of AuthorizationPolicy at layer 7, as tables and properties.

mod oracle;
mod table;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::super::testing::{Asked, client, decided, get, policy, snapshot, to, web_v2};
use super::super::*;
use super::*;
use crate::policy::Peer;

fn exact(texts: &[&str]) -> Values {
    Values { any_of: texts.iter().map(|text| StringMatch::Exact((*text).into())).collect(), none_of: vec![] }
}

fn from(source: Source) -> HttpRule {
    HttpRule { from: vec![source], ..HttpRule::default() }
}

fn asking(operation: Operation) -> HttpRule {
    HttpRule { to: vec![operation], ..HttpRule::default() }
}

fn when(condition: Condition) -> HttpRule {
    HttpRule { when: vec![condition], ..HttpRule::default() }
}

fn paths(values: Vec<PathCondition>) -> HttpRule {
    asking(Operation { paths: Values { any_of: values, none_of: vec![] }, ..Operation::default() })
}

fn text_path(text: StringMatch) -> HttpRule {
    paths(vec![PathCondition::Text(text)])
}

fn allowed(policies: Vec<HttpPolicy>, asked: &Asked) -> bool {
    let snapshot = snapshot(policies.into_iter().map(Into::into));
    matches!(decided(&snapshot, asked).outcome, Outcome::Forward(_))
}

#[test]
fn a_rule_matches_by_all_that_it_says() {
    let header = |values| Condition::RequestHeader { name: HeaderName::from_static("x-team"), values };
    let blocks = |text: &str| Values { any_of: vec![text.parse().unwrap()], none_of: vec![] };
    let hosts = |host: &str| asking(Operation { hosts: exact(&[host]), ..Operation::default() });
    let cart = "cluster.local/ns/shop/sa/cart";
    let account = |name: &str| ServiceAccountMatch { namespace: "shop".into(), service_account: name.into() };
    let accounts = |name| Values { any_of: vec![account(name)], none_of: vec![] };
    let rows: Vec<(&str, HttpRule, Asked, bool)> = vec![
        ("nothing is asked", HttpRule::default(), get("/"), true),
        ("principal", from(Source { principals: exact(&[cart]), ..Source::default() }), get("/"), true),
        (
            "another principal",
            from(Source { principals: exact(&["x"]), ..Source::default() }),
            get("/"),
            false,
        ),
        ("namespace", from(Source { namespaces: exact(&["shop"]), ..Source::default() }), get("/"), true),
        (
            "two kinds are joined by AND",
            from(Source { namespaces: exact(&["shop"]), principals: exact(&["x"]), ..Source::default() }),
            get("/"),
            false,
        ),
        ("account", from(Source { service_accounts: accounts("cart"), ..Source::default() }), get("/"), true),
        (
            "other account",
            from(Source { service_accounts: accounts("x"), ..Source::default() }),
            get("/"),
            false,
        ),
        (
            "trust domain",
            from(Source { trust_domains: exact(&["cluster.local"]), ..Source::default() }),
            get("/"),
            true,
        ),
        ("address", from(Source { ip_blocks: blocks("10.0.0.0/24"), ..Source::default() }), get("/"), true),
        (
            "remote address",
            from(Source { remote_ip_blocks: blocks("10.9.0.0/24"), ..Source::default() }),
            get("/"),
            false,
        ),
        ("method", asking(Operation { methods: exact(&["GET"]), ..Operation::default() }), get("/"), true),
        (
            "other method",
            asking(Operation { methods: exact(&["GET"]), ..Operation::default() }),
            get("/").by(Method::POST),
            false,
        ),
        (
            "port",
            asking(Operation { ports: Values { any_of: vec![80], none_of: vec![] }, ..Operation::default() }),
            get("/"),
            true,
        ),
        (
            "pod's port",
            asking(Operation {
                ports: Values { any_of: vec![8080], none_of: vec![] },
                ..Operation::default()
            }),
            get("/"),
            false,
        ),
        ("host", hosts("a.example"), get("/").to("a.example"), true),
        ("host in another case", hosts("a.example"), get("/").to("A.Example"), true),
        ("host with its port", hosts("a.example"), get("/").to("a.example:80"), true),
        ("host with a dot at its end", hosts("a.example"), get("/").to("a.example.:80"), true),
        ("host and port are asked", hosts("a.example:80"), get("/").to("a.example:80"), true),
        ("host and another port", hosts("a.example:80"), get("/").to("a.example:81"), false),
        ("whole path", text_path(StringMatch::Exact("/a".into())), get("/a?b=c"), true),
        ("path in another case", text_path(StringMatch::Exact("/a".into())), get("/A"), false),
        ("path in escapes", text_path(StringMatch::Exact("/admin".into())), get("/%61dmin"), true),
        ("prefix", text_path(StringMatch::Prefix("/a".into())), get("/ab"), true),
        ("suffix", text_path(StringMatch::Suffix(".html".into())), get("/a/b.html"), true),
        ("header", when(header(exact(&["blue"]))), get("/").with("x-team", "blue"), true),
        (
            "header's values are joined",
            when(header(exact(&["blue"]))),
            get("/").with("x-team", "blue").with("x-team", "red"),
            false,
        ),
        ("no header", when(header(exact(&["blue"]))), get("/"), false),
        (
            "Host is the authority",
            when(Condition::RequestHeader { name: http::header::HOST, values: exact(&["a.example"]) }),
            get("/").to("A.example"),
            true,
        ),
        (
            "header is there, and empty",
            when(header(Values { any_of: vec![StringMatch::Presence], none_of: vec![] })),
            get("/").with("x-team", ""),
            true,
        ),
        (
            "unwanted header is absent",
            when(header(Values { any_of: vec![], none_of: vec![StringMatch::Presence] })),
            get("/"),
            true,
        ),
        ("destination's address", when(Condition::DestinationIp(blocks("10.96.0.1/32"))), get("/"), true),
        ("what cannot be checked", when(Condition::Unknown("connection.sni".into())), get("/"), false),
        (
            "a token",
            from(Source { request_principals: exact(&["a/b"]), ..Source::default() }),
            get("/"),
            false,
        ),
    ];
    for (rule, written, asked, expected) in rows {
        let allow = policy("p", HttpAction::Allow, vec![written]);
        assert_eq!(allowed(vec![allow], &asked), expected, "{rule}");
    }
}

#[test]
fn a_header_that_came_twice_gets_around_nothing() {
    use HttpAction::{Allow, Deny};
    let header = |values| when(Condition::RequestHeader { name: HeaderName::from_static("x-team"), values });
    let wanted = |text: &str| header(exact(&[text]));
    let unwanted = |text: &str| header(Values { any_of: vec![], none_of: exact(&[text]).any_of });
    let teams =
        |teams: &[&'static str]| teams.iter().fold(get("/"), |asked, team| asked.with("x-team", team));
    for (name, action, rule, asked, expected) in [
        ("DENY by the first", Deny, wanted("blue"), teams(&["blue", "red"]), false),
        ("DENY by the last", Deny, wanted("blue"), teams(&["red", "blue"]), false),
        ("DENY by both together", Deny, wanted("red,blue"), teams(&["red", "blue"]), false),
        ("DENY by none", Deny, wanted("blue"), teams(&["red", "green"]), true),
        ("DENY but for one that is not alone", Deny, unwanted("blue"), teams(&["blue", "red"]), false),
        ("DENY but for one", Deny, unwanted("blue"), teams(&["blue"]), true),
        ("DENY but for one, without", Deny, unwanted("blue"), get("/"), false),
        ("ALLOW by one that is not alone", Allow, wanted("blue"), teams(&["blue", "red"]), false),
        ("ALLOW but for one that is not alone", Allow, unwanted("blue"), teams(&["red", "blue"]), false),
        ("ALLOW but for one", Allow, unwanted("blue"), teams(&["red", "green"]), true),
        ("ALLOW but for one, without", Allow, unwanted("blue"), get("/"), true),
    ] {
        assert_eq!(allowed(vec![policy("p", action, vec![rule])], &asked), expected, "{name}");
    }
}

#[test]
fn a_template_goes_by_segments() {
    for (template, path, expected) in [
        ("/a/{*}", "/a/b", true),
        ("/a/{*}", "/a/", false),
        ("/a/{*}", "/a", false),
        ("/a/{*}", "/a/b/c", false),
        ("/a/{*}/c", "/a/b/c", true),
        ("/a/{**}", "/a/b/c", true),
        ("/a/{**}", "/a/", true),
        ("/a/{**}", "/ab", false),
        ("/{**}", "/", true),
    ] {
        let rule = paths(vec![PathCondition::Template(path_template(template).unwrap())]);
        assert_eq!(
            allowed(vec![policy("p", HttpAction::Allow, vec![rule])], &get(path)),
            expected,
            "{template} {path}"
        );
    }
    for bad in ["a", "/{*", "/{**}/a", "/a*", "/{x}"] {
        assert!(path_template(bad).is_err(), "{bad}");
    }
}

#[test]
fn actions_are_asked_in_istios_order() {
    use HttpAction::{Allow, Audit, Custom, Deny};
    let every = || vec![HttpRule::default()];
    let never = || vec![text_path(StringMatch::Exact("/never".into()))];
    for (rule, policies, expected) in [
        ("no policy", vec![], true),
        ("an ALLOW that matches", vec![policy("a", Allow, every())], true),
        ("an ALLOW without rules", vec![policy("a", Allow, vec![])], false),
        ("one of two", vec![policy("a", Allow, never()), policy("b", Allow, every())], true),
        ("DENY before ALLOW", vec![policy("a", Allow, every()), policy("b", Deny, every())], false),
        ("a DENY without rules", vec![policy("a", Deny, vec![])], true),
        ("AUDIT decides nothing", vec![policy("a", Audit, every())], true),
        ("nobody can be asked", vec![policy("a", Custom, every())], false),
        ("nobody is to be asked", vec![policy("a", Custom, never())], true),
        ("on trial", vec![HttpPolicy { dry_run: true, ..policy("a", Deny, every()) }], true),
        ("an ALLOW on trial", vec![HttpPolicy { dry_run: true, ..policy("a", Allow, never()) }], true),
        (
            "a DENY that cannot be checked",
            vec![policy("a", Deny, vec![when(Condition::Unknown("x".into()))])],
            false,
        ),
    ] {
        assert_eq!(allowed(policies, &get("/")), expected, "{rule}");
    }
}

#[test]
fn a_refusal_names_policy_and_rule() {
    let deny =
        policy("p", HttpAction::Deny, vec![text_path(StringMatch::Exact("/x".into())), HttpRule::default()]);
    let Outcome::Deny(denied) = decided(&snapshot([deny.into()]), &get("/")).outcome else { panic!() };
    assert_eq!(denied.details(), "rbac_access_denied_matched_policy[ns[shop]-policy[p]-rule[1]]");
    assert!(denied.to_string().contains("shop/p"), "{denied}");
    let allow = policy("p", HttpAction::Allow, vec![]);
    let Outcome::Deny(denied) = decided(&snapshot([allow.into()]), &get("/")).outcome else { panic!() };
    assert_eq!(denied.details(), "rbac_access_denied_matched_policy[none]");
}

#[test]
fn what_does_not_decide_is_reported() {
    let audit = policy("audit", HttpAction::Audit, vec![HttpRule::default()]);
    let trial = HttpPolicy { dry_run: true, ..policy("trial", HttpAction::Deny, vec![HttpRule::default()]) };
    let verdicts = decided(&snapshot([audit.into(), trial.into()]), &get("/")).verdicts;
    let told: Vec<_> = verdicts.iter().map(|of| (&*of.policy.name, of.dry_run, of.rule)).collect();
    assert_eq!(told, [("audit", false, Some(0)), ("trial", true, Some(0))]);
}

/// Paths by which somebody would get around `DENY /admin*`.
#[test]
fn no_way_of_writing_a_path_gets_around_a_policy() {
    let deny = || policy("p", HttpAction::Deny, vec![text_path(StringMatch::Prefix("/admin".into()))]);
    let colon = || policy("p", HttpAction::Deny, vec![text_path(StringMatch::Exact("/a:b".into()))]);
    for target in [
        "/admin",
        "/admin/x",
        "/%61dmin",
        "/a%64min?x",
        "//admin",
        "/./admin",
        "/x/../admin",
        "/x/%2e%2e/admin",
        "/%2fadmin",
        "/;/admin",
        "/x\\..\\admin",
        "/%2561dmin",
        "/admin%00",
        "/admin;x",
    ] {
        assert!(!allowed(vec![deny()], &get(target)), "{target}");
    }
    for target in ["/a:b", "/a%3ab", "/a%3Ab"] {
        assert!(!allowed(vec![colon()], &get(target)), "{target}");
    }
    // Where no policy looks at paths they pass as they are.
    for target in ["//admin", "/x/../admin", "/a%2Fb", "/a;b"] {
        let Outcome::Forward(forward) = decided(&snapshot([]), &get(target)).outcome else {
            panic!("{target}")
        };
        assert_eq!(forward.target, target);
    }
}

#[test]
fn an_escape_of_a_policy_means_the_same_as_its_character() {
    let allow = || policy("p", HttpAction::Allow, vec![text_path(StringMatch::Exact("/a%20b".into()))]);
    assert!(allowed(vec![allow()], &get("/a%20b")));
    assert!(!allowed(vec![allow()], &get("/a%20c")));
}

#[test]
fn a_connection_that_is_no_http_is_closed_to_what_asks_for_requests() {
    let get_only = || asking(Operation { methods: exact(&["GET"]), ..Operation::default() });
    let cart = || from(Source { namespaces: exact(&["shop"]), ..Source::default() });
    let decided = |policies: Vec<HttpPolicy>| {
        let snapshot = snapshot(policies.into_iter().map(Into::into));
        authorize_connection(&snapshot, &to(&snapshot, "10.96.0.1:80"), &client("cart")).is_ok()
    };
    assert!(decided(vec![]));
    assert!(decided(vec![policy("p", HttpAction::Allow, vec![cart()])]));
    assert!(!decided(vec![policy("p", HttpAction::Allow, vec![get_only()])]), "an ALLOW never matches");
    assert!(
        !decided(vec![policy("p", HttpAction::Deny, vec![get_only()])]),
        "a DENY matches by what is left"
    );
}

#[test]
fn a_peer_without_identity_matches_every_negative_condition() {
    let none_of = |text: &str| Values { any_of: vec![], none_of: vec![StringMatch::Exact(text.into())] };
    let deny =
        policy("p", HttpAction::Deny, vec![from(Source { principals: none_of("x"), ..Source::default() })]);
    let snapshot = snapshot([deny.into()]);
    let nobody = Client { peer: Peer::Unauthenticated, ..client("cart") };
    assert!(authorize_connection(&snapshot, &to(&snapshot, "10.96.0.1:80"), &nobody).is_err());
}

#[test]
fn a_policy_guards_what_it_names() {
    let gateway = GatewayName { namespace: "shop".into(), name: "waypoint".into() };
    let other = GatewayName { namespace: "shop".into(), name: "other".into() };
    for (rule, target, guarded) in [
        ("its gateway", PolicyTarget::Gateway(gateway), true),
        ("another gateway", PolicyTarget::Gateway(other), false),
        ("every waypoint", PolicyTarget::EveryWaypoint, true),
        ("another service", PolicyTarget::Service(web_v2()), false),
    ] {
        let deny = policy("p", HttpAction::Deny, vec![HttpRule::default()]);
        let deny = HttpPolicy { targets: vec![target], ..deny };
        assert_eq!(!allowed(vec![deny], &get("/")), guarded, "{rule}");
    }
}

fn some_rule() -> impl Strategy<Value = HttpRule> {
    prop_oneof![
        Just(HttpRule::default()),
        Just(from(Source { namespaces: exact(&["shop"]), ..Source::default() })),
        Just(text_path(StringMatch::Prefix("/a".into()))),
        Just(asking(Operation { methods: exact(&["POST"]), ..Operation::default() })),
        Just(when(Condition::Unknown("x".into()))),
    ]
}

fn some_policies() -> impl Strategy<Value = Vec<HttpPolicy>> {
    let action = prop_oneof![Just(HttpAction::Allow), Just(HttpAction::Deny), Just(HttpAction::Audit)];
    let one = (action, prop::collection::vec(some_rule(), 0..3), any::<bool>());
    prop::collection::vec(one, 0..4).prop_map(|all| {
        let named = |(at, (action, rules, dry_run)): (usize, (HttpAction, Vec<HttpRule>, bool))| HttpPolicy {
            dry_run,
            ..policy(&format!("p{at}"), action, rules)
        };
        all.into_iter().enumerate().map(named).collect()
    })
}

proptest! {
    #[test]
    fn adding_a_deny_never_allows(policies in some_policies(), rule in some_rule(), target in "/[ab%./]{0,4}") {
        let before = allowed(policies.clone(), &get(&target));
        let mut more = policies;
        more.push(policy("z", HttpAction::Deny, vec![rule]));
        prop_assert!(before || !allowed(more, &get(&target)));
    }

    #[test]
    fn the_first_allow_never_widens(policies in some_policies(), rule in some_rule(), target in "/[ab]{0,4}") {
        let without: Vec<_> = policies.into_iter().filter(|of| of.action != HttpAction::Allow).collect();
        let before = allowed(without.clone(), &get(&target));
        let mut more = without;
        more.push(policy("z", HttpAction::Allow, vec![rule]));
        prop_assert!(before || !allowed(more, &get(&target)));
    }

    #[test]
    fn one_on_trial_changes_nothing(policies in some_policies(), rule in some_rule(), target in "/[ab]{0,4}") {
        let before = allowed(policies.clone(), &get(&target));
        let mut more = policies;
        more.push(HttpPolicy { dry_run: true, ..policy("z", HttpAction::Deny, vec![rule]) });
        prop_assert_eq!(before, allowed(more, &get(&target)));
    }
}

#[test]
fn headers_that_are_no_text_match_nothing_but_presence() {
    let mut headers = HeaderMap::new();
    headers.insert("x-team", HeaderValue::from_bytes(b"\xff").unwrap());
    let asked = Asked { headers, ..get("/") };
    let header = |values| Condition::RequestHeader { name: HeaderName::from_static("x-team"), values };
    let allow = |values| policy("p", HttpAction::Allow, vec![when(header(values))]);
    assert!(!allowed(vec![allow(exact(&["blue"]))], &asked));
    assert!(allowed(vec![allow(Values { any_of: vec![StringMatch::Presence], none_of: vec![] })], &asked));
}
