//! What grows with the size of the mesh: the evaluation of policies, a change among many workloads, and
//! one in a Kubernetes cluster.
//!
//! This file owns the command line. The mesh runs in a sandbox, where this program calls itself;
//! figures come out on standard output, everything else on standard error.

#![forbid(unsafe_code)]

mod change;
mod crowd;
mod kubernetes;
mod policies;
mod probe;
mod process;

use std::env;
use std::io::{Write, stdout};
use std::process::{ExitCode, Stdio};

use ambit_tests::{log, sandbox};
use anyhow::{Context, Result, ensure};
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
    Policies,
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
    /// Workloads beside the few that carry traffic.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    workloads: u32,
    /// Kubernetes namespaces that they are spread over.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    namespaces: u32,
    /// Pods in one file.
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pods_in_a_file: u32,
    /// Changes that are measured; the endpoint goes at one and comes at the next.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    changes: u32,
    /// This is the inner process.
    #[arg(long, hide = true)]
    inside_sandbox: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().suite {
        Suite::Policies => policies::run(&mut stdout()),
        Suite::Workloads(settings) if settings.inside_sandbox => inside(&settings),
        Suite::Workloads(_) => outside(),
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

/// Starts the inner process.
fn outside() -> Result<()> {
    sandbox::die_with_parent()?;
    let arguments = env::args_os().skip(1).chain(["--inside-sandbox".into()]);
    let status = sandbox::command(arguments)?
        .stdin(Stdio::null())
        .status()
        .context("the sandbox cannot be started")?;
    ensure!(status.success(), "the run failed: {status}");
    Ok(())
}

fn inside(settings: &Settings) -> Result<()> {
    sandbox::furnish()?;
    let table = change::run(settings).inspect_err(|_| eprintln!("{}", log::tails(LOG_TAIL)))?;
    write!(stdout(), "{table}").context("the figures cannot be written")
}

/// Lines of each program's log that the report of a failure shows.
const LOG_TAIL: usize = 12;
