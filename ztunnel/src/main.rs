//! Command line of the node agent; see `--help`.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use ambit_runtime::telemetry::{logging, metrics};
use clap::Parser;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use ztunnel::agent;
use ztunnel::config::{Cli, Command, RunConfig};
use ztunnel::oneshot::{capture, uninstall};

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(config) => run(*config),
        Command::Capture(config) => capture(&config).map_err(Into::into),
        Command::Uninstall(config) => uninstall(&config).map_err(Into::into),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ztunnel: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

/// An error and what led to it, on one line.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}

fn run(config: RunConfig) -> Result<(), Box<dyn Error>> {
    let logging = logging::install(config.common.log_format, config.common.log_level.clone())?;
    let metrics = metrics::install("ztunnel", metrics::Settings::default())?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let outcome = LocalSet::new().block_on(&runtime, agent::run(config, &logging, &metrics));
    logging.flush(LAST_LINES);
    Ok(outcome?)
}

/// How long the last log lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
