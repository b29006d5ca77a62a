//! A node is gone, as far as the others can tell.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::time::{Instant, sleep};

use super::Before;
use crate::collect::Watch;
use crate::reach::Member;
use crate::report::{Goal, Report};
use crate::run::Settings;
use crate::stage::Stage;

/// Kubernetes itself gives a node 50 s before it calls it not ready.
const WATCH: Watch = Watch {
    at_least: Duration::from_secs(30),
    quiet: Duration::from_secs(15),
    at_most: Duration::from_secs(120),
};
const GOAL: Goal = Goal::FailuresEndWithin(30_000);
/// Until a node that is back has to be ready.
const BACK: Duration = Duration::from_secs(180);

pub(super) async fn kill(stage: &Stage, settings: &Settings) -> Result<Report> {
    let kill = settings.kill_node_command.as_deref().context("it needs --kill-node-command")?;
    let restore = settings.restore_node_command.as_deref().context("it needs --restore-node-command")?;
    let everybody = stage.everybody().await?;
    let node = match &settings.kill_node {
        Some(node) => node.clone(),
        None => {
            choose(&everybody, &stage.clients).context("no node has servers while another has clients")?
        }
    };
    let survivors: Vec<Member> = stage.clients.iter().filter(|client| client.node != node).cloned().collect();
    ensure!(!survivors.is_empty(), "all clients are on {node}: nobody would see what happens");
    let ended: BTreeSet<String> =
        everybody.iter().filter(|pod| pod.node == node).map(|pod| pod.name.clone()).collect();

    let mut before = Before::quiet(stage, &survivors).await?;
    let since_us = stage.clock.now_us();
    command(kill, &node)?;
    let took_ms = (stage.clock.now_us() - since_us) as f64 / 1e3;
    before.collector.watch(since_us, WATCH).await;
    let operation = format!("node {node}, with {} pods of the run, taken away by `{kill}`", ended.len());
    let report = before.report("node", operation, since_us, &ended).goals(&[GOAL]);
    command(restore, &node)?;
    is_ready(stage, &node).await?;
    stage.whole().await?;
    Ok(report
        .note(format!("the command took {took_ms:.0} ms"))
        .note(format!("seen by the {} clients on other nodes", survivors.len())))
}

/// The last by name that has servers, while another one has clients.
fn choose(everybody: &[Member], clients: &[Member]) -> Option<String> {
    let has_witness = |node: &str| clients.iter().any(|client| client.node != node);
    let is_server = |pod: &&Member| !clients.contains(pod);
    let nodes = everybody.iter().filter(is_server).map(|pod| pod.node.clone());
    nodes.filter(|node| has_witness(node)).max()
}

fn command(text: &str, node: &str) -> Result<()> {
    let status = std::process::Command::new("sh")
        .args(["-c", text])
        .env("AMBIT_BENCH_NODE", node)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("`{text}` cannot be run"))?;
    ensure!(status.success(), "`{text}` failed: {status}");
    Ok(())
}

async fn is_ready(stage: &Stage, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(stage.client.clone());
    let end = Instant::now() + BACK;
    loop {
        let node = nodes.get(name).await?;
        let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True") {
            return Ok(());
        }
        ensure!(Instant::now() < end, "{name} is not ready {BACK:?} after it was brought back");
        sleep(Duration::from_secs(1)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, node: &str) -> Member {
        Member { namespace: "n".into(), name: name.into(), address: "1.2.3.4".into(), node: node.into() }
    }

    #[test]
    fn a_node_is_chosen_that_leaves_clients() {
        let clients = [member("client-0", "a"), member("client-1", "b")];
        let servers = [member("server-0", "a"), member("server-1", "b")];
        let everybody = [clients.clone(), servers.clone()].concat();
        assert_eq!(choose(&everybody, &clients), Some("b".to_owned()));
        // All clients are on b.
        let clients = [member("client-0", "b")];
        let everybody = [clients.to_vec(), servers.to_vec()].concat();
        assert_eq!(choose(&everybody, &clients), Some("a".to_owned()));
        assert_eq!(choose(&everybody[1..2], &everybody[1..2]), None);
    }
}
