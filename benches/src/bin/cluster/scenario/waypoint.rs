//! The crowd's Services get a waypoint, and its instances come and go.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Before, SHORT};
use crate::report::{Goal, Report};
use crate::stage::Stage;
use crate::waypoint::Waypoint;

/// What is done with a waypoint may take so long: an instance that goes drains for a while.
const WITHIN: Duration = Duration::from_secs(180);

pub(super) async fn roll(stage: &Stage) -> Result<Vec<Report>> {
    let waypoint = Waypoint::deploy(stage, WITHIN).await?;
    stage.reconnect().await?;
    let mut reports = Vec::new();
    for (name, operation) in OPERATIONS {
        let passed = waypoint.requests().await?;
        let mut before = Before::quiet(stage, &stage.clients).await?;
        ensure!(
            waypoint.requests().await? > passed,
            "no request passes the waypoint {}: is its namespace bound to it?",
            waypoint.name()
        );
        let since_us = stage.clock.now_us();
        let done = match operation {
            Operation::Restart => waypoint.restart(WITHIN).await,
            Operation::Scale(replicas) => waypoint.scale(replicas, WITHIN).await,
            Operation::Delete => waypoint.delete_one(WITHIN).await,
        };
        let took_ms = (stage.clock.now_us() - since_us) as f64 / 1e3;
        before.collector.watch(stage.clock.now_us(), SHORT).await;
        let mut report = before.report(name, operation.text(), since_us, &BTreeSet::new());
        if let Err(error) = &done {
            report = report.note(format!("{error:#}"));
        }
        reports.push(report.effect("done", done.is_ok().then_some(took_ms)).goals(&[Goal::NoRequestFailed]));
    }
    waypoint.remove(stage).await.context("the waypoint cannot be taken away")?;
    Ok(reports)
}

#[derive(Clone, Copy, Debug)]
enum Operation {
    Restart,
    Scale(u32),
    Delete,
}

const OPERATIONS: [(&str, Operation); 4] = [
    ("roll-waypoint", Operation::Restart),
    ("scale-waypoint-up", Operation::Scale(4)),
    ("scale-waypoint-down", Operation::Scale(2)),
    ("delete-waypoint-pod", Operation::Delete),
];

impl Operation {
    fn text(self) -> String {
        match self {
            Self::Restart => "rolling restart of the waypoint's Deployment".to_owned(),
            Self::Scale(replicas) => format!("the waypoint is scaled to {replicas} replicas"),
            Self::Delete => "an instance of the waypoint is deleted, with its grace".to_owned(),
        }
    }
}
