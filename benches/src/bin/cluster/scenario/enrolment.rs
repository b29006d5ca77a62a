//! The namespace goes into the mesh and out of it, and it is seen of every pod whether it is in.
//!
//! The guarded port answers callers with an identity alone, once its pod is captured. A pod's answers are
//! in the mesh when the client outside is refused there; its calls are when the witness answers it. Of two
//! pods for which both hold no connection is without mutual TLS.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::time::{Instant, sleep};

use super::{Before, SHORT};
use crate::outcome::Probed;
use crate::reach::{self, Member, Offset, PROBE_EVERY, Want};
use crate::report::{Goal, Report};
use crate::stage::Stage;

/// Until everything has to be in the mesh, or out of it.
const LIMIT: Duration = Duration::from_secs(60);
const GOAL_MS: u32 = 2_000;

pub(super) async fn enrol(stage: &mut Stage) -> Result<Report> {
    ensure!(!stage.is_enrolled, "the namespace is enrolled already: run this scenario first");
    let mut before = Before::quiet(stage, &stage.clients).await?;
    let probes = Probes::start(stage, Want::Refusal, Callers::Too).await?;
    let since_us = stage.clock.now_us();
    stage.label(true).await?;
    let found = probes.wait(stage, since_us).await?;
    before.collector.watch(since_us, SHORT).await;
    stage.reconnect().await?;
    let pods = probes.callers.len();
    let operation = format!("namespace of {pods} pods and {} identities labelled", stage.size.identities);
    let report = before.report("enrol", operation, since_us, &BTreeSet::new());
    Ok(found.notes(report).effect("all traffic mutual TLS", found.held_ms).goals(&[
        Goal::EffectWithin(GOAL_MS),
        Goal::FailuresEndWithin(GOAL_MS),
        Goal::NoOpenConnectionLost,
    ]))
}

pub(super) async fn unenrol(stage: &mut Stage) -> Result<Report> {
    let mut before = Before::quiet(stage, &stage.clients).await?;
    let probes = Probes::start(stage, Want::Answer, Callers::No).await?;
    let since_us = stage.clock.now_us();
    stage.label(false).await?;
    let found = probes.wait(stage, since_us).await?;
    before.collector.watch(since_us, SHORT).await;
    let report = before.report("unenrol", "label taken away", since_us, &BTreeSet::new());
    Ok(found
        .notes(report)
        .effect("no pod captured", found.held_ms)
        .goals(&[Goal::FailuresEndWithin(GOAL_MS), Goal::NoOpenConnectionLost]))
}

/// Enrols without measuring.
pub(super) async fn enrol_quietly(stage: &mut Stage) -> Result<()> {
    let probes = Probes::start(stage, Want::Refusal, Callers::Too).await?;
    let since_us = stage.clock.now_us();
    stage.label(true).await?;
    let found = probes.wait(stage, since_us).await?;
    ensure!(
        found.held_ms.is_some(),
        "{} pods are not in the mesh {LIMIT:?} after the label: {}",
        found.missing.len(),
        found.missing.join(", ")
    );
    stage.reconnect().await
}

/// Whether it is also seen that pods call others with an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callers {
    Too,
    No,
}

/// Probes of every pod.
struct Probes {
    outside: Member,
    /// Whose answers the client outside waits for.
    answerers: Vec<Member>,
    /// Who calls the witness, and how their clocks are.
    callers: Vec<(Member, Offset)>,
    outside_offset: Offset,
}

/// What the probes saw.
struct Found {
    /// When the last pod was in, or out; none when one was not within the limit.
    held_ms: Option<f64>,
    answers_ms: f64,
    calls_ms: f64,
    /// What had not held.
    missing: Vec<String>,
}

impl Probes {
    async fn start(stage: &Stage, want: Want, callers: Callers) -> Result<Self> {
        let client = &stage.client;
        let everybody = stage.everybody().await?;
        let outside = stage.outside()?.clone();
        let clock = stage.clock;
        let callers = match callers {
            Callers::No => Vec::new(),
            Callers::Too => everybody.clone(),
        };
        let offsets = reach::with_each(client, &callers, move |client, pod| async move {
            reach::offset(&client, &pod, clock).await
        });
        let offsets: Vec<Offset> = offsets.await.into_iter().collect::<Result<_>>()?;
        let outside_offset = reach::offset(client, &outside, clock).await?;
        let witness = stage.witness()?.guarded();
        let ordered = reach::with_each(client, &callers, move |client, pod| {
            let witness = witness.clone();
            async move { reach::probe(&client, &pod, &[witness], Want::Answer).await }
        });
        ordered.await.into_iter().collect::<Result<()>>()?;
        let targets: Vec<String> = everybody.iter().map(Member::guarded).collect();
        reach::probe(client, &outside, &targets, want).await?;
        let callers = callers.into_iter().zip(offsets).collect();
        Ok(Self { outside, answerers: everybody, callers, outside_offset })
    }

    async fn wait(&self, stage: &Stage, since_us: u64) -> Result<Found> {
        let end = Instant::now() + LIMIT;
        loop {
            let found = self.look(stage, since_us).await?;
            if found.held_ms.is_some() || Instant::now() >= end {
                return Ok(found);
            }
            sleep(Duration::from_secs(1)).await;
        }
    }

    async fn look(&self, stage: &Stage, since_us: u64) -> Result<Found> {
        let relative = |us: u64, offset: Offset| (offset.ours(us) as f64 - since_us as f64) / 1e3;
        let mut found = Found { held_ms: None, answers_ms: 0.0, calls_ms: 0.0, missing: Vec::new() };
        for (pod, probed) in self.answerers.iter().zip(reach::probed(&stage.client, &self.outside).await?) {
            match probed.held_us {
                Some(us) => found.answers_ms = found.answers_ms.max(relative(us, self.outside_offset)),
                None => found.missing.push(format!("outside -> {} {}", pod.name, outcome(&probed))),
            }
        }
        let pods: Vec<Member> = self.callers.iter().map(|(pod, _)| pod.clone()).collect();
        let asked = reach::with_each(&stage.client, &pods, |client, pod| async move {
            reach::probed(&client, &pod).await
        });
        for ((pod, offset), probed) in self.callers.iter().zip(asked.await) {
            match probed.map(|list| list.into_iter().next()) {
                Ok(Some(Probed { held_us: Some(us), .. })) => {
                    found.calls_ms = found.calls_ms.max(relative(us, *offset));
                }
                Ok(Some(probed)) => {
                    found.missing.push(format!("{} -> witness {}", pod.name, outcome(&probed)))
                }
                Ok(None) => found.missing.push(format!("{} has no probe", pod.name)),
                Err(error) => found.missing.push(format!("{error:#}")),
            }
        }
        found.held_ms = found.missing.is_empty().then_some(found.answers_ms.max(found.calls_ms));
        Ok(found)
    }
}

fn outcome(probed: &Probed) -> String {
    let failure = probed.failure.map_or("none", |failure| failure.name());
    format!("({} attempts, latest failure: {failure})", probed.attempts)
}

/// So many of what is missing are named.
const NAMED: usize = 5;

impl Found {
    fn notes(&self, report: Report) -> Report {
        let each = PROBE_EVERY.as_millis();
        let report = report.note(format!(
            "last pod whose answers changed: {:.0} ms, whose calls: {:.0} ms; each was tried every {each} ms",
            self.answers_ms, self.calls_ms
        ));
        if self.missing.is_empty() {
            return report;
        }
        let named = self.missing.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
        report.note(format!("{} had not changed after {LIMIT:?}: {named}", self.missing.len()))
    }
}
