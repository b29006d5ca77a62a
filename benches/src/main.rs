//! Whole-path benchmarks: the same work over plain TCP, over two plain relays, over Envoy speaking
//! HBONE, and over Ambit, round by round in one run.
//!
//! This file owns the command line. The measuring happens in a sandbox, where this program calls
//! itself; the figures come out on its standard output, everything else on standard error.

#![forbid(unsafe_code)]

mod cases;
mod figures;
mod l4;
mod lane;
mod load;
mod machine;
mod proxies;
mod table;
mod usage;

use std::env;
use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use ambit_tests::{log, sandbox};
use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::cases::Case;
use crate::figures::Figure;
use crate::lane::Path;

/// Benchmarks of Ambit. Run them by scripts/bench, which builds and installs what they need.
#[derive(Debug, Parser)]
#[command(name = "bench", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Debug, Subcommand)]
enum Suite {
    /// The layer-4 path: two pods on two nodes.
    L4(Settings),
}

/// What a run may change.
#[derive(Debug, Args)]
struct Settings {
    /// Write the figures to this file, as a JSON array of objects.
    #[arg(long, env = "AMBIT_BENCH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// Rounds that count; one more before them warms up. Each round takes every case on every path.
    #[arg(long, env = "AMBIT_BENCH_ROUNDS", default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=15))]
    rounds: u32,
    /// Seconds that one measurement of a timed case takes.
    #[arg(long, env = "AMBIT_BENCH_SECONDS", default_value_t = 2, value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Worker threads of every proxy at each end.
    #[arg(long, env = "AMBIT_BENCH_WORKERS", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Measure this case alone. May be repeated.
    #[arg(long, value_name = "CASE", value_enum)]
    only: Vec<Case>,
    /// Measure over this path alone. May be repeated.
    #[arg(long, value_name = "PATH", value_enum)]
    path: Vec<Path>,
    /// Idle connections that are open when memory is measured.
    #[arg(long, env = "AMBIT_BENCH_IDLE_CONNECTIONS", default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3000))]
    idle_connections: u32,
    /// Seconds that they have been idle by then.
    #[arg(long, env = "AMBIT_BENCH_IDLE_SECONDS", default_value_t = 30, value_name = "S")]
    idle_seconds: u32,
    /// This is the inner process.
    #[arg(long, hide = true)]
    inside_sandbox: bool,
}

impl Settings {
    fn wants(&self, case: Case) -> bool {
        self.only.is_empty() || self.only.contains(&case)
    }

    fn wants_path(&self, path: Path) -> bool {
        self.path.is_empty() || self.path.contains(&path)
    }
}

fn main() -> ExitCode {
    let Suite::L4(settings) = Cli::parse().suite;
    let outcome = if settings.inside_sandbox { inside(&settings) } else { outside(&settings) };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the inner process, and shows and writes what it found.
fn outside(settings: &Settings) -> Result<()> {
    if let Some(directory) = settings.json.as_ref().and_then(|file| file.parent()) {
        let exists = directory.as_os_str().is_empty() || directory.is_dir();
        ensure!(exists, "--json: there is no directory {}", directory.display());
    }
    sandbox::die_with_parent()?;
    let arguments = env::args_os().skip(1).chain(["--inside-sandbox".into()]);
    let output = sandbox::command(arguments)?
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("the sandbox cannot be started")?;
    ensure!(output.status.success(), "the run failed: {}", output.status);
    let figures: Vec<Figure> =
        serde_json::from_slice(&output.stdout).context("the inner process's figures")?;
    write!(stdout(), "{}", table::render(&figures))?;
    if let Some(file) = &settings.json {
        let text = serde_json::to_string_pretty(&figures)? + "\n";
        fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn inside(settings: &Settings) -> Result<()> {
    sandbox::furnish()?;
    let figures = l4::run(settings).inspect_err(|_| show_logs())?;
    serde_json::to_writer(stdout(), &figures).context("the figures cannot be handed out")
}

/// Lines of each program's log that the report of a failure shows.
const LOG_TAIL: usize = 8;

/// The ends of all logs, those in files too: they go with the sandbox.
fn show_logs() {
    eprintln!("{}", log::tails(LOG_TAIL));
    let files = fs::read_dir(sandbox::WORK).into_iter().flatten().filter_map(Result::ok);
    for file in files.map(|entry| entry.path()).filter(|path| path.extension() == Some("log".as_ref())) {
        let text = fs::read_to_string(&file).unwrap_or_else(|error| error.to_string());
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
        eprintln!("--- {}\n{}", file.display(), tail.join("\n"));
    }
}
