//! The operations, each a file below. What they have in common is here: quiet before, watching after.

mod endpoint;
mod enrolment;
mod node;
mod policy;
mod roll;
mod waypoint;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::collect::{Collector, Watch};
use crate::mesh::{Mesh, Part};
use crate::reach::Member;
use crate::report::Report;
use crate::run::Settings;
use crate::stage::Stage;
use crate::window::{Window, window};

/// What is done; in the order in which a run does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// Nothing, for fifteen seconds: what fails without a reason.
    Idle,
    /// The namespace gets the label that enrols it.
    Enrol,
    /// An AuthorizationPolicy is edited from allow to deny, and back.
    Policy,
    /// A rolling restart of control.
    RollControl,
    /// A rolling restart of the agents.
    RollAgents,
    /// A server pod is deleted without grace.
    KillEndpoint,
    /// A server's process ends.
    CrashEndpoint,
    /// A pod of control is deleted without grace.
    KillControl,
    /// A waypoint in front of all Services is restarted, scaled up and down, and loses an instance.
    RollWaypoint,
    /// A node is gone.
    Node,
    /// The label is taken away.
    Unenrol,
}

impl Scenario {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Enrol => "enrol",
            Self::Policy => "policy",
            Self::RollControl => "roll-control",
            Self::RollAgents => "roll-agents",
            Self::KillEndpoint => "kill-endpoint",
            Self::CrashEndpoint => "crash-endpoint",
            Self::KillControl => "kill-control",
            Self::RollWaypoint => "roll-waypoint",
            Self::Node => "node",
            Self::Unenrol => "unenrol",
        }
    }

    pub(crate) fn needs_mesh(self) -> bool {
        match self {
            Self::Idle | Self::KillEndpoint | Self::CrashEndpoint | Self::Node => false,
            Self::Enrol
            | Self::Policy
            | Self::RollControl
            | Self::RollAgents
            | Self::KillControl
            | Self::RollWaypoint
            | Self::Unenrol => true,
        }
    }
}

/// Carries one out.
///
/// # Errors
/// When something is in the way of doing or seeing it; a bad outcome is none.
pub(crate) async fn run(
    scenario: Scenario,
    stage: &mut Stage,
    mesh: Option<&Mesh>,
    settings: &Settings,
) -> Result<Vec<Report>> {
    if let (Some(_), false, false) =
        (mesh, stage.is_enrolled, matches!(scenario, Scenario::Idle | Scenario::Enrol))
    {
        enrolment::enrol_quietly(stage).await?;
    }
    let mesh = || mesh.context("it needs the mesh");
    let reports = match scenario {
        Scenario::Idle => vec![idle(stage).await?],
        Scenario::Enrol => vec![enrolment::enrol(stage).await?],
        Scenario::Policy => policy::edit(stage).await?,
        Scenario::RollControl => vec![roll::roll(stage, mesh()?, Part::Control).await?],
        Scenario::RollAgents => vec![roll::roll(stage, mesh()?, Part::Agents).await?],
        Scenario::KillEndpoint => vec![endpoint::kill(stage).await?],
        Scenario::CrashEndpoint => vec![endpoint::crash(stage).await?],
        Scenario::KillControl => vec![roll::kill_control(stage, mesh()?).await?],
        Scenario::RollWaypoint => waypoint::roll(stage).await?,
        Scenario::Node => vec![node::kill(stage, settings).await?],
        Scenario::Unenrol => vec![enrolment::unenrol(stage).await?],
    };
    Ok(reports)
}

async fn idle(stage: &Stage) -> Result<Report> {
    let mut before = Before::quiet(stage, &stage.clients).await?;
    let since_us = stage.clock.now_us();
    let fifteen = Duration::from_secs(15);
    before
        .collector
        .watch(since_us, Watch { at_least: fifteen, quiet: Duration::ZERO, at_most: fifteen })
        .await;
    Ok(before.report("idle", "nothing, for 15 s", since_us, &BTreeSet::new()))
}

/// The load as it is before an operation.
struct Before {
    collector: Collector,
    is_quiet: bool,
}

/// Long enough for every client to have made some requests.
const QUIET: Duration = Duration::from_secs(3);
/// How long it may take until nothing fails.
const UNREST: Duration = Duration::from_secs(60);

/// For operations that take effect in seconds.
const SHORT: Watch = Watch {
    at_least: Duration::from_secs(10),
    quiet: Duration::from_secs(5),
    at_most: Duration::from_secs(60),
};

impl Before {
    /// Waits until nothing fails, or until that is hopeless.
    async fn quiet(stage: &Stage, clients: &[Member]) -> Result<Self> {
        let mut collector = Collector::start(&stage.client, stage.clock, clients).await?;
        let is_quiet = collector.settle(QUIET, UNREST).await;
        Ok(Self { collector, is_quiet })
    }

    /// Begins in the middle of failures that are meant.
    async fn as_it_is(stage: &Stage, clients: &[Member]) -> Result<Self> {
        let collector = Collector::start(&stage.client, stage.clock, clients).await?;
        Ok(Self { collector, is_quiet: true })
    }

    fn window(&self, since_us: u64, ended: &BTreeSet<String>) -> Window {
        window(&self.collector.seen(since_us), ended)
    }

    fn report(
        &self,
        scenario: impl Into<String>,
        operation: impl Into<String>,
        since_us: u64,
        ended: &BTreeSet<String>,
    ) -> Report {
        self.annotate(Report::new(scenario, operation, self.window(since_us, ended)))
    }

    fn annotate(&self, mut report: Report) -> Report {
        report.clock_uncertainty_ms = self.collector.uncertain_ms();
        report.notes.extend(self.collector.notes());
        if !self.is_quiet {
            report = report.note(format!("requests failed already in all of the {UNREST:?} before"));
        }
        report
    }
}
