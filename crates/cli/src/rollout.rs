//! Waiting until control and the agents of all nodes are ready.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, Error};
use tokio::time::{Instant, sleep};

use crate::{NAMESPACE, PART_OF};

/// How often the API server is asked.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why what was installed is not ready.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    /// The API server does not answer.
    #[error("the API server does not say how far the rollout is")]
    Api(#[from] Box<Error>),
    /// It took too long.
    #[error("not ready after {waited:?}: {progress}{reasons}")]
    Timeout {
        /// How long it was waited.
        waited: Duration,
        /// How far it is.
        progress: String,
        /// Why pods are not ready, as far as they say.
        reasons: String,
    },
}

/// How far a rollout is.
#[derive(Debug, PartialEq, Eq)]
struct Progress {
    control: (i32, i32),
    ztunnel: (i32, i32),
}

impl Progress {
    fn is_done(&self) -> bool {
        [self.control, self.ztunnel].into_iter().all(|(ready, wanted)| ready >= wanted)
    }
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { control, ztunnel } = self;
        write!(f, "control {} of {}, ztunnel {} of {}", control.0, control.1, ztunnel.0, ztunnel.1)
    }
}

/// Waits until every replica of control and the agent of every node are of the current version and
/// ready.
///
/// # Errors
/// When that takes longer than `limit`.
pub(crate) async fn wait(client: &Client, limit: Duration) -> Result<(), RolloutError> {
    let until = Instant::now() + limit;
    let mut said = String::new();
    loop {
        let progress = progress(client).await?;
        let line = progress.to_string();
        if line != said {
            eprintln!("ready: {line}");
            said = line;
        }
        if progress.is_done() {
            return Ok(());
        }
        if Instant::now() >= until {
            let reasons = reasons(client).await?;
            return Err(RolloutError::Timeout { waited: limit, progress: said, reasons });
        }
        sleep(INTERVAL).await;
    }
}

async fn progress(client: &Client) -> Result<Progress, RolloutError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    let control = deployments.get("control").await.map_err(Box::new)?;
    let ztunnel = daemon_sets.get("ztunnel").await.map_err(Box::new)?;
    Ok(Progress { control: of_deployment(&control), ztunnel: of_daemon_set(&ztunnel) })
}

/// Ready and wanted. What the controller has not looked at yet is not ready.
fn of_deployment(deployment: &Deployment) -> (i32, i32) {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let Some(status) = &deployment.status else { return (0, wanted) };
    if status.observed_generation != deployment.metadata.generation {
        return (0, wanted);
    }
    let current = status.updated_replicas.unwrap_or(0).min(status.ready_replicas.unwrap_or(0));
    (current, wanted)
}

fn of_daemon_set(daemon_set: &DaemonSet) -> (i32, i32) {
    let Some(status) = &daemon_set.status else { return (0, 1) };
    if status.observed_generation != daemon_set.metadata.generation {
        return (0, status.desired_number_scheduled.max(1));
    }
    let current = status.updated_number_scheduled.unwrap_or(0).min(status.number_ready);
    (current, status.desired_number_scheduled)
}

/// What keeps pods from being ready, as the kubelet and the scheduler say.
async fn reasons(client: &Client) -> Result<String, RolloutError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pods = pods.list(&ListParams::default().labels(PART_OF)).await.map_err(Box::new)?;
    let mut reasons = BTreeMap::<String, usize>::new();
    for pod in &pods {
        for reason in not_ready(pod) {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    Ok(reasons.iter().map(|(reason, pods)| format!("; {reason} ({pods} pods)")).collect())
}

fn not_ready(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let containers = status.container_statuses.iter().flatten();
    let mut reasons: Vec<_> = containers
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .map(|waiting| {
            let message = waiting.message.as_deref().unwrap_or_default();
            format!("{}: {message}", waiting.reason.as_deref().unwrap_or("waiting"))
        })
        .collect();
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    reasons.extend(unscheduled.filter_map(|condition| condition.message.clone()));
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_controller_has_seen_counts_as_ready() {
        let deployment = |generation: i64, updated: i32, ready: i32| -> (i32, i32) {
            of_deployment(
                &serde_json::from_value(json!({
                    "metadata": {"generation": 3},
                    "spec": {"replicas": 2, "selector": {}, "template": {}},
                    "status": {"observedGeneration": generation, "updatedReplicas": updated, "readyReplicas": ready},
                }))
                .unwrap(),
            )
        };
        assert_eq!(deployment(3, 2, 2), (2, 2));
        assert_eq!(deployment(2, 2, 2), (0, 2), "another generation");
        assert_eq!(deployment(3, 1, 3), (1, 2), "old replicas are ready, new ones are not");
    }
}
