//! An explanation is what happens: whatever chance decides, a waypoint and the agents come to an end that the
//! explanation lists.
//!
//! The fuzz target calls this, and so does `crates/cli/tests/explain_fuzz.rs` in the suite.

use std::collections::BTreeMap;

use ambit::configuration::{Model, of_texts};
use ambit::explain::{Question, explain, header};
use ambit_mesh::address::Authority;
use ambit_mesh::decide::{InboundRequest, InboundTarget, OutboundRequest, Transport, Why, inbound, outbound};
use ambit_mesh::http::{Client, Head, Outcome, decide};
use ambit_mesh::policy::{Peer, authorize};
use control::translate::{NetnsAnnotation, Settings};
use http::HeaderMap;
use rand::SeedableRng;
use rand::rngs::SmallRng;

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
metadata: {name: web, namespace: shop}
spec: {selector: {serves: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: v2, namespace: shop}
spec: {selector: {app: v2}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: v1, namespace: shop}
spec: {template: {metadata: {labels: {app: v1, serves: web}}, spec: {serviceAccountName: v1}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: v2, namespace: shop}
spec: {template: {metadata: {labels: {app: v2, serves: web}}, spec: {serviceAccountName: v2}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: client, namespace: shop}
spec: {template: {metadata: {labels: {app: client}}, spec: {serviceAccountName: client}}}
";

const PATHS: [&str; 10] =
    ["/", "/a", "/a/b", "/ab", "/%61", "/a//b", "/x/../a", "/a?b=c", "/a%20b", "/long/er"];

/// Makes a mesh and a request of `data`, and holds its explanation against what happens.
pub fn explained(data: &[u8]) {
    let mut octets = Octets(data);
    let text = octets.documents();
    let texts: BTreeMap<_, _> = [("mesh.yaml".into(), text.clone())].into();
    let settings = Settings {
        cluster_id: "Kubernetes".into(),
        network: Default::default(),
        trust_domain: Default::default(),
        mesh_ranges: Vec::new(),
        netns_annotation: NetnsAnnotation::Ignored,
    };
    let model = Model::new(of_texts(&texts, Vec::new(), true), settings);
    let from = ["shop/client", "shop/v1"][octets.one_of(2)];
    let path = PATHS[octets.one_of(PATHS.len())];
    let mut question = Question::new(
        from.parse().expect("a sender"),
        format!("web.shop{path}").parse().expect("a receiver"),
    );
    if octets.one_of(2) == 0 {
        question.headers.push(header("x-a: 1").expect("a header"));
    }
    let answer = explain(&model, &question).expect("everything that is asked is there");
    for seed in 0..8 {
        let (status, workload) = happens(&model, &question, &answer.request.address, seed);
        assert!(
            answer.agrees_with(status, workload.as_deref()),
            "{status:?} of {workload:?} is not what was said:\n{answer}\n{text}"
        );
    }
}

/// What the client's agent, the waypoint and the endpoint's agent come to, one after the other.
fn happens(model: &Model, question: &Question, dialled: &str, seed: u64) -> (Option<u16>, Option<String>) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let snapshot = model.snapshot();
    let source = model
        .generation()
        .translated
        .workloads
        .values()
        .find(|workload| workload.identity.service_account() == question.from.name)
        .expect("the client's pod");
    let destination = dialled.parse().expect("an address");
    let request =
        OutboundRequest { source, destination, excluded: &[], suspects: &[], mesh_ranges: &[], waited: true };
    let Ok(first) = outbound(snapshot, &request, &mut rng) else { return (None, None) };
    assert_eq!(first.why, Why::ServiceWaypoint);
    let instance = first.endpoint.expect("an instance");
    let waypoint = model.waypoint(&instance).expect("a waypoint");
    let authority = Authority::Address(destination);
    let Ok(place) = waypoint.destination(&authority) else { return (None, None) };
    let client = Client { peer: Peer::Verified(source.identity.clone()), ip: source.addresses[0] };
    let headers: HeaderMap = question.headers.iter().cloned().collect();
    let head = Head {
        method: &question.method,
        authority: &question.to.host,
        target: question.target(),
        headers: &headers,
    };
    let forward = match decide(&waypoint, &place, &client, &head, &mut rng).outcome {
        Outcome::Forward(forward) => forward,
        Outcome::Redirect { status, .. }
        | Outcome::Respond { status, .. }
        | Outcome::NoBackend { status, .. }
        | Outcome::Refuse { status, .. } => return (Some(status), None),
        Outcome::Deny(_) => return (Some(403), None),
        Outcome::NoRoute => return (Some(404), None),
    };
    let Ok(hop) = waypoint.upstream(&forward.backend, &[], &[], &mut rng) else { return (Some(503), None) };
    let endpoint = hop.endpoint.expect("an endpoint");
    if hop.why == Why::ServiceWaypoint {
        // Of a Service that its own waypoint would take again: there is none in this mesh.
        return (Some(503), None);
    }
    let Transport::Hbone { authority, .. } = hop.transport else {
        return (Some(200), Some(endpoint.uid.to_string()));
    };
    let asked = Authority::Address(authority);
    let target = InboundTarget::Connect {
        authority: &asked,
        forwarded_host: None,
        original_source: Some(&source.identity),
    };
    let inbound_request = InboundRequest {
        workload: &endpoint.uid,
        local: hop.next_hop,
        target,
        peer: Peer::Verified(instance.identity.clone()),
        peer_ip: instance.addresses[0],
    };
    let judged = inbound(snapshot, &inbound_request)
        .map(|arrived| authorize(snapshot, &arrived.workload, &arrived.connection).is_ok());
    match judged {
        Ok(true) => (Some(200), Some(endpoint.uid.to_string())),
        Ok(false) | Err(_) => (Some(503), None),
    }
}

/// Octets that say what is written.
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

    fn some(&mut self, most: usize, separator: &str, make: impl Fn(&mut Self) -> String) -> String {
        let count = self.one_of(most + 1);
        (0..count).map(|_| make(self)).collect::<Vec<_>>().join(separator)
    }

    fn documents(&mut self) -> String {
        let mut text = SHOP.to_owned();
        for at in 0..self.one_of(3) {
            text += &self.route(at);
        }
        for at in 0..self.one_of(4) {
            text += &self.policy(at);
        }
        text
    }

    fn route(&mut self, at: usize) -> String {
        let rules = self.some(3, ", ", |octets| {
            let path = ["/", "/a", "/a/b"][octets.one_of(3)];
            let kind = ["PathPrefix", "Exact"][octets.one_of(2)];
            let header = ["", ", headers: [{name: x-a, value: '1'}]"][octets.one_of(2)];
            let filter = match octets.one_of(6) {
                0 => "filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, hostname: x.example}}]".to_owned(),
                1 => "filters: [{type: Teleport}]".to_owned(),
                _ => {
                    let backends = octets.some(3, ", ", |octets| {
                        let name = ["web", "v2", "v2", "gone"][octets.one_of(4)];
                        format!("{{name: {name}, port: 80, weight: {}}}", octets.one_of(3))
                    });
                    format!("backendRefs: [{backends}]")
                }
            };
            format!("{{matches: [{{path: {{type: {kind}, value: {path}}}{header}}}], {filter}}}")
        });
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r{at}, namespace: shop}}\n\
             spec: {{parentRefs: [{{group: '', kind: Service, name: web}}], rules: [{rules}]}}\n"
        )
    }

    fn policy(&mut self, at: usize) -> String {
        let at_layer_4 = self.one_of(3) == 0;
        let (target, action) = match at_layer_4 {
            true => ("selector: {matchLabels: {app: v2}}", ["ALLOW", "DENY"][self.one_of(2)]),
            false => (
                "targetRefs: [{group: '', kind: Service, name: web}]",
                ["ALLOW", "DENY", "AUDIT", "CUSTOM"][self.one_of(4)],
            ),
        };
        let provider = if action == "CUSTOM" { ", provider: {name: x}" } else { "" };
        let rules = self.some(2, ", ", |octets| {
            let from = octets.some(1, ", ", |octets| {
                let account = ["client", "v1"][octets.one_of(2)];
                let not = ["principals", "notPrincipals"][octets.one_of(2)];
                format!("{{source: {{{not}: [cluster.local/ns/shop/sa/{account}]}}}}")
            });
            let to = octets.some(1, ", ", |octets| {
                let path = ["/a", "/a*", "*b", "/{*}"][octets.one_of(4)];
                let not = ["paths", "notPaths"][octets.one_of(2)];
                format!("{{operation: {{{not}: ['{path}']}}}}")
            });
            match (from.is_empty(), to.is_empty()) {
                (true, true) => "{}".to_owned(),
                (false, true) => format!("{{from: [{from}]}}"),
                (true, false) => format!("{{to: [{to}]}}"),
                (false, false) => format!("{{from: [{from}], to: [{to}]}}"),
            }
        });
        let trial = ["", ", annotations: {istio.io/dry-run: 'true'}"][usize::from(self.one_of(5) == 0)];
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{name: p{at}, namespace: shop{trial}}}\nspec: {{{target}, action: {action}{provider}, rules: [{rules}]}}\n"
        )
    }
}
