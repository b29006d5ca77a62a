//! The way to a pod that leads through the API server: nothing else has to reach the cluster.

use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, Request};
use kube::Client;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::outcome::Probed;
use crate::pod::ports;

/// One request to a pod may take so long; while a node is away the API server waits in vain.
const DEADLINE: Duration = Duration::from_secs(10);

/// A pod of the run.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Member {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) node: String,
}

impl Member {
    pub(crate) fn guarded(&self) -> String {
        format!("{}:{}", self.address, ports::GUARDED)
    }
}

/// What a probe waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    Answer,
    Refusal,
}

/// Between attempts of a probe: what a time seen by it is sure to.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(200);

/// Asks a pod.
///
/// # Errors
/// When the pod does not answer, or not with 200.
pub(crate) async fn ask(client: &Client, pod: &Member, method: Method, path: &str) -> Result<String> {
    let at = format!("{}:{}", pod.name, ports::STEER);
    proxied_by(client, method, &pod.namespace, &at, path).await
}

/// Asks a pod that is not of the run; `at` is its name and port.
///
/// # Errors
/// When the pod does not answer, or not with 200.
pub(crate) async fn proxied(client: &Client, namespace: &str, at: &str, path: &str) -> Result<String> {
    proxied_by(client, Method::GET, namespace, at, path).await
}

async fn proxied_by(
    client: &Client,
    method: Method,
    namespace: &str,
    at: &str,
    path: &str,
) -> Result<String> {
    let uri = format!("/api/v1/namespaces/{namespace}/pods/{at}/proxy{path}");
    let request = Request::builder().method(method).uri(uri).body(Vec::new())?;
    let answer = timeout(DEADLINE, client.request_text(request)).await;
    answer
        .unwrap_or_else(|_| Err(kube::Error::Service("no answer within the deadline".into())))
        .with_context(|| format!("{namespace}/{at} does not answer {path} through the API server"))
}

/// Asks a pod for JSON.
///
/// # Errors
/// When the pod does not answer, or with something else.
pub(crate) async fn read<T: DeserializeOwned>(client: &Client, pod: &Member, path: &str) -> Result<T> {
    let text = ask(client, pod, Method::GET, path).await?;
    serde_json::from_str(&text).with_context(|| format!("{}: {path} is not what it should be", pod.name))
}

/// Orders a pod to probe.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn probe(client: &Client, pod: &Member, targets: &[String], want: Want) -> Result<()> {
    let want = match want {
        Want::Answer => "answer",
        Want::Refusal => "refusal",
    };
    let every_ms = PROBE_EVERY.as_millis();
    let path = format!("/probe?want={want}&every_ms={every_ms}&targets={}", targets.join(","));
    ask(client, pod, Method::POST, &path).await.map(drop)
}

/// What became of a pod's probes.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn probed(client: &Client, pod: &Member) -> Result<Vec<Probed>> {
    read(client, pod, "/probe").await
}

/// A pod's clock beside ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offset {
    /// To be added to the pod's time.
    pub(crate) add_us: i64,
    /// How wrong that may be.
    pub(crate) uncertain_us: u64,
}

impl Offset {
    pub(crate) fn ours(self, pods_us: u64) -> u64 {
        pods_us.saturating_add_signed(self.add_us)
    }
}

/// Compares a pod's clock with ours, and takes the quickest answer of some.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn offset(client: &Client, pod: &Member, clock: Clock) -> Result<Offset> {
    let mut best = None;
    for _ in 0..4 {
        let asked_us = clock.now_us();
        let theirs: u64 = read(client, pod, "/now").await?;
        let found = offset_of(asked_us, theirs, clock.now_us());
        best = Some(best.map_or(found, |best: Offset| closer(best, found)));
    }
    best.context("not asked")
}

fn offset_of(asked_us: u64, theirs_us: u64, answered_us: u64) -> Offset {
    let uncertain_us = (answered_us - asked_us) / 2;
    let ours = asked_us + uncertain_us;
    let add_us = i64::try_from(i128::from(ours) - i128::from(theirs_us)).unwrap_or_default();
    Offset { add_us, uncertain_us }
}

fn closer(one: Offset, other: Offset) -> Offset {
    if other.uncertain_us < one.uncertain_us { other } else { one }
}

/// Does the same with many pods, some at a time, and returns the results in the order of the pods.
pub(crate) async fn with_each<T, F>(
    client: &Client,
    pods: &[Member],
    ask: impl Fn(Client, Member) -> F,
) -> Vec<Result<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut results: Vec<Option<Result<T>>> = pods.iter().map(|_| None).collect();
    let mut running = JoinSet::new();
    let mut waiting = pods.iter().enumerate();
    loop {
        while running.len() < AT_ONCE
            && let Some((index, pod)) = waiting.next()
        {
            let asked = ask(client.clone(), pod.clone());
            running.spawn(async move { (index, asked.await) });
        }
        match running.join_next().await {
            Some(Ok((index, result))) => results[index] = Some(result),
            // A task that panicked has printed why; its pod is missing in the results.
            Some(Err(_)) => {}
            None => break,
        }
    }
    let missing = || Err(anyhow::anyhow!("the question was not brought to its end"));
    results.into_iter().map(|result| result.unwrap_or_else(missing)).collect()
}

/// Enough to reach a hundred pods in a second, and little beside the load.
const AT_ONCE: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_the_question_is_when_it_was_answered() {
        let ahead = offset_of(1_000, 6_010, 1_020);
        assert_eq!(ahead, Offset { add_us: -5_000, uncertain_us: 10 });
        assert_eq!(ahead.ours(6_010), 1_010);
        let behind = offset_of(9_000, 10, 9_400);
        assert_eq!(behind.ours(10), 9_200);
        assert_eq!(closer(behind, ahead), ahead);
    }
}
