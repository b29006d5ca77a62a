//! An AuthorizationPolicy is edited so that it refuses everybody, and back.

use std::time::Duration;

use anyhow::Result;

use super::Before;
use crate::collect::Watch;
use crate::mesh::{self, Edit};
use crate::report::{Goal, Report};
use crate::stage::Stage;
use crate::window::{Verdict, agreed, window};

/// What a policy does is seen within.
const WATCHED: Duration = Duration::from_secs(15);
/// So long before the end nobody may have got another verdict, or it is not over.
const QUIET_MS: f64 = 3_000.0;
const GOAL: Goal = Goal::EffectWithin(1_000);

pub(super) async fn edit(stage: &Stage) -> Result<Vec<Report>> {
    mesh::edit(&stage.client, &stage.crowd, Edit::Allow).await?;
    let denied = phase(stage, Edit::Deny).await?;
    let allowed = phase(stage, Edit::Allow).await?;
    mesh::forget_edit(&stage.client, &stage.crowd).await?;
    Ok(vec![denied, allowed])
}

async fn phase(stage: &Stage, edit: Edit) -> Result<Report> {
    let (name, operation, verdict, effect) = match edit {
        Edit::Deny => (
            "policy-deny",
            "AuthorizationPolicy edited from allow to deny",
            Verdict::Refused,
            "every client refused",
        ),
        Edit::Allow => (
            "policy-allow",
            "AuthorizationPolicy edited from deny to allow",
            Verdict::Answered,
            "every client answered",
        ),
    };
    let mut before = match edit {
        Edit::Deny => Before::quiet(stage, &stage.clients).await?,
        Edit::Allow => Before::as_it_is(stage, &stage.clients).await?,
    };
    let since_us = stage.clock.now_us();
    mesh::edit(&stage.client, &stage.crowd, edit).await?;
    let wrote_ms = (stage.clock.now_us() - since_us) as f64 / 1e3;
    before
        .collector
        .watch(since_us, Watch { at_least: WATCHED, quiet: Duration::ZERO, at_most: WATCHED })
        .await;
    let seen = before.collector.seen(since_us);
    let agreed = agreed(&seen, verdict, WATCHED.as_millis() as f64, QUIET_MS);
    let mut window = window(&seen, &Default::default());
    // Refusals are what is asked for here. The window is that in which clients did not agree.
    window.window_ms = agreed.map_or(WATCHED.as_millis() as f64, |agreed| agreed.disagreed_ms);
    let report = before
        .annotate(Report::new(name, operation, window))
        .note("failures are what the policy is to cause; the window is that of different verdicts")
        .note(format!("counted from before the API call, which took {wrote_ms:.0} ms"));
    Ok(report.effect(effect, agreed.map(|agreed| agreed.held_ms)).goals(&[GOAL]))
}
