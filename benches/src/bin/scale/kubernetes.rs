//! One change in a Kubernetes cluster: from the API server to what every node has received.
//!
//! The API server is our double, in a process of its own; the nodes are xDS clients in this one, each with
//! its own connection and token. An endpoint changes as in a real cluster: its pod's condition is written,
//! and then its slice. Only control's processor time and memory are counted.

mod api_server;
mod cluster;
mod followers;

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use ambit_tests::cluster::control::Control;
use anyhow::{Context, Result};
use clap::Args;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

pub(crate) use api_server::serve as serve_api;

use crate::plot::{self, Panel};
use crate::process::{Memory, cpu_seconds, memory};
use api_server::ApiProcess;
use cluster::Cluster;
use followers::{Awaited, Followers};

/// What a run may change.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// Pods of the cluster; a table row for each.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 3_000, 10_000], value_name = "N")]
    pods: Vec<usize>,
    /// Nodes, each with an xDS client.
    #[arg(long, default_value_t = 50, value_name = "N")]
    nodes: usize,
    /// Pods of a service.
    #[arg(long, default_value_t = 5, value_name = "N")]
    pods_of_a_service: usize,
    /// Single changes, one after the other.
    #[arg(long, default_value_t = 100, value_name = "N")]
    changes: usize,
    /// Changes in a second, for the run under load.
    #[arg(long, default_value_t = 100, value_name = "N")]
    rate: u32,
    /// Seconds of that run.
    #[arg(long, default_value_t = 20, value_name = "N")]
    seconds: u32,
    /// Where to draw the figures over the number of pods, as SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

/// What one size costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Row {
    pods: usize,
    services: usize,
    /// Control, from its start.
    ready: Duration,
    /// All nodes, from their start.
    synced: Duration,
    single: Latency,
    /// Processor time of one single change, in seconds.
    cpu_of_change: f64,
    loaded: Latency,
    /// Processors in use under load.
    cores: f64,
    memory: Memory,
}

#[derive(Clone, Copy, Debug)]
struct Latency {
    median: Duration,
    p99: Duration,
    worst: Duration,
}

/// Measures, and writes a table.
///
/// # Errors
/// When a part does not start, or a change does not arrive.
pub(crate) fn run(settings: &Settings) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    for pods in &settings.pods {
        rows.push(runtime.block_on(measure(settings, *pods))?);
    }
    if let Some(file) = &settings.plot {
        plot::draw(&panels(&rows), file)?;
    }
    Ok(table(&rows, settings))
}

fn panels(rows: &[Row]) -> Vec<Panel> {
    let panel = |title, goal, value: fn(&Row) -> f64| Panel {
        title,
        size: "pods",
        goal: Some(goal),
        lines: vec![("", rows.iter().map(|row| (row.pods as f64, value(row))).collect())],
        logarithmic: false,
    };
    vec![
        panel("a change at all nodes, p99 under load (ms)", 500.0, |row| row.loaded.p99.as_secs_f64() * 1e3),
        panel("control's memory at most (MB)", 300.0, |row| row.memory.peak),
        panel("control's processors under load", 1.0, |row| row.cores),
    ]
}

async fn measure(settings: &Settings, pods: usize) -> Result<Row> {
    let api = ApiProcess::start()?;
    let cluster = Cluster::make(api.url(), settings.nodes, pods, settings.pods_of_a_service).await?;
    eprintln!("{pods} pods and {} services are written", cluster.services());
    let control = cluster.control()?;
    let ready = control.ready(PATIENCE).await?;
    let start = Instant::now();
    let followers = Followers::start(&cluster, &control).await?;
    followers.synced(PATIENCE).await?;
    let synced = start.elapsed();
    eprintln!("control is ready after {ready:.1?}, and all nodes know everything {synced:.1?} later");
    let pid = control.process().pid();
    settle(pid).await?;

    let before = cpu_seconds(pid)?;
    let mut single = Vec::new();
    for number in 0..settings.changes {
        single.push(one_change(&cluster, &followers, number % pods, false).await?);
    }
    let cpu_of_change = (cpu_seconds(pid)? - before) / settings.changes as f64;
    let (loaded, cores) = under_load(settings, &cluster, &followers, &control).await?;
    let memory = memory(pid)?;
    Ok(Row {
        pods,
        services: cluster.services(),
        ready,
        synced,
        single: Latency::of(single)?,
        cpu_of_change,
        loaded: Latency::of(loaded)?,
        cores,
        memory,
    })
}

/// How long until every node knows, from when the API server is told.
async fn one_change(cluster: &Cluster, followers: &Followers, pod: usize, ready: bool) -> Result<Duration> {
    let awaited: Awaited = followers.expect(cluster.workload(pod), ready);
    cluster.set_ready(pod, ready).await?;
    awaited.everywhere(PATIENCE).await.with_context(|| format!("the change of pod {pod}"))
}

/// Latencies and processors in use at the settings' rate. A change is begun when its time has come,
/// whatever became of those before.
async fn under_load(
    settings: &Settings,
    cluster: &Cluster,
    followers: &Followers,
    control: &Control,
) -> Result<(Vec<Duration>, f64)> {
    let pid = control.process().pid();
    let total = (settings.rate * settings.seconds) as usize;
    let mut ticks = interval(Duration::from_secs(1) / settings.rate);
    let (before, start) = (cpu_seconds(pid)?, Instant::now());
    let mut changes = JoinSet::new();
    for number in 0..total {
        ticks.tick().await;
        // Those of the first part are not ready already.
        let index = settings.changes + number;
        let (pod, ready) = (index % cluster.pods(), (index / cluster.pods()) % 2 == 1);
        let (cluster, followers) = (cluster.clone(), followers.clone());
        changes.spawn(async move { one_change(&cluster, &followers, pod, ready).await });
    }
    let latencies: Vec<Duration> = changes.join_all().await.into_iter().collect::<Result<_>>()?;
    let cores = (cpu_seconds(pid)? - before) / start.elapsed().as_secs_f64();
    Ok((latencies, cores))
}

const PATIENCE: Duration = Duration::from_secs(180);

/// Waits until control uses no processor.
async fn settle(control: u32) -> Result<()> {
    let start = Instant::now();
    let mut ticks = interval(Duration::from_secs(1));
    ticks.tick().await;
    let mut before = cpu_seconds(control)?;
    while start.elapsed() < PATIENCE {
        ticks.tick().await;
        let now = cpu_seconds(control)?;
        if now - before < 0.05 {
            return Ok(());
        }
        before = now;
    }
    anyhow::bail!("control does not come to rest")
}

impl Latency {
    fn of(mut values: Vec<Duration>) -> Result<Self> {
        values.sort_unstable();
        let at = |part: usize| values.get((values.len() * part / 100).min(values.len().saturating_sub(1)));
        let missing = "there are changes";
        Ok(Self {
            median: *at(50).context(missing)?,
            p99: *at(99).context(missing)?,
            worst: *values.last().context(missing)?,
        })
    }
}

fn table(rows: &[Row], settings: &Settings) -> String {
    let Settings { nodes, changes, rate, seconds, .. } = settings;
    let mut table = format!(
        "{nodes} nodes; {changes} single changes; then {rate} changes a second for {seconds} s.\n\n| pods / services \
         | control ready (s) | all nodes synced (s) | one change at all nodes: median, p99, worst (ms) | CPU of \
         control for it (ms) | at {rate}/s: median, p99, worst (ms) | processors of control | its memory now, at \
         most (MB) |\n|---|---|---|---|---|---|---|---|\n"
    );
    for row in rows {
        let milliseconds = |latency: &Latency| {
            let [median, p99, worst] =
                [latency.median, latency.p99, latency.worst].map(|value| value.as_secs_f64() * 1e3);
            format!("{median:.0}, {p99:.0}, {worst:.0}")
        };
        // Writing to a String does not fail.
        let _ = writeln!(
            table,
            "| {} / {} | {:.1} | {:.1} | {} | {:.1} | {} | {:.2} | {:.0}, {:.0} |",
            row.pods,
            row.services,
            row.ready.as_secs_f64(),
            row.synced.as_secs_f64(),
            milliseconds(&row.single),
            row.cpu_of_change * 1e3,
            milliseconds(&row.loaded),
            row.cores,
            row.memory.resident,
            row.memory.peak
        );
    }
    table
}
