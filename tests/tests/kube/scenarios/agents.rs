//! What agents say of themselves, who have no rights of their own.

use ambit_tests::cluster::kinds::{EVENTS, PROXY_REPORTS};
use ambit_tests::observer::Observer;
use ambit_tests::wait::until_answered;
use anyhow::{Result, ensure};
use kube::api::{DynamicObject, ListParams};
use tokio::sync::watch;

use super::mesh::{Mesh, SOON, START};

const PROBLEM: &str = "10-net.conflist: another program insists on a node's chain without the CNI plugin";

/// By the replica that hears it, whichever of them leads.
pub(crate) async fn what_an_agent_says_of_itself_is_told_of_its_node(mesh: &Mesh<'_>) -> Result<()> {
    let leader = mesh.control("control-a")?;
    leader.ready(START).await?;
    let follower = mesh.control("control-b")?;
    follower.ready(START).await?;
    let (problems, of_itself) = watch::channel(Vec::new());
    let mut agent = Observer::start(mesh.agent_of(&follower, of_itself).await?);
    agent.synced(START).await?;
    problems.send_replace(vec![PROBLEM.to_owned()]);

    // Events of what is in no namespace are in this one.
    let events = EVENTS.api(mesh.place.client.clone(), "default");
    until_answered("an Event of the node", SOON, async || {
        let is_it = |event: &DynamicObject| {
            event.data["regarding"]["name"] == mesh.node.name && event.data["note"] == PROBLEM
        };
        let found = events.list(&ListParams::default()).await?.items.into_iter().find(is_it);
        ensure!(found.is_some_and(|event| event.data["reason"] == "NodeAgentProblem"), "nothing was told");
        Ok(())
    })
    .await?;
    reported(mesh, &[PROBLEM]).await?;
    problems.send_replace(Vec::new());
    reported(mesh, &[]).await
}

/// Waits until reports have these words of the agent.
async fn reported(mesh: &Mesh<'_>, problems: &[&str]) -> Result<()> {
    let reports = PROXY_REPORTS.api(mesh.place.client.clone(), &mesh.namespace);
    until_answered(format!("reports to say {problems:?}"), SOON, async || {
        let reports = reports.list(&ListParams::default()).await?.items;
        let proxies = reports.iter().filter_map(|report| report.data["spec"]["proxies"].as_array()).flatten();
        let said: Vec<&str> = proxies
            .flat_map(|proxy| proxy["problems"].as_array().into_iter().flatten())
            .filter_map(|problem| problem.as_str())
            .collect();
        ensure!(said == problems, "{said:?}");
        Ok(())
    })
    .await
    .map(drop)
}
