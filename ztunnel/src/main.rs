//! Command line of the node agent; see `--help`.

use std::env;
use std::error::Error;
use std::ffi::OsStr;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ambit_runtime::telemetry::{logging, metrics};
use clap::Parser;
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use ztunnel::agent;
use ztunnel::cni;
use ztunnel::cni::install::{self, Installation, install};
use ztunnel::config::{Cli, CniArguments, CniCommand, Command, RunConfig, UninstallConfig};
use ztunnel::oneshot::{capture, uninstall};

fn main() -> ExitCode {
    let mut arguments = env::args_os();
    let program = arguments.next().unwrap_or_default();
    // A container runtime calls the plugin without arguments, and by the name it was installed under.
    let is_plugin = Path::new(&program).file_name() == Some(OsStr::new(cni::PROGRAM))
        || env::var_os("CNI_COMMAND").is_some();
    if is_plugin && arguments.next().is_none() {
        return cni::plugin::main();
    }
    let outcome = match Cli::parse().command {
        Command::Cni(CniArguments { command: None }) => return cni::plugin::main(),
        Command::Cni(CniArguments { command: Some(command) }) => change_chain(&command),
        Command::Run(config) => run(*config),
        Command::Capture(config) => capture(&config).map_err(Into::into),
        Command::Uninstall(config) => uninstall_all(&config),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ztunnel: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn change_chain(command: &CniCommand) -> Result<(), Box<dyn Error>> {
    match command {
        CniCommand::Install(config) => {
            let installation =
                Installation::new(&config.directories, &config.plugin, config.state_dir.clone());
            let file = install(&installation)?;
            eprintln!("ztunnel: the CNI plugin is named in {}", installation.conf_dir.join(file).display());
        }
        CniCommand::Uninstall(directories) => {
            install::uninstall(&directories.cni_conf_dir, &directories.cni_bin_dir)?;
        }
    }
    Ok(())
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

fn uninstall_all(config: &UninstallConfig) -> Result<(), Box<dyn Error>> {
    let mut count = 0;
    let outcome = uninstall(config, |namespace| {
        count += 1;
        report(&format!("removed the redirection from {}", namespace.display()));
    });
    report(&format!("redirections removed: {count}"));
    Ok(outcome?)
}

/// What a person asked for. Who does not read it does not keep the work from being done.
fn report(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// How long the last log lines may take to be written.
const LAST_LINES: Duration = Duration::from_secs(2);
