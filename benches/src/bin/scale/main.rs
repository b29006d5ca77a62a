//! What grows with the size of the mesh: the evaluation of policies, a change among many workloads, and
//! one in a Kubernetes cluster.
//!
//! This file owns the command line. The mesh runs in a sandbox, where this program calls itself;
//! figures come out on standard output, everything else on standard error.

#![forbid(unsafe_code)]

mod change;
mod crowd;
mod kubernetes;
mod plot;
mod policies;
mod probe;
mod process;

use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use ambit_tests::{log, sandbox};
use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

/// Benchmarks of size. Run them by `scripts/bench scale`, which builds and installs what they need.
#[derive(Debug, Parser)]
#[command(name = "scale", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// How long one authorization takes with 1 to 10,000 policies.
    Policies(policies::Settings),
    /// Memory of an agent, and how long one change takes to reach agents, among many workloads.
    Workloads(Settings),
    /// How long one change takes from a Kubernetes API server to every node, and what control costs.
    Kubernetes(kubernetes::Settings),
    /// The API server of that, for this program itself.
    #[command(hide = true)]
    ApiServer,
}

/// What a run may change.
#[derive(Clone, Debug, Args)]
struct Settings {
    /// Workloads beside the few that carry traffic; each number is measured in a mesh of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [100_000], value_name = "N")]
    workloads: Vec<u32>,
    /// Kubernetes namespaces that they are spread over.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    namespaces: u32,
    /// Pods in one file.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pods_in_a_file: u32,
    /// Changes that are measured; the endpoint goes at one and comes at the next.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    changes: u32,
    /// Where to draw the figures over the number of workloads, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// This is the inner process, which measures the first number.
    #[arg(long, hide = true)]
    inside_sandbox: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().suite {
        Suite::Policies(settings) => policies::run(&settings, &mut stdout()),
        Suite::Workloads(settings) if settings.inside_sandbox => inside(&settings),
        Suite::Workloads(settings) => outside(&settings),
        Suite::Kubernetes(settings) => run_kubernetes(&settings),
        Suite::ApiServer => kubernetes::serve_api(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// It needs no sandbox: everything is on loopback.
fn run_kubernetes(settings: &kubernetes::Settings) -> Result<()> {
    let table = kubernetes::run(settings).inspect_err(|_| eprintln!("{}", log::tails(LOG_TAIL)))?;
    write!(stdout(), "{table}").context("the figures cannot be written")
}

/// Starts an inner process for each size, and writes what they measured.
fn outside(settings: &Settings) -> Result<()> {
    sandbox::die_with_parent()?;
    let mut rows = Vec::new();
    for workloads in &settings.workloads {
        let Settings { namespaces, pods_in_a_file, changes, .. } = settings;
        let arguments = [
            "workloads".to_owned(),
            "--inside-sandbox".to_owned(),
            format!("--workloads={workloads}"),
            format!("--namespaces={namespaces}"),
            format!("--pods-in-a-file={pods_in_a_file}"),
            format!("--changes={changes}"),
        ];
        let what = format!("the run with {workloads} workloads");
        let row: change::Row = sandbox::outcome_of(&what, arguments)?;
        writeln!(stdout(), "{}", row.table()).context("the figures cannot be written")?;
        rows.push(row);
    }
    if let Some(file) = &settings.plot {
        plot::draw(&change::panels(&rows), file)?;
    }
    Ok(())
}

fn inside(settings: &Settings) -> Result<()> {
    sandbox::furnish()?;
    let workloads = *settings.workloads.first().context("no number of workloads")?;
    let row = change::run(settings, workloads).inspect_err(|_| eprintln!("{}", log::tails(LOG_TAIL)))?;
    serde_json::to_writer(stdout(), &row).context("the figures cannot be written")
}

/// Lines of each program's log that the report of a failure shows.
const LOG_TAIL: usize = 12;
