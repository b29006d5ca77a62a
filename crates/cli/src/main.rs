//! Command line of Ambit; see `--help`.

use std::error::Error;
use std::process::ExitCode;

use ambit::args::{Cli, Command};
use ambit::{check, install, manifests, status, uninstall, version};
use clap::{CommandFactory, Parser};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ambit: {}", with_causes(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let access = cli.cluster.access();
    match &cli.command {
        Command::Install(args) => runtime.block_on(install::run(&access, args))?,
        Command::Uninstall(args) => runtime.block_on(uninstall::run(&access, args))?,
        Command::Check(args) => return Ok(runtime.block_on(check::run(&access, args))?),
        Command::Status(args) => runtime.block_on(status::run(&access, args))?,
        Command::Version(args) => runtime.block_on(version::run(&access, args))?,
        Command::Manifests(args) => manifests::write(&args.form)?,
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "ambit", &mut std::io::stdout());
        }
    }
    Ok(ExitCode::SUCCESS)
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
