//! Command line of Ambit; see `--help`.

use std::error::Error;
use std::process::ExitCode;

use ambit::args::{Cli, Command, ExplainCommand, PolicyCommand};
use ambit::{check, explain, install, lint, manifests, policy_test, status, uninstall, version};
use clap::{CommandFactory, Parser};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ambit: {}", with_causes(&*error));
            match cli.command.answers_by_exit_status() {
                true => ExitCode::from(NOT_ASKED),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Exit status, where 1 is an answer, of what could not be asked: as of arguments that are wrong.
const NOT_ASKED: u8 = 2;

fn run(cli: &Cli) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let access = cli.cluster.access();
    match &cli.command {
        Command::Install(args) => runtime.block_on(install::run(&access, args))?,
        Command::Uninstall(args) => runtime.block_on(uninstall::run(&access, args))?,
        Command::Check(args) => return Ok(runtime.block_on(check::run(&access, args))?),
        Command::Status(args) => runtime.block_on(status::run(&access, args))?,
        Command::Version(args) => runtime.block_on(version::run(&access, args))?,
        Command::Explain(args) => {
            let ExplainCommand::Request(args) = &args.what;
            return Ok(runtime.block_on(explain::run(&access, args))?);
        }
        Command::Lint(args) => return Ok(lint::run(args)?),
        Command::Policy(args) => {
            let PolicyCommand::Test(args) = &args.what;
            return Ok(policy_test::run(args)?);
        }
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
