//! The demo: a mesh on this machine, shown and checked step by step.

mod narrator;
mod steps;

use std::env;
use std::io;
use std::process::ExitCode;
use std::thread;

use ambit_tests::log;
use ambit_tests::sandbox::{self, Sandbox};
use anyhow::{Context, Result};
use clap::Parser;

use crate::narrator::Narrator;

/// Set for the process that runs inside the sandbox.
const INSIDE: &str = "AMBIT_DEMO_INSIDE_SANDBOX";

/// Lines of each log that are shown when a step does not hold.
const TAIL: usize = 40;

/// Shows Ambit at work: two nodes, real applications, every step checked.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Arguments {
    /// Leave the mesh running until Ctrl-C, and say what to try.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = if env::var_os(INSIDE).is_some() { inside(&arguments) } else { outside() };
    result.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

/// Runs the same again inside a sandbox, which ends with this process.
fn outside() -> Result<ExitCode> {
    let mut command = sandbox::command(env::args_os().skip(1))?;
    let status = command.env(INSIDE, "1").status().context("the sandbox cannot be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inside(arguments: &Arguments) -> Result<ExitCode> {
    let sandbox = sandbox::furnish()?;
    let mut narrator = Narrator::new(io::stdout());
    match show(&mut narrator, sandbox, arguments.keep) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("\n{}\nthis step does not hold: {error:#}", log::tails(TAIL));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn show(narrator: &mut Narrator, sandbox: Sandbox, keep: bool) -> Result<()> {
    let demo = steps::run(narrator)?;
    if keep {
        steps::say_what_to_try(narrator, &demo, sandbox)?;
        loop {
            thread::park();
        }
    }
    narrator.say("every step held; nothing of this is left on the machine")
}
