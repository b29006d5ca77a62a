//! Every field of AuthorizationPolicy, in each of its forms: wanted, unwanted, and of a client without
//! identity. One row, one claim.

use http::{HeaderName, Method};

use super::{asking, exact, from, when};
use crate::http::testing::{Asked, client, get, policy, snapshot, to};
use crate::http::{
    Client, Condition, HttpAction, HttpPolicy, HttpRule, Operation, PathCondition, PolicyTarget, Source,
    Values, authorize, consulted, normalize,
};
use crate::policy::{Peer, ServiceAccountMatch, StringMatch};

/// Who asks, in a row of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// `cluster.local/ns/shop/sa/cart` at 10.0.0.7.
    Cart,
    /// Nobody has proved anything.
    Nobody,
}

fn not(texts: &[&str]) -> Values {
    Values { none_of: exact(texts).any_of, any_of: Vec::new() }
}

fn form(text: StringMatch) -> Values {
    Values { any_of: vec![text], none_of: Vec::new() }
}

fn one<T>(value: T) -> Values<T> {
    Values { any_of: vec![value], none_of: Vec::new() }
}

fn but<T>(value: T) -> Values<T> {
    Values { any_of: Vec::new(), none_of: vec![value] }
}

fn account(namespace: &str, name: &str) -> ServiceAccountMatch {
    ServiceAccountMatch { namespace: namespace.into(), service_account: name.into() }
}

fn net(text: &str) -> ipnet::IpNet {
    text.parse().unwrap()
}

fn of(who: Who) -> Client {
    match who {
        Who::Cart => client("cart"),
        Who::Nobody => Client { peer: Peer::Unauthenticated, ..client("cart") },
    }
}

fn matches(rule: HttpRule, who: Who, dialled: &str, asked: &Asked) -> bool {
    let snapshot = snapshot([policy("p", HttpAction::Allow, vec![rule]).into()]);
    let path = normalize(&asked.target).unwrap();
    authorize(&snapshot, &to(&snapshot, dialled), &of(who), &asked.head(), &path).is_ok()
}

const DIALLED: &str = "10.96.0.1:80";

#[test]
fn each_field_of_a_source_in_each_form() {
    let prefix = |text: &str| form(StringMatch::Prefix(text.into()));
    let suffix = |text: &str| form(StringMatch::Suffix(text.into()));
    let present = || form(StringMatch::Presence);
    let cart = "cluster.local/ns/shop/sa/cart";
    let of = Source::default;
    // What is expected of cart, and of nobody: an absent identity meets no condition, and so every negative one.
    for (name, source, cart_matches, nobody_matches) in [
        ("nothing", of(), true, true),
        ("principal", Source { principals: exact(&[cart]), ..of() }, true, false),
        ("one of two principals", Source { principals: exact(&["x", cart]), ..of() }, true, false),
        ("principal by prefix", Source { principals: prefix("cluster.local/ns/shop/"), ..of() }, true, false),
        ("principal by suffix", Source { principals: suffix("/sa/cart"), ..of() }, true, false),
        ("any principal", Source { principals: present(), ..of() }, true, false),
        ("not the principal", Source { principals: not(&[cart]), ..of() }, false, true),
        ("not another principal", Source { principals: not(&["x"]), ..of() }, true, true),
        (
            "wanted and unwanted at once",
            Source {
                principals: Values { none_of: not(&[cart]).none_of, ..prefix("cluster.local/") },
                ..of()
            },
            false,
            false,
        ),
        ("no principal at all", Source { principals: but(StringMatch::Presence), ..of() }, false, true),
        ("namespace", Source { namespaces: exact(&["shop"]), ..of() }, true, false),
        ("another namespace", Source { namespaces: exact(&["bank"]), ..of() }, false, false),
        ("not the namespace", Source { namespaces: not(&["shop"]), ..of() }, false, true),
        ("account", Source { service_accounts: one(account("shop", "cart")), ..of() }, true, false),
        (
            "account elsewhere",
            Source { service_accounts: one(account("bank", "cart")), ..of() },
            false,
            false,
        ),
        ("not the account", Source { service_accounts: but(account("shop", "cart")), ..of() }, false, true),
        ("trust domain", Source { trust_domains: exact(&["cluster.local"]), ..of() }, true, false),
        ("not the trust domain", Source { trust_domains: not(&["cluster.local"]), ..of() }, false, true),
        ("address", Source { ip_blocks: one(net("10.0.0.7/32")), ..of() }, true, true),
        ("not the address", Source { ip_blocks: but(net("10.0.0.0/8")), ..of() }, false, false),
        ("remote address", Source { remote_ip_blocks: one(net("10.0.0.0/24")), ..of() }, true, true),
        (
            "not the remote address",
            Source { remote_ip_blocks: but(net("10.0.0.7/32")), ..of() },
            false,
            false,
        ),
        ("a token", Source { request_principals: present(), ..of() }, false, false),
        ("no token", Source { request_principals: but(StringMatch::Presence), ..of() }, false, false),
        ("a field that is not known", Source { unknown: vec!["x".into()], ..of() }, false, false),
        (
            "kinds are joined by AND",
            Source { principals: exact(&[cart]), namespaces: exact(&["bank"]), ..of() },
            false,
            false,
        ),
    ] {
        for (who, expected) in [(Who::Cart, cart_matches), (Who::Nobody, nobody_matches)] {
            let found = matches(from(source.clone()), who, DIALLED, &get("/"));
            assert_eq!(found, expected, "{name}, {who:?}");
        }
    }
}

#[test]
fn each_field_of_an_operation_in_each_form() {
    let of = Operation::default;
    let text = |text: StringMatch| one(PathCondition::Text(text));
    let get_web = || get("/a/b?q").to("web.example:8080");
    for (name, operation, asked, expected) in [
        ("nothing", of(), get_web(), true),
        ("method", Operation { methods: exact(&["GET"]), ..of() }, get_web(), true),
        ("methods have a case", Operation { methods: exact(&["get"]), ..of() }, get_web(), false),
        (
            "a method of one's own",
            Operation { methods: exact(&["PURGE"]), ..of() },
            get("/").by("PURGE".parse().unwrap()),
            true,
        ),
        (
            "method by prefix",
            Operation { methods: form(StringMatch::Prefix("P".into())), ..of() },
            get("/").by(Method::PUT),
            true,
        ),
        ("any method", Operation { methods: form(StringMatch::Presence), ..of() }, get_web(), true),
        ("not the method", Operation { methods: not(&["GET"]), ..of() }, get_web(), false),
        ("not another method", Operation { methods: not(&["POST"]), ..of() }, get_web(), true),
        ("host without its port", Operation { hosts: exact(&["web.example"]), ..of() }, get_web(), true),
        ("host with its port", Operation { hosts: exact(&["web.example:8080"]), ..of() }, get_web(), true),
        ("host with another port", Operation { hosts: exact(&["web.example:80"]), ..of() }, get_web(), false),
        (
            "host by prefix",
            Operation { hosts: form(StringMatch::Prefix("web.".into())), ..of() },
            get_web(),
            true,
        ),
        (
            "host by suffix",
            Operation { hosts: form(StringMatch::Suffix(".example".into())), ..of() },
            get_web(),
            true,
        ),
        (
            "the port by suffix",
            Operation { hosts: form(StringMatch::Suffix(":8080".into())), ..of() },
            get_web(),
            true,
        ),
        ("any host", Operation { hosts: form(StringMatch::Presence), ..of() }, get("/").to(""), true),
        ("not the host", Operation { hosts: not(&["web.example"]), ..of() }, get_web(), false),
        (
            "not the host in capitals",
            Operation { hosts: not(&["web.example"]), ..of() },
            get("/").to("WEB.Example"),
            false,
        ),
        (
            "not the host with a dot",
            Operation { hosts: not(&["web.example"]), ..of() },
            get("/").to("web.example."),
            false,
        ),
        ("port", Operation { ports: one(80), ..of() }, get_web(), true),
        ("not the port", Operation { ports: but(80), ..of() }, get_web(), false),
        ("not another port", Operation { ports: but(8080), ..of() }, get_web(), true),
        (
            "path without its query",
            Operation { paths: text(StringMatch::Exact("/a/b".into())), ..of() },
            get_web(),
            true,
        ),
        (
            "the query is no path",
            Operation { paths: text(StringMatch::Suffix("?q".into())), ..of() },
            get_web(),
            false,
        ),
        (
            "path by prefix",
            Operation { paths: text(StringMatch::Prefix("/a".into())), ..of() },
            get_web(),
            true,
        ),
        (
            "path by suffix",
            Operation { paths: text(StringMatch::Suffix("/b".into())), ..of() },
            get_web(),
            true,
        ),
        ("any path", Operation { paths: text(StringMatch::Presence), ..of() }, get("/"), true),
        (
            "not the path",
            Operation { paths: but(PathCondition::Text(StringMatch::Exact("/a/b".into()))), ..of() },
            get_web(),
            false,
        ),
        (
            "a call of gRPC",
            Operation {
                paths: text(StringMatch::Exact("/pkg.Svc/Method".into())),
                methods: exact(&["POST"]),
                ..of()
            },
            get("/pkg.Svc/Method").by(Method::POST),
            true,
        ),
        ("a field that is not known", Operation { unknown: vec!["x".into()], ..of() }, get_web(), false),
        (
            "kinds are joined by AND",
            Operation { methods: exact(&["GET"]), ports: one(81), ..of() },
            get_web(),
            false,
        ),
    ] {
        assert_eq!(matches(asking(operation), Who::Cart, DIALLED, &asked), expected, "{name}");
    }
}

#[test]
fn each_key_of_when() {
    let header = |values| Condition::RequestHeader { name: HeaderName::from_static("x-team"), values };
    let blue = || get("/").with("x-team", "blue");
    let by_name = "web.shop.svc.cluster.local:80";
    for (name, condition, who, dialled, asked, expected) in [
        ("header", header(exact(&["blue"])), Who::Cart, DIALLED, blue(), true),
        (
            "header by prefix",
            header(form(StringMatch::Prefix("bl".into()))),
            Who::Cart,
            DIALLED,
            blue(),
            true,
        ),
        (
            "header by suffix",
            header(form(StringMatch::Suffix("ue".into()))),
            Who::Cart,
            DIALLED,
            blue(),
            true,
        ),
        ("a header's values have a case", header(exact(&["Blue"])), Who::Cart, DIALLED, blue(), false),
        ("not the header", header(not(&["blue"])), Who::Cart, DIALLED, blue(), false),
        ("not the header, which is absent", header(not(&["blue"])), Who::Cart, DIALLED, get("/"), true),
        (
            "sent twice, and one of them is it: a server may take that one",
            header(not(&["blue"])),
            Who::Cart,
            DIALLED,
            blue().with("x-team", "x"),
            false,
        ),
        ("source.ip", Condition::SourceIp(one(net("10.0.0.7/32"))), Who::Nobody, DIALLED, get("/"), true),
        (
            "not source.ip",
            Condition::SourceIp(but(net("10.0.0.7/32"))),
            Who::Nobody,
            DIALLED,
            get("/"),
            false,
        ),
        (
            "remote.ip is the peer's: no proxy is trusted",
            Condition::RemoteIp(one(net("192.0.2.1/32"))),
            Who::Cart,
            DIALLED,
            get("/").with("x-forwarded-for", "192.0.2.1"),
            false,
        ),
        (
            "source.namespace",
            Condition::SourceNamespace(exact(&["shop"])),
            Who::Cart,
            DIALLED,
            get("/"),
            true,
        ),
        (
            "not source.namespace, of nobody",
            Condition::SourceNamespace(not(&["shop"])),
            Who::Nobody,
            DIALLED,
            get("/"),
            true,
        ),
        (
            "source.serviceAccount",
            Condition::SourceServiceAccount(one(account("shop", "cart"))),
            Who::Cart,
            DIALLED,
            get("/"),
            true,
        ),
        (
            "source.trustDomain",
            Condition::SourceTrustDomain(exact(&["cluster.local"])),
            Who::Cart,
            DIALLED,
            get("/"),
            true,
        ),
        (
            "source.principal",
            Condition::SourcePrincipal(form(StringMatch::Suffix("/cart".into()))),
            Who::Cart,
            DIALLED,
            get("/"),
            true,
        ),
        (
            "source.principal of nobody",
            Condition::SourcePrincipal(form(StringMatch::Presence)),
            Who::Nobody,
            DIALLED,
            get("/"),
            false,
        ),
        (
            "destination.ip is what was dialled",
            Condition::DestinationIp(one(net("10.96.0.1/32"))),
            Who::Cart,
            DIALLED,
            get("/"),
            true,
        ),
        (
            "destination.ip is not the pod's",
            Condition::DestinationIp(one(net("10.0.0.1/32"))),
            Who::Cart,
            DIALLED,
            get("/"),
            false,
        ),
        (
            "destination.ip of a name",
            Condition::DestinationIp(one(net("10.96.0.1/32"))),
            Who::Cart,
            by_name,
            get("/"),
            false,
        ),
        (
            "not destination.ip of a name",
            Condition::DestinationIp(but(net("10.0.0.1/32"))),
            Who::Cart,
            by_name,
            get("/"),
            false,
        ),
        ("destination.port", Condition::DestinationPort(one(80)), Who::Cart, DIALLED, get("/"), true),
        ("not destination.port", Condition::DestinationPort(but(80)), Who::Cart, DIALLED, get("/"), false),
        (
            "a key that is not known",
            Condition::Unknown("connection.sni".into()),
            Who::Cart,
            DIALLED,
            get("/"),
            false,
        ),
    ] {
        assert_eq!(matches(when(condition), who, dialled, &asked), expected, "{name}");
    }
}

/// A rule is any of its sources, any of its operations, and all of its conditions.
#[test]
fn a_rule_is_any_and_any_and_all() {
    let source = |namespace| Source { namespaces: exact(&[namespace]), ..Source::default() };
    let operation = |method| Operation { methods: exact(&[method]), ..Operation::default() };
    let condition = |port| Condition::DestinationPort(one(port));
    for (name, from, to, when, expected) in [
        ("all lists are empty", vec![], vec![], vec![], true),
        ("one source of two", vec![source("bank"), source("shop")], vec![], vec![], true),
        ("no source of two", vec![source("bank"), source("x")], vec![], vec![], false),
        ("one operation of two", vec![], vec![operation("POST"), operation("GET")], vec![], true),
        ("no operation of two", vec![], vec![operation("POST"), operation("PUT")], vec![], false),
        ("one condition of two", vec![], vec![], vec![condition(80), condition(81)], false),
        ("both conditions", vec![], vec![], vec![condition(80), condition(80)], true),
        ("source without operation", vec![source("shop")], vec![operation("POST")], vec![], false),
        ("all three", vec![source("shop")], vec![operation("GET")], vec![condition(80)], true),
        ("an empty source is every one", vec![Source::default()], vec![], vec![], true),
    ] {
        let rule = HttpRule { from, to, when };
        assert_eq!(matches(rule, Who::Cart, DIALLED, &get("/")), expected, "{name}");
    }
}

/// What decides is the first by action, then by name, then by rule; the waypoint's own policies come first.
#[test]
fn of_several_that_match_the_first_is_named() {
    let every = || vec![HttpRule::default()];
    let never =
        || HttpRule { to: vec![Operation { ports: one(1), ..Operation::default() }], ..HttpRule::default() };
    let deny = |name: &str, rules| policy(name, HttpAction::Deny, rules);
    let everywhere = |policy: HttpPolicy| HttpPolicy { targets: vec![PolicyTarget::EveryWaypoint], ..policy };
    for (name, policies, expected) in [
        ("by name", vec![deny("b", every()), deny("a", every())], "shop/a rule 0"),
        ("by rule", vec![deny("a", vec![never(), HttpRule::default()])], "shop/a rule 1"),
        (
            "CUSTOM before DENY",
            vec![deny("a", every()), policy("b", HttpAction::Custom, every())],
            "shop/b rule 0",
        ),
        (
            "the waypoint's own first",
            vec![deny("a", every()), everywhere(deny("z", every()))],
            "shop/z rule 0",
        ),
        (
            "ALLOW after DENY",
            vec![policy("a", HttpAction::Allow, every()), deny("b", every())],
            "shop/b rule 0",
        ),
    ] {
        let snapshot = snapshot(policies.into_iter().map(Into::into));
        let asked = get("/");
        let path = normalize("/").unwrap();
        let denied =
            authorize(&snapshot, &to(&snapshot, DIALLED), &client("cart"), &asked.head(), &path).unwrap_err();
        let details = denied.details();
        let short = details.replace("rbac_access_denied_matched_policy[ns[shop]-policy[", "shop/");
        let short = short.replace("]-rule[", " rule ").replace("]]", "");
        assert_eq!(short, expected, "{name}");
    }
}

/// What an explanation lists: every policy once, in the order in which they are asked, whether it decides or
/// not, and for a path with escapes what its other reading leads to.
#[test]
fn every_policy_is_consulted_and_says_which_of_its_rules_matches() {
    let path_rule = |text: &str| {
        asking(Operation {
            paths: one(PathCondition::Text(StringMatch::Exact(text.into()))),
            ..Operation::default()
        })
    };
    let trial = HttpPolicy { dry_run: true, ..policy("trial", HttpAction::Deny, vec![HttpRule::default()]) };
    let snapshot = snapshot([
        policy("allow", HttpAction::Allow, vec![path_rule("/x"), path_rule("/a:b")]).into(),
        policy("audit", HttpAction::Audit, vec![HttpRule::default()]).into(),
        policy("deny", HttpAction::Deny, vec![path_rule("/x")]).into(),
        trial.into(),
    ]);
    let asked = get("/a%3Ab");
    let path = normalize(&asked.target).unwrap();
    let destination = to(&snapshot, DIALLED);
    let all = consulted(&snapshot, &destination, &client("cart"), Some((&asked.head(), &path)));
    let told: Vec<_> =
        all.iter().map(|says| (&*says.policy.name, says.dry_run, says.rule, says.decoded_rule)).collect();
    assert_eq!(
        told,
        [
            ("allow", false, None, Some(1)),
            ("audit", false, Some(0), Some(0)),
            ("deny", false, None, None),
            ("trial", true, Some(0), Some(0)),
        ]
    );
    let opaque = consulted(&snapshot, &destination, &client("cart"), None);
    let told: Vec<_> = opaque.iter().map(|says| (&*says.policy.name, says.rule)).collect();
    assert_eq!(told, [("allow", None), ("audit", Some(0)), ("deny", Some(0)), ("trial", Some(0))]);
}
