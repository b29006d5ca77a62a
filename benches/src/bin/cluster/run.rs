//! One run: the stage is set, scenarios follow each other, and the stage is taken away, also after an
//! interruption.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Write, stdout};
use std::path::PathBuf;

use ambit_kube::{Access, connect};
use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use crate::mesh::Mesh;
use crate::report::{self, Report};
use crate::scenario::{self, Scenario};
use crate::stage::{Size, Stage};

/// What a run may change.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Which scenarios; without one all that can be run.
    #[arg(value_enum, value_name = "SCENARIO")]
    scenarios: Vec<Scenario>,
    /// The kubeconfig file; without it that of KUBECONFIG, ~/.kube/config or the pod.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// One of its contexts; without it the current one.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Writes the JSON to this file too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The image that holds this program; its entry point.
    #[arg(long, default_value = "ambit.dev/cluster:0.1.0", value_name = "IMAGE")]
    pub(crate) image: String,
    /// Leaves the mesh out: what the cluster itself loses. Scenarios of the mesh are left out.
    #[arg(long)]
    pub(crate) baseline: bool,
    /// Where Ambit is installed.
    #[arg(long, default_value = "ambit-system", value_name = "NAMESPACE")]
    mesh_namespace: String,
    #[command(flatten)]
    pub(crate) size: Size,
    /// Takes a node away; run by `sh -c` with its name in AMBIT_BENCH_NODE. Without it the scenario `node`
    /// is left out, since no API can do that.
    #[arg(long, value_name = "COMMAND", requires = "restore_node_command")]
    pub(crate) kill_node_command: Option<String>,
    /// Brings it back.
    #[arg(long, value_name = "COMMAND", requires = "kill_node_command")]
    pub(crate) restore_node_command: Option<String>,
    /// Which node; without it the last by name that has servers, while another one has clients.
    #[arg(long, value_name = "NODE")]
    pub(crate) kill_node: Option<String>,
    /// Leaves the run's namespaces behind.
    #[arg(long)]
    keep: bool,
}

/// Runs the scenarios and prints what was measured.
///
/// # Errors
/// When the cluster cannot be reached or the stage cannot be set; when a scenario cannot be carried out.
/// What was measured before is printed all the same.
pub(crate) async fn run(settings: Settings) -> Result<()> {
    let access = Access::Kubeconfig { file: settings.kubeconfig.clone(), context: settings.context.clone() };
    let client = connect(&access).await.context("no way to the cluster")?;
    let mesh =
        if settings.baseline { None } else { Some(Mesh::find(&client, &settings.mesh_namespace).await?) };
    let scenarios = chosen(&settings)?;
    let mut stage = Stage::new(client, &settings);
    let mut reports = Vec::new();
    let measured = tokio::select! {
        measured = measure(&mut stage, mesh.as_ref(), &settings, &scenarios, &mut reports) => measured,
        interrupted = interruption() => interrupted,
    };
    if settings.keep {
        eprintln!("cluster: left behind: {}", stage.namespaces().join(", "));
    } else {
        stage.remove().await?;
    }
    print(&reports, settings.json.as_deref())?;
    measured
}

async fn measure(
    stage: &mut Stage,
    mesh: Option<&Mesh>,
    settings: &Settings,
    scenarios: &BTreeSet<Scenario>,
    reports: &mut Vec<Report>,
) -> Result<()> {
    stage.set(mesh.is_some()).await?;
    for scenario in scenarios {
        eprintln!("cluster: {}", scenario.name());
        let made = scenario::run(*scenario, stage, mesh, settings).await;
        for report in made.with_context(|| format!("the scenario {}", scenario.name()))? {
            eprintln!("cluster: {}", report::line(&report));
            reports.push(report);
        }
    }
    Ok(())
}

/// In the order in which they build on each other.
fn chosen(settings: &Settings) -> Result<BTreeSet<Scenario>> {
    let can_kill_node = settings.kill_node_command.is_some();
    let is_possible = |scenario: &Scenario| {
        (!scenario.needs_mesh() || !settings.baseline) && (*scenario != Scenario::Node || can_kill_node)
    };
    if settings.scenarios.is_empty() {
        return Ok(Scenario::value_variants().iter().copied().filter(is_possible).collect());
    }
    for scenario in &settings.scenarios {
        ensure!(
            is_possible(scenario),
            "the scenario {} needs {}",
            scenario.name(),
            if *scenario == Scenario::Node {
                "--kill-node-command"
            } else {
                "the mesh: leave --baseline out"
            }
        );
    }
    Ok(settings.scenarios.iter().copied().collect())
}

/// Waits for Ctrl-C or SIGTERM.
async fn interruption() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.context("SIGINT cannot be waited for")?,
        _ = terminate.recv() => {}
    }
    anyhow::bail!("interrupted")
}

fn print(reports: &[Report], file: Option<&std::path::Path>) -> Result<()> {
    let text = serde_json::to_string_pretty(reports).context("the figures cannot be written as JSON")? + "\n";
    if let Some(file) = file {
        fs::write(file, &text).with_context(|| format!("{} cannot be written", file.display()))?;
    }
    stdout().write_all(text.as_bytes()).context("the figures cannot be written")
}
