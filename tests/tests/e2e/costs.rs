//! What a request and a connection cost an agent in system calls, and bulk in packets: counted, not timed.
//!
//! A budget is what was counted when it was last set, and a margin for timers and for two messages
//! that meet; a failure shows each call. After a change that is meant, set the budget to what the
//! failure shows.

use std::io::{self, Write};
use std::net::Shutdown;

use ambit_tests::mesh::{AgentLog, Mesh, Settings};
use ambit_tests::namespace::Namespace;
use ambit_tests::pod::Pod;
use ambit_tests::process;
use ambit_tests::trace::{Calls, Trace};
use ambit_tests::traffic::{self, Held, serve_one};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, bail, ensure};

const PORT: u16 = 9000;
const BULK_PORT: u16 = 9001;
const CLIENT: &str = "n1";
const SERVER: &str = "n2";

/// What one agent may do for a number of units.
struct Budget {
    node: &'static str,
    calls_each: u64,
    /// `futex` calls and wakes of other threads.
    disturbances_each: u64,
}

/// For timers, the tunnel's keepalive, and calls under way when counting begins or ends.
const ONCE: u64 = 50;
/// Of them, `futex` calls and wakes.
const DISTURBANCES_ONCE: u64 = 10;

/// A client and a server on different nodes, whose agents have several workers and log as usual.
fn pair() -> Result<(Mesh, Pod, Pod)> {
    let settings = Settings { workers: 2, agent_log: AgentLog::Written, ..Settings::default() };
    let mesh = Mesh::with_settings(settings, [CLIENT, SERVER])?;
    mesh.ambient_namespace("shop")?;
    let (client, server) = (mesh.pod("shop/client", CLIENT)?, mesh.pod("shop/server", SERVER)?);
    mesh.start()?;
    traffic::echo(&server, PORT)?;
    Ok((mesh, client, server))
}

pub(crate) fn a_request_on_an_open_connection_wakes_no_other_thread() -> Result<()> {
    const REQUESTS: u64 = 1000;
    /// Waits for readiness, a read and a write, on the way there and on the way back.
    const BUDGETS: [Budget; 2] = [
        Budget { node: CLIENT, calls_each: 6, disturbances_each: 0 },
        Budget { node: SERVER, calls_each: 6, disturbances_each: 0 },
    ];
    let (mesh, client, server) = pair()?;
    let mut held = Held::open(&client, server.at(PORT))?;
    check(&mesh, &BUDGETS, REQUESTS, || held.exchange())
}

pub(crate) fn a_connection_costs_what_it_did() -> Result<()> {
    const CONNECTIONS: u64 = 100;
    /// A connection with one exchange, from its accept to its last close. One disturbance wakes the thread
    /// that writes the log; the others are that thread's own, which rests after each line when lines come
    /// one by one. Under load many lines are one write.
    const BUDGETS: [Budget; 2] = [
        Budget { node: CLIENT, calls_each: 26, disturbances_each: 4 },
        Budget { node: SERVER, calls_each: 34, disturbances_each: 4 },
    ];
    let (mesh, client, server) = pair()?;
    check(&mesh, &BUDGETS, CONNECTIONS, || Held::open(&client, server.at(PORT))?.close())
}

/// An agent that sends the last octets of each turn by themselves has a small packet behind every few
/// hundred kilobytes, each with the whole way of a packet at both ends.
pub(crate) fn bulk_leaves_in_whole_packets() -> Result<()> {
    const BYTES: u64 = 128 << 20;
    /// What the application had not written in time goes without what follows.
    const SHORT_FOR_EACH_MIB: u64 = 1;
    let (_mesh, client, server) = pair()?;
    let receiving = serve_one(&server, BULK_PORT, |mut stream| Ok(io::copy(&mut stream, &mut io::sink())?))?;
    let mut stream = client.connect(server.at(BULK_PORT))?;
    let piece = vec![b'a'; 1 << 20];
    for _ in 0..BYTES / piece.len() as u64 {
        stream.write_all(&piece)?;
    }
    stream.shutdown(Shutdown::Write)?;
    ensure!(receiving.finish()? == BYTES, "not all arrived");
    let sent = Sent::by_tunnels_of(client.namespace())?;
    ensure!(sent.octets > BYTES, "not the tunnel that carried the bulk: {sent:?}");
    let short = sent.segments.saturating_sub(sent.octets / sent.segment);
    ensure!(
        short <= SHORT_FOR_EACH_MIB * (BYTES >> 20),
        "{short} short packets in {} MiB: {sent:?}",
        BYTES >> 20
    );
    Ok(())
}

/// What the kernel says of a TCP connection.
#[derive(Debug)]
struct Sent {
    octets: u64,
    segments: u64,
    /// The largest number of octets in one.
    segment: u64,
}

impl Sent {
    /// Of the one tunnel that a pod has open.
    fn by_tunnels_of(pod: &Namespace) -> Result<Self> {
        let told = process::succeed(pod.command("ss").args(["-tinHO", "dst", ":15008"]))?;
        let value = |key: &str| -> Result<u64> {
            let values: Vec<&str> =
                told.split_whitespace().filter_map(|word| word.strip_prefix(key)).collect();
            let [value] = values[..] else { bail!("{key} is not there once: {told}") };
            value.parse().with_context(|| told.clone())
        };
        Ok(Self {
            octets: value("bytes_sent:")?,
            segments: value("data_segs_out:")?,
            segment: value("mss:")?,
        })
    }
}

/// Does a number of units of work while the agents are followed, and holds them to their budgets.
fn check(mesh: &Mesh, budgets: &[Budget], units: u64, mut unit: impl FnMut() -> Result<()>) -> Result<()> {
    // The tunnel, the buffers and the tables that the first units make are no cost of the others.
    (0..10).try_for_each(|_| unit())?;
    let traces = budgets
        .iter()
        .map(|budget| Trace::attach(&*mesh.agent(budget.node).process()?))
        .collect::<Result<Vec<_>>>()?;
    let calls = || traces.iter().map(Trace::calls).collect::<Result<Vec<Calls>>>();
    wait::until("every agent to be seen at work", SOON, || {
        unit()?;
        ensure!(calls()?.iter().all(|calls| calls.total() >= 10), "not so far");
        Ok(())
    })?;

    // What an agent does once beside the work, such as to keep a certificate, may fall into one look; what
    // each unit costs is in all of them.
    let mut beyond = Vec::new();
    for _ in 0..LOOKS {
        let before = calls()?;
        (0..units).try_for_each(|_| unit())?;
        beyond = over_budget(&before, &calls()?, budgets, units)?;
        if beyond.is_empty() {
            return Ok(());
        }
    }
    bail!("beyond the budget, {LOOKS} times over:\n{}", beyond.join("\n"));
}

/// How often the work is done before it counts as too dear.
const LOOKS: u32 = 3;

/// Which agents were beyond their budgets, and by what.
fn over_budget(before: &[Calls], after: &[Calls], budgets: &[Budget], units: u64) -> Result<Vec<String>> {
    let mut beyond = Vec::new();
    for ((after, before), budget) in after.iter().zip(before).zip(budgets) {
        let made = after.since(before);
        let disturbances = made.of("futex") + made.wakes();
        let Budget { node, calls_each, disturbances_each } = budget;
        ensure!(made.total() >= units, "the agent on {node} was not followed: {made:?}");
        let within = made.total() <= calls_each * units + ONCE
            && disturbances <= disturbances_each * units + DISTURBANCES_ONCE;
        if !within {
            let (total, wakes) = (made.total(), made.wakes());
            beyond.push(format!("{node}: {total} calls and {wakes} wakes for {units}: {made:?}"));
        }
    }
    Ok(beyond)
}
