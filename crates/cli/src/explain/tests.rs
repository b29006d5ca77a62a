use std::collections::BTreeMap;

use super::*;
use crate::configuration::{MeshArgs, of_texts};

/// A shop with a waypoint, in the form in which a directory without a cluster has it.
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypoint}}
---
apiVersion: v1
kind: Namespace
metadata: {name: plain}
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
spec: {nodeName: n2, serviceAccountName: waypoint}
status: {podIP: 10.0.0.9, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.1, selector: {serves: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-v1, namespace: shop}
spec: {clusterIP: 10.96.0.2, selector: {app: web-v1}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: web-v2, namespace: shop}
spec: {clusterIP: 10.96.0.3, selector: {app: web-v2}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: raw, namespace: shop}
spec: {clusterIP: 10.96.0.4, selector: {serves: web}, ports: [{port: 5432, targetPort: 8080, appProtocol: tcp}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-v1, namespace: shop, labels: {app: web-v1, serves: web}}
spec: {nodeName: n1, serviceAccountName: web-v1}
status: {podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-v2, namespace: shop, labels: {app: web-v2, serves: web}}
spec: {nodeName: n2, serviceAccountName: web-v2}
status: {podIP: 10.0.0.2, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop}
spec: {nodeName: n1, serviceAccountName: client}
status: {podIP: 10.0.0.7, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: plain}
spec: {nodeName: n1}
status: {podIP: 10.0.0.8, conditions: [{type: Ready, status: 'True'}]}
";

const CANARY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, namespace: shop}
spec:
  parentRefs: [{group: '', kind: Service, name: web, port: 80}]
  rules:
  - name: second
    matches: [{path: {value: /v2}, headers: [{name: X-Team, value: blue}]}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    timeouts: {request: 2s}
    backendRefs: [{name: web-v2, port: 80}]
  - backendRefs: [{name: web-v1, port: 80, weight: 90}, {name: web-v2, port: 80, weight: 10}]
";

const NO_ADMIN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: no-admin, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: web}]
  action: DENY
  rules:
  - from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]
    to: [{operation: {paths: ['/admin*']}}]
";

/// Of the workload, behind the waypoint.
const ONLY_CLIENT: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-client, namespace: shop}
spec:
  selector: {matchLabels: {serves: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/client]}}]}]
";

pub(crate) fn model(texts: &[&str], as_deployed: bool) -> Model {
    let named = |(at, text): (usize, &&str)| (format!("{at}.yaml").into(), (*text).to_owned());
    let texts: BTreeMap<_, _> = texts.iter().enumerate().map(named).collect();
    let mesh =
        MeshArgs { trust_domain: Default::default(), cluster_id: "Kubernetes".to_owned(), as_deployed };
    Model::new(of_texts(&texts, Vec::new(), as_deployed), mesh.settings())
}

fn ask(texts: &[&str], from: &str, to: &str) -> Answer {
    let question = Question::new(from.parse().unwrap(), to.parse().unwrap());
    explain(&model(texts, false), &question).unwrap()
}

/// How it ends, in a word each.
fn ends(answer: &Answer) -> Vec<String> {
    let word = |end: &End| match end {
        End::Reaches { workload, .. } => workload.rsplit('/').next().unwrap().to_owned(),
        End::Answered { status, .. } => status.to_string(),
        End::Reset { .. } => "reset".to_owned(),
    };
    answer.ends.iter().map(word).collect()
}

#[test]
fn a_request_ends_as_its_configuration_says() {
    for (name, more, from, to, expected) in [
        ("without a route", &[][..], "shop/client", "web.shop", &["web-v1", "web-v2"][..]),
        ("by weight", &[CANARY], "shop/client", "web.shop", &["web-v1", "web-v2"]),
        ("denied", &[CANARY, NO_ADMIN], "shop/client", "web.shop/admin/x", &["403"]),
        ("denied in other words", &[NO_ADMIN], "shop/client", "web.shop/%61dmin", &["403"]),
        ("ambiguous", &[NO_ADMIN], "shop/client", "web.shop/x/../admin", &["400"]),
        ("another client", &[NO_ADMIN], "shop/web-v1", "web.shop/admin", &["web-v1", "web-v2"]),
        ("no head", &[], "shop/client", "web.shop/a b", &["400"]),
        ("a backend of its own", &[NO_ADMIN], "shop/client", "web-v1.shop/admin", &["web-v1"]),
        ("behind the waypoint", &[ONLY_CLIENT], "shop/client", "web.shop", &["web-v1", "web-v2"]),
        ("refused behind the waypoint", &[ONLY_CLIENT], "shop/other", "web.shop", &["503"]),
        ("a pod itself", &[ONLY_CLIENT], "shop/other", "10.0.0.1:8080", &["reset"]),
        ("no HTTP", &[ONLY_CLIENT], "shop/other", "raw.shop", &["reset"]),
        ("no HTTP, allowed", &[ONLY_CLIENT], "shop/client", "raw.shop", &["web-v1", "web-v2"]),
        (
            "from outside, past the waypoint",
            &[NO_ADMIN],
            "plain/stranger",
            "web.shop/admin",
            &["web-v1", "web-v2"],
        ),
        ("from outside, and policies of layer 4", &[ONLY_CLIENT], "plain/stranger", "web.shop", &["reset"]),
        ("no such port", &[], "shop/client", "web.shop:81", &["reset"]),
        ("out of the mesh", &[], "shop/client", "192.0.2.1:80", &["outside of the mesh"]),
    ] {
        let texts: Vec<&str> = std::iter::once(SHOP).chain(more.iter().copied()).collect();
        let answer = ask(&texts, from, to);
        assert_eq!(ends(&answer), expected, "{name}:\n{answer}");
    }
}

#[test]
fn without_its_waypoint_a_service_is_refused() {
    let gone = SHOP.replace(
        "10.0.0.9, conditions: [{type: Ready, status: 'True'",
        "10.0.0.9, conditions: [{type: Ready, status: 'False'",
    );
    let answer = ask(&[&gone], "shop/client", "web.shop");
    assert_eq!(ends(&answer), ["reset"], "{answer}");
    assert!(answer.to_string().contains("no instance of waypoint"), "{answer}");
}

#[test]
fn the_text_says_what_decides_and_what_is_left_to_chance() {
    let answer = ask(&[SHOP, CANARY, NO_ADMIN, ONLY_CLIENT], "shop/client", "http://web.shop/x?y");
    assert_eq!(
        answer.to_string(),
        "GET /x?y  (Host: web.shop)
  from spiffe://cluster.local/ns/shop/sa/client (Kubernetes//Pod/shop/client)
  to   Service shop/web port 80 at 10.96.0.1:80
=> one of, by chance:
  reaches Kubernetes//Pod/shop/web-v1 of shop/web-v1
  reaches Kubernetes//Pod/shop/web-v2 of shop/web-v2

Waypoint shop/waypoint (Kubernetes//Pod/shop/waypoint-0)
  client: spiffe://cluster.local/ns/shop/sa/client
  protocol: HTTP, by the first octets
  policy: shop/no-admin (DENY): no rule matches
  allowed: no ALLOW policy applies
  route: HTTPRoute/shop/web, rule 1
    matched by: every request
  backend: shop/web-v1:80, weight 90 of 100: 90.0 %
    endpoint: Kubernetes//Pod/shop/web-v1 at 10.0.0.1:8080 (HBONE)
      client: spiffe://cluster.local/ns/shop/sa/client
      policy: shop/only-client (ALLOW): allows, rule 0 <- decides
      allowed: rule 0 of ALLOW policy shop/only-client
  backend: shop/web-v2:80, weight 10 of 100: 10.0 %
    endpoint: Kubernetes//Pod/shop/web-v2 at 10.0.0.2:8080 (HBONE)
      client: spiffe://cluster.local/ns/shop/sa/client
      policy: shop/only-client (ALLOW): allows, rule 0 <- decides
      allowed: rule 0 of ALLOW policy shop/only-client
"
    );
}

#[test]
fn a_match_and_its_rewrite_are_named() {
    let mut question = Question::new("shop/client".parse().unwrap(), "web.shop/v2/a".parse().unwrap());
    question.headers.push(header("X-Team: blue").unwrap());
    let answer = explain(&model(&[SHOP, CANARY], false), &question).unwrap();
    let json = serde_json::to_value(&answer).unwrap();
    let way = &json["way"];
    assert_eq!(way["way"], "waypoint", "{json:#}");
    assert_eq!(way["route"]["route"], "HTTPRoute/shop/web");
    assert_eq!((&way["route"]["rule"], &way["route"]["match"]), (&0.into(), &0.into()));
    assert_eq!(way["route"]["ruleName"], "second");
    assert_eq!(way["route"]["conditions"], "path begins with the segments /v2, header x-team is \"blue\"");
    let sends = &way["backends"][0]["sends"];
    assert_eq!((&sends["target"], &sends["timeoutMs"]), (&"/a".into(), &2000.into()));
    assert_eq!(sends["rewritten"][0], "path /v2/a becomes /a");
    assert_eq!(json["ends"][0]["end"], "reaches");
}

/// Files for GitOps: nothing that a cluster makes is in them.
#[test]
fn what_a_cluster_adds_is_assumed_where_that_is_asked() {
    let files = "
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
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      containers: [{name: web, ports: [{name: http, containerPort: 8080}]}]
";
    let question = Question::new("shop/client".parse().unwrap(), "web.shop/admin".parse().unwrap());
    let bare = explain(&model(&[files], false), &question);
    assert!(matches!(bare, Err(NoAnswer::NoAddress { .. })), "{bare:?}");
    let answer = explain(&model(&[files], true), &question).unwrap();
    assert_eq!(ends(&answer), ["web-assumed"], "{answer}");
    assert!(answer.to_string().contains(":8080 (HBONE)"), "{answer}");
    assert!(answer.notes.iter().any(|note| note.contains("Pod shop/waypoint-assumed")), "{answer}");
    let denied = explain(&model(&[files, NO_ADMIN], true), &question).unwrap();
    assert_eq!(ends(&denied), ["403"], "{denied}");
}

#[test]
fn what_was_observed_is_compared_with_every_end() {
    let served = ask(&[SHOP, CANARY], "shop/client", "web.shop");
    assert!(served.agrees_with(Some(200), Some("web-v2")));
    assert!(served.agrees_with(Some(200), None));
    assert!(!served.agrees_with(Some(200), Some("client")));
    assert!(!served.agrees_with(Some(403), None));
    assert!(!served.agrees_with(None, None));
    let denied = ask(&[SHOP, NO_ADMIN], "shop/client", "web.shop/admin");
    assert!(denied.agrees_with(Some(403), None));
    assert!(!denied.agrees_with(Some(200), None));
    assert_eq!(exit_code(&served), ExitCode::SUCCESS);
    assert_eq!(exit_code(&denied), ExitCode::FAILURE);
    let mixed = CANARY.replace("name: web-v1, port: 80, weight", "name: gone, port: 80, weight");
    let mixed = ask(&[SHOP, &mixed], "shop/client", "web.shop");
    assert_eq!(ends(&mixed), ["500", "web-v2"], "{mixed}");
    assert_eq!(exit_code(&mixed), ExitCode::from(DEPENDS));
}

#[test]
fn a_call_of_grpc_is_answered_in_its_own_terms() {
    let mut question = Question::new("shop/client".parse().unwrap(), "web.shop/admin".parse().unwrap());
    question.headers.push(header("content-type: application/grpc").unwrap());
    let answer = explain(&model(&[SHOP, NO_ADMIN], false), &question).unwrap();
    let [End::Answered { status: 403, grpc_status: Some(7), .. }] = answer.ends.as_slice() else {
        panic!("{answer}")
    };
    assert!(answer.agrees_with(Some(200), None));
}
