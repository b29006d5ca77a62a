//! The semantics of AuthorizationPolicy written a second time, as plainly as its documentation has them, and
//! held against the first on whatever policies and requests come up.
//!
//! Nothing here uses the comparisons of the code that is tested: texts, addresses, templates, hosts and paths
//! are read anew, over small vocabularies whose meaning is written beside them. Long because a second reading that
//! was spread over files could not be held beside the documentation.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;

use crate::http::testing::{policy, snapshot, to};
use crate::http::{
    Client, Condition, Head, HttpAction, HttpDenied, HttpPolicy, HttpRule, Operation, PathCondition, Pattern,
    Source, TemplatePart, Values, authorize, authorize_connection, normalize, path_template,
};
use crate::policy::{Peer, ServiceAccountMatch, StringMatch};

/// Targets: as sent, the path that counts, the path with every escape decoded, and whether servers read it
/// differently.
const TARGETS: [(&str, &str, &str, bool); 12] = [
    ("/", "/", "/", false),
    ("/a", "/a", "/a", false),
    ("/A", "/A", "/A", false),
    ("/a/", "/a/", "/a/", false),
    ("/a/b", "/a/b", "/a/b", false),
    ("/a/b/c?x=/z", "/a/b/c", "/a/b/c", false),
    ("/ab?", "/ab", "/ab", false),
    ("/%61", "/a", "/a", false),
    ("/a%20b", "/a%20b", "/a b", false),
    ("/a//b", "/a//b", "/a//b", true),
    ("/a/../b", "/a/../b", "/a/../b", true),
    ("/a%2Fb", "/a%2Fb", "/a/b", true),
];

/// Texts of policies for paths, and the same with every escape decoded.
const PATH_TEXTS: [(&str, &str); 6] =
    [("/a", "/a"), ("/a/", "/a/"), ("/a/b", "/a/b"), ("/ab", "/ab"), ("b", "b"), ("/a%20b", "/a b")];

const TEMPLATES: [&str; 5] = ["/{*}", "/a/{*}", "/{*}/b", "/a/{**}", "/a/b"];

/// Authorities, and the forms under which hosts of policies know them.
const AUTHORITIES: [(&str, &[&str]); 5] = [
    ("web", &["web"]),
    ("WEB:80", &["web:80", "web"]),
    ("web.:80", &["web.:80", "web.", "web"]),
    ("[fd00::1]", &["[fd00::1]"]),
    ("", &[""]),
];

const IDENTITIES: [&str; 4] = ["shop/cart", "shop/admin", "bank/cart", "bank/x.y"];

const IPS: [&str; 4] = ["10.0.0.7", "10.0.0.8", "192.0.2.1", "::ffff:10.0.0.7"];

const NETS: [&str; 4] = ["10.0.0.0/24", "10.0.0.7/32", "0.0.0.0/0", "10.96.0.0/16"];

/// Values of `x-a`, as often as it is sent.
const HEADERS: [&[&str]; 4] = [&[], &[""], &["1"], &["1", "2"]];

#[derive(Clone, Debug)]
struct Request {
    identity: Option<&'static str>,
    ip: &'static str,
    /// By address or by name.
    dialled: &'static str,
    method: &'static str,
    authority: (&'static str, &'static [&'static str]),
    target: (&'static str, &'static str, &'static str, bool),
    header: Vec<&'static str>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    /// With the policy and the rule, where one allows it.
    Allowed(Option<(String, usize)>),
    Denied(String, usize),
    NoneAllowed(usize),
    Ambiguous(String),
}

/// How the path is read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    AsSent,
    Decoded,
    /// It is no request.
    Connection,
}

struct Oracle<'a> {
    request: &'a Request,
    reading: Reading,
    /// What stands for what cannot be checked.
    unknown: bool,
}

impl Oracle<'_> {
    fn rule(&self, rule: &HttpRule) -> bool {
        let from = rule.from.is_empty() || rule.from.iter().any(|source| self.source(source));
        let to = rule.to.is_empty() || rule.to.iter().any(|operation| self.operation(operation));
        from && to && rule.when.iter().all(|condition| self.condition(condition))
    }

    fn source(&self, source: &Source) -> bool {
        // No token is read: what asks for one cannot be checked.
        let unknown = !source.unknown.is_empty()
            || !source.request_principals.any_of.is_empty()
            || !source.request_principals.none_of.is_empty();
        [
            !unknown || self.unknown,
            self.principal(&source.principals),
            self.namespace(&source.namespaces),
            self.account(&source.service_accounts),
            self.trust_domain(&source.trust_domains),
            self.client(&source.ip_blocks),
            self.client(&source.remote_ip_blocks),
        ]
        .iter()
        .all(|holds| *holds)
    }

    fn operation(&self, operation: &Operation) -> bool {
        let of_request = |is_empty: bool, holds: bool| match (is_empty, self.reading) {
            (true, _) => true,
            (false, Reading::Connection) => self.unknown,
            (false, Reading::AsSent | Reading::Decoded) => holds,
        };
        let is_empty = |values: &Values| values.any_of.is_empty() && values.none_of.is_empty();
        let path = |want: &PathCondition| self.path(want);
        let paths = &operation.paths;
        [
            operation.unknown.is_empty() || self.unknown,
            hold(&operation.ports, |port| *port == self.port()),
            of_request(is_empty(&operation.hosts), hold(&operation.hosts, |want| self.host(want))),
            of_request(
                is_empty(&operation.methods),
                hold(&operation.methods, |want| text(want, self.request.method)),
            ),
            of_request(paths.any_of.is_empty() && paths.none_of.is_empty(), hold(paths, path)),
        ]
        .iter()
        .all(|holds| *holds)
    }

    fn condition(&self, condition: &Condition) -> bool {
        match condition {
            Condition::RequestHeader { name, values } => {
                let is_empty = values.any_of.is_empty() && values.none_of.is_empty();
                if is_empty {
                    return true;
                }
                if self.reading == Reading::Connection {
                    return self.unknown;
                }
                // What came several times is its values joined; a server may take one of them instead.
                let sent = &self.request.header;
                let mut forms: Vec<String> = Vec::new();
                if name.as_str() == "host" {
                    forms.push(self.request.authority.1[0].to_owned());
                } else if !sent.is_empty() {
                    forms.push(sent.join(","));
                    if sent.len() > 1 {
                        forms.extend(sent.iter().map(|value| (*value).to_owned()));
                    }
                }
                let meets =
                    |want: &StringMatch, form: &String| *want == StringMatch::Presence || text(want, form);
                // What denies looks at each of them, and what allows is not met by leaving one out.
                let denies = self.unknown;
                let is_wanted = |want: &StringMatch| match denies {
                    true => forms.iter().any(|form| meets(want, form)),
                    false => forms.iter().take(1).any(|form| meets(want, form)),
                };
                let is_unwanted = |want: &StringMatch| match denies {
                    true => !forms.is_empty() && forms.iter().all(|form| meets(want, form)),
                    false => forms.iter().any(|form| meets(want, form)),
                };
                let wanted = values.any_of.is_empty() || values.any_of.iter().any(is_wanted);
                wanted && !values.none_of.iter().any(is_unwanted)
            }
            Condition::SourceIp(values) | Condition::RemoteIp(values) => self.client(values),
            Condition::SourceNamespace(values) => self.namespace(values),
            Condition::SourceServiceAccount(values) => self.account(values),
            Condition::SourceTrustDomain(values) => self.trust_domain(values),
            Condition::SourcePrincipal(values) => self.principal(values),
            Condition::DestinationIp(values) => match self.request.dialled.starts_with("10.") {
                true => hold(values, |net| inside(net, Ipv4Addr::new(10, 96, 0, 1))),
                false => (values.any_of.is_empty() && values.none_of.is_empty()) || self.unknown,
            },
            Condition::DestinationPort(values) => hold(values, |port| *port == self.port()),
            Condition::Unknown(_) => self.unknown,
        }
    }

    fn port(&self) -> u16 {
        if self.request.dialled.ends_with(":81") { 81 } else { 80 }
    }

    /// Nobody has no identity: what is asked of one fails, and what is excluded of one holds.
    fn identity(&self) -> Option<(&'static str, &'static str)> {
        self.request.identity?.split_once('/')
    }

    fn principal(&self, values: &Values) -> bool {
        let own = self.identity().map(|(ns, sa)| format!("cluster.local/ns/{ns}/sa/{sa}"));
        hold(values, |want| own.as_ref().is_some_and(|own| text(want, own)))
    }

    fn namespace(&self, values: &Values) -> bool {
        hold(values, |want| self.identity().is_some_and(|(namespace, _)| text(want, namespace)))
    }

    fn account(&self, values: &Values<ServiceAccountMatch>) -> bool {
        hold(values, |want| self.identity() == Some((&*want.namespace, &*want.service_account)))
    }

    fn trust_domain(&self, values: &Values) -> bool {
        hold(values, |want| self.identity().is_some() && text(want, "cluster.local"))
    }

    fn client(&self, values: &Values<IpNet>) -> bool {
        let plain = self.request.ip.trim_start_matches("::ffff:");
        let ip: Ipv4Addr = plain.parse().unwrap();
        hold(values, |net| inside(net, ip))
    }

    fn host(&self, want: &StringMatch) -> bool {
        *want == StringMatch::Presence || self.request.authority.1.iter().any(|form| text(want, form))
    }

    fn path(&self, want: &PathCondition) -> bool {
        let (_, as_sent, decoded, _) = self.request.target;
        let is_decoded = self.reading == Reading::Decoded;
        let path = if is_decoded { decoded } else { as_sent };
        match want {
            PathCondition::Text(want) if is_decoded => text(&with_decoded(want), path),
            PathCondition::Text(want) => text(want, path),
            PathCondition::Template(parts) => {
                let segments: Vec<&str> = path.split('/').skip(1).collect();
                template(parts, &segments)
            }
            // The only one of the vocabulary is `/a.*`.
            PathCondition::Regex(_) => path.starts_with("/a"),
        }
    }
}

fn hold<T>(values: &Values<T>, matches: impl Fn(&T) -> bool) -> bool {
    let wanted = values.any_of.is_empty() || values.any_of.iter().filter(|value| matches(value)).count() > 0;
    let unwanted = values.none_of.iter().filter(|value| matches(value)).count();
    wanted && unwanted == 0
}

fn text(want: &StringMatch, text: &str) -> bool {
    let text = text.as_bytes();
    match want {
        StringMatch::Exact(whole) => whole.as_bytes() == text,
        StringMatch::Prefix(start) => text.get(..start.len()) == Some(start.as_bytes()),
        StringMatch::Suffix(end) => {
            text.len().checked_sub(end.len()).is_some_and(|from| &text[from..] == end.as_bytes())
        }
        StringMatch::Presence => !text.is_empty(),
    }
}

fn with_decoded(want: &StringMatch) -> StringMatch {
    let decoded = |raw: &str| {
        let known = PATH_TEXTS.iter().find(|(text, _)| *text == raw);
        known.map_or(raw, |(_, decoded)| *decoded).into()
    };
    match want {
        StringMatch::Exact(raw) => StringMatch::Exact(decoded(raw)),
        StringMatch::Prefix(raw) => StringMatch::Prefix(decoded(raw)),
        StringMatch::Suffix(raw) => StringMatch::Suffix(decoded(raw)),
        StringMatch::Presence => StringMatch::Presence,
    }
}

fn inside(net: &IpNet, ip: Ipv4Addr) -> bool {
    let IpAddr::V4(base) = net.addr() else { return false };
    let mask = u32::MAX.checked_shl(32 - u32::from(net.prefix_len())).unwrap_or(0);
    u32::from(base) & mask == u32::from(ip) & mask
}

fn template(parts: &[TemplatePart], segments: &[&str]) -> bool {
    match (parts, segments) {
        ([], []) => true,
        ([TemplatePart::Rest], [_, ..]) => true,
        ([TemplatePart::OneSegment, parts @ ..], [first, rest @ ..]) => {
            !first.is_empty() && template(parts, rest)
        }
        ([TemplatePart::Literal(text), parts @ ..], [first, rest @ ..]) => {
            **text == **first && template(parts, rest)
        }
        _ => false,
    }
}

/// Istio's order. Policies are asked in the order of their names.
fn read(policies: &[HttpPolicy], request: &Request, reading: Reading) -> Verdict {
    let matching = |action: HttpAction| {
        let unknown = matches!(action, HttpAction::Deny | HttpAction::Custom);
        let oracle = Oracle { request, reading, unknown };
        let enforced = policies.iter().filter(|policy| policy.action == action && !policy.dry_run);
        for policy in enforced {
            for (at, rule) in policy.rules.iter().enumerate() {
                if oracle.rule(rule) {
                    return Some((policy.name.to_string(), at));
                }
            }
        }
        None
    };
    for action in [HttpAction::Custom, HttpAction::Deny] {
        if let Some((policy, rule)) = matching(action) {
            return Verdict::Denied(policy, rule);
        }
    }
    let allow = policies.iter().filter(|policy| policy.action == HttpAction::Allow && !policy.dry_run);
    match (allow.count(), matching(HttpAction::Allow)) {
        (0, _) => Verdict::Allowed(None),
        (_, Some(by)) => Verdict::Allowed(Some(by)),
        (total, None) => Verdict::NoneAllowed(total),
    }
}

fn expected(policies: &[HttpPolicy], request: &Request) -> Verdict {
    let (_, as_sent, decoded, is_ambiguous) = request.target;
    let looks_at_paths = |policy: &&HttpPolicy| {
        let decides = !policy.dry_run && policy.action != HttpAction::Audit;
        let paths =
            |operation: &Operation| !operation.paths.any_of.is_empty() || !operation.paths.none_of.is_empty();
        decides && policy.rules.iter().any(|rule| rule.to.iter().any(paths))
    };
    if let Some(policy) = policies.iter().find(looks_at_paths).filter(|_| is_ambiguous) {
        return Verdict::Ambiguous(policy.name.to_string());
    }
    let verdict = read(policies, request, Reading::AsSent);
    // Both readings must be allowed; the permit is of the second.
    let is_allowed = matches!(verdict, Verdict::Allowed(_));
    if is_allowed && decoded != as_sent { read(policies, request, Reading::Decoded) } else { verdict }
}

fn found(result: Result<crate::http::HttpPermit, HttpDenied>) -> Verdict {
    match result {
        Ok(permit) => match permit.allowed_by() {
            crate::http::HttpAllowedBy::NoAllowPolicy => Verdict::Allowed(None),
            crate::http::HttpAllowedBy::Rule { policy, rule } => {
                Verdict::Allowed(Some((policy.to_string(), *rule)))
            }
        },
        Err(HttpDenied::ByRule { policy, rule } | HttpDenied::NoAuthorizer { policy, rule }) => {
            Verdict::Denied(policy.to_string(), rule)
        }
        Err(HttpDenied::NoneAllowed { total, .. }) => Verdict::NoneAllowed(total),
        Err(HttpDenied::AmbiguousPath { policy, .. }) => Verdict::Ambiguous(policy.to_string()),
    }
}

/// A list that is mostly empty: rules that ask for everything at once match nothing.
fn values<T: Clone + std::fmt::Debug + 'static>(
    one: impl Strategy<Value = T> + Clone + 'static,
) -> BoxedStrategy<Values<T>> {
    let some = (vec(one.clone(), 0..3), vec(one, 0..2));
    let some = some.prop_map(|(any_of, none_of)| Values { any_of, none_of });
    prop_oneof![5 => Just(Values::default()), 2 => some].boxed()
}

fn matching(texts: impl Strategy<Value = &'static str> + Clone + 'static) -> BoxedStrategy<StringMatch> {
    let of = |make: fn(std::sync::Arc<str>) -> StringMatch| move |text: &'static str| make(text.into());
    prop_oneof![
        3 => texts.clone().prop_map(of(StringMatch::Exact)),
        1 => texts.clone().prop_map(of(StringMatch::Prefix)),
        1 => texts.prop_map(of(StringMatch::Suffix)),
        1 => Just(StringMatch::Presence),
    ]
    .boxed()
}

const PRINCIPALS: [&str; 4] =
    ["cluster.local/ns/shop/sa/cart", "cluster.local/ns/shop/", "/sa/cart", "cluster.local/ns/bank/sa/x.y"];

const ACTIONS: [HttpAction; 6] = [
    HttpAction::Allow,
    HttpAction::Allow,
    HttpAction::Deny,
    HttpAction::Deny,
    HttpAction::Audit,
    HttpAction::Custom,
];

fn principals() -> BoxedStrategy<Values> {
    values(matching(select(&PRINCIPALS[..])))
}

fn namespaces() -> BoxedStrategy<Values> {
    values(matching(select(&["shop", "bank", "s", "k"][..])))
}

fn accounts() -> BoxedStrategy<Values<ServiceAccountMatch>> {
    let account = |text: &str| {
        let (namespace, account) = text.split_once('/').unwrap();
        ServiceAccountMatch { namespace: namespace.into(), service_account: account.into() }
    };
    values(select(&IDENTITIES[..]).prop_map(account))
}

fn trust_domains() -> BoxedStrategy<Values> {
    values(matching(select(&["cluster.local", "cluster", "other"][..])))
}

fn nets() -> BoxedStrategy<Values<IpNet>> {
    values(select(&NETS[..]).prop_map(|text| text.parse().unwrap()))
}

fn ports() -> BoxedStrategy<Values<u16>> {
    values(select(&[80_u16, 81, 8080][..]))
}

fn unknown() -> BoxedStrategy<Vec<std::sync::Arc<str>>> {
    prop_oneof![9 => Just(Vec::new()), 1 => Just(vec!["field".into()])].boxed()
}

fn source() -> impl Strategy<Value = Source> {
    let tokens = prop_oneof![9 => Just(Values::default()), 1 => values(matching(select(&["iss/sub"][..])))];
    (principals(), namespaces(), accounts(), trust_domains(), nets(), nets(), tokens, unknown()).prop_map(
        |(
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            remote_ip_blocks,
            request_principals,
            unknown,
        )| Source {
            principals,
            namespaces,
            service_accounts,
            trust_domains,
            ip_blocks,
            remote_ip_blocks,
            request_principals,
            unknown,
        },
    )
}

fn path() -> BoxedStrategy<PathCondition> {
    let texts = select(&PATH_TEXTS[..]).prop_map(|(text, _)| text);
    prop_oneof![
        4 => matching(texts).prop_map(PathCondition::Text),
        2 => select(&TEMPLATES[..]).prop_map(|text| PathCondition::Template(path_template(text).unwrap())),
        1 => Just(PathCondition::Regex(Pattern::new("/a.*").unwrap())),
    ]
    .boxed()
}

fn operation() -> impl Strategy<Value = Operation> {
    let hosts = values(matching(select(&["web", "web:80", "web.", "we", ":80", "[fd00::1]"][..])));
    let methods = values(matching(select(&["GET", "POST", "G", "T"][..])));
    (hosts, ports(), methods, values(path()), unknown()).prop_map(
        |(hosts, ports, methods, paths, unknown)| Operation { hosts, ports, methods, paths, unknown },
    )
}

fn condition() -> impl Strategy<Value = Condition> {
    let header = |name: &'static str, texts: &'static [&'static str]| {
        values(matching(select(texts)))
            .prop_map(move |values| Condition::RequestHeader { name: HeaderName::from_static(name), values })
    };
    prop_oneof![
        header("x-a", &["1", "1,2", ",", "2"]),
        header("host", &["web", "web:80", "we"]),
        nets().prop_map(Condition::SourceIp),
        nets().prop_map(Condition::RemoteIp),
        namespaces().prop_map(Condition::SourceNamespace),
        accounts().prop_map(Condition::SourceServiceAccount),
        trust_domains().prop_map(Condition::SourceTrustDomain),
        principals().prop_map(Condition::SourcePrincipal),
        nets().prop_map(Condition::DestinationIp),
        ports().prop_map(Condition::DestinationPort),
        Just(Condition::Unknown("connection.sni".into())),
    ]
}

fn rule() -> impl Strategy<Value = HttpRule> {
    (vec(source(), 0..3), vec(operation(), 0..3), vec(condition(), 0..3))
        .prop_map(|(from, to, when)| HttpRule { from, to, when })
}

fn policies() -> impl Strategy<Value = Vec<HttpPolicy>> {
    let action = select(&ACTIONS[..]);
    let one = (action, vec(rule(), 0..3), proptest::bool::weighted(0.15));
    vec(one, 0..4).prop_map(|all| {
        let named = |(at, (action, rules, dry_run)): (usize, (HttpAction, Vec<HttpRule>, bool))| HttpPolicy {
            dry_run,
            ..policy(&format!("p{at}"), action, rules)
        };
        all.into_iter().enumerate().map(named).collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    let dialled = select(&["10.96.0.1:80", "10.96.0.1:81", "web.shop.svc.cluster.local:80"][..]);
    (
        option::weighted(0.8, select(&IDENTITIES[..])),
        select(&IPS[..]),
        dialled,
        select(&["GET", "POST"][..]),
        select(&AUTHORITIES[..]),
        select(&TARGETS[..]),
        select(&HEADERS[..]),
    )
        .prop_map(|(identity, ip, dialled, method, authority, target, header)| Request {
            identity,
            ip,
            dialled,
            method,
            authority,
            target,
            header: header.to_vec(),
        })
}

fn client(request: &Request) -> Client {
    let peer = match request.identity {
        Some(identity) => {
            let (namespace, account) = identity.split_once('/').unwrap();
            let text = format!("spiffe://cluster.local/ns/{namespace}/sa/{account}");
            Peer::Verified(text.parse().unwrap())
        }
        None => Peer::Unauthenticated,
    };
    Client { peer, ip: request.ip.parse().unwrap() }
}

fn decided(policies: &[HttpPolicy], request: &Request) -> Verdict {
    let snapshot = snapshot(policies.iter().cloned().map(Into::into));
    let mut headers = HeaderMap::new();
    for value in &request.header {
        headers.append("x-a", HeaderValue::from_static(value));
    }
    let method: Method = request.method.parse().unwrap();
    let head =
        Head { method: &method, authority: request.authority.0, target: request.target.0, headers: &headers };
    let path = normalize(head.target).unwrap();
    found(authorize(&snapshot, &to(&snapshot, request.dialled), &client(request), &head, &path))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_request_is_judged_as_the_documentation_says(policies in policies(), request in request()) {
        prop_assert_eq!(decided(&policies, &request), expected(&policies, &request));
    }

    #[test]
    fn a_connection_is_judged_as_the_documentation_says(policies in policies(), request in request()) {
        let snapshot = snapshot(policies.iter().cloned().map(Into::into));
        let destination = to(&snapshot, request.dialled);
        let judged = found(authorize_connection(&snapshot, &destination, &client(&request)));
        prop_assert_eq!(judged, read(&policies, &request, Reading::Connection));
    }
}

/// A property over policies that never match would say nothing.
#[test]
fn every_verdict_comes_up() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut allowed, mut by_rule, mut denied, mut none, mut ambiguous) = (0, 0, 0, 0, 0);
    for _ in 0..2_000 {
        let made = (policies(), request()).new_tree(&mut runner).unwrap().current();
        match expected(&made.0, &made.1) {
            Verdict::Allowed(None) => allowed += 1,
            Verdict::Allowed(Some(_)) => by_rule += 1,
            Verdict::Denied(..) => denied += 1,
            Verdict::NoneAllowed(_) => none += 1,
            Verdict::Ambiguous(_) => ambiguous += 1,
        }
    }
    let all = [allowed, by_rule, denied, none, ambiguous];
    assert!(all.iter().all(|count| *count >= 40), "{all:?}");
}
