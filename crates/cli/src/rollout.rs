//! Waiting until control and the agents of all nodes are ready.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Event, Pod};
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

/// What keeps pods from being ready or from being made at all, as the kubelet, the scheduler and the controllers
/// say.
async fn reasons(client: &Client) -> Result<String, RolloutError> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pods = pods.list(&ListParams::default().labels(PART_OF)).await.map_err(Box::new)?;
    let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
    // Who may not read events is told less.
    let events = events.list(&ListParams::default().fields("type=Warning")).await;
    Ok(all_reasons(&pods.items, &events.map(|events| events.items).unwrap_or_default()))
}

fn all_reasons(pods: &[Pod], events: &[Event]) -> String {
    let mut reasons = BTreeMap::<String, BTreeSet<&str>>::new();
    for pod in pods {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        for reason in not_ready(pod) {
            reasons.entry(reason).or_default().insert(name);
        }
    }
    for (name, reason) in warnings(pods, events) {
        reasons.entry(reason).or_default().insert(name);
    }
    let line = |(reason, of): (&String, &BTreeSet<&str>)| match of.iter().next() {
        Some(only) if of.len() == 1 => format!("; {reason} ({only})"),
        first => format!("; {reason} ({} and {} more)", first.unwrap_or(&"?"), of.len() - 1),
    };
    reasons.iter().map(line).collect()
}

/// What was last warned of pods that are not ready, and of what makes our pods.
fn warnings<'a>(pods: &'a [Pod], events: &'a [Event]) -> impl Iterator<Item = (&'a str, String)> {
    let is_waiting = |event: &Event| {
        let of = &event.involved_object;
        let named = |pod: &&Pod| pod.metadata.name == of.name;
        match of.kind.as_deref() {
            Some("Pod") => pods.iter().find(named).is_some_and(|pod| !is_ready(pod)),
            Some("DaemonSet" | "ReplicaSet" | "Deployment") => true,
            Some(_) | None => false,
        }
    };
    let mut last = BTreeMap::<&str, &Event>::new();
    let time = |event: &Event| event.last_timestamp.clone().or(event.first_timestamp.clone());
    for event in events.iter().filter(|event| is_waiting(event)) {
        let name = event.involved_object.name.as_deref().unwrap_or_default();
        let before = last.entry(name).or_insert(event);
        if time(event) >= time(before) {
            *before = event;
        }
    }
    last.into_iter().map(|(name, event)| {
        let message = event.message.as_deref().unwrap_or_default();
        let message = &message[..message.floor_char_boundary(LONGEST_MESSAGE)];
        (name, format!("{}: {message}", event.reason.as_deref().unwrap_or("warning")))
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Octets of an event's message that are shown: runtimes repeat themselves.
const LONGEST_MESSAGE: usize = 300;

fn not_ready(pod: &Pod) -> Vec<String> {
    let Some(status) = &pod.status else { return Vec::new() };
    let containers = status.container_statuses.iter().flatten();
    let mut reasons: Vec<_> = containers
        .filter_map(|container| container.state.as_ref()?.waiting.as_ref())
        .map(|waiting| {
            let message = waiting.message.as_deref().unwrap_or_default();
            let reason = waiting.reason.as_deref().unwrap_or("waiting");
            if message.is_empty() { reason.to_owned() } else { format!("{reason}: {message}") }
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

    #[test]
    fn what_keeps_pods_from_being_ready_is_said_of_each_cause_once() {
        let pod = |name: &str, ready: &str| -> Pod {
            let waiting = json!({"reason": "ContainerCreating"});
            let status = json!({
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": if ready == "True" { json!([]) } else { json!([{
                    "name": "x", "image": "x", "imageID": "x", "ready": false, "restartCount": 0,
                    "state": {"waiting": waiting},
                }]) },
            });
            serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap()
        };
        let event = |kind: &str, name: &str, reason: &str, time: &str| -> Event {
            serde_json::from_value(json!({
                "metadata": {}, "type": "Warning", "reason": reason, "message": format!("of {name}"),
                "involvedObject": {"kind": kind, "name": name}, "lastTimestamp": time,
            }))
            .unwrap()
        };
        let pods = [pod("ztunnel-a", "False"), pod("ztunnel-b", "False"), pod("ztunnel-c", "True")];
        let events = [
            event("Pod", "ztunnel-a", "FailedCreatePodSandBox", "2026-01-01T00:00:09Z"),
            event("Pod", "ztunnel-a", "FailedMount", "2026-01-01T00:00:01Z"),
            event("Pod", "ztunnel-c", "Unhealthy", "2026-01-01T00:00:09Z"),
            event("ReplicaSet", "control-x", "FailedCreate", "2026-01-01T00:00:09Z"),
        ];
        assert_eq!(
            all_reasons(&pods, &events),
            "; ContainerCreating (ztunnel-a and 1 more); FailedCreate: of control-x (control-x); \
             FailedCreatePodSandBox: of ztunnel-a (ztunnel-a)"
        );
    }
}
