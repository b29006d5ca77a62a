//! Attacks on the service as it runs on Kubernetes: an API server that knows the tokens it has made, the
//! pods that there are, and callers who want more than is theirs.

use std::time::UNIX_EPOCH;

use ambit_identity::csr::CertificateRequest;
use http::StatusCode;
use prost_types::Value;
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::ca::authentication::Proof;
use crate::ca::testing::{cart, facts, own, web};
use crate::kube::fake::{Asked as AskedOfApi, client, failure, inputs, token};
use crate::kube::token_review::TokenReviews;
use crate::kube::token_review::decide::Rules;
use crate::publish::Generation;
use crate::translate::Translated;

/// An agent on each node, a workload beside it.
const PODS: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-1, namespace: ambit-system, uid: uid-1}
spec: {nodeName: node-1, serviceAccountName: ztunnel}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-2, namespace: ambit-system, uid: uid-2}
spec: {nodeName: node-2, serviceAccountName: ztunnel}
---
apiVersion: v1
kind: Pod
metadata: {name: cart-1, namespace: shop, uid: uid-cart}
spec: {nodeName: node-1, serviceAccountName: cart}
";

/// A token that the API server has made.
#[derive(Clone, Copy)]
struct Made {
    account: &'static str,
    audience: &'static str,
    /// Seconds from now.
    life: i64,
    pod: [&'static str; 3],
}

const AGENT: Made = Made {
    account: "ambit-system:ztunnel",
    audience: "ambit-ca",
    life: 3600,
    pod: ["ztunnel-1", "uid-1", "node-1"],
};

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

/// Reviews tokens as an API server does, by what it has made and not by what a token says.
fn review(made: &[(String, Made)], asked: &AskedOfApi) -> (StatusCode, serde_json::Value) {
    let spec = &asked.body["spec"];
    let refused = |said: &str| json!({"authenticated": false, "error": said});
    let status = match made.iter().find(|(token, _)| spec["token"] == **token) {
        None => refused("invalid bearer token"),
        Some((_, made)) if made.life <= 0 => refused("invalid bearer token, token has expired"),
        Some((_, made)) if !spec["audiences"].as_array().unwrap().contains(&made.audience.into()) => {
            refused("invalid bearer token, token audiences are invalid for the target audiences")
        }
        Some((_, Made { account, audience, pod: [name, uid, node], .. })) => json!({
            "authenticated": true, "audiences": [audience],
            "user": {
                "username": format!("system:serviceaccount:{account}"),
                "extra": {
                    "authentication.kubernetes.io/pod-name": [name],
                    "authentication.kubernetes.io/pod-uid": [uid],
                    "authentication.kubernetes.io/node-name": [node],
                },
            },
        }),
    };
    let kind = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1"});
    let answer =
        json!({"kind": kind["kind"], "apiVersion": kind["apiVersion"], "spec": spec, "status": status});
    (StatusCode::CREATED, answer)
}

struct Cluster {
    service: CertificateService,
    generation: watch::Sender<Arc<Generation>>,
    tokens: Vec<String>,
    _directory: TempDir,
}

fn generation(pods: &str) -> Arc<Generation> {
    Arc::new(Generation { number: 1, inputs: inputs(pods), translated: Translated::default() })
}

impl Cluster {
    fn with(made: &[Made]) -> Self {
        let tokens = made
            .iter()
            .enumerate()
            .map(|(id, made)| (token(made.account, made.audience, now() + made.life, id), *made));
        let made = Arc::new(tokens.collect::<Vec<_>>());
        let tokens = made.iter().map(|(token, _)| token.clone()).collect();
        let api = client(move |asked| std::future::ready(review(&made, &asked)));
        Self::asking(api, tokens)
    }

    fn asking(api: ::kube::Client, tokens: Vec<String>) -> Self {
        let rules = Rules {
            audiences: vec!["ambit-ca".to_owned()],
            agents: ["ambit-system/ztunnel".parse().unwrap()].into(),
        };
        let (generation, generations) = watch::channel(generation(PODS));
        let reviews = TokenReviews::new(api, rules, generations);
        let directory = tempfile::tempdir().unwrap();
        let authority = own(directory.path(), SystemTime::now()).unwrap();
        let service = CertificateService::new(
            watch::channel(Arc::new(authority)).1,
            Authentication::by(Proof::TokenReviews(Arc::new(reviews))),
            watch::channel(Arc::new(facts())).1,
            Lifetimes::default(),
        );
        Self { service, generation, tokens, _directory: directory }
    }

    async fn ask(&self, token: &str, id: &SpiffeId, csr: &str) -> Result<(), (Code, String)> {
        let kind = Some(Kind::StringValue(id.to_string()));
        let metadata = Some(Struct { fields: [(IMPERSONATED_IDENTITY.to_owned(), Value { kind })].into() });
        let mut request =
            Request::new(IstioCertificateRequest { csr: csr.to_owned(), validity_duration: 0, metadata });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        let answer = self.service.create_certificate(request).await;
        answer.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
    }

    /// Asks properly, with the first token.
    async fn ask_for(&self, id: &SpiffeId) -> Result<(), (Code, String)> {
        self.ask(&self.tokens[0], id, &CertificateRequest::new(id).unwrap().pem).await
    }
}

/// What becomes of an agent's request for `cart`, which runs on `node-1`, with such a token.
async fn refused(made: Made) -> (Code, String) {
    Cluster::with(&[made]).ask_for(&cart()).await.unwrap_err()
}

#[tokio::test]
async fn an_agent_is_served() {
    assert_eq!(Cluster::with(&[AGENT]).ask_for(&cart()).await, Ok(()));
}

#[tokio::test]
async fn a_token_for_another_audience_is_refused() {
    let (code, says) = refused(Made { audience: "vault", ..AGENT }).await;
    assert_eq!(code, Code::Unauthenticated);
    assert!(says.contains(r#"["vault"]"#) && says.contains("audience"), "{says}");
}

#[tokio::test]
async fn an_expired_token_is_refused_by_either_clock() {
    let (code, says) = refused(Made { life: -3600, ..AGENT }).await;
    assert!(code == Code::Unauthenticated && says.contains("expired"), "{says}");
    let (code, says) = refused(Made { life: 0, ..AGENT }).await;
    assert!(code == Code::Unauthenticated && says.contains("token has expired"), "{says}");
}

#[tokio::test]
async fn a_token_that_only_says_it_is_an_agents_is_refused() {
    let cluster = Cluster::with(&[AGENT]);
    let forged = token("ambit-system:ztunnel", "ambit-ca", now() + 3600, 99);
    let csr = CertificateRequest::new(&cart()).unwrap().pem;
    let (code, says) = cluster.ask(&forged, &cart(), &csr).await.unwrap_err();
    assert!(code == Code::Unauthenticated && says.contains("invalid bearer token"), "{says}");
}

#[tokio::test]
async fn another_nodes_token_gets_nothing_of_this_node() {
    let elsewhere = Made { pod: ["ztunnel-2", "uid-2", "node-2"], ..AGENT };
    let (code, says) = refused(elsewhere).await;
    assert!(code == Code::PermissionDenied && says.contains("node node-2 may not"), "{says}");
    assert_eq!(Cluster::with(&[elsewhere]).ask_for(&web()).await, Ok(()), "it gets what is its own");
    let moved = Made { pod: ["ztunnel-1", "uid-1", "node-2"], ..AGENT };
    let (code, says) = refused(moved).await;
    assert!(code == Code::Unauthenticated && says.contains("on node node-2"), "{says}");
}

#[tokio::test]
async fn a_workloads_own_token_makes_it_no_agent() {
    let workload = Made { account: "shop:cart", pod: ["cart-1", "uid-cart", "node-1"], ..AGENT };
    let (code, says) = refused(workload).await;
    assert!(code == Code::Unauthenticated && says.contains("shop:cart"), "{says}");
}

#[tokio::test]
async fn an_identity_without_a_pod_on_the_node_is_refused() {
    let cluster = Cluster::with(&[AGENT]);
    for id in [web(), "spiffe://cluster.local/ns/kube-system/sa/admin".parse().unwrap()] {
        let (code, says) = cluster.ask_for(&id).await.unwrap_err();
        assert!(code == Code::PermissionDenied && says.contains("no enrolled pod"), "{id}: {says}");
    }
}

#[tokio::test]
async fn a_deleted_pods_token_is_refused_at_once() {
    let cluster = Cluster::with(&[AGENT]);
    assert_eq!(cluster.ask_for(&cart()).await, Ok(()));
    let without = PODS.replace("name: ztunnel-1", "name: ztunnel-3");
    cluster.generation.send_replace(generation(&without));
    let (code, says) = cluster.ask_for(&cart()).await.unwrap_err();
    assert!(code == Code::Unauthenticated && says.contains("does not exist any more"), "{says}");
    cluster.generation.send_replace(generation(&PODS.replace("uid-1", "uid-9")));
    let (code, says) = cluster.ask_for(&cart()).await.unwrap_err();
    assert!(code == Code::Unauthenticated && says.contains("earlier pod"), "{says}");
}

#[tokio::test]
async fn a_csr_for_somebody_else_is_refused() {
    let cluster = Cluster::with(&[AGENT]);
    let csr = CertificateRequest::new(&web()).unwrap().pem;
    let (code, says) = cluster.ask(&cluster.tokens[0], &cart(), &csr).await.unwrap_err();
    assert!(code == Code::PermissionDenied && says.contains("the CSR names"), "{says}");
}

#[tokio::test]
async fn an_oversized_csr_is_refused() {
    let cluster = Cluster::with(&[AGENT]);
    let csr = CertificateRequest::new(&cart()).unwrap().pem + &"x".repeat(20_000);
    let (code, says) = cluster.ask(&cluster.tokens[0], &cart(), &csr).await.unwrap_err();
    assert!(code == Code::InvalidArgument && says.contains("octets"), "{says}");
}

#[tokio::test]
async fn without_an_api_server_to_ask_nobody_is_refused_for_good() {
    let away = client(|_| async { failure(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable") });
    let token = token(AGENT.account, AGENT.audience, now() + 3600, 0);
    let (code, says) = Cluster::asking(away, vec![token]).ask_for(&cart()).await.unwrap_err();
    assert!(code == Code::Unavailable && says.contains("cannot be asked"), "{says}");
}
