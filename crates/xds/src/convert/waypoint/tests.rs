//! What is written is read back; what is incomplete or of a later version is refused.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::http::{
    BackendTarget, Condition, Cors, DirectResponse, Filters, GatewayName, HeaderEdits, HeaderMatch,
    HostPattern, HttpAction, HttpChange, HttpPolicy, HttpRule, Operation, Order, Parent, PathCondition,
    PathMatch, PathRewrite, Pattern, PolicyTarget, QueryMatch, Redirect, RedirectPort, Rewrite, Route,
    RouteKind, RouteMatch, RouteName, RouteRule, RuleAction, Source, Subset, SubsetName, Substitution,
    Timeouts, UnmatchedPreflight, ValueMatch, Values, WeightedBackend, path_template,
};
use ambit_mesh::policy::{PolicyName, ServiceAccountMatch, StringMatch};
use ambit_mesh::workload::WorkloadUid;
use ambit_proto::ambit::waypoint::v1 as proto;
use http::{HeaderName, HeaderValue, Method};
use prost::Message;

use super::*;
use crate::ResourceType;
use crate::convert::{InvalidResource, Received};
use crate::resources::Resource;

#[test]
fn routes_are_read_back() {
    let paths = [
        PathMatch::Any,
        PathMatch::Exact("/a".into()),
        PathMatch::Segments("/a".into()),
        PathMatch::Prefix("/a".into()),
        PathMatch::Regex(Pattern::new("/[a-z]+").unwrap()),
        PathMatch::ExactIgnoringCase("/a".into()),
        PathMatch::PrefixIgnoringCase("/a".into()),
    ];
    let actions = [
        RuleAction::Forward(vec![backend(None), backend(Some("v1")), invalid_backend()]),
        RuleAction::Forward(Vec::new()),
        RuleAction::Redirect(Redirect {
            scheme: Some("https".into()),
            host: Some("example.org".into()),
            port: RedirectPort::Number(8443),
            path: Some(PathRewrite::MatchedPrefix("".into())),
            status: 301,
        }),
        redirect(RedirectPort::Usual),
        redirect(RedirectPort::OfScheme),
        redirect(RedirectPort::Dialled),
        RuleAction::Respond(DirectResponse { status: 418, body: b"short and stout"[..].into() }),
        RuleAction::Fail { status: 500, why: "a filter is not known".into() },
    ];
    for (kind, order) in [
        (RouteKind::Http, Order::MostSpecific),
        (RouteKind::Grpc, Order::MostSpecific),
        (RouteKind::VirtualService, Order::AsWritten),
        (RouteKind::Tcp, Order::MostSpecific),
        (RouteKind::Tls, Order::MostSpecific),
    ] {
        for path in &paths {
            for action in &actions {
                let route = route(kind, order, path.clone(), action.clone());
                assert_eq!(route::from_proto(&route::to_proto(&route)).unwrap(), route);
                let resource = Resource::route(&route).to_proto();
                let received = Received::decode(ResourceType::Route, &resource).unwrap();
                assert_eq!(received, Received::Route(route.into()));
            }
        }
    }
}

#[test]
fn policies_are_read_back() {
    for action in [HttpAction::Allow, HttpAction::Deny, HttpAction::Audit, HttpAction::Custom] {
        let policy = policy(action);
        let resource = Resource::http_policy(&policy).to_proto();
        let received = Received::decode(ResourceType::HttpPolicy, &resource).unwrap();
        assert_eq!(received, Received::HttpPolicy(policy.into()));
    }
}

#[test]
fn subsets_are_read_back() {
    let name = SubsetName { service: web(), name: "v1".into() };
    let subset = Subset { name, members: BTreeSet::from([WorkloadUid("a".into()), WorkloadUid("b".into())]) };
    let resource = Resource::subset(&subset).to_proto();
    let received = Received::decode(ResourceType::Subset, &resource).unwrap();
    assert_eq!(received, Received::Subset(subset.into()));
}

#[test]
fn what_a_later_version_adds_is_not_dropped_silently() {
    let mut resource = Resource::http_policy(&policy(HttpAction::Allow)).to_proto();
    // Field 99, one octet.
    resource.resource.as_mut().unwrap().value.extend([0x98, 0x06, 0x01]);
    let refused = Received::decode(ResourceType::HttpPolicy, &resource);
    assert_eq!(refused, Err(InvalidResource::LaterVersion));
}

#[test]
fn what_is_incomplete_is_refused() {
    let good = route::to_proto(&route(
        RouteKind::Http,
        Order::MostSpecific,
        PathMatch::Any,
        RuleAction::Forward(vec![backend(None)]),
    ));
    type Break = fn(&mut proto::Route);
    let broken: [(&str, Break); 8] = [
        ("kind", |route| route.kind = 0),
        ("kind of a later version", |route| route.kind = 77),
        ("order", |route| route.order = 0),
        ("name", |route| route.name.clear()),
        ("action", |route| route.rules[0].action = None),
        ("port", |route| route.parents[0].port = 65_536),
        ("expression", |route| {
            let kind = Some(proto::path_match::Kind::Regex("(".into()));
            route.rules[0].matches[0].path = Some(proto::PathMatch { kind });
        }),
        ("header", |route| route.rules[0].matches[0].headers[0].name = "no header".into()),
    ];
    for (rule, break_it) in broken {
        let mut route = good.clone();
        break_it(&mut route);
        assert!(route::from_proto(&route).is_err(), "{rule}");
    }
    let mut policy = policy::to_proto(&policy(HttpAction::Deny));
    policy.action = 9;
    assert!(policy::from_proto(&policy).is_err());
}

#[test]
fn a_policy_that_cannot_be_read_denies_what_it_guards() {
    let name = PolicyName { namespace: "shop".into(), name: "p".into() };
    let mut unreadable = policy::to_proto(&policy(HttpAction::Allow));
    unreadable.action = 9;
    let stand_in = policy::stand_in(name.clone(), &unreadable.encode_to_vec());
    assert_eq!(stand_in.targets, policy(HttpAction::Allow).targets);
    assert_eq!((stand_in.action, stand_in.rules), (HttpAction::Deny, vec![HttpRule::default()]));
    assert_eq!(policy::stand_in(name, b"\xff").targets, [PolicyTarget::EveryWaypoint]);
}

fn web() -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: "web.shop.svc.cluster.local".into() }
}

fn redirect(port: RedirectPort) -> RuleAction {
    RuleAction::Redirect(Redirect { scheme: None, host: None, port, path: None, status: 302 })
}

fn cors() -> Cors {
    Cors {
        origins: vec![ValueMatch::Exact("https://a.example".into()), ValueMatch::Present],
        methods: vec!["GET".into(), "PUT".into()],
        headers: vec!["x-a".into()],
        exposed: vec!["*".into()],
        max_age_seconds: Some(5),
        credentials: true,
        unmatched: UnmatchedPreflight::Forwarded,
    }
}

fn header(name: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(name), HeaderValue::from_static("value"))
}

fn filters() -> Filters {
    let edits = HeaderEdits {
        set: vec![header("x-set")],
        add: vec![header("x-add")],
        remove: vec![HeaderName::from_static("x-gone")],
    };
    Filters {
        request: edits.clone(),
        response: edits,
        rewrite: Rewrite { host: Some("b.example".into()), path: Some(PathRewrite::Full("/b".into())) },
        cors: Some(cors()),
    }
}

fn substituted() -> PathRewrite {
    PathRewrite::Substituted(Substitution::new("/(a+)", r"/b/\1").unwrap())
}

fn backend(subset: Option<&str>) -> WeightedBackend {
    let subset = subset.map(Into::into);
    let target = BackendTarget::Service { service: web(), port: 80, subset };
    WeightedBackend { weight: 9, target, filters: filters() }
}

fn invalid_backend() -> WeightedBackend {
    let target = BackendTarget::Invalid { status: 500, why: "there is no such Service".into() };
    WeightedBackend { weight: 1, target, filters: Filters::default() }
}

/// One of each that waypoints alone are sent.
pub(crate) fn one_of_each() -> [HttpChange; 3] {
    let action = RuleAction::Forward(vec![backend(None), backend(Some("v1"))]);
    let name = SubsetName { service: web(), name: "v1".into() };
    let subset = Subset { name, members: BTreeSet::from([WorkloadUid("Kubernetes//Pod/shop/web".into())]) };
    [
        HttpChange::Route(Arc::new(route(RouteKind::Http, Order::MostSpecific, PathMatch::Any, action))),
        HttpChange::Policy(Arc::new(policy(HttpAction::Deny))),
        HttpChange::Subset(Arc::new(subset)),
    ]
}

fn route(kind: RouteKind, order: Order, path: PathMatch, action: RuleAction) -> Route {
    let values = [
        ValueMatch::Exact("a".into()),
        ValueMatch::Prefix("a".into()),
        ValueMatch::Regex(Pattern::new("a+").unwrap()),
        ValueMatch::Present,
    ];
    let header_match = |(at, value): (usize, &ValueMatch)| HeaderMatch {
        name: HeaderName::from_static("x-a"),
        value: value.clone(),
        inverted: at % 2 == 1,
    };
    let full = RouteMatch {
        path,
        method: Some(Method::PATCH),
        headers: values.iter().enumerate().map(header_match).collect(),
        query: vec![QueryMatch { name: "q".into(), value: ValueMatch::Exact("".into()) }],
        authority: Some(ValueMatch::Exact("a.example".into())),
        port: Some(80),
        source_namespace: Some("shop".into()),
    };
    Route {
        name: RouteName { kind, namespace: "shop".into(), name: "web".into() },
        created: 1_700_000_000,
        order,
        parents: vec![Parent { service: web(), port: None }, Parent { service: web(), port: Some(80) }],
        hostnames: vec![HostPattern::Exact("a.example".into()), HostPattern::Suffix(".example".into())],
        rules: vec![
            RouteRule {
                name: Some("first".into()),
                matches: vec![full, RouteMatch::default()],
                action: action.clone(),
                filters: filters(),
                timeouts: Timeouts {
                    request: Some(Duration::from_secs(10)),
                    backend_request: Some(Duration::ZERO),
                },
            },
            RouteRule {
                name: None,
                matches: Vec::new(),
                action,
                filters: Filters {
                    rewrite: Rewrite { host: None, path: Some(substituted()) },
                    cors: Some(Cors {
                        unmatched: UnmatchedPreflight::Answered,
                        max_age_seconds: None,
                        ..cors()
                    }),
                    ..Filters::default()
                },
                timeouts: Timeouts::default(),
            },
        ],
    }
}

fn policy(action: HttpAction) -> HttpPolicy {
    let texts = Values {
        any_of: vec![StringMatch::Exact("a".into()), StringMatch::Prefix("b".into())],
        none_of: vec![StringMatch::Suffix("c".into()), StringMatch::Presence],
    };
    let blocks =
        Values { any_of: vec!["10.0.0.0/8".parse().unwrap()], none_of: vec!["fd00::1/128".parse().unwrap()] };
    let account = ServiceAccountMatch { namespace: "shop".into(), service_account: "cart".into() };
    let accounts = Values { any_of: vec![account.clone()], none_of: vec![account] };
    let ports = Values { any_of: vec![80, 81], none_of: vec![82] };
    let paths = Values {
        any_of: vec![
            PathCondition::Text(StringMatch::Prefix("/a".into())),
            PathCondition::Template(path_template("/a/{*}/{**}").unwrap()),
        ],
        none_of: vec![PathCondition::Regex(Pattern::new("/x+").unwrap())],
    };
    let source = Source {
        principals: texts.clone(),
        request_principals: texts.clone(),
        namespaces: texts.clone(),
        service_accounts: accounts.clone(),
        trust_domains: texts.clone(),
        ip_blocks: blocks.clone(),
        remote_ip_blocks: blocks.clone(),
        unknown: vec!["later".into()],
    };
    let operation = Operation {
        hosts: texts.clone(),
        ports: ports.clone(),
        methods: texts.clone(),
        paths,
        unknown: vec!["later".into()],
    };
    let when = vec![
        Condition::RequestHeader { name: HeaderName::from_static("x-a"), values: texts.clone() },
        Condition::SourceIp(blocks.clone()),
        Condition::RemoteIp(blocks.clone()),
        Condition::SourceNamespace(texts.clone()),
        Condition::SourceServiceAccount(accounts),
        Condition::SourceTrustDomain(texts.clone()),
        Condition::SourcePrincipal(texts),
        Condition::DestinationIp(blocks),
        Condition::DestinationPort(ports),
        Condition::Unknown("request.auth.claims[a]".into()),
    ];
    HttpPolicy {
        name: PolicyName { namespace: "shop".into(), name: "p".into() },
        targets: vec![
            PolicyTarget::Gateway(GatewayName { namespace: "shop".into(), name: "waypoint".into() }),
            PolicyTarget::Service(web()),
            PolicyTarget::EveryWaypoint,
        ],
        action,
        rules: vec![
            HttpRule { from: vec![source], to: vec![operation], when },
            HttpRule { from: vec![Source::default()], to: vec![Operation::default()], when: Vec::new() },
        ],
        dry_run: true,
    }
}
