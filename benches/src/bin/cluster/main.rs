//! How long failures last when something changes in a cluster with Ambit: operations under load.
//!
//! This file owns the command line. `run` is the controller, which needs nothing but the API server;
//! `serve` and `load` are what it starts in pods.

#![forbid(unsafe_code)]

mod clock;
mod collect;
mod mesh;
mod outcome;
mod pod;
mod reach;
mod report;
mod run;
mod scenario;
mod stage;
mod waypoint;
mod window;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Operations on a cluster under load. Run it by `scripts/bench cluster`.
#[derive(Debug, Parser)]
#[command(name = "cluster", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Carries out operations on a cluster and measures what fails meanwhile.
    Run(Box<run::Settings>),
    /// A server in a pod.
    Serve(pod::serve::Settings),
    /// The load in a pod.
    Load(pod::load::Settings),
}

fn main() -> ExitCode {
    match start(Cli::parse().part) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(part: Part) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match part {
            Part::Run(settings) => run::run(*settings).await,
            Part::Serve(settings) => pod::serve::run(&settings).await,
            Part::Load(settings) => pod::load::run(&settings).await,
        }
    })
}
