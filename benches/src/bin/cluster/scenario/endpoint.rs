//! A server pod is deleted at once, or its process ends.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use http::Method;
use kube::Api;

use super::{Before, SHORT};
use crate::mesh;
use crate::reach::{self, Member};
use crate::report::{Goal, Report};
use crate::stage::Stage;

const GOAL: Goal = Goal::FailuresEndWithin(1_000);

pub(super) async fn kill(stage: &Stage) -> Result<Report> {
    let victim = victim(stage, "app=server-0").await?;
    let mut before = Before::quiet(stage, &stage.clients).await?;
    let since_us = stage.clock.now_us();
    mesh::kill(&Api::namespaced(stage.client.clone(), &stage.crowd), &victim.name).await?;
    let operation = format!("server pod {} on {} deleted without grace", victim.name, victim.node);
    seen(stage, &mut before, "kill-endpoint", &operation, since_us, victim).await
}

pub(super) async fn crash(stage: &Stage) -> Result<Report> {
    let victim = victim(stage, "app=server-0").await?;
    let mut before = Before::quiet(stage, &stage.clients).await?;
    let since_us = stage.clock.now_us();
    // It ends before it can answer.
    let _ = reach::ask(&stage.client, &victim, Method::POST, "/crash").await;
    let operation = format!("process of server pod {} on {} ended", victim.name, victim.node);
    seen(stage, &mut before, "crash-endpoint", &operation, since_us, victim).await
}

async fn victim(stage: &Stage, selector: &str) -> Result<Member> {
    stage.members(&stage.crowd, selector).await?.pop().context("there is no server to kill")
}

async fn seen(
    stage: &Stage,
    before: &mut Before,
    name: &str,
    operation: &str,
    since_us: u64,
    victim: Member,
) -> Result<Report> {
    before.collector.watch(since_us, SHORT).await;
    let report = before.report(name, operation, since_us, &BTreeSet::from([victim.name])).goals(&[GOAL]);
    stage.whole().await?;
    Ok(report)
}
