//! Bad configuration, from files to what a waypoint decides by: one object is reported with its reason, the
//! others are applied, the last good version is kept, and nothing is opened.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_mesh::address::{Authority, Network};
use ambit_mesh::http::{
    Client, GatewayName, Head, Myself, Outcome, Place, WaypointSnapshot, WaypointState, decide,
};
use ambit_mesh::identity::TrustDomain;
use ambit_mesh::policy::Peer;
use ambit_mesh::snapshot::Change;
use ambit_mesh::workload::WorkloadUid;
use ambit_xds::ResourceType;
use ambit_xds::convert::Received;
use ambit_xds::resources::{Difference, Resource, Resources};
use control::objects::{Kind, ObjectKey};
use control::pipeline::Pipeline;
use control::publish::{self, Published};
use control::source::catalog::{Catalog, FileState, Files};
use control::source::reading;
use control::status::verdict;
use control::translate::{NetnsAnnotation, Settings};
use http::{HeaderMap, Method};
use rand::SeedableRng;
use rand::rngs::SmallRng;

/// A shop with a waypoint in front of Services `web` and `other`.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: ambit-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
apiVersion: v1
kind: Service
metadata: {name: waypoint, namespace: shop}
spec:
  clusterIP: 10.96.0.9
  selector: {gateway.networking.k8s.io/gateway-name: waypoint}
  ports: [{port: 15008}]
---
apiVersion: v1
kind: Pod
metadata: {name: waypoint-0, namespace: shop, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec: {nodeName: n1, serviceAccountName: waypoint}
status: {podIP: 10.0.0.9}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {clusterIP: 10.96.0.2, selector: {app: other}, ports: [{port: 80}]}
";

/// `/admin` is denied, whatever becomes of the routes.
const NO_ADMIN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  action: DENY
  rules: [{to: [{operation: {paths: ['/admin*']}}]}]
";

/// Every request to `web` goes to `other`.
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: broken, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - matches: [{path: {value: /}}]
    backendRefs: [{name: other, port: 80}]
";

/// Beside it, and to be applied whatever becomes of it.
const NEIGHBOUR: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: neighbour, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - matches: [{path: {type: Exact, value: /neighbour}}]
    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, hostname: n.example}}]
";

/// Control and one waypoint, without what is between them.
struct Mesh {
    catalog: Catalog,
    pipeline: Pipeline,
    published: Published,
    had: Resources,
    waypoint: WaypointState,
    files: BTreeMap<Arc<str>, String>,
}

impl Mesh {
    fn of(files: &[(&str, &str)]) -> Self {
        let (publisher, published) = publish::channel();
        let settings = Settings {
            cluster_id: "Kubernetes".into(),
            network: Network::default(),
            trust_domain: TrustDomain::default(),
            mesh_ranges: Vec::new(),
            netns_annotation: NetnsAnnotation::Ignored,
        };
        let gateway = GatewayName { namespace: "shop".into(), name: "waypoint".into() };
        let workload = WorkloadUid("Kubernetes//Pod/shop/waypoint-0".into());
        let mut mesh = Self {
            catalog: Catalog::default(),
            pipeline: Pipeline::new(settings, publisher),
            published,
            had: Resources::default(),
            waypoint: WaypointState::new(Myself { gateway, workload }),
            files: BTreeMap::new(),
        };
        mesh.write(files);
        mesh
    }

    /// Writes files, and has what became of them reach the waypoint.
    fn write(&mut self, files: &[(&str, &str)]) {
        for (name, text) in files {
            self.files.insert((*name).into(), (*text).to_owned());
        }
        let read =
            |(name, text): (&Arc<str>, &String)| (name.clone(), FileState::Read(reading::read(name, text)));
        let contents = self.files.iter().map(read).collect();
        self.pipeline.apply(self.catalog.update(Files { contents, unreadable: Vec::new() }));
        let has = Resources::clone(&self.published.resources.borrow());
        for kind in ResourceType::ALL {
            let differences = self.had.of_type(kind).differences(has.of_type(kind));
            let changes: Vec<Change> = differences.map(|difference| change(kind, &difference)).collect();
            self.waypoint.apply(changes);
        }
        self.had = has;
    }

    /// What becomes of a request to `web`: the Service that it goes to, or the status that answers it.
    fn get(&mut self, path: &str) -> String {
        ask(&self.waypoint.snapshot(), path)
    }

    /// Everything that is said of an object.
    fn said(&self, group: &str, kind: &str, name: &str) -> String {
        let key =
            ObjectKey { kind: Kind::of(group, kind), namespace: Some("shop".into()), name: name.into() };
        let generation = self.published.generation.borrow().clone();
        let entry = generation.inputs.entry(&key).expect("the object is known");
        let (said, message) = verdict(&key, entry);
        let mut text = format!("{said:?}: {message}\n");
        for condition in generation.translated.conditions.0.get(&key).into_iter().flatten() {
            let status = if condition.status { "True" } else { "False" };
            text += &format!("{}={status} {}: {}\n", condition.kind, condition.reason, condition.message);
        }
        for note in generation.translated.notes.0.get(&key).into_iter().flatten() {
            text += &format!("{:?}: {}\n", note.reason, note.message);
        }
        text
    }

    fn said_of_route(&self) -> String {
        self.said("gateway.networking.k8s.io", "HTTPRoute", "broken")
    }
}

fn change(kind: ResourceType, difference: &Difference<'_>) -> Change {
    let decoded = |resource: &Resource| {
        Received::decode(kind, &resource.to_proto()).expect("control sends nothing that proxies refuse")
    };
    match difference {
        Difference::Added(resource) | Difference::Changed { to: resource, .. } => {
            decoded(resource).into_change()
        }
        Difference::Removed(resource) => decoded(resource).name().into_removal(),
    }
}

fn ask(snapshot: &WaypointSnapshot, path: &str) -> String {
    let authority: Authority = "10.96.0.1:80".parse().expect("an address");
    let destination = snapshot.destination(&authority).expect("the waypoint serves web");
    let identity = "spiffe://cluster.local/ns/shop/sa/client".parse().expect("an identity");
    let client = Client { peer: Peer::Verified(identity), ip: [10, 0, 0, 7].into() };
    let headers = HeaderMap::new();
    let head = Head { method: &Method::GET, authority: "web", target: path, headers: &headers };
    match decide(snapshot, &destination, &client, &head, &mut SmallRng::seed_from_u64(1)).outcome {
        Outcome::Forward(forward) => match forward.backend.place {
            Place::Service(service) => service.short_name.to_string(),
            Place::Workload(workload) => workload.name.to_string(),
        },
        Outcome::Redirect { status, .. }
        | Outcome::Respond { status, .. }
        | Outcome::NoBackend { status, .. }
        | Outcome::Refuse { status, .. } => status.to_string(),
        Outcome::Deny(_) => "403".to_owned(),
        Outcome::NoRoute => "404".to_owned(),
    }
}

fn shop(route: &str) -> Mesh {
    Mesh::of(&[
        ("shop.yaml", SHOP),
        ("policy.yaml", NO_ADMIN),
        ("neighbour.yaml", NEIGHBOUR),
        ("route.yaml", route),
    ])
}

/// Whatever is wrong with the route: the policy holds, and so does the route beside it.
fn assert_untouched(mesh: &mut Mesh, what: &str) {
    assert_eq!(mesh.get("/admin/x"), "403", "{what}");
    assert_eq!(mesh.get("/neighbour"), "301", "{what}");
}

#[test]
fn a_route_that_is_in_order_is_the_measure() {
    let mut mesh = shop(ROUTE);
    assert_eq!((mesh.get("/"), mesh.get("/a")), ("other".to_owned(), "other".to_owned()));
    assert_untouched(&mut mesh, "in order");
    assert!(!mesh.said_of_route().contains("=False"), "{}", mesh.said_of_route());
}

#[test]
fn one_bad_route_is_reported_and_costs_only_itself() {
    let with = |from: &str, to: &str| {
        assert!(ROUTE.contains(from));
        ROUTE.replace(from, to)
    };
    let matches = "matches: [{path: {value: /}}]";
    for (what, text, expected, reasons) in [
        (
            "a regular expression that is none",
            with(matches, "matches: [{headers: [{type: RegularExpression, name: x, value: '('}]}]"),
            // The neighbour is a route of the Service, so that what no rule takes is answered with 404.
            "404",
            &["=False UnsupportedValue", "regular expression"][..],
        ),
        (
            "a regular expression that would take all memory",
            with(matches, "matches: [{path: {type: RegularExpression, value: '/((a{1000}){1000}){1000}'}}]"),
            "404",
            &["=False UnsupportedValue", "regular expression"],
        ),
        (
            "a backend that is not there",
            with("name: other, port: 80", "name: gone, port: 80"),
            "500",
            &["ResolvedRefs=False BackendNotFound", "gone"],
        ),
        (
            "a filter that nobody knows",
            with(matches, "matches: [{path: {value: /}}]\n    filters: [{type: Teleport}]"),
            "500",
            &["=False", "Teleport"],
        ),
    ] {
        let mut mesh = shop(&text);
        assert_eq!(mesh.get("/a"), expected, "{what}");
        assert_untouched(&mut mesh, what);
        let said = mesh.said_of_route();
        assert!(reasons.iter().all(|reason| said.contains(reason)), "{what}: {said}");
        // Written in order again, it holds again.
        mesh.write(&[("route.yaml", ROUTE)]);
        assert_eq!(mesh.get("/a"), "other", "{what}");
    }
}

/// Its author has said that not everything goes to the Service.
#[test]
fn a_route_of_which_no_rule_can_be_read_keeps_the_default_way_shut() {
    let matches = "matches: [{path: {value: /}}]";
    let unreadable = "matches: [{headers: [{type: RegularExpression, name: x, value: '('}]}]";
    let broken = ROUTE.replace(matches, unreadable);
    let mut mesh = Mesh::of(&[("shop.yaml", SHOP), ("policy.yaml", NO_ADMIN)]);
    assert_eq!(mesh.get("/a"), "web");
    mesh.write(&[("route.yaml", &broken)]);
    assert_eq!((mesh.get("/a"), mesh.get("/admin")), ("404".to_owned(), "403".to_owned()));
    assert!(mesh.said_of_route().contains("Accepted=False UnsupportedValue"), "{}", mesh.said_of_route());
}

#[test]
fn delegates_in_a_circle_answer_what_they_match_and_nothing_else_changes() {
    let service = |name: &str, hosts: &str, rules: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec:\n  {hosts}\n  http:\n{rules}---\n"
        )
    };
    let delegating = |path: &str, to: &str| {
        format!("  - match: [{{uri: {{prefix: {path}}}}}]\n    delegate: {{name: {to}}}\n")
    };
    let goes = "  - route: [{destination: {host: other, port: {number: 80}}}]\n";
    let files = [
        service("web", "hosts: [web]", &(delegating("/round", "one") + goes)),
        service("one", "gateways: [mesh]", &delegating("/round", "two")),
        service("two", "gateways: [mesh]", &delegating("/round", "one")),
    ];
    let mut mesh =
        Mesh::of(&[("shop.yaml", SHOP), ("policy.yaml", NO_ADMIN), ("services.yaml", &files.concat())]);
    assert_eq!(
        [mesh.get("/round/a"), mesh.get("/a"), mesh.get("/admin")],
        ["500".to_owned(), "other".to_owned(), "403".to_owned()]
    );
    let said = mesh.said("networking.istio.io", "VirtualService", "one");
    assert!(said.contains("a cycle"), "{said}");
}

#[test]
fn a_broken_edit_keeps_the_last_good_version() {
    for (what, broken) in [
        ("no YAML", ROUTE.replace("rules:", "rules: [")),
        ("a field of another type", ROUTE.replace("port: 80", "port: eighty")),
        ("what its API refuses", ROUTE.replace("value: /}", "value: no-slash}")),
    ] {
        let mut mesh = shop(ROUTE);
        mesh.write(&[("route.yaml", &broken)]);
        assert_eq!(mesh.get("/a"), "other", "{what}");
        assert_untouched(&mut mesh, what);
        // A document that does not even name its object is a problem of its file.
        let of_file = mesh.published.generation.borrow().inputs.problems().to_vec();
        let is_said = mesh.said_of_route().starts_with("LastGoodKept")
            || of_file.iter().any(|problem| &*problem.origin.file == "route.yaml");
        assert!(is_said, "{what}: {} {of_file:?}", mesh.said_of_route());
    }
}

#[test]
fn a_broken_policy_opens_nothing() {
    let broken = NO_ADMIN.replace("paths:", "pathz:");
    let said = |mesh: &Mesh| mesh.said("security.istio.io", "AuthorizationPolicy", "no-admin");
    // An edit: what it denied before it denies still.
    let mut mesh = shop(ROUTE);
    mesh.write(&[("policy.yaml", &broken)]);
    assert_eq!((mesh.get("/admin"), mesh.get("/a")), ("403".to_owned(), "other".to_owned()));
    assert!(said(&mesh).starts_with("LastGoodKept"), "{}", said(&mesh));
    // From the beginning: what it names is denied.
    let mut mesh = Mesh::of(&[("shop.yaml", SHOP), ("policy.yaml", &broken), ("route.yaml", ROUTE)]);
    assert_eq!((mesh.get("/admin"), mesh.get("/a")), ("403".to_owned(), "403".to_owned()));
    assert!(said(&mesh).starts_with("Closed"), "{}", said(&mesh));
    // In order, it is what it says.
    mesh.write(&[("policy.yaml", NO_ADMIN)]);
    assert_eq!((mesh.get("/admin"), mesh.get("/a")), ("403".to_owned(), "other".to_owned()));
}

/// More than anybody has: a waypoint asks them one after the other.
#[test]
fn ten_thousand_routes_are_applied_but_for_the_broken_one() {
    const ROUTES: usize = 10_000;
    let one = |at: usize| {
        let filters = if at == 4_321 { "[{type: Teleport}]" } else { "[]" };
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{at}, namespace: shop}}\n\
             spec:\n  parentRefs: [{{group: '', kind: Service, name: web}}]\n  rules:\n  \
             - matches: [{{path: {{type: Exact, value: /r{at}}}}}]\n    filters: {filters}\n    \
             backendRefs: [{{name: other, port: 80}}]\n"
        )
    };
    let many = (0..ROUTES).map(one).collect::<Vec<_>>().join("---\n");
    let mut mesh = Mesh::of(&[("shop.yaml", SHOP), ("policy.yaml", NO_ADMIN), ("many.yaml", &many)]);
    for (path, expected) in
        [("/r0", "other"), ("/r9999", "other"), ("/r4320", "other"), ("/r4321", "500"), ("/none", "404")]
    {
        assert_eq!(mesh.get(path), expected, "{path}");
    }
    assert_eq!(mesh.get("/admin"), "403");
    let said = mesh.said("gateway.networking.k8s.io", "HTTPRoute", "r4321");
    assert!(said.contains("Teleport"), "{said}");
    mesh.write(&[("more.yaml", ROUTE)]);
    assert_eq!((mesh.get("/none"), mesh.get("/r7")), ("other".to_owned(), "other".to_owned()));
}
