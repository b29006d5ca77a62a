//! Whole-path benchmarks: the same work over plain TCP, over two relays, over Envoy and, where the
//! reader has it, Istio's ztunnel speaking HBONE, and over Ambit, round by round in one run.
//!
//! This file owns the command line. The measuring happens in a sandbox, where this program calls
//! itself; the figures come out on its standard output, everything else on standard error.

#![forbid(unsafe_code)]

mod cases;
mod figures;
mod l4;
mod l7;
mod lane;
mod load;
mod machine;
mod pin;
mod plots;
mod proxies;
mod report;
mod statistics;
mod table;
mod targets;
mod usage;

use std::env;
use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use ambit_tests::{log, sandbox};
use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand};

use crate::cases::Case;
use crate::l4::{Part, Taken};
use crate::lane::{CLIENT_NODE, Path, SERVER_NODE};
use crate::load::hold::{self, Hold};
use crate::pin::Pin;
use crate::proxies::istio;
use crate::report::Report;

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
    L4(Box<Settings>),
    /// The layer-7 path: a Service behind a waypoint.
    L7(Box<l7::Settings>),
    /// One end of idle connections; a run starts these itself.
    #[command(hide = true)]
    Hold(Hold),
}

/// What a run may change.
#[derive(Debug, Args)]
struct Settings {
    /// Write machine, settings, figures and targets to this file, as a JSON object.
    #[arg(long, env = "AMBIT_BENCH_JSON", value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the figures as SVG files into this directory.
    #[arg(long, env = "AMBIT_BENCH_PLOTS", value_name = "DIR")]
    plots: Option<PathBuf>,
    /// Rounds that count; one more before them warms up. Each round takes every case on every path.
    #[arg(long, env = "AMBIT_BENCH_ROUNDS", default_value_t = 10, default_value_if("quick", "true", "3"), value_name = "N", value_parser = clap::value_parser!(u32).range(1..=15))]
    rounds: u32,
    /// Seconds that one measurement of a timed case takes.
    #[arg(long, env = "AMBIT_BENCH_SECONDS", default_value_t = 2, default_value_if("quick", "true", "1"), value_name = "S", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Worker threads of every proxy at each end.
    #[arg(long, env = "AMBIT_BENCH_WORKERS", default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Where programs run: with `nodes` everything of the client's node on one processor and everything
    /// of the server's node on another, where there are two; with `none` where the kernel likes.
    #[arg(long, env = "AMBIT_BENCH_PIN", default_value = "nodes", value_name = "HOW", value_enum)]
    pin: Pin,
    /// Have the pods of each path on one node, whose agent carries both ends, instead of on two. Programs run where the
    /// kernel likes.
    #[arg(long, conflicts_with = "pin")]
    same_node: bool,
    /// Measure this case alone. May be repeated; --list names them.
    #[arg(long, value_name = "CASE")]
    only: Vec<Case>,
    /// Measure every case there is: the whole matrix of streams, destinations and directions, changes
    /// of the configuration, delay and loss. Takes over an hour.
    #[arg(long, conflicts_with_all = ["only", "quick"])]
    all: bool,
    /// Measure what shows in few minutes how the paths compare: few cases, three rounds of a second
    /// unless told otherwise. Too few for a verdict on a target.
    #[arg(long, conflicts_with = "only")]
    quick: bool,
    /// Name the cases and end.
    #[arg(long)]
    list: bool,
    /// Measure over this path alone. May be repeated.
    #[arg(long, value_name = "PATH", value_enum)]
    path: Vec<Path>,
    /// Measure over Istio's ztunnel, too, as the path `istio`: this program, which is not installed for
    /// you.
    #[arg(long, env = "AMBIT_BENCH_ISTIO_ZTUNNEL", value_name = "PROGRAM")]
    istio_ztunnel: Option<PathBuf>,
    /// Idle connections that are open when memory is measured. A relay has two files for each and is
    /// measured with 9,000 at most.
    #[arg(long, env = "AMBIT_BENCH_IDLE_CONNECTIONS", default_value_t = 10_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=15_000))]
    idle_connections: u32,
    /// Seconds that they have been idle by then.
    #[arg(long, env = "AMBIT_BENCH_IDLE_SECONDS", default_value_t = 30, value_name = "S")]
    idle_seconds: u32,
    /// This is the inner process of a part of the run.
    #[arg(long, hide = true, value_name = "PART", value_enum)]
    inside_sandbox: Option<Part>,
}

impl Settings {
    /// The cases to take, in the order of their list.
    fn cases(&self) -> Vec<Case> {
        let wanted = |case: &Case| {
            if self.quick {
                Case::QUICK.contains(case)
            } else if self.only.is_empty() {
                self.all || Case::USUAL.contains(case)
            } else {
                self.only.contains(case)
            }
        };
        Case::all().into_iter().filter(wanted).collect()
    }

    /// Where programs run.
    fn pin(&self) -> Pin {
        if self.same_node { Pin::None } else { self.pin }
    }

    /// The node of the servers.
    fn server_node(&self) -> &'static str {
        if self.same_node { CLIENT_NODE } else { SERVER_NODE }
    }

    /// Whether a path is there and is to be measured. That of Istio's ztunnel is there with its program.
    fn wants_path(&self, path: Path) -> bool {
        let exists = path != Path::Istio || self.istio_ztunnel.is_some();
        exists && (self.path.is_empty() || self.path.contains(&path))
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().suite {
        Suite::L4(settings) => match settings.inside_sandbox {
            Some(part) => inside(&settings, part),
            None => outside(&settings),
        },
        Suite::L7(settings) => l7::run(&settings),
        Suite::Hold(hold) => hold::run(&hold),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts an inner process for each part, and shows and writes what they found.
fn outside(settings: &Settings) -> Result<()> {
    if settings.list {
        let names: String = Case::all().iter().map(|case| format!("{case}\n")).collect();
        return Ok(stdout().write_all(names.as_bytes())?);
    }
    if let Some(directory) = settings.json.as_ref().and_then(|file| file.parent()) {
        let exists = directory.as_os_str().is_empty() || directory.is_dir();
        ensure!(exists, "--json: there is no directory {}", directory.display());
    }
    ensure!(
        settings.istio_ztunnel.is_some() || !settings.path.contains(&Path::Istio),
        "--path istio: there is no such path without --istio-ztunnel PROGRAM"
    );
    if let Some(program) = &settings.istio_ztunnel {
        istio::Program::open(program)?;
    }
    let parts = || Part::ALL.into_iter().filter(|part| part.has_any_of(&settings.cases()));
    ensure!(
        !settings.same_node || parts().eq([Part::Rounds]),
        "--same-node: memory and delay are measured between two nodes alone; name cases with --only"
    );
    sandbox::die_with_parent()?;
    let mut taken: Option<Taken> = None;
    for part in parts() {
        let more = run_inside(part)?;
        match &mut taken {
            Some(taken) => taken.extend(more),
            None => taken = Some(more),
        }
    }
    let report = Report::new(settings, taken.context("no case was asked for")?);
    write!(stdout(), "{}", report.tables())?;
    if let Some(directory) = &settings.plots {
        plots::draw(&report.figures, directory)?;
    }
    if let Some(file) = &settings.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

fn run_inside(part: Part) -> Result<Taken> {
    let arguments = env::args_os().skip(1).chain(["--inside-sandbox".into(), part.name().into()]);
    sandbox::outcome_of("the run", arguments)
}

fn inside(settings: &Settings, part: Part) -> Result<()> {
    let ztunnel = settings.istio_ztunnel.as_deref().filter(|_| settings.wants_path(Path::Istio));
    let ztunnel = ztunnel.map(istio::Program::open).transpose()?;
    sandbox::furnish()?;
    ztunnel.map(istio::Program::bring_inside).transpose()?;
    let taken = l4::run(settings, part).inspect_err(|_| show_logs())?;
    serde_json::to_writer(stdout(), &taken).context("the readings cannot be handed out")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(arguments: &[&str]) -> Vec<&'static str> {
        let line = ["bench", "l4"].iter().chain(arguments);
        let Suite::L4(settings) = Cli::try_parse_from(line).unwrap().suite else {
            panic!("l4 was asked for")
        };
        Path::ALL.into_iter().filter(|path| settings.wants_path(*path)).map(Path::name).collect()
    }

    #[test]
    fn the_path_of_istios_ztunnel_is_there_with_its_program_alone() {
        let program = ["--istio-ztunnel", "/ztunnel"];
        assert_eq!(wanted(&[]), ["plain", "relay", "relay-tls", "envoy", "ambit"]);
        assert_eq!(wanted(&program), ["plain", "relay", "relay-tls", "envoy", "istio", "ambit"]);
        assert_eq!(wanted(&[program[0], program[1], "--path", "ambit"]), ["ambit"]);
        assert!(wanted(&["--path", "istio"]).is_empty());
    }
}
