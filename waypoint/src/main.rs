//! Command line of the waypoint; see `--help`.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use ambit_runtime::telemetry::{logging, metrics};
use clap::Parser;
use tokio::runtime::Builder;
use waypoint::agent;
use waypoint::config::{Cli, Command, RunConfig};

fn main() -> ExitCode {
    let Command::Run(config) = Cli::parse().command;
    match run(*config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("waypoint: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(config: RunConfig) -> Result<(), Box<dyn Error>> {
    let logging = logging::install(config.common.log_format, config.common.log_level.clone())?;
    let metrics = metrics::install("waypoint", metrics::Settings::default())?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(agent::run(config, &logging, &metrics));
    logging.flush(LAST_LINES);
    Ok(outcome?)
}

/// How long the last log lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
