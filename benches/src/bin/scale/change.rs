//! One change among many workloads: from the file that control reads to what clients on each node
//! see.
//!
//! A Service has one endpoint, which becomes ready and unready. On both nodes a client connects to
//! the Service until it sees that: whatever is between the file and the data path is in the figure.
//! Meanwhile an open connection through both agents exchanges an octet every millisecond; the
//! longest exchange is what the data path was held up.

use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use ambit_tests::control::token_path;
use ambit_tests::mesh::{Mesh, Settings as MeshSettings};
use ambit_tests::{http, traffic, wait};
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};

use crate::plot::Panel;
use crate::probe::{Pinger, until_answers};
use crate::process::{Memory, cpu_seconds, memory};
use crate::{Settings, crowd};

/// Measures among so many workloads.
///
/// # Errors
/// When a part of the mesh does not start, or a change does not arrive.
pub(crate) fn run(settings: &Settings, workloads: u32) -> Result<Row> {
    let programs = MeshSettings { workers: 1, ..MeshSettings::default() };
    let mesh = Mesh::with_settings(programs, NODES)?;
    mesh.ambient_namespace("shop")?;
    let clients = [mesh.pod("shop/client", NODES[0])?, mesh.pod("shop/other", NODES[1])?];
    let [server, flips] = [mesh.pod("shop/server", NODES[1])?, mesh.pod("shop/flips", NODES[1])?];
    let service = mesh.service("shop/flips", 80, ECHO)?;
    for pod in [&server, &flips] {
        traffic::echo(pod, ECHO)?;
    }
    eprintln!("writing {workloads} workloads");
    crowd::write(&mesh, settings, workloads)?;
    let start = Instant::now();
    mesh.control().start_within(PATIENCE)?;
    for node in NODES {
        wait::until_true(format!("the token of {node}"), PATIENCE, || token_path(node).exists())?;
    }
    eprintln!("control is ready after {:.1?}", start.elapsed());
    for agent in mesh.agents() {
        agent.launch()?;
    }
    for agent in mesh.agents() {
        let ready = || http::get(agent.namespace(), 15021, "/healthz/ready");
        wait::until(format!("the agent on {}", agent.node()), PATIENCE, ready)?;
    }
    mesh.wait_until_captured()?;
    eprintln!("agents are ready after {:.1?}", start.elapsed());
    // Statuses and copies for a restart are written after the change is out.
    settle(mesh.control().pid()?)?;

    let pinger = Pinger::start(&clients[0], server.at(ECHO))?;
    thread::sleep(WINDOW);
    pinger.take_longest();
    thread::sleep(WINDOW);
    let quiet = pinger.take_longest();
    let mut changes = Vec::new();
    for number in 0..settings.changes {
        let ready = number % 2 == 1;
        let cpu = [cpu_seconds(mesh.control().pid()?)?, agents_cpu(&mesh)?];
        pinger.take_longest();
        let began = Instant::now();
        mesh.change_pod(&flips, |pod| pod.ready = ready)?;
        let seen: Vec<Instant> = thread::scope(|scope| {
            let watch = |client| scope.spawn(move || until_answers(client, service.v4(), ready));
            let watching: Vec<_> = clients.iter().map(watch).collect();
            let joined = watching.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("panicked"))?);
            joined.collect::<Result<_>>()
        })?;
        let slowest = seen.into_iter().max().context("there are clients")? - began;
        thread::sleep(WINDOW);
        settle(mesh.control().pid()?)?;
        changes.push(Change {
            arrived: slowest,
            longest: pinger.take_longest(),
            control_cpu: cpu_seconds(mesh.control().pid()?)? - cpu[0],
            agents_cpu: agents_cpu(&mesh)? - cpu[1],
        });
    }
    pinger.finish()?;
    row(workloads, &mesh, quiet, &changes)
}

const NODES: [&str; 2] = ["n1", "n2"];
const ECHO: u16 = 9000;
const PATIENCE: Duration = Duration::from_secs(180);
const WINDOW: Duration = Duration::from_secs(2);

struct Change {
    arrived: Duration,
    longest: Duration,
    control_cpu: f64,
    agents_cpu: f64,
}

/// What one size costs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) workloads: u32,
    /// Of every change that was made, in milliseconds: until every agent had it, the longest exchange
    /// meanwhile, the processor time of control and of both agents.
    arrived: Spread,
    longest: Spread,
    control_cpu: Spread,
    agents_cpu: Spread,
    /// The longest exchange without a change.
    quiet: f64,
    /// Of each process.
    memory: Vec<(String, Memory)>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Spread {
    median: f64,
    worst: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        Self { median: values[values.len() / 2], worst: values[values.len() - 1] }
    }
}

fn row(workloads: u32, mesh: &Mesh, quiet: Duration, changes: &[Change]) -> Result<Row> {
    let mut processes = vec![("control".to_owned(), mesh.control().pid()?)];
    for agent in mesh.agents() {
        processes.push((format!("ztunnel on {}", agent.node()), agent.process()?.pid()));
    }
    let memory = processes.into_iter().map(|(name, pid)| Ok((name, memory(pid)?))).collect::<Result<_>>()?;
    let of = |value: fn(&Change) -> f64| Spread::of(changes.iter().map(value));
    Ok(Row {
        workloads,
        arrived: of(|change| change.arrived.as_secs_f64() * 1e3),
        longest: of(|change| change.longest.as_secs_f64() * 1e3),
        control_cpu: of(|change| change.control_cpu * 1e3),
        agents_cpu: of(|change| change.agents_cpu * 1e3),
        quiet: quiet.as_secs_f64() * 1e3,
        memory,
    })
}

impl Row {
    /// The row as tables.
    pub(crate) fn table(&self) -> String {
        let mut table =
            format!("{} workloads:\n\n| figure | median | worst |\n|---|---|---|\n", self.workloads);
        for (name, spread) in [
            ("a change reaches every agent (ms)", &self.arrived),
            ("longest exchange meanwhile (ms)", &self.longest),
            ("CPU of control for a change (ms)", &self.control_cpu),
            ("CPU of both agents for a change, their exchanges included (ms)", &self.agents_cpu),
        ] {
            let _ = writeln!(table, "| {name} | {:.2} | {:.2} |", spread.median, spread.worst);
        }
        let _ = writeln!(table, "| longest exchange in 2 s without a change (ms) | {:.2} | |", self.quiet);
        table.push_str("\n| memory (MB) | anonymous | resident | peak |\n|---|---|---|---|\n");
        for (name, memory) in &self.memory {
            let Memory { anonymous, resident, peak } = memory;
            let _ = writeln!(table, "| {name} | {anonymous:.1} | {resident:.1} | {peak:.1} |");
        }
        table
    }
}

/// What grows with the number of workloads.
pub(crate) fn panels(rows: &[Row]) -> Vec<Panel> {
    let panel = |title, goal, value: fn(&Row) -> f64| Panel {
        title,
        size: "workloads",
        goal,
        lines: vec![("", rows.iter().map(|row| (f64::from(row.workloads), value(row))).collect())],
        logarithmic: false,
    };
    let of_agents = |row: &Row| {
        let agents = row.memory.iter().filter(|(name, _)| name != "control");
        agents.map(|(_, memory)| memory.anonymous).fold(0.0, f64::max)
    };
    vec![
        panel("a change at both agents, median (ms)", Some(1_000.0), |row| row.arrived.median),
        panel("an agent's anonymous memory (MB)", Some(120.0), of_agents),
        panel("control's processor time for a change (ms)", None, |row| row.control_cpu.median),
    ]
}

/// Waits until control uses no processor.
fn settle(control: u32) -> Result<()> {
    let mut before = cpu_seconds(control)?;
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        thread::sleep(Duration::from_secs(1));
        let now = cpu_seconds(control)?;
        if now - before < 0.05 {
            return Ok(());
        }
        before = now;
    }
    Err(anyhow!("control does not come to rest"))
}

fn agents_cpu(mesh: &Mesh) -> Result<f64> {
    mesh.agents().map(|agent| cpu_seconds(agent.process()?.pid())).sum()
}
