use super::*;
use crate::kube::fake::inputs;

fn rules() -> Rules {
    Rules { audiences: vec!["ambit-ca".to_owned()], agents: ["ambit-system/ztunnel".parse().unwrap()].into() }
}

/// A pod of the agent on `node-1`, one that has ended, and a pod with another ServiceAccount.
const CLUSTER: &str = "\
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-a, namespace: ambit-system, uid: uid-a}
spec: {nodeName: node-1, serviceAccountName: ztunnel}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-ended, namespace: ambit-system, uid: uid-ended}
spec: {nodeName: node-1, serviceAccountName: ztunnel}
status: {phase: Failed}
---
apiVersion: v1
kind: Pod
metadata: {name: ztunnel-leaving, namespace: ambit-system, uid: uid-leaving, deletionTimestamp: \"2026-01-01T00:00:00Z\"}
spec: {nodeName: node-2, serviceAccountName: ztunnel}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: control-a, namespace: ambit-system, uid: uid-control}
spec: {nodeName: node-1, serviceAccountName: control}
status: {phase: Running}
";

const ZTUNNEL: &str = "system:serviceaccount:ambit-system:ztunnel";

/// What an API server confirms: user, pod, UID and node.
fn status(username: &str, claims: [&str; 3]) -> TokenReviewStatus {
    let claims = [POD_NAME, POD_UID, NODE_NAME].into_iter().zip(claims);
    let extra = claims.filter(|(_, value)| !value.is_empty());
    let extra = extra.map(|(name, value)| (name.to_owned(), vec![value.to_owned()])).collect();
    TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(vec!["ambit-ca".to_owned()]),
        user: Some(UserInfo {
            username: Some(username.to_owned()),
            extra: Some(extra),
            ..UserInfo::default()
        }),
        error: None,
    }
}

fn decided(status: &TokenReviewStatus) -> Result<String, Refusal> {
    let bound = confirmed(status, &rules())?;
    caller(&bound, &rules(), &inputs(CLUSTER)).map(|caller| caller.node().to_owned())
}

#[test]
fn an_agent_is_known_by_its_live_pod_and_nobody_else_is() {
    let claims = ["ztunnel-a", "uid-a", "node-1"];
    let pod = || Arc::<str>::from("ztunnel-a");
    let refused = |status: TokenReviewStatus| decided(&status).unwrap_err();
    assert_eq!(decided(&status(ZTUNNEL, claims)), Ok("node-1".to_owned()));
    assert_eq!(
        decided(&status(ZTUNNEL, ["ztunnel-leaving", "uid-leaving", "node-2"])),
        Ok("node-2".to_owned()),
        "a pod that is being deleted drains, and needs its configuration meanwhile"
    );

    let said = "token audiences [\"other\"] is invalid for the target audiences [\"ambit-ca\"]";
    let no = TokenReviewStatus {
        authenticated: Some(false),
        error: Some(said.to_owned()),
        ..TokenReviewStatus::default()
    };
    assert_eq!(refused(no), Refusal::NotAuthenticated { said: said.to_owned() });
    assert!(matches!(refused(TokenReviewStatus::default()), Refusal::NotAuthenticated { .. }));
    let unasked = TokenReviewStatus { authenticated: None, ..status(ZTUNNEL, claims) };
    assert!(matches!(refused(unasked), Refusal::NotAuthenticated { .. }));

    let audiences =
        |audiences: Option<Vec<String>>| TokenReviewStatus { audiences, ..status(ZTUNNEL, claims) };
    for found in [None, Some(vec![]), Some(vec!["istio-ca".to_owned()])] {
        let wanted =
            Refusal::Audience { found: found.clone().unwrap_or_default(), wanted: rules().audiences };
        assert_eq!(refused(audiences(found)), wanted);
    }
    let both = audiences(Some(vec!["other".to_owned(), "ambit-ca".to_owned()]));
    assert_eq!(decided(&both), Ok("node-1".to_owned()));

    let accounts = [
        "system:serviceaccount:ambit-system:control",
        "system:serviceaccount:shop:ztunnel",
        "system:serviceaccount:ambit-system",
        "system:node:node-1",
        "admin",
        "",
    ];
    for username in accounts {
        let expected = Refusal::Account { username: username.to_owned() };
        assert_eq!(refused(status(username, claims)), expected);
    }

    let rows = [
        ("no pod", ["", "uid-a", "node-1"], Refusal::NoPod),
        ("no UID", ["ztunnel-a", "", "node-1"], Refusal::NoPod),
        ("an API server that names no node", ["ztunnel-a", "uid-a", ""], Refusal::NoNode { pod: pod() }),
        (
            "another node's token",
            ["ztunnel-a", "uid-a", "node-2"],
            Refusal::OtherNode { pod: pod(), token: "node-2".into(), now: "node-1".to_owned() },
        ),
        ("an earlier pod of the name", ["ztunnel-a", "uid-0", "node-1"], Refusal::OtherPod { pod: pod() }),
        (
            "a deleted pod",
            ["ztunnel-b", "uid-b", "node-1"],
            Refusal::PodIsGone { account: "ambit-system/ztunnel".parse().unwrap(), pod: "ztunnel-b".into() },
        ),
        (
            "a pod that has ended",
            ["ztunnel-ended", "uid-ended", "node-1"],
            Refusal::PodHasEnded { pod: "ztunnel-ended".into() },
        ),
        (
            "a pod of another ServiceAccount",
            ["control-a", "uid-control", "node-1"],
            Refusal::OtherAccount { pod: "control-a".into(), now: "control".to_owned() },
        ),
    ];
    for (name, claims, expected) in rows {
        assert_eq!(refused(status(ZTUNNEL, claims)), expected, "{name}");
    }

    let mut twice = status(ZTUNNEL, claims);
    let extra = twice.user.as_mut().unwrap().extra.as_mut().unwrap();
    extra.insert(NODE_NAME.to_owned(), vec!["node-1".to_owned(), "node-2".to_owned()]);
    assert_eq!(refused(twice), Refusal::NoNode { pod: pod() });
}

#[test]
fn the_api_server_is_asked_only_about_what_it_might_confirm() {
    let shown = |subject: &str, audience: &str, expires_seconds| Shown {
        subject: subject.to_owned(),
        audiences: vec![audience.to_owned()],
        expires_seconds,
    };
    let asked = |shown: Shown| worth_asking(&shown, &rules(), &inputs(CLUSTER), 1_000);
    assert_eq!(asked(shown(ZTUNNEL, "ambit-ca", 2_000)), Ok(()));
    assert_eq!(asked(shown(ZTUNNEL, "ambit-ca", 950)), Ok(()), "the clocks may differ");
    assert_eq!(asked(shown(ZTUNNEL, "ambit-ca", 900)), Err(Refusal::Expired));
    assert_eq!(asked(shown(ZTUNNEL, "ambit-ca", i64::MIN)), Err(Refusal::Expired));
    assert_eq!(asked(shown(ZTUNNEL, "ambit-ca", i64::MAX)), Ok(()));
    assert!(matches!(asked(shown(ZTUNNEL, "vault", 2_000)), Err(Refusal::Audience { .. })));
    assert!(matches!(asked(shown("someone", "ambit-ca", 2_000)), Err(Refusal::Account { .. })));
}

#[test]
fn a_waypoints_pod_is_known_as_itself() {
    const WAYPOINT: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: shop}
spec: {gatewayClassName: ambit-waypoint}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {gatewayClassName: somebody-elses}
---
apiVersion: v1
kind: Pod
metadata: {name: waypoint-a, namespace: shop, uid: uid-a, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec: {nodeName: node-1, serviceAccountName: waypoint}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: edge-a, namespace: shop, uid: uid-a, labels: {gateway.networking.k8s.io/gateway-name: edge}}
spec: {nodeName: node-1, serviceAccountName: edge}
status: {phase: Running}
---
apiVersion: v1
kind: Pod
metadata: {name: web-a, namespace: bank, uid: uid-a, labels: {gateway.networking.k8s.io/gateway-name: waypoint}}
spec: {nodeName: node-1, serviceAccountName: waypoint}
status: {phase: Running}
";
    let inputs = inputs(WAYPOINT);
    let caller_of = |username: &str, pod: &str| {
        let bound = confirmed(&status(username, [pod, "uid-a", "node-1"]), &rules())?;
        caller(&bound, &rules(), &inputs).map(|caller| caller.node().to_owned())
    };
    let shop = "system:serviceaccount:shop:waypoint";
    assert_eq!(caller_of(shop, "waypoint-a"), Ok("waypoint~shop~waypoint-a".to_owned()));
    for (rule, username, pod) in [
        ("no waypoint's class", "system:serviceaccount:shop:edge", "edge-a"),
        ("no waypoint in its namespace", "system:serviceaccount:bank:waypoint", "web-a"),
        ("a pod that is not there", shop, "waypoint-b"),
    ] {
        assert!(matches!(caller_of(username, pod), Err(Refusal::Account { .. })), "{rule}");
    }
    let other = caller_of("system:serviceaccount:shop:edge", "waypoint-a");
    assert!(matches!(other, Err(Refusal::OtherAccount { .. })));
    for (subject, expected) in [(shop, true), ("system:serviceaccount:bank:waypoint", false)] {
        let (subject, audiences) = (subject.to_owned(), vec!["ambit-ca".to_owned()]);
        let shown = Shown { subject, audiences, expires_seconds: 2_000 };
        assert_eq!(worth_asking(&shown, &rules(), &inputs, 1_000).is_ok(), expected);
    }
}

#[test]
fn an_account_is_written_with_its_namespace() {
    let account: Account = "ambit-system/ztunnel".parse().unwrap();
    assert_eq!(account.to_string(), "ambit-system/ztunnel");
    for bad in ["", "ztunnel", "/ztunnel", "ambit-system/", "a/b/c", "a:b/c"] {
        assert_eq!(bad.parse::<Account>(), Err(NotAnAccount), "{bad}");
    }
}
