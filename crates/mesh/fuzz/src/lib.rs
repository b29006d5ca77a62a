//! What must hold of every path, and of every request over whatever routes and policies, whatever octets
//! they are made of.
//!
//! The fuzz targets call this, and so does `crates/mesh/tests/fuzz.rs` in the suite.

use std::sync::Arc;

use ambit_mesh::address::{GatewayAddress, GatewayDestination, Network, NetworkAddress, ServiceName};
use ambit_mesh::http::{
    BackendTarget, Client, Condition, Decision, Filters, GatewayName, Head, HeaderMatch, HttpAction,
    HttpChange, HttpPolicy, HttpRule, Myself, Operation, Order, Outcome, Parent, PathCondition, PathMatch,
    PathRewrite, Pattern, PolicyTarget, QueryMatch, Redirect, RedirectPort, Route, RouteKind, RouteMatch,
    RouteName, RouteRule, RuleAction, Source, Timeouts, ValueMatch, Values, WaypointSnapshot, WaypointState,
    WeightedBackend, authorize, consulted, decide, decide_by, normalize,
};
use ambit_mesh::identity::{SpiffeId, TrustDomain};
use ambit_mesh::policy::{Peer, PolicyName, StringMatch};
use ambit_mesh::service::{AppProtocol, IpFamilies, LoadBalancing, PortMapping, Service};
use ambit_mesh::snapshot::Change;
use ambit_mesh::workload::{
    Locality, NetworkMode, TunnelProtocol, Workload, WorkloadStatus, WorkloadType, WorkloadUid,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// A path that is normal stays so, means what it meant, and holds nothing that servers read differently.
pub fn path(target: &str) {
    let Ok(read) = normalize(target) else { return };
    let (before, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    assert_eq!(read.query(), query);
    if read.ambiguity().is_some() {
        assert_eq!(read.path(), before, "what is ambiguous is not touched");
        return;
    }
    let path = read.path();
    assert!(path.is_ascii() && !path.contains("//") && !path.contains('\\') && !path.contains(';'));
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."));
    let upper = path.to_ascii_uppercase();
    assert!(["%2F", "%5C", "%2E", "%3B", "%00"].iter().all(|escape| !upper.contains(escape)));
    assert_eq!(decoded(path), decoded(before), "it means what it meant");
    let again = normalize(path).expect("what was read is read again");
    assert_eq!((again.path(), again.ambiguity()), (path, None));
}

/// Every escape decoded, by hand.
fn decoded(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digit = |at: usize| char::from(*behind.get(at)?).to_digit(16);
        if *first == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
        {
            octets.push((high * 16 + low) as u8);
            rest = &behind[2..];
        } else {
            octets.push(*first);
            rest = behind;
        }
    }
    octets
}

/// A request over routes and policies that `data` says: what is decided is consistent in itself.
pub fn request(data: &[u8]) {
    let mut octets = Octets(data);
    let snapshot = octets.snapshot();
    let port = if octets.one_of(4) == 0 { 81 } else { 80 };
    let authority = format!("10.96.0.1:{port}").parse().expect("an address");
    let Ok(destination) = snapshot.destination(&authority) else { return };
    let client = octets.client();
    let method = octets.method();
    let headers = octets.headers();
    let host = octets.text(&["web", "WEB:80", "", "a b", "web.", "u@web"]);
    let target = octets.target();
    let head = Head { method: &method, authority: &host, target: &target, headers: &headers };
    let seed = u64::from(octets.next());
    let decided = decide(&snapshot, &destination, &client, &head, &mut SmallRng::seed_from_u64(seed));
    let again = decide(&snapshot, &destination, &client, &head, &mut SmallRng::seed_from_u64(seed));
    assert_eq!(decided, again, "chance is all that two decisions may differ by");

    let mut backends = 0;
    let first = decide_by(&snapshot, &destination, &client, &head, |all| {
        backends = all.len();
        None
    });
    let mut choices = vec![first];
    for at in 0..backends {
        choices.push(decide_by(&snapshot, &destination, &client, &head, |_| Some(at)));
    }
    assert!(choices.contains(&decided), "a decision is one of its choices");

    let Ok(read) = normalize(&target) else {
        assert!(matches!(decided.outcome, Outcome::Refuse { status: 400, .. }));
        return;
    };
    let judged = authorize(&snapshot, &destination, &client, &head, &read);
    let asked = consulted(&snapshot, &destination, &client, Some((&head, &read)));
    let Decision { outcome, route, .. } = decided;
    match (&outcome, judged) {
        (Outcome::Forward(forward), Ok(permit)) => {
            assert_eq!(forward.permit, permit);
            assert!(forward.target.starts_with('/') || forward.target == "*");
            let is_denied = asked
                .iter()
                .any(|says| says.action == HttpAction::Deny && !says.dry_run && says.rule.is_some());
            assert!(!is_denied, "a DENY that matches is the end");
        }
        (Outcome::Redirect { .. } | Outcome::Respond { .. } | Outcome::NoBackend { .. }, Ok(_)) => {
            assert!(route.is_some(), "only a route answers by itself");
        }
        (Outcome::NoRoute, Ok(_)) => assert!(route.is_none()),
        (Outcome::Deny(denied), Err(judged)) => assert_eq!(*denied, judged),
        (Outcome::Refuse { status: 400, .. }, _) => {}
        (outcome, judged) => panic!("{outcome:?} where policy says {judged:?}"),
    }
}

/// Octets that say what is made.
struct Octets<'a>(&'a [u8]);

impl Octets<'_> {
    fn next(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn one_of(&mut self, count: usize) -> usize {
        usize::from(self.next()) % count
    }

    fn some<T>(&mut self, most: usize, make: impl Fn(&mut Self) -> T) -> Vec<T> {
        let count = self.one_of(most + 1);
        (0..count).map(|_| make(self)).collect()
    }

    fn text(&mut self, texts: &[&str]) -> String {
        texts[self.one_of(texts.len())].to_owned()
    }

    /// Of a small alphabet, so that conditions and requests meet.
    fn path_text(&mut self) -> String {
        const PIECES: [&str; 16] =
            ["a", "b", "/", "/a", "/b", "%61", "%2F", "..", ".", ";", "%20", "%25", "?x=1", "?", "é", "\\"];
        let pieces = self.some(6, |octets| octets.text(&PIECES));
        format!("/{}", pieces.concat())
    }

    fn target(&mut self) -> String {
        match self.one_of(8) {
            0 => "*".to_owned(),
            1 => String::from_utf8_lossy(self.0).into_owned(),
            _ => self.path_text(),
        }
    }

    fn method(&mut self) -> Method {
        [Method::GET, Method::POST, Method::OPTIONS][self.one_of(3)].clone()
    }

    fn headers(&mut self) -> HeaderMap {
        let pairs = self.some(3, |octets| (octets.header_name(), octets.text(&["", "1", "2", "1,2"])));
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, HeaderValue::from_str(&value).expect("a value"));
        }
        headers
    }

    fn header_name(&mut self) -> HeaderName {
        HeaderName::from_static(["x-a", "x-b", "host"][self.one_of(3)])
    }

    fn value(&mut self) -> ValueMatch {
        match self.one_of(4) {
            0 => ValueMatch::Present,
            1 => ValueMatch::Prefix("1".into()),
            2 => ValueMatch::Regex(Pattern::new("[0-9]+").expect("an expression")),
            _ => ValueMatch::Exact(self.text(&["", "1", "2", "1,2"]).into()),
        }
    }

    fn path_match(&mut self) -> PathMatch {
        match self.one_of(7) {
            0 => PathMatch::Any,
            1 => PathMatch::Exact(self.path_text().into()),
            2 => PathMatch::Segments(self.path_text().into()),
            3 => PathMatch::Prefix(self.path_text().into()),
            4 => PathMatch::Regex(Pattern::new("/a.*").expect("an expression")),
            5 => PathMatch::ExactIgnoringCase(self.path_text().to_ascii_lowercase().into()),
            _ => PathMatch::PrefixIgnoringCase(self.path_text().to_ascii_lowercase().into()),
        }
    }

    fn route_match(&mut self) -> RouteMatch {
        RouteMatch {
            path: self.path_match(),
            method: (self.one_of(3) == 0).then(|| self.method()),
            headers: self.some(2, |octets| HeaderMatch {
                name: octets.header_name(),
                value: octets.value(),
                inverted: octets.one_of(4) == 0,
            }),
            query: self.some(1, |octets| QueryMatch { name: "x".into(), value: octets.value() }),
            authority: (self.one_of(6) == 0).then(|| ValueMatch::Exact("web".into())),
            port: (self.one_of(6) == 0).then_some(80),
            source_namespace: (self.one_of(6) == 0).then(|| "shop".into()),
        }
    }

    fn rewrite(&mut self) -> Option<PathRewrite> {
        match self.one_of(3) {
            0 => Some(PathRewrite::Full(self.path_text().into())),
            1 => Some(PathRewrite::MatchedPrefix(self.text(&["", "/", "/new", "/new/"]).into())),
            _ => None,
        }
    }

    fn filters(&mut self) -> Filters {
        let mut filters = Filters::default();
        filters.rewrite.path = self.rewrite();
        filters.rewrite.host = (self.one_of(3) == 0).then(|| "other".into());
        filters
    }

    fn backend(&mut self) -> WeightedBackend {
        let target = match self.one_of(4) {
            0 => BackendTarget::Invalid { status: 500, why: "it is not there".into() },
            1 => BackendTarget::Service { service: name("gone"), port: 80, subset: None },
            _ => BackendTarget::Service { service: name("web"), port: 80, subset: None },
        };
        WeightedBackend { weight: u32::from(self.next() % 3), target, filters: self.filters() }
    }

    fn rule(&mut self) -> RouteRule {
        let action = match self.one_of(4) {
            0 => RuleAction::Fail { status: 500, why: "not carried out".into() },
            1 => RuleAction::Redirect(Redirect {
                scheme: None,
                host: None,
                port: match self.one_of(4) {
                    0 => RedirectPort::Usual,
                    1 => RedirectPort::Number(8083),
                    2 => RedirectPort::OfScheme,
                    _ => RedirectPort::Dialled,
                },
                path: self.rewrite(),
                status: 302,
            }),
            _ => RuleAction::Forward(self.some(3, Self::backend)),
        };
        RouteRule {
            name: None,
            matches: self.some(3, Self::route_match),
            action,
            filters: self.filters(),
            timeouts: Timeouts::default(),
        }
    }

    fn route(&mut self, at: usize) -> Route {
        let is_as_written = self.one_of(3) == 0;
        Route {
            name: RouteName {
                kind: if is_as_written { RouteKind::VirtualService } else { RouteKind::Http },
                namespace: if self.one_of(4) == 0 { "bank".into() } else { "shop".into() },
                name: format!("r{at}").into(),
            },
            created: i64::from(self.next() % 2),
            order: if is_as_written { Order::AsWritten } else { Order::MostSpecific },
            parents: vec![Parent { service: name("web"), port: (self.one_of(3) == 0).then_some(80) }],
            hostnames: Vec::new(),
            rules: self.some(4, Self::rule),
        }
    }

    fn policy(&mut self, at: usize) -> HttpPolicy {
        let actions = [HttpAction::Allow, HttpAction::Deny, HttpAction::Audit, HttpAction::Custom];
        HttpPolicy {
            name: PolicyName { namespace: "shop".into(), name: format!("p{at}").into() },
            targets: vec![PolicyTarget::Service(name("web"))],
            action: actions[self.one_of(4)],
            rules: self.some(3, |octets| HttpRule {
                from: octets.some(2, |octets| Source {
                    namespaces: octets.values(&["shop", "bank"]),
                    ..Source::default()
                }),
                to: octets.some(2, |octets| Operation {
                    paths: Values {
                        any_of: octets.some(2, Self::path_condition),
                        none_of: octets.some(1, Self::path_condition),
                    },
                    methods: octets.values(&["GET", "POST"]),
                    ..Operation::default()
                }),
                when: octets.some(1, |octets| Condition::RequestHeader {
                    name: octets.header_name(),
                    values: octets.values(&["1", "2"]),
                }),
            }),
            dry_run: self.one_of(5) == 0,
        }
    }

    fn path_condition(&mut self) -> PathCondition {
        let text: Arc<str> = self.path_text().into();
        PathCondition::Text(match self.one_of(4) {
            0 => StringMatch::Prefix(text),
            1 => StringMatch::Suffix(text),
            2 => StringMatch::Presence,
            _ => StringMatch::Exact(text),
        })
    }

    fn values(&mut self, texts: &[&str]) -> Values {
        let one = |octets: &mut Self| match octets.one_of(4) {
            0 => StringMatch::Presence,
            _ => StringMatch::Exact(octets.text(texts).into()),
        };
        Values { any_of: self.some(2, one), none_of: self.some(1, one) }
    }

    fn client(&mut self) -> Client {
        let namespace = ["shop", "bank"][self.one_of(2)];
        let identity = SpiffeId::new(TrustDomain::default(), namespace, "cart").expect("an identity");
        let is_known = self.one_of(5) != 0;
        let peer = if is_known { Peer::Verified(identity) } else { Peer::Unauthenticated };
        Client { peer, ip: [10, 0, 0, 7].into() }
    }

    fn snapshot(&mut self) -> Arc<WaypointSnapshot> {
        let gateway = GatewayName { namespace: "shop".into(), name: "waypoint".into() };
        let workload = WorkloadUid("Kubernetes//Pod/shop/waypoint".into());
        let mut state = WaypointState::new(Myself { gateway, workload: workload.clone() });
        let bound = GatewayAddress {
            destination: GatewayDestination::Service(name("waypoint")),
            hbone_mtls_port: 15008,
        };
        let mut changes = vec![
            Change::Service(service("waypoint", [10, 96, 0, 9], None).into()),
            Change::Service(service("web", [10, 96, 0, 1], Some(bound)).into()),
            Change::Workload(instance(workload).into()),
        ];
        let routes = self.one_of(3);
        changes.extend((0..routes).map(|at| Change::Http(HttpChange::Route(self.route(at).into()))));
        let policies = self.one_of(4);
        changes.extend((0..policies).map(|at| Change::Http(HttpChange::Policy(self.policy(at).into()))));
        state.apply(changes);
        state.snapshot()
    }
}

fn name(of: &str) -> ServiceName {
    ServiceName { namespace: "shop".into(), hostname: format!("{of}.shop.svc.cluster.local").into() }
}

fn service(of: &str, ip: [u8; 4], waypoint: Option<GatewayAddress>) -> Service {
    let port = |service_port| PortMapping {
        service_port,
        target_port: Some(8080),
        app_protocol: AppProtocol::Http11,
    };
    Service {
        name: name(of),
        short_name: of.into(),
        addresses: vec![NetworkAddress { network: Network::default(), ip: ip.into() }],
        ports: vec![port(80), port(81)],
        subject_alt_names: Vec::new(),
        waypoint,
        waypoint_failure: Default::default(),
        load_balancing: LoadBalancing::default(),
        ip_families: IpFamilies::Automatic,
        canonical: false,
    }
}

fn instance(uid: WorkloadUid) -> Workload {
    Workload {
        uid,
        name: "waypoint".into(),
        namespace: "shop".into(),
        cluster_id: "Kubernetes".into(),
        network: Network::default(),
        addresses: vec![[10, 0, 0, 9].into()],
        hostname: None,
        identity: SpiffeId::new(TrustDomain::default(), "shop", "waypoint").expect("an identity"),
        tunnel_protocol: TunnelProtocol::None,
        node: "n1".into(),
        network_mode: NetworkMode::Standard,
        workload_type: WorkloadType::Pod,
        workload_name: "waypoint".into(),
        canonical_name: "waypoint".into(),
        canonical_revision: "latest".into(),
        waypoint: None,
        waypoint_failure: Default::default(),
        requires_waypoint: false,
        network_gateway: None,
        application_tunnel: None,
        authorization_policies: Default::default(),
        status: WorkloadStatus::Healthy,
        locality: Locality::default(),
        capacity: 1,
        services: [(name("waypoint"), Vec::new())].into_iter().collect(),
        pod: None,
    }
}
