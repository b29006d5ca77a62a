//! Waits for Deployments, and says what is in the way when they do not become ready.

use std::time::Duration;

use anyhow::{Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between two lines about it.
const TELL_EVERY: Duration = Duration::from_secs(20);

/// Waits until every Deployment of a namespace has all its pods ready.
///
/// # Errors
/// When one has not within the time.
pub(super) async fn deployments(client: &Client, namespace: &str, within: Duration) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let end = Instant::now() + within;
    let mut told = Instant::now();
    loop {
        let list = deployments.list(&ListParams::default()).await?;
        let (ready, wanted) = list.items.iter().map(progress).fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        if list.items.iter().map(progress).all(|(ready, wanted)| ready == wanted) {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!(
                "{ready} of {wanted} pods of {namespace} are ready after {within:?}: {}",
                why(client, namespace).await
            );
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            eprintln!("cluster: {ready} of {wanted} pods of {namespace} are ready");
        }
        sleep(LOOK_EVERY).await;
    }
}

/// How many pods are ready, of how many. None when what is said is of an older version.
fn progress(deployment: &Deployment) -> (i32, i32) {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return (0, wanted) };
    let is_current = status.observed_generation >= deployment.metadata.generation;
    let ready = status.available_replicas.unwrap_or(0).min(status.updated_replicas.unwrap_or(0));
    // A pod that is to go still counts among the available ones.
    let is_alone = status.replicas.unwrap_or(0) == wanted;
    (if is_current && is_alone { ready.min(wanted) } else { 0 }, wanted)
}

/// The first reason that a pod gives.
async fn why(client: &Client, namespace: &str) -> String {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Ok(list) = pods.list(&ListParams::default()).await else {
        return "its pods cannot be listed".to_owned();
    };
    let reason = list.items.iter().find_map(|pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let status = pod.status.as_ref()?;
        let waiting = status.container_statuses.iter().flatten().find_map(|container| {
            let waiting = container.state.as_ref()?.waiting.as_ref()?;
            Some(format!(
                "{}: {}",
                waiting.reason.as_deref()?,
                waiting.message.as_deref().unwrap_or_default()
            ))
        });
        let unmet = || {
            let condition =
                status.conditions.iter().flatten().find(|condition| condition.status != "True")?;
            Some(format!("not {}: {}", condition.type_, condition.message.as_deref().unwrap_or_default()))
        };
        Some(format!("{name}: {}", waiting.or_else(unmet)?))
    });
    reason.unwrap_or_else(|| "no pod says why".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_deployment_is_ready_when_all_of_this_version_are_and_nothing_else_is_left() {
        let deployment = |status: serde_json::Value| -> Deployment {
            let object = json!({
                "metadata": {"generation": 2},
                "spec": {"replicas": 3, "selector": {}, "template": {}},
                "status": status,
            });
            serde_json::from_value(object).unwrap()
        };
        for (status, ready) in [
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}),
                3,
            ),
            (
                json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}),
                0,
            ),
            (
                json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3, "availableReplicas": 3}),
                0,
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}),
                2,
            ),
            (json!({}), 0),
        ] {
            assert_eq!(progress(&deployment(status.clone())), (ready, 3), "{status}");
        }
    }
}
