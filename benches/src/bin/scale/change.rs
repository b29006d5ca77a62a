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

use crate::probe::{Pinger, until_answers};
use crate::process::{cpu_seconds, memory};
use crate::{Settings, crowd};

/// Measures, and writes a table.
///
/// # Errors
/// When a part of the mesh does not start, or a change does not arrive.
pub(crate) fn run(settings: &Settings) -> Result<String> {
    let programs = MeshSettings { workers: 1, ..MeshSettings::default() };
    let mesh = Mesh::with_settings(programs, NODES)?;
    mesh.ambient_namespace("shop")?;
    let clients = [mesh.pod("shop/client", NODES[0])?, mesh.pod("shop/other", NODES[1])?];
    let [server, flips] = [mesh.pod("shop/server", NODES[1])?, mesh.pod("shop/flips", NODES[1])?];
    let service = mesh.service("shop/flips", 80, ECHO)?;
    for pod in [&server, &flips] {
        traffic::echo(pod, ECHO)?;
    }
    eprintln!("writing {} workloads", settings.workloads);
    crowd::write(&mesh, settings)?;
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
    table(&mesh, quiet, &changes)
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

fn table(mesh: &Mesh, quiet: Duration, changes: &[Change]) -> Result<String> {
    let mut table = String::from("| figure | median | worst |\n|---|---|---|\n");
    let mut row = |name: &str, value: fn(&Change) -> f64| {
        let mut values: Vec<f64> = changes.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (median, worst) = (values[values.len() / 2], values.last().copied().unwrap_or_default());
        let _ = writeln!(table, "| {name} | {median:.2} | {worst:.2} |");
    };
    row("a change reaches every agent (ms)", |change| change.arrived.as_secs_f64() * 1e3);
    row("longest exchange meanwhile (ms)", |change| change.longest.as_secs_f64() * 1e3);
    row("CPU of control for a change (ms)", |change| change.control_cpu * 1e3);
    row("CPU of both agents for a change, their exchanges included (ms)", |change| change.agents_cpu * 1e3);
    let _ = writeln!(
        table,
        "| longest exchange in 2 s without a change (ms) | {:.2} | |",
        quiet.as_secs_f64() * 1e3
    );
    table.push_str("\n| memory (MB) | anonymous | resident | peak |\n|---|---|---|---|\n");
    let mut processes = vec![("control".to_owned(), mesh.control().pid()?)];
    for agent in mesh.agents() {
        processes.push((format!("ztunnel on {}", agent.node()), agent.process()?.pid()));
    }
    for (name, pid) in processes {
        let memory = memory(pid)?;
        let _ = writeln!(
            table,
            "| {name} | {:.1} | {:.1} | {:.1} |",
            memory.anonymous, memory.resident, memory.peak
        );
    }
    Ok(table)
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
