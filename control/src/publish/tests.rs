use ambit_xds::resources::Viewer;
use serde_json::{Value, json};

use super::*;
use crate::kube::testing::{Control, object};
use crate::translate::service_name;

/// Namespace `shop` with a waypoint, a service, its pod and a policy for it; a route to the service of another
/// namespace, which lets it.
fn documents() -> Vec<Value> {
    let elsewhere = |mut object: Value| {
        object["metadata"]["namespace"] = "stock".into();
        object
    };
    let listener = json!({"name": "mesh", "port": 15008, "protocol": "HBONE"});
    let pod = |name: &str, ip: &str| {
        let spec = json!({"nodeName": "n1", "serviceAccountName": name, "containers": []});
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let status = json!({"phase": "Running", "podIPs": [{"ip": ip}], "conditions": ready});
        object("v1", "Pod", name, 0, json!({"labels": {"app": name}, "spec": spec, "status": status}))
    };
    let service = |name: &str, ip: &str, labels: Value| {
        let spec = json!({"clusterIPs": [ip], "selector": {"app": name}, "ports": [{"port": 80}]});
        object("v1", "Service", name, 0, json!({"labels": labels, "spec": spec}))
    };
    let deny = json!({"action": "DENY", "rules": [{}]});
    let guarding = json!([{"kind": "Service", "group": "", "name": "web"}]);
    let backend = json!({"name": "store", "namespace": "stock", "port": 80});
    let parent = json!({"kind": "Service", "group": "", "name": "web"});
    let route = json!({"parentRefs": [parent], "rules": [{"backendRefs": [backend]}]});
    let from = json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": "shop"}]);
    let grant = json!({"from": from, "to": [{"group": "", "kind": "Service"}]});
    let api = "gateway.networking.k8s.io/v1";
    let spec = json!({"gatewayClassName": "ambit-waypoint", "listeners": [listener]});
    vec![
        object(api, "Gateway", "waypoint", 1, json!({ "spec": spec })),
        service("web", "10.96.0.1", json!({"istio.io/use-waypoint": "waypoint"})),
        pod("web", "10.0.0.1"),
        elsewhere(service("store", "10.96.0.2", json!({}))),
        elsewhere(pod("store", "10.0.0.2")),
        elsewhere(object("security.istio.io/v1", "AuthorizationPolicy", "deny", 1, json!({"spec": deny}))),
        object(
            "security.istio.io/v1",
            "AuthorizationPolicy",
            "guard",
            1,
            json!({"spec": {"action": "DENY", "rules": [{}], "targetRefs": guarding}}),
        ),
        elsewhere(object(
            "gateway.networking.k8s.io/v1beta1",
            "ReferenceGrant",
            "let",
            1,
            json!({ "spec": grant }),
        )),
        object(api, "HTTPRoute", "route", 1, json!({ "spec": route })),
    ]
}

fn waypoint() -> Viewer {
    Viewer::Waypoint(service_name("shop", "waypoint"))
}

/// The names of what is for the waypoint.
fn seen(resources: &Resources) -> Vec<String> {
    let kinds = ResourceType::ALL.into_iter().filter(|kind| *kind != ResourceType::Mesh);
    let all = kinds.flat_map(|kind| resources.of_type(kind).iter());
    let seen = all.filter(|resource| resource.audience().includes(&waypoint()));
    let mut names: Vec<_> = seen.map(|resource| resource.name().to_string()).collect();
    names.sort();
    names
}

#[test]
fn a_waypoint_is_sent_what_its_services_need() {
    let documents = documents();
    let (mut publisher, published) = channel();
    let mut control = Control::default();
    let mut show = |documents: &[Value]| {
        let Generation { inputs, translated, .. } = control.show(documents);
        publisher.publish(inputs, translated);
        published.resources.borrow().clone()
    };
    let service = |namespace: &str, name: &str| service_name(namespace, name).to_string();
    let of_web = ["Kubernetes//Pod/shop/web".to_owned(), service("shop", "web"), "shop/guard".to_owned()];
    let mut expected = of_web.to_vec();
    expected.sort();
    // Of the other namespace nothing, until a route leads there: then what is behind it, and who may be asked for there.
    let without_route = show(&documents[..8]);
    assert_eq!(seen(&without_route), expected);
    let with_route = show(&documents);
    expected.extend(["Kubernetes//Pod/stock/store".to_owned(), service("stock", "store")]);
    expected.extend(["stock/deny", "HTTPRoute/shop/route"].map(str::to_owned));
    expected.sort();
    assert_eq!(seen(&with_route), expected);
    // To others it is not another.
    let kind = ResourceType::Address;
    let version =
        |of: &Resources| of.of_type(kind).get("Kubernetes//Pod/stock/store").map(|it| it.version().clone());
    assert_eq!(version(&without_route), version(&with_route));
    assert_eq!(seen(&show(&documents[..8])), seen(&without_route));
    // Unbound.
    let mut unbound = documents.clone();
    unbound[1]["metadata"]["labels"] = json!({});
    assert_eq!(seen(&show(&unbound)), [""; 0]);
}

/// From any configuration to any other.
#[test]
fn what_is_published_step_by_step_is_what_is_published_at_once() {
    let documents = documents();
    let (mut publisher, published) = channel();
    let mut control = Control::default();
    // Each subset, in an order in which much and little changes from one to the next.
    let count = 1_usize << documents.len();
    for step in 0..count {
        let subset = step * 197 % count;
        let shown: Vec<Value> =
            (0..documents.len()).filter(|at| subset >> at & 1 == 1).map(|at| documents[at].clone()).collect();
        let Generation { inputs, translated, .. } = control.show(&shown);
        publisher.publish(inputs.clone(), translated.clone());
        let (mut afresh, at_once) = channel();
        afresh.publish(inputs, translated);
        assert_eq!(*published.resources.borrow(), *at_once.resources.borrow(), "{subset:b}");
    }
}
