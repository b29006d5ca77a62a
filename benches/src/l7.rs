//! The layer-7 suite: the same requests to a Service behind Ambit's waypoint, behind Envoy as its waypoint,
//! and behind none, with the same agents at both ends.
//!
//! A stage is a configuration of the waypoints. Each has a mesh and a sandbox of its own, because Envoy takes
//! its configuration when it starts.

use std::fmt;
use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::str::FromStr;

use ambit_tests::sandbox;
use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::machine::{self, Machine};
use crate::pin::Pin;
use report::{Report, Taken};

mod envoy;
mod measure;
mod report;
mod stand;
mod way;

/// What a run may change.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Write machine, settings, figures and targets to this file, as a JSON object.
    #[arg(long, env = "AMBIT_BENCH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds that count; one more before them warms up. Each round takes every work on every way.
    #[arg(long, env = "AMBIT_BENCH_ROUNDS", default_value_t = 10, default_value_if("quick", "true", "3"), value_name = "N", value_parser = clap::value_parser!(u32).range(1..=15))]
    rounds: u32,
    /// Seconds that one measurement takes.
    #[arg(long, env = "AMBIT_BENCH_SECONDS", default_value_t = 2, default_value_if("quick", "true", "1"), value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Worker threads of the waypoints and agents.
    #[arg(long, env = "AMBIT_BENCH_WORKERS", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Where programs run: with `nodes` everything of the client's node on one processor and everything
    /// of the server's node, the waypoints among it, on another one; with `none` where the kernel likes.
    #[arg(long, env = "AMBIT_BENCH_PIN", default_value = "nodes", value_name = "HOW", value_enum)]
    pin: Pin,
    /// Measure this stage alone: base, routes-N or rules-N. May be repeated.
    #[arg(long, value_name = "STAGE")]
    only: Vec<Stage>,
    /// Three rounds of a second. Too few for a verdict on a target.
    #[arg(long)]
    quick: bool,
    /// This is the inner process of a stage of the run.
    #[arg(long, hide = true, value_name = "STAGE")]
    inside_sandbox: Option<Stage>,
}

/// A configuration of the waypoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// Routes of the Service beside the one that the requests take; without any there is no route at all.
    pub(crate) routes: u32,
    /// Rules of ALLOW policies, of which the last one allows the requests; without any there is no policy.
    pub(crate) rules: u32,
}

impl Stage {
    const BASE: Self = Self { routes: 0, rules: 0 };

    /// In the order in which they are measured.
    const ALL: [Self; 6] = [
        Self::BASE,
        Self::routes(100),
        Self::routes(1000),
        Self::rules(1),
        Self::rules(100),
        Self::rules(10_000),
    ];

    const fn routes(routes: u32) -> Self {
        Self { routes, rules: 0 }
    }

    const fn rules(rules: u32) -> Self {
        Self { routes: 0, rules }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.routes, self.rules) {
            (0, 0) => f.write_str("base"),
            (routes, 0) => write!(f, "routes-{routes}"),
            (_, rules) => write!(f, "rules-{rules}"),
        }
    }
}

impl FromStr for Stage {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        let number = |text: &str| text.parse().ok().filter(|number| (1..=10_000).contains(number));
        let found = match name.split_once('-') {
            None => (name == "base").then_some(Self::BASE),
            Some(("routes", count)) => number(count).map(Self::routes),
            Some(("rules", count)) => number(count).map(Self::rules),
            Some(_) => None,
        };
        found.ok_or_else(|| {
            anyhow!("no stage {name}; there are base, routes-N and rules-N, N from 1 to 10000")
        })
    }
}

/// Measures, or is the inner process of a stage.
///
/// # Errors
/// When any measurement fails: a figure that is not one would look like a bad one.
pub(crate) fn run(settings: &Settings) -> Result<()> {
    if let Some(stage) = settings.inside_sandbox {
        return inside(settings, stage);
    }
    if let Some(directory) = settings.json.as_ref().and_then(|file| file.parent()) {
        let exists = directory.as_os_str().is_empty() || directory.is_dir();
        ensure!(exists, "--json: there is no directory {}", directory.display());
    }
    sandbox::die_with_parent()?;
    let stages = if settings.only.is_empty() { &Stage::ALL[..] } else { &settings.only };
    let (mut machine, mut readings, mut failed) = (None, Vec::new(), Ok(()));
    for stage in stages {
        match run_inside(*stage) {
            Ok((of, taken)) => {
                machine.get_or_insert(of);
                readings.push(taken);
            }
            // What was measured before is handed out all the same.
            Err(error) => {
                failed = Err(error);
                break;
            }
        }
    }
    let Some(machine) = machine else { return failed.and_then(|()| bail!("no stage was asked for")) };
    let report = Report::new(settings, machine, readings);
    write!(stdout(), "{}", report.tables())?;
    if let Some(file) = &settings.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    failed
}

fn run_inside(stage: Stage) -> Result<(Machine, Taken)> {
    let arguments = std::env::args_os().skip(1).chain(["--inside-sandbox".into(), stage.to_string().into()]);
    sandbox::outcome_of(&stage.to_string(), arguments)
}

fn inside(settings: &Settings, stage: Stage) -> Result<()> {
    sandbox::furnish()?;
    let machine = machine::describe()?;
    eprintln!("{stage} of\n{}", machine.lines.join("\n"));
    let taken = measure::stage(settings, stage).inspect_err(|_| crate::show_logs())?;
    serde_json::to_writer(stdout(), &(machine, taken)).context("the readings cannot be handed out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_found_by_its_name() {
        for stage in Stage::ALL {
            assert_eq!(stage.to_string().parse::<Stage>().unwrap(), stage);
        }
        for wrong in ["", "rules", "rules-0", "routes-10001", "other-3"] {
            assert!(wrong.parse::<Stage>().is_err(), "{wrong}");
        }
    }
}
