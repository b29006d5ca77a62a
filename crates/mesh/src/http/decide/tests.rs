//! Routes by the Gateway API's rules: the assertions of its conformance suite that need no connection,
//! as tables.
//!
//! Long because it is one table of decisions, over the one mesh of `testing`.

use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::super::testing::*;
use super::super::*;
use super::*;
use crate::address::{Authority, ServiceName};
use crate::decide::Transport;
use crate::fixtures::{identity, service_name, uid};
use crate::policy::Peer;
use crate::snapshot::Change;
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// Which service a request goes to, or the status that it is answered with.
fn goes(snapshot: &WaypointSnapshot, asked: &Asked) -> String {
    told(decided(snapshot, asked).outcome)
}

fn told(outcome: Outcome) -> String {
    match outcome {
        Outcome::Forward(forward) => match forward.backend.place {
            Place::Service(service) => service.short_name.to_string(),
            Place::Workload(workload) => workload.name.to_string(),
        },
        Outcome::Redirect { status, location, .. } => format!("{status} {location}"),
        Outcome::Respond { status, .. }
        | Outcome::NoBackend { status, .. }
        | Outcome::Refuse { status, .. } => status.to_string(),
        Outcome::Deny(_) => "403".into(),
        Outcome::NoRoute => "404".into(),
    }
}

fn header(name: &'static str, value: &str) -> RouteMatch {
    let value = ValueMatch::Exact(value.into());
    let header = HeaderMatch { name: HeaderName::from_static(name), value, inverted: false };
    RouteMatch { headers: vec![header], ..RouteMatch::default() }
}

fn query(pairs: &[(&str, &str)]) -> RouteMatch {
    let one = |(name, value): &(&str, &str)| QueryMatch {
        name: (*name).into(),
        value: ValueMatch::Exact((*value).into()),
    };
    RouteMatch { query: pairs.iter().map(one).collect(), ..segments("/") }
}

#[test]
fn without_a_route_a_request_goes_where_it_was_sent() {
    let snapshot = snapshot([]);
    let decision = decided(&snapshot, &get("/a?b=c"));
    assert_eq!(decision.route, None);
    let Outcome::Forward(forward) = decision.outcome else { panic!() };
    assert_eq!((forward.target.as_str(), forward.authority.as_str()), ("/a?b=c", "web"));
    assert_eq!((forward.backend.port, forward.backend.protocol), (80, AppProtocol::Http11));
}

/// Gateway API conformance, HTTPRouteMatching.
#[test]
fn paths_and_headers_match_by_segments() {
    let route = route(
        "matching",
        vec![
            rule(vec![segments("/"), header("version", "one")], &web()),
            rule(vec![segments("/v2"), header("version", "two")], &web_v2()),
        ],
    );
    let snapshot = snapshot([route.into()]);
    for (asked, expected) in [
        (get("/"), "web"),
        (get("/example"), "web"),
        (get("/").with("version", "one"), "web"),
        (get("/v2"), "web-v2"),
        (get("/v2/"), "web-v2"),
        (get("/v2/example"), "web-v2"),
        (get("/v2?a"), "web-v2"),
        (get("/v2example"), "web"),
        (get("/foo/v2/example"), "web"),
    ] {
        assert_eq!(goes(&snapshot, &asked), expected, "{}", asked.target);
    }
}

/// Gateway API: Exact, longest prefix, method, number of headers, number of query parameters, age, name,
/// order. Each pair: the first takes the request, in whatever order they are written.
#[test]
fn the_most_specific_match_counts() {
    let exact = |text: &str| path(PathMatch::Exact(text.into()));
    let regex = |text: &str| path(PathMatch::Regex(Pattern::new(text).unwrap()));
    let by = |method| RouteMatch { method: Some(method), ..segments("/") };
    let two = RouteMatch {
        headers: [header("a", "1").headers, header("b", "1").headers].concat(),
        ..segments("/")
    };
    let one = RouteMatch { headers: header("a", "1").headers, ..segments("/") };
    for (rule_name, better, worse) in [
        ("exact before a prefix", exact("/p"), segments("/p")),
        ("the longer prefix", segments("/p"), segments("/")),
        ("a prefix before an expression", segments("/"), regex("/p")),
        ("path before method", segments("/p"), by(Method::GET)),
        ("path before headers", segments("/p"), two.clone()),
        ("path before query", segments("/p"), query(&[("q", "1"), ("r", "1")])),
        ("method before headers", by(Method::GET), two.clone()),
        ("more headers", two, one.clone()),
        ("headers before query", one, query(&[("q", "1"), ("r", "1")])),
        ("more parameters", query(&[("q", "1"), ("r", "1")]), query(&[("q", "1")])),
        ("a parameter before none", query(&[("q", "1")]), segments("/")),
    ] {
        let asked = get("/p?q=1&r=1").with("a", "1").with("b", "1");
        let (better, worse) =
            (|| rule(vec![better.clone()], &web_v2()), || rule(vec![worse.clone()], &web()));
        for rules in [vec![better(), worse()], vec![worse(), better()]] {
            assert_eq!(goes(&snapshot([route("r", rules).into()]), &asked), "web-v2", "{rule_name}");
        }
        let apart = [route("a", vec![worse()]).into(), route("b", vec![better()]).into()];
        assert_eq!(goes(&snapshot(apart), &asked), "web-v2", "{rule_name}, in two routes");
    }
}

#[test]
fn of_equal_matches_the_older_route_counts_then_the_first_by_name_then_the_first_rule() {
    let to = |name: &str, created, service: &ServiceName| Route {
        created,
        ..route(name, vec![rule(vec![segments("/")], service)])
    };
    let older = snapshot([to("a", 2, &web()).into(), to("b", 1, &web_v2()).into()]);
    assert_eq!(goes(&older, &get("/")), "web-v2");
    let named = snapshot([to("b", 1, &web()).into(), to("a", 1, &web_v2()).into()]);
    assert_eq!(goes(&named, &get("/")), "web-v2");
    let rules = vec![rule(vec![segments("/")], &web_v2()), rule(vec![segments("/")], &web())];
    assert_eq!(goes(&snapshot([route("a", rules).into()]), &get("/")), "web-v2");
}

/// Gateway API conformance, MeshHTTPRouteQueryParamMatching.
#[test]
fn query_parameters_match_whole_values() {
    let and = RouteMatch { headers: header("version", "one").headers, ..query(&[("animal", "whale")]) };
    let dolphin = RouteMatch { query: query(&[("animal", "dolphin")]).query, ..segments("/path1") };
    let route = route(
        "query",
        vec![
            rule(vec![query(&[("animal", "whale")])], &web()),
            rule(vec![dolphin, query(&[("animal", "dolphin"), ("color", "blue")])], &web_v2()),
            rule(vec![and], &web_v2()),
            rule(vec![segments("/path5")], &web()),
            rule(vec![query(&[("animal", "hydra")])], &web_v2()),
        ],
    );
    let snapshot = snapshot([route.into()]);
    for (asked, expected) in [
        (get("/?animal=whale"), "web"),
        (get("/?color=blue&animal=whale"), "web"),
        (get("/?animal=whale").with("version", "one"), "web-v2"),
        (get("/?animal=wh%61le"), "web"),
        (get("/?animal=whales"), "404"),
        (get("/?animal=Whale"), "404"),
        (get("/?Animal=whale"), "404"),
        (get("/"), "404"),
        (get("/path1?animal=dolphin"), "web-v2"),
        (get("/?animal=dolphin&color=blue"), "web-v2"),
        (get("/?animal=dolphin"), "404"),
        (get("/?animal=whale&animal=hydra"), "web"),
        (get("/path5?animal=hydra"), "web"),
    ] {
        assert_eq!(goes(&snapshot, &asked), expected, "{}", asked.target);
    }
}

/// Gateway API conformance, MeshPorts and MeshFrontendHostname: the port and the address that were dialled
/// count, and not the Host header.
#[test]
fn a_route_holds_for_the_service_and_port_that_were_dialled() {
    let of_port = Route {
        parents: vec![Parent { service: web(), port: Some(80) }],
        ..route("port", vec![rule(vec![], &web_v2())])
    };
    let snapshot = snapshot([of_port.into()]);
    for (authority, host, expected) in [
        ("10.96.0.1:80", "web", "web-v2"),
        ("10.96.0.1:80", "web-v2", "web-v2"),
        ("10.96.0.1:81", "web", "web"),
        ("10.96.0.2:80", "web", "web-v2"),
        ("web.shop.svc.cluster.local:80", "x", "web-v2"),
    ] {
        let decision = decided_for(&snapshot, authority, &client("cart"), &get("/").to(host), 1);
        assert_eq!(told(decision.outcome), expected, "{authority} {host}");
    }
}

/// Gateway API conformance, MeshConsumerRoute.
#[test]
fn a_consumers_route_is_for_its_own_clients() {
    let name = RouteName { kind: RouteKind::Http, namespace: "bank".into(), name: "consumer".into() };
    let consumer = Route { name, ..route("consumer", vec![rule(vec![segments("/only")], &web_v2())]) };
    let producer = route("producer", vec![rule(vec![], &web())]);
    let both = snapshot([consumer.clone().into(), producer.into()]);
    let bank = "spiffe://cluster.local/ns/bank/sa/teller".parse().unwrap();
    let bank = Client { peer: Peer::Verified(bank), ..client("cart") };
    let goes = |snapshot: &WaypointSnapshot, client: &Client, target: &str| {
        told(decided_for(snapshot, "10.96.0.1:80", client, &get(target), 1).outcome)
    };
    assert_eq!(goes(&both, &bank, "/only"), "web-v2");
    assert_eq!(goes(&both, &bank, "/"), "404", "the producer's routes do not count for it");
    assert_eq!(goes(&both, &client("cart"), "/only"), "web");
    let alone = snapshot([consumer.into()]);
    assert_eq!(goes(&alone, &client("cart"), "/x"), "web", "for others the service has no route");
}

/// Gateway API conformance, MeshHTTPRouteRewritePath.
#[test]
fn what_is_sent_is_rewritten() {
    let rewriting = |prefix: RouteMatch, path: PathRewrite| RouteRule {
        filters: Filters {
            rewrite: Rewrite { host: Some("one.example".into()), path: Some(path) },
            ..Filters::default()
        },
        ..rule(vec![prefix], &web_v2())
    };
    let route = route(
        "rewrite",
        vec![
            rewriting(segments("/prefix/one"), PathRewrite::MatchedPrefix("/one".into())),
            rewriting(segments("/strip-prefix"), PathRewrite::MatchedPrefix("/".into())),
            rewriting(segments("/full/one"), PathRewrite::Full("/one".into())),
        ],
    );
    let snapshot = snapshot([route.into()]);
    for (target, expected) in [
        ("/prefix/one/two", "/one/two"),
        ("/prefix/one/two?q=1", "/one/two?q=1"),
        ("/strip-prefix/three", "/three"),
        ("/strip-prefix", "/"),
        ("/full/one/two", "/one"),
    ] {
        let Outcome::Forward(forward) = decided(&snapshot, &get(target)).outcome else { panic!("{target}") };
        assert_eq!(
            (forward.target.as_str(), forward.authority.as_str()),
            (expected, "one.example"),
            "{target}"
        );
    }
}

/// Gateway API conformance, MeshHTTPRouteRedirect*, MeshHTTPRouteSchemeRedirect.
#[test]
fn redirects_say_where_to() {
    let nothing = Redirect { scheme: None, host: None, port: RedirectPort::Usual, path: None, status: 302 };
    let number = RedirectPort::Number;
    let prefix = |new: &str| Some(PathRewrite::MatchedPrefix(new.into()));
    for (rule_name, redirect, port, expected) in [
        (
            "host",
            Redirect { host: Some("example.org".into()), ..nothing.clone() },
            80,
            "302 http://example.org/old/x?q=1",
        ),
        ("status", Redirect { status: 301, ..nothing.clone() }, 80, "301 http://web/old/x?q=1"),
        ("path", Redirect { path: prefix("/new"), ..nothing.clone() }, 80, "302 http://web/new/x?q=1"),
        (
            "whole path",
            Redirect { path: Some(PathRewrite::Full("/n".into())), ..nothing.clone() },
            80,
            "302 http://web/n?q=1",
        ),
        ("port", Redirect { port: number(8083), ..nothing.clone() }, 80, "302 http://web:8083/old/x?q=1"),
        (
            "scheme",
            Redirect { scheme: Some("https".into()), ..nothing.clone() },
            80,
            "302 https://web/old/x?q=1",
        ),
        (
            "scheme's own port",
            Redirect { scheme: Some("https".into()), port: number(443), ..nothing.clone() },
            80,
            "302 https://web/old/x?q=1",
        ),
        ("http's own port", Redirect { port: number(80), ..nothing.clone() }, 81, "302 http://web/old/x?q=1"),
        (
            "the scheme's port whatever was dialled",
            Redirect { port: RedirectPort::OfScheme, ..nothing.clone() },
            81,
            "302 http://web/old/x?q=1",
        ),
        (
            "the port that was dialled whatever the scheme",
            Redirect { scheme: Some("https".into()), port: RedirectPort::Dialled, ..nothing.clone() },
            81,
            "302 https://web:81/old/x?q=1",
        ),
        ("the port that was dialled", nothing, 81, "302 http://web:81/old/x?q=1"),
    ] {
        let action = RuleAction::Redirect(redirect);
        let route = route("redirect", vec![RouteRule { action, ..rule(vec![segments("/old")], &web()) }]);
        let snapshot = snapshot([route.into()]);
        let asked = get("/old/x?q=1").to(&format!("web:{port}"));
        let decision = decided_for(&snapshot, &format!("10.96.0.1:{port}"), &client("cart"), &asked, 1);
        assert_eq!(told(decision.outcome), expected, "{rule_name}");
    }
}

#[test]
fn preflights_are_answered_and_answers_tell_browsers() {
    let cors = Cors {
        origins: vec![ValueMatch::Exact("https://shop.example".into())],
        methods: vec!["PUT".into()],
        headers: Vec::new(),
        exposed: Vec::new(),
        max_age_seconds: Some(5),
        credentials: false,
        unmatched: UnmatchedPreflight::Answered,
    };
    let filters = Filters { cors: Some(cors), ..Filters::default() };
    let snapshot = snapshot([route("r", vec![RouteRule { filters, ..rule(vec![], &web()) }]).into()]);
    let preflight = get("/")
        .by(Method::OPTIONS)
        .with("origin", "https://shop.example")
        .with("access-control-request-method", "PUT");
    let Outcome::Respond { status, response, .. } = decided(&snapshot, &preflight).outcome else { panic!() };
    let mut headers = http::HeaderMap::new();
    response.apply(&mut headers);
    assert_eq!((status, &headers["access-control-allow-methods"]), (200, &HeaderValue::from_static("PUT")));

    let asked = get("/").with("origin", "https://shop.example");
    let Outcome::Forward(forward) = decided(&snapshot, &asked).outcome else { panic!() };
    forward.response.apply(&mut headers);
    assert_eq!(headers["access-control-allow-origin"], "https://shop.example");
}

#[test]
fn filters_of_rule_and_backend_are_both_done() {
    let set = |name: &'static str| HeaderEdits {
        set: vec![(HeaderName::from_static(name), HeaderValue::from_static("1"))],
        ..HeaderEdits::default()
    };
    let filters = |name| Filters { request: set(name), response: set(name), ..Filters::default() };
    let backend = WeightedBackend { filters: filters("x-backend"), ..backend(&web_v2(), 1) };
    let rule = RouteRule {
        filters: filters("x-rule"),
        action: RuleAction::Forward(vec![backend]),
        ..rule(vec![], &web())
    };
    let snapshot = snapshot([route("r", vec![rule]).into()]);
    let Outcome::Forward(forward) = decided(&snapshot, &get("/")).outcome else { panic!() };
    let names = |edits: &Edits| {
        let name = |edit: &HeaderEdit| match edit {
            HeaderEdit::Set(name, _) | HeaderEdit::Add(name, _) | HeaderEdit::Remove(name) => {
                name.to_string()
            }
        };
        edits.headers.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&forward.request), ["x-rule", "x-backend"]);
    assert_eq!(names(&forward.response), ["x-backend", "x-rule"]);
}

#[test]
fn a_backend_that_is_none_answers_for_its_share() {
    let invalid = BackendTarget::Invalid { status: 500, why: "no such Service".into() };
    let invalid = |weight| WeightedBackend { weight, target: invalid.clone(), filters: Filters::default() };
    let missing = backend(&service_name("shop", "missing"), 1);
    for (rule_name, backends, expected) in [
        ("none at all", vec![], "500"),
        ("no weight", vec![backend(&web(), 0)], "500"),
        ("an invalid one", vec![invalid(1)], "500"),
        ("an invalid one without weight", vec![invalid(0), backend(&web(), 1)], "web"),
        ("one that is not known", vec![missing], "500"),
    ] {
        let rule = RouteRule { action: RuleAction::Forward(backends), ..rule(vec![], &web()) };
        assert_eq!(goes(&snapshot([route("r", vec![rule]).into()]), &get("/")), expected, "{rule_name}");
    }
}

/// Over many requests, of one client and of many, whatever went before: six standard deviations of a binomial count
/// are exceeded once in five hundred million runs.
#[test]
fn backends_take_their_share() {
    const REQUESTS: u32 = 100_000;
    for (first, second) in [(70, 30), (90, 10), (1, 999_999), (1_000_000, 1_000_000), (0, 1), (1, 0)] {
        let action = RuleAction::Forward(vec![backend(&web(), first), backend(&web_v2(), second)]);
        let route = route("r", vec![RouteRule { action, ..rule(vec![], &web()) }]);
        let snapshot = snapshot([route.into()]);
        let (destination, asked) = (to(&snapshot, "10.96.0.1:80"), get("/"));
        let mut rng = SmallRng::seed_from_u64(u64::from(first));
        let mut counted = 0_u32;
        for number in 0..REQUESTS {
            let client = client(["cart", "search"][number as usize % 2]);
            let decision = decide(&snapshot, &destination, &client, &asked.head(), &mut rng);
            counted += u32::from(told(decision.outcome) == "web");
        }
        let share = f64::from(first) / f64::from(first + second);
        let (mean, variance) = (f64::from(REQUESTS) * share, f64::from(REQUESTS) * share * (1.0 - share));
        let distance = (f64::from(counted) - mean).abs();
        assert!(distance <= 6.0 * variance.sqrt(), "{first}/{second}: {counted} of {REQUESTS}");
    }
}

#[test]
fn rules_of_a_virtual_service_are_asked_as_written() {
    let route = Route {
        order: Order::AsWritten,
        ..route(
            "vs",
            vec![
                rule(vec![path(PathMatch::Prefix("/v2".into()))], &web_v2()),
                rule(vec![path(PathMatch::Exact("/v2example".into()))], &web()),
            ],
        )
    };
    let snapshot = snapshot([route.into()]);
    assert_eq!(goes(&snapshot, &get("/v2example")), "web-v2");
    assert_eq!(goes(&snapshot, &get("/x")), "404");
}

#[test]
fn what_is_no_request_is_refused() {
    let snapshot = snapshot([]);
    for asked in [
        get("a"),
        get("http://a/"),
        get("/a#b"),
        get("/").to("user@web"),
        get("/").to("web/x"),
        get("/").to("we b"),
    ] {
        assert_eq!(goes(&snapshot, &asked), "400", "{} {}", asked.authority, asked.target);
    }
    assert_eq!(goes(&snapshot, &get("/").to("")), "web", "HTTP/1.0 has no authority");
    assert_eq!(goes(&snapshot, &get("*").by(Method::OPTIONS)), "web");
}

#[test]
fn a_waypoint_serves_what_is_bound_to_it_and_is_no_open_relay() {
    let snapshot = snapshot([]);
    let refused =
        |authority: &str| snapshot.destination(&authority.parse().unwrap()).unwrap_err().to_string();
    assert!(refused("10.96.0.3:80").contains("not bound"), "another service");
    assert!(refused("10.0.0.1:8080").contains("not bound"), "a pod behind a service's waypoint");
    assert!(refused("10.96.0.9:15008").contains("not bound"), "itself");
    assert!(refused("10.96.0.1:82").contains("no port 82"));
    assert!(refused("192.0.2.1:80").contains("no service"));
    assert!(refused("elsewhere.example:80").contains("no service"));
    let unplaced = WaypointState::new(snapshot.myself().clone()).snapshot();
    assert_eq!(unplaced.destination(&Authority::Address(at("10.96.0.1:80"))), Err(NotServed::Unplaced));
}

#[test]
fn a_backends_endpoint_is_reached_in_a_tunnel_of_its_own() {
    let snapshot = snapshot([]);
    let Outcome::Forward(forward) = decided(&snapshot, &get("/")).outcome else { panic!() };
    let mut rng = SmallRng::seed_from_u64(1);
    let hop = snapshot.upstream(&forward.backend, &[], &[], &mut rng).unwrap();
    assert_eq!(hop.next_hop, at("10.0.0.1:15008"));
    let Transport::Hbone { authority, expected } = hop.transport else { panic!() };
    assert_eq!(authority, at("10.0.0.1:8080"));
    assert!(expected.contains(&identity("web-0")));
    let tried = snapshot.upstream(&forward.backend, &[uid("web-0")], &[], &mut rng);
    assert!(matches!(tried, Err(UpstreamError::Endpoint(_))), "no endpoint is left");
}

#[test]
fn a_subset_leaves_other_endpoints_out() {
    let name = SubsetName { service: web(), name: "v1".into() };
    let subset = |members: &[&str]| {
        let members = members.iter().map(|name| uid(name)).collect();
        HttpChange::Subset(Subset { name: name.clone(), members }.into())
    };
    let target = BackendTarget::Service { service: web(), port: 80, subset: Some("v1".into()) };
    let action = RuleAction::Forward(vec![WeightedBackend { target, ..backend(&web(), 1) }]);
    let route = || route("r", vec![RouteRule { action: action.clone(), ..rule(vec![], &web()) }]);
    let upstream = |changes: Vec<HttpChange>| {
        let snapshot = snapshot(changes);
        let Outcome::Forward(forward) = decided(&snapshot, &get("/")).outcome else { panic!() };
        snapshot.upstream(&forward.backend, &[], &[], &mut SmallRng::seed_from_u64(1))
    };
    assert!(upstream(vec![route().into(), subset(&["web-0"])]).is_ok());
    assert!(upstream(vec![route().into(), subset(&["other"])]).is_err());
    assert!(matches!(upstream(vec![route().into()]), Err(UpstreamError::NoSuchSubset { .. })));
}

#[test]
fn what_is_taken_back_leaves_nothing_behind() {
    let (route, denying) = (route("r", vec![rule(vec![], &web_v2())]), policy("p", HttpAction::Deny, vec![]));
    let mut state = WaypointState::new(snapshot([]).myself().clone());
    state.apply(mesh());
    state.apply([Change::Http(route.clone().into()), Change::Http(denying.clone().into())]);
    assert_ne!(state.snapshot(), snapshot([]));
    state.apply([
        Change::Http(HttpChange::RemoveRoute(route.name)),
        Change::Http(HttpChange::RemovePolicy(denying.name)),
    ]);
    assert_eq!(state.snapshot(), snapshot([]));
}

proptest! {
    /// Whatever the order in which routes arrive, and in which rules of one specificity are not.
    #[test]
    fn the_order_of_arrival_does_not_matter(seed: u64, target in "/[pq/]{0,5}") {
        let prefixes = ["/", "/p", "/p/q", "/q"];
        let routes: Vec<Route> = (0..4)
            .map(|at| {
                let service = if at % 2 == 0 { web() } else { web_v2() };
                route(&format!("r{at}"), vec![rule(vec![segments(prefixes[at])], &service)])
            })
            .collect();
        let forwards = snapshot(routes.iter().cloned().map(Into::into));
        let backwards = snapshot(routes.into_iter().rev().map(Into::into));
        prop_assert_eq!(&forwards, &backwards);
        let goes = |snapshot: &WaypointSnapshot| {
            decided_for(snapshot, "10.96.0.1:80", &client("cart"), &get(&target), seed)
        };
        prop_assert_eq!(goes(&forwards), goes(&backwards));
    }
}
