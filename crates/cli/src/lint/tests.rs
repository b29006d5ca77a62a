use super::*;
use crate::explain::tests::model;

/// What is found in these documents, as `<severity> <check> <object>`.
fn found(documents: &str) -> Vec<String> {
    let one = |finding: Finding| {
        let object = finding.object.unwrap_or_default();
        format!("{} {} {object}", finding.severity, finding.check)
    };
    lint(&model(&[documents], true)).into_iter().map(one).collect()
}

/// A shop as a team writes it: in order.
const GOOD: &str = "
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
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  template:
    metadata: {labels: {app: web, version: v1}}
    spec: {serviceAccountName: web}
---
apiVersion: v1
kind: Namespace
metadata: {name: bare}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: bare}
spec: {selector: {app: api}, ports: [{port: 80}]}
---
";

fn policy(spec: &str) -> String {
    let head =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n";
    format!("{GOOD}{head}spec:\n{spec}\n")
}

fn route(spec: &str) -> String {
    let head =
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r, namespace: shop}\n";
    format!("{GOOD}{head}spec:\n{spec}\n")
}

fn virtual_service(spec: &str) -> String {
    let head =
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v, namespace: shop}\n";
    format!("{GOOD}{head}spec:\n{spec}\n")
}

#[test]
fn what_is_in_order_is_not_mentioned() {
    assert_eq!(found(GOOD), [""; 0]);
    let to_web = "  targetRefs: [{group: '', kind: Service, name: web}]\n  rules: [{to: [{operation: {paths: ['/a/*']}}]}]";
    assert_eq!(found(&policy(to_web)), [""; 0]);
    let routed = "  parentRefs: [{group: '', kind: Service, name: web}]\n  rules: [{backendRefs: [{name: web, port: 80}]}]";
    assert_eq!(found(&route(routed)), [""; 0]);
}

#[test]
fn each_mistake_is_found_once_and_by_its_check() {
    let web = "  parentRefs: [{group: '', kind: Service, name: web}]\n";
    let to_web = "  targetRefs: [{group: '', kind: Service, name: web}]\n";
    for (name, documents, expected) in [
        (
            "a policy of layer 7 that no waypoint sees",
            policy("  selector: {matchLabels: {app: web}}\n  rules: [{to: [{operation: {methods: [GET]}}]}]"),
            &["warning stricter AuthorizationPolicy shop/p"][..],
        ),
        (
            "a target that is not bound",
            policy("  targetRefs: [{group: '', kind: Service, name: api}]\n  rules: [{}]")
                .replace("name: p, namespace: shop", "name: p, namespace: bare"),
            &["error condition AuthorizationPolicy bare/p"],
        ),
        (
            "a selector of nothing",
            policy("  selector: {matchLabels: {app: wbe}}\n  rules: [{}]"),
            &["warning selects-nothing AuthorizationPolicy shop/p"],
        ),
        (
            "an unknown field",
            policy("  rules: [{too: [{operation: {methods: [GET]}}]}]"),
            &["error invalid AuthorizationPolicy shop/p"],
        ),
        (
            "a path that no request has",
            policy(&format!("{to_web}  rules: [{{to: [{{operation: {{paths: [/a/../b, admin]}}}}]}}]")),
            &[
                "error path-never-matches AuthorizationPolicy shop/p",
                "warning path-never-matches AuthorizationPolicy shop/p",
            ],
        ),
        (
            "texts that match more and less than they seem to",
            policy(&format!(
                "{to_web}  action: DENY\n  rules: [{{to: [{{operation: {{paths: ['/admin*', /secret]}}}}]}}]"
            )),
            &[
                "note path-exact AuthorizationPolicy shop/p",
                "note path-prefix AuthorizationPolicy shop/p",
            ],
        ),
        (
            "an empty rule beside others",
            policy(&format!("{to_web}  rules: [{{}}, {{to: [{{operation: {{methods: [GET]}}}}]}}]")),
            &["warning rule-never-matters AuthorizationPolicy shop/p"],
        ),
        (
            "a parent that is not there",
            route("  parentRefs: [{group: '', kind: Service, name: gone}]\n  rules: [{backendRefs: [{name: web, port: 80}]}]"),
            &["error condition HTTPRoute shop/r"],
        ),
        (
            "a parent that is bound to no waypoint",
            route("  parentRefs: [{group: '', kind: Service, name: api}]\n  rules: [{backendRefs: [{name: api, port: 80}]}]")
                .replace("name: r, namespace: shop", "name: r, namespace: bare"),
            &["warning no-effect HTTPRoute bare/r"],
        ),
        (
            "a backend that is not there",
            route(&format!("{web}  rules: [{{backendRefs: [{{name: gone, port: 80}}]}}]")),
            &["error condition HTTPRoute shop/r"],
        ),
        (
            "a rule that is never reached",
            route(&format!(
                "{web}  rules: [{{backendRefs: [{{name: web, port: 80}}]}}, {{backendRefs: [{{name: web, port: 80}}]}}]"
            )),
            &["warning rule-never-reached HTTPRoute shop/r"],
        ),
        (
            "a waypoint that is not there",
            GOOD.replace("metadata: {name: waypoint,", "metadata: {name: other,"),
            &["error waypoint-missing Namespace shop", "error condition Service shop/web"],
        ),
        (
            "a subset that is not defined",
            virtual_service("  hosts: [web]\n  http: [{route: [{destination: {host: web, subset: v1}}]}]"),
            &["error backend VirtualService shop/v"],
        ),
        (
            "a rule behind one that takes everything",
            virtual_service(
                "  hosts: [web]\n  http: [{route: [{destination: {host: web}}]}, {match: [{uri: {prefix: /a}}], \
                 route: [{destination: {host: web}}]}]",
            ),
            &["warning rule-never-reached VirtualService shop/v", "note path-prefix VirtualService shop/v"],
        ),
        (
            "a VirtualService beside an HTTPRoute",
            virtual_service("  hosts: [web]\n  http: [{route: [{destination: {host: web}}]}]")
                + "---\n"
                + &route(&format!("{web}  rules: [{{backendRefs: [{{name: web, port: 80}}]}}]"))[GOOD.len()..],
            &["error conflict VirtualService shop/v"],
        ),
        (
            "a subset of nothing",
            format!(
                "{GOOD}apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: d, namespace: shop}}\n\
                 spec: {{host: web, subsets: [{{name: v2, labels: {{version: v2}}}}, {{name: v1, labels: {{version: v1}}}}]}}\n"
            ),
            &["warning selects-nothing DestinationRule shop/d"],
        ),
        ("a document that is none", format!("{GOOD}kind: [\n"), &["error document "]),
        (
            "an object twice",
            policy("  rules: [{}]") + "---\n" + &policy("  rules: [{}]")[GOOD.len()..],
            &["error duplicate "],
        ),
        (
            "a kind that nothing here reads",
            format!("{GOOD}apiVersion: networking.istio.io/v1\nkind: EnvoyFilter\nmetadata: {{name: e, namespace: shop}}\n"),
            &["warning not-read EnvoyFilter.networking.istio.io shop/e"],
        ),
    ] {
        assert_eq!(found(&documents), expected, "{name}: {:#?}", lint(&model(&[&documents], true)));
    }
}

#[test]
fn a_finding_says_where_it_is_and_what_to_do() {
    let documents = policy("  selector: {matchLabels: {app: wbe}}\n  rules: [{}]");
    let findings = lint(&model(&[&documents], true));
    let text = findings[0].to_string();
    assert!(
        text.starts_with("0.yaml:33: warning: AuthorizationPolicy shop/p: no pod has the labels app=wbe"),
        "{text}"
    );
    assert!(text.ends_with("[selects-nothing]\n    select labels that pods have"), "{text}");
    let json = serde_json::to_value(&findings).unwrap();
    assert_eq!((&json[0]["place"], &json[0]["severity"]), (&"0.yaml:33".into(), &"warning".into()));
}
