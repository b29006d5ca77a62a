//! A waypoint `shop/waypoint` in front of Services `web` and `web-v2`, for tests that set only what they
//! are about.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::address::ServiceName;
use crate::fixtures::{endpoint, gateway, identity, ip, port, service, service_name, socket, uid};
use crate::policy::{Peer, PolicyName};
use crate::service::{AppProtocol, PortMapping, Service};
use crate::snapshot::Change;

pub(super) fn web() -> ServiceName {
    service_name("shop", "web")
}

pub(super) fn web_v2() -> ServiceName {
    service_name("shop", "web-v2")
}

/// What there is without a route or a policy.
pub(super) fn mesh() -> Vec<Change> {
    let waypoint = service_name("shop", "waypoint");
    let http =
        |service_port| PortMapping { app_protocol: AppProtocol::Http11, ..port(service_port, Some(8080)) };
    let bound = |name: &str, address: &str| Service {
        waypoint: Some(gateway(&waypoint)),
        ports: vec![http(80), http(81)],
        ..service("shop", name, &[address])
    };
    vec![
        Service { ports: vec![port(15008, Some(15008))], ..service("shop", "waypoint", &["10.96.0.9"]) }
            .into(),
        endpoint("waypoint", &["10.0.0.9"], &[&waypoint]).into(),
        bound("web", "10.96.0.1").into(),
        bound("web-v2", "10.96.0.2").into(),
        service("shop", "direct", &["10.96.0.3"]).into(),
        endpoint("web-0", &["10.0.0.1"], &[&web()]).into(),
        endpoint("web-v2-0", &["10.0.0.2"], &[&web_v2()]).into(),
    ]
}

pub(super) fn snapshot(changes: impl IntoIterator<Item = HttpChange>) -> Arc<WaypointSnapshot> {
    let gateway = GatewayName { namespace: "shop".into(), name: "waypoint".into() };
    let mut state = WaypointState::new(Myself { gateway, workload: uid("waypoint") });
    state.apply(mesh().into_iter().chain(changes.into_iter().map(Change::Http)));
    state.snapshot()
}

pub(super) fn to(snapshot: &WaypointSnapshot, authority: &str) -> Destination {
    snapshot.destination(&authority.parse().unwrap()).unwrap()
}

pub(super) fn client(name: &str) -> Client {
    Client { peer: Peer::Verified(identity(name)), ip: ip("10.0.0.7") }
}

/// A request: `GET /path` with headers.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) authority: String,
    pub(super) target: String,
    pub(super) headers: HeaderMap,
}

pub(super) fn get(target: &str) -> Asked {
    Asked { method: Method::GET, authority: "web".into(), target: target.into(), headers: HeaderMap::new() }
}

impl Asked {
    pub(super) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        self
    }

    pub(super) fn to(self, authority: &str) -> Self {
        Self { authority: authority.into(), ..self }
    }

    pub(super) fn by(self, method: Method) -> Self {
        Self { method, ..self }
    }

    pub(super) fn head(&self) -> Head<'_> {
        let Self { method, authority, target, headers } = self;
        Head { method, authority, target, headers }
    }
}

/// What becomes of a request to `web:80`.
pub(super) fn decided(snapshot: &WaypointSnapshot, asked: &Asked) -> Decision {
    decided_for(snapshot, "10.96.0.1:80", &client("cart"), asked, 1)
}

pub(super) fn decided_for(
    snapshot: &WaypointSnapshot,
    authority: &str,
    client: &Client,
    asked: &Asked,
    seed: u64,
) -> Decision {
    let destination = to(snapshot, authority);
    decide(snapshot, &destination, client, &asked.head(), &mut SmallRng::seed_from_u64(seed))
}

pub(super) fn backend(service: &ServiceName, weight: u32) -> WeightedBackend {
    let target = BackendTarget::Service { service: service.clone(), port: 80, subset: None };
    WeightedBackend { weight, target, filters: Filters::default() }
}

pub(super) fn rule(matches: Vec<RouteMatch>, service: &ServiceName) -> RouteRule {
    RouteRule {
        name: None,
        matches,
        action: RuleAction::Forward(vec![backend(service, 1)]),
        filters: Filters::default(),
        timeouts: Timeouts::default(),
    }
}

pub(super) fn route(name: &str, rules: Vec<RouteRule>) -> Route {
    Route {
        name: RouteName { kind: RouteKind::Http, namespace: "shop".into(), name: name.into() },
        created: 0,
        order: Order::MostSpecific,
        parents: vec![Parent { service: web(), port: None }],
        hostnames: Vec::new(),
        rules,
    }
}

pub(super) fn path(path: PathMatch) -> RouteMatch {
    RouteMatch { path, ..RouteMatch::default() }
}

pub(super) fn segments(prefix: &str) -> RouteMatch {
    path(PathMatch::Segments(prefix.into()))
}

pub(super) fn policy(name: &str, action: HttpAction, rules: Vec<HttpRule>) -> HttpPolicy {
    HttpPolicy {
        name: PolicyName { namespace: "shop".into(), name: name.into() },
        targets: vec![PolicyTarget::Service(web())],
        action,
        rules,
        dry_run: false,
    }
}

impl From<Route> for HttpChange {
    fn from(route: Route) -> Self {
        Self::Route(route.into())
    }
}

impl From<HttpPolicy> for HttpChange {
    fn from(policy: HttpPolicy) -> Self {
        Self::Policy(policy.into())
    }
}

pub(super) fn at(text: &str) -> std::net::SocketAddr {
    socket(text)
}
