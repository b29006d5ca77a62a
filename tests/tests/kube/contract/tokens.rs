//! Tokens of ServiceAccounts, and what an account may do.

use std::time::Duration;

use ambit_tests::wait::until_answered;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

use crate::place::{Place, refused};
use ambit_tests::cluster::crowd::ACCOUNT;
use ambit_tests::cluster::kinds::{
    CONFIG_MAPS, NODES, PODS, ROLE_BINDINGS, ROLES, SELF_REVIEWS, SERVICE_ACCOUNTS, TOKEN_REVIEWS,
};
use ambit_tests::cluster::token::{self, BoundTo};

/// A pod on a node, and a token of its account for `audience` that is bound to it.
struct Bound {
    node: String,
    pod_uid: String,
    token: String,
}

impl Bound {
    async fn make(place: &Place, audience: &str) -> Result<Self> {
        let node = format!("node-{}", place.namespace);
        place.remove_later(NODES, "", &node);
        place.create(NODES, json!({"metadata": {"name": node}})).await?;
        let spec = json!({
            "nodeName": node, "serviceAccountName": ACCOUNT, "automountServiceAccountToken": false,
            "containers": [{"name": "c", "image": "none"}], "tolerations": [{"operator": "Exists"}],
        });
        let pod = place.create(PODS, json!({"metadata": {"name": "p"}, "spec": spec})).await?;
        let pod_uid = pod.uid().context("a pod has a UID")?;
        let bound = BoundTo { pod: "p".into(), uid: pod_uid.clone() };
        let account = (place.namespace.as_str(), ACCOUNT);
        let token = token::request(&place.client, account, &[audience], Some(&bound)).await?;
        Ok(Self { node, pod_uid, token })
    }
}

/// The status of a review.
async fn review(place: &Place, token: &str, audiences: &[&str]) -> Result<Value> {
    let review =
        TOKEN_REVIEWS.object(json!({"metadata": {}, "spec": {"token": token, "audiences": audiences}}))?;
    let answer = place.api(TOKEN_REVIEWS).create(&PostParams::default(), &review).await?;
    Ok(answer.data["status"].clone())
}

pub(crate) async fn a_token_names_its_pod_and_node(place: &Place) -> Result<()> {
    let bound = Bound::make(place, "ambit-ca").await?;
    let status = review(place, &bound.token, &["ambit-ca"]).await?;
    ensure!(status["authenticated"] == true, "{status}");
    ensure!(status["audiences"] == json!(["ambit-ca"]), "{status}");
    let user = &status["user"];
    let name = format!("system:serviceaccount:{}:{ACCOUNT}", place.namespace);
    ensure!(user["username"] == name.as_str(), "{user}");
    let group = format!("system:serviceaccounts:{}", place.namespace);
    ensure!(user["groups"].as_array().is_some_and(|groups| groups.iter().any(|one| *one == group.as_str())));
    for (key, value) in [("pod-name", "p"), ("pod-uid", &bound.pod_uid), ("node-name", &bound.node)] {
        let key = format!("authentication.kubernetes.io/{key}");
        ensure!(user["extra"][&key] == json!([value]), "{key} is not {value}: {user}");
    }
    // For the API server itself it is no token.
    let status = review(place, &bound.token, &[]).await?;
    ensure!(status["authenticated"] != true, "{status}");
    Ok(())
}

pub(crate) async fn a_token_is_for_its_audience(place: &Place) -> Result<()> {
    let bound = Bound::make(place, "ambit-ca").await?;
    let status = review(place, &bound.token, &["somebody-else"]).await?;
    ensure!(status["authenticated"] != true && status["error"].is_string(), "{status}");
    let status = review(place, &bound.token, &["somebody-else", "ambit-ca"]).await?;
    ensure!(status["authenticated"] == true && status["audiences"] == json!(["ambit-ca"]), "{status}");
    // A pod of another account cannot be bound to.
    place.create(SERVICE_ACCOUNTS, json!({"metadata": {"name": "other"}})).await?;
    let pod = BoundTo { pod: "p".into(), uid: bound.pod_uid.clone() };
    let account = (place.namespace.as_str(), "other");
    refused(token::request(&place.client, account, &["ambit-ca"], Some(&pod)).await, 400, "BadRequest")?;
    Ok(())
}

pub(crate) async fn a_token_ends_with_its_pod(place: &Place) -> Result<()> {
    let bound = Bound::make(place, "ambit-ca").await?;
    let status = review(place, &bound.token, &["ambit-ca"]).await?;
    ensure!(status["authenticated"] == true, "{status}");
    place.delete(PODS, "p").await?;
    // The real server keeps what it found for some seconds.
    until_answered("the token to end", Duration::from_secs(30), async || {
        let status = review(place, &bound.token, &["ambit-ca"]).await?;
        ensure!(status["authenticated"] != true, "{status}");
        Ok(())
    })
    .await?;
    Ok(())
}

pub(crate) async fn what_is_no_token_is_nobody(place: &Place) -> Result<()> {
    for token in ["nonsense", "a.b.c"] {
        let status = review(place, token, &["ambit-ca"]).await?;
        ensure!(status["authenticated"] != true && status["error"].is_string(), "{token}: {status}");
    }
    Ok(())
}

pub(crate) async fn a_role_is_all_that_an_account_may(place: &Place) -> Result<()> {
    let rule = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]});
    place.create(ROLES, json!({"metadata": {"name": "r"}, "rules": [rule]})).await?;
    let subject = json!({"kind": "ServiceAccount", "name": ACCOUNT, "namespace": place.namespace});
    let reference = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"});
    let binding = json!({"metadata": {"name": "r"}, "roleRef": reference, "subjects": [subject]});
    place.create(ROLE_BINDINGS, binding).await?;
    let account = (place.namespace.as_str(), ACCOUNT);
    let token = token::request(&place.client, account, &[], None).await?;
    let client = place.client_with(&token).await?;
    let review = SELF_REVIEWS.object(json!({"metadata": {}}))?;
    let me = SELF_REVIEWS.api(client.clone(), "").create(&PostParams::default(), &review).await?;
    let name = format!("system:serviceaccount:{}:{ACCOUNT}", place.namespace);
    ensure!(me.data["status"]["userInfo"]["username"] == name.as_str(), "{}", me.data);

    let maps = CONFIG_MAPS.api(client.clone(), &place.namespace);
    // A server may take a moment to see a new binding.
    until_answered("the role to hold", Duration::from_secs(30), async || {
        Ok(maps.list(&ListParams::default()).await?)
    })
    .await?;
    let map = CONFIG_MAPS.object(json!({"metadata": {"name": "m"}}))?;
    refused(maps.create(&PostParams::default(), &map).await, 403, "Forbidden")?;
    let everywhere = CONFIG_MAPS.api(client.clone(), "kube-system");
    refused(everywhere.list(&ListParams::default()).await, 403, "Forbidden")?;
    refused(PODS.api(client, &place.namespace).list(&ListParams::default()).await, 403, "Forbidden")?;
    let stranger = place.client_with("nonsense").await?;
    refused(CONFIG_MAPS.api(stranger, &place.namespace).get("m").await, 401, "Unauthorized")?;
    if let Some(double) = &place.double {
        let permissions = double.permissions(&name);
        ensure!(permissions.refused.len() == 3, "{permissions:?}");
        ensure!(permissions.unused == ["get configmaps. by r"], "{permissions:?}");
    }
    Ok(())
}
