//! Control and the agents restart; a replica of control is killed.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use super::{Before, SHORT};
use crate::mesh::{Mesh, Part};
use crate::reach::{self, Want};
use crate::report::{Goal, Report};
use crate::stage::Stage;

/// A rollout may take so long: pods that drain take their grace.
const ROLLOUT: Duration = Duration::from_secs(300);
/// Until a new identity must have its certificate, after a replica was killed.
const CERTIFICATE: Duration = Duration::from_secs(60);

pub(super) async fn roll(stage: &Stage, mesh: &Mesh, part: Part) -> Result<Report> {
    let mut before = Before::quiet(stage, &stage.clients).await?;
    let since_us = stage.clock.now_us();
    mesh.restart(part).await?;
    let rolled = mesh.rolled(part, ROLLOUT).await;
    let took_ms = (stage.clock.now_us() - since_us) as f64 / 1e3;
    // What a new pod does wrong at first is seen too.
    before.collector.watch(stage.clock.now_us(), SHORT).await;
    let (name, operation) = match part {
        Part::Control => ("roll-control", "rolling restart of the Deployment control"),
        Part::Agents => ("roll-agents", "rolling restart of the DaemonSet ztunnel"),
    };
    let mut report = before.report(name, operation, since_us, &BTreeSet::new());
    if let Err(error) = &rolled {
        report = report.note(format!("{error:#}"));
    }
    let goals = [Goal::NoFailure, Goal::NoOpenConnectionLost];
    Ok(report.effect("rolled out", rolled.is_ok().then_some(took_ms)).goals(&goals))
}

pub(super) async fn kill_control(stage: &Stage, mesh: &Mesh) -> Result<Report> {
    let mut before = Before::quiet(stage, &stage.clients).await?;
    let since_us = stage.clock.now_us();
    let victim = mesh.kill_control().await?;
    let newcomer = stage.newcomer("newcomer").await?;
    let started_ms = (stage.clock.now_us() - since_us) as f64 / 1e3;
    reach::probe(&stage.client, &newcomer, &[stage.witness()?.guarded()], Want::Answer).await?;
    let offset = reach::offset(&stage.client, &newcomer, stage.clock).await?;
    let end = Instant::now() + CERTIFICATE;
    let mut held_us = None;
    while held_us.is_none() && Instant::now() < end {
        sleep(Duration::from_millis(200)).await;
        held_us = reach::probed(&stage.client, &newcomer).await?.first().and_then(|probed| probed.held_us);
    }
    before.collector.watch(since_us, SHORT).await;
    let rolled = mesh.rolled(Part::Control, ROLLOUT).await;
    let operation =
        format!("pod {victim} of control deleted without grace, then a pod with a new identity created");
    let mut report = before.report("kill-control", operation, since_us, &BTreeSet::new());
    if let Err(error) = rolled {
        report = report.note(format!("{error:#}"));
    }
    let held_ms = held_us.map(|us| (offset.ours(us) as f64 - since_us as f64) / 1e3);
    let limit_ms = u32::try_from(CERTIFICATE.as_millis()).unwrap_or(u32::MAX);
    Ok(report
        .note(format!("the new pod was ready {started_ms:.0} ms after the operation"))
        .effect("certificate for the new identity in use", held_ms)
        .goals(&[Goal::NoFailure, Goal::NoOpenConnectionLost, Goal::EffectWithin(limit_ms)]))
}
