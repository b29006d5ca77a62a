//! The control service.

#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{self, Write};
use std::iter::successors;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ambit_runtime::telemetry::{logging, metrics};
use clap::Parser;
use control::check::{self, Outcome};
use control::config::{Flags, Mode};
use control::kube::crds;
use control::run::{Served, Telemetry, run};

/// How long the last log lines may take.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let flags = Flags::parse();
    run_as(&flags).unwrap_or_else(|error| {
        let causes = successors(Some(error.as_ref() as &dyn Error), |&error| error.source());
        let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
        // Standard error is the last place to complain to.
        let _ = writeln!(io::stderr(), "control: {text}");
        ExitCode::FAILURE
    })
}

fn run_as(flags: &Flags) -> Result<ExitCode, Box<dyn Error>> {
    match flags.mode()? {
        Mode::Crds => print_crds(),
        Mode::Check { config } => check_only(flags, &config),
        Mode::Directory(mode) => serve(flags, Served::Directory(mode)),
        Mode::Kubernetes(mode) => serve(flags, Served::Kubernetes(mode)),
    }
}

fn print_crds() -> Result<ExitCode, Box<dyn Error>> {
    io::stdout().lock().write_all(crds::yaml()?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn check_only(flags: &Flags, config: &Path) -> Result<ExitCode, Box<dyn Error>> {
    Ok(match check::check(config, &flags.settings(), &mut io::stdout().lock())? {
        Outcome::Clean => ExitCode::SUCCESS,
        Outcome::Broken => ExitCode::FAILURE,
    })
}

fn serve(flags: &Flags, served: Served) -> Result<ExitCode, Box<dyn Error>> {
    let logging = logging::install(flags.common.log_format, flags.common.log_level.clone())?;
    let metrics = metrics::install("control", metrics::Settings::default())?;
    control::telemetry::describe();
    let telemetry = Telemetry { logging, metrics };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(run(flags, served, &telemetry));
    telemetry.logging.flush(FLUSH_TIMEOUT);
    ended?;
    Ok(ExitCode::SUCCESS)
}
