//! One agent follows another under load, and nothing notices.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use ambit_tests::agent::{Agent, Differences};
use ambit_tests::handover::{self, PROTOCOL, Visitor};
use ambit_tests::host_proc::{HostProc, cgroup};
use ambit_tests::load::Load;
use ambit_tests::mesh::fabric::Families;
use ambit_tests::mesh::{Finding, Mesh, Settings};
use ambit_tests::pod::Pod;
use ambit_tests::process;
use ambit_tests::traffic::{self, Held};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

const ECHO: u16 = 9000;

/// A pod on each node, both of which serve and ask.
fn pair(settings: Settings) -> Result<(Mesh, Pod, Pod)> {
    let mesh = Mesh::with_settings(settings, ["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let (one, two) = (mesh.pod("shop/one", "n1")?, mesh.pod("shop/two", "n2")?);
    for pod in [&one, &two] {
        traffic::echo(pod, ECHO)?;
    }
    mesh.start()?;
    Ok((mesh, one, two))
}

fn socket(agent: &Agent) -> PathBuf {
    agent.state_directory().join("handover.sock")
}

/// Insists that a connection from one pod to the other works.
fn works(from: &Pod, to: &Pod) -> Result<()> {
    Held::open(from, to.at(ECHO))?.close()
}

pub(crate) fn rolling_the_agents_under_load_loses_nothing() -> Result<()> {
    const OPEN: usize = 50;
    const PER_SECOND: u32 = 250;
    const REQUESTS: u64 = 2000;
    let (mesh, one, two) = pair(Settings { workers: 2, ..Settings::default() })?;
    let mut load = Load::idle();
    for (from, to) in [(&one, &two), (&two, &one)] {
        load.keep_using(Held::open_many(OPEN, from, to.at(ECHO))?);
        load.requests(from, to.at(ECHO), PER_SECOND);
    }
    let drops = || Ok::<_, anyhow::Error>([listen_drops(&one)?, listen_drops(&two)?]);
    let (before, mut sockets) = (drops()?, listening(&[&one, &two])?);
    // As many workers, fewer, more, and after that fewer again: sockets outnumber workers.
    let mut rolls = 0;
    for workers in [2, 1, 3, 2].into_iter().cycle() {
        for node in ["n1", "n2"] {
            let differences = Differences::workers(workers);
            mesh.agent(node).replace(&differences).with_context(|| format!("{workers} workers on {node}"))?;
        }
        let now = listening(&[&one, &two])?;
        ensure!(
            now.is_superset(&sockets),
            "a socket was closed, with what waited in it: {sockets:?}, then {now:?}"
        );
        sockets = now;
        rolls += 1;
        if rolls >= 4 && load.made() >= REQUESTS {
            break;
        }
        ensure!(rolls < 40, "only {} requests were made", load.made());
    }
    let (tally, held) = load.finish()?;
    eprintln!("{rolls} rolls, {} requests, the slowest in {:?}", tally.requests, tally.slowest);
    tally.expect_no_failure(REQUESTS)?;
    ensure!(drops()? == before, "the kernel dropped connections that were to be accepted");
    ensure!(held.len() == 2 * OPEN);
    ensure!(sockets.len() == 2 * 3 * 3, "three workers had a socket for each port of each pod: {sockets:?}");
    // Their connections were made by the first agents: they end, and then those agents do.
    held.into_iter().try_for_each(Held::close)?;
    mesh.agents().try_for_each(Agent::wait_for_former)
}

/// The agents' sockets in pods.
fn listening(pods: &[&Pod]) -> Result<BTreeSet<String>> {
    let mut sockets = BTreeSet::new();
    for pod in pods {
        for port in [15001, 15006, 15008] {
            sockets.extend(pod.namespace().listening_sockets(port)?);
        }
    }
    Ok(sockets)
}

/// Connections that a listening socket in the pod did not take (`TcpExt` `ListenDrops`).
fn listen_drops(pod: &Pod) -> Result<u64> {
    let table = pod.run("cat", &["/proc/net/netstat"])?;
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().context("no names")?, lines.next().context("no values")?);
    let position = names.split(' ').position(|name| name == "ListenDrops").context("no ListenDrops")?;
    Ok(values.split(' ').nth(position).context("no value")?.parse()?)
}

pub(crate) fn a_successor_that_never_serves_changes_nothing() -> Result<()> {
    let (mesh, one, two) = pair(Settings::default())?;
    let agent = mesh.agent("n1");
    let mut held = Held::open(&one, two.at(ECHO))?;

    // One takes everything, and dies before it serves.
    let mut visitor = Visitor::connect(&socket(agent))?;
    ensure!(visitor.greet(PROTOCOL)?["refusal"].is_null());
    let items = visitor.take()?;
    ensure!(items.iter().any(|item| item["workload"].as_str().is_some_and(|uid| uid.ends_with("/one"))));
    let mut second = Visitor::connect(&socket(agent))?;
    ensure!(second.greet(PROTOCOL)?["refusal"] == "busy", "two at a time");
    let position = agent.log_position()?;
    drop(visitor);
    agent.wait_for_log(position, SOON, |line| line.contains("going on as before"))?;
    held.exchange()?;
    works(&one, &two)?;

    // A real one dies while it waits for a configuration.
    mesh.control().kill()?;
    fs::remove_file(agent.state_directory().join("last-good"))?;
    let position = agent.log_position()?;
    let predecessor = agent.launch_successor(&Differences::default())?;
    let asked = |line: &str| line.contains("another agent asks for the pods");
    predecessor.log().wait_from(position, SOON, asked)?;
    agent.kill_successor(predecessor)?;
    held.exchange()?;
    works(&one, &two)?;

    // The agent still enrols pods, and hands over to one that lives.
    mesh.start_control()?;
    let late = mesh.pod("shop/late", "n1")?;
    late.wait_until_captured()?;
    wait::until("the late pod to be served", SOON, || works(&late, &two))?;
    agent.replace(&Differences::default())?;
    held.exchange()?;
    works(&one, &two)?;
    works(&late, &two)?;
    held.close()?;
    agent.wait_for_former()
}

pub(crate) fn a_successor_that_dies_leaves_pods_closed_until_it_is_back() -> Result<()> {
    let (mesh, one, two) = pair(Settings::default())?;
    let agent = mesh.agent("n1");
    let mut held = Held::open(&one, two.at(ECHO))?;
    let predecessor = agent.launch_successor(&Differences::arguments(["--instance", "new"]))?;
    agent.wait_until_ready()?;
    works(&one, &two)?;

    agent.kill()?;
    // The old one was not told to end and lives, and it takes nothing back.
    held.exchange()?;
    ensure!(Held::open(&one, two.at(ECHO)).is_err(), "a connection found somebody");
    agent.launch_as(&Differences::arguments(["--instance", "new"]))?;
    agent.wait_until_ready()?;
    works(&one, &two)?;
    held.exchange()?;
    held.close()?;
    predecessor.signal(Signal::SIGTERM)?;
    ensure!(predecessor.wait_for_end(SOON)?.success());
    works(&one, &two)
}

pub(crate) fn who_was_replaced_does_not_take_the_node_back() -> Result<()> {
    let (mesh, one, two) = pair(Settings::default())?;
    let agent = mesh.agent("n1");
    let named = |instance: &str| Differences::arguments(["--instance", instance]);
    agent.replace(&named("old"))?;
    agent.wait_for_former()?;
    let old = agent.launch_successor(&named("new"))?;
    agent.wait_until_ready()?;
    let new = agent.process()?;

    // The old pod's container is started again before the pod is deleted.
    old.kill()?;
    drop(agent.launch_successor(&named("old"))?);
    let again = agent.process()?;
    again.log().wait_from(0, SOON, |line| line.contains("it does not take the node back"))?;
    ensure!(agent.wait_until_ready_within(Duration::from_secs(1)).is_err(), "it became ready");
    works(&one, &two)?;
    again.signal(Signal::SIGTERM)?;
    ensure!(again.wait_for_end(SOON)?.success());
    works(&one, &two)?;
    ensure!(new.is_running());
    Ok(())
}

pub(crate) fn only_root_is_given_the_pods() -> Result<()> {
    let (mesh, one, two) = pair(Settings::default())?;
    let agent = mesh.agent("n1");
    let path = socket(agent);
    ensure!(as_nobody(&path)?.contains("Permission denied"), "the socket is open to everybody");
    // Also where a mistake has opened it.
    for opened in [agent.state_directory(), path.clone()] {
        fs::set_permissions(opened, fs::Permissions::from_mode(0o777))?;
    }
    let position = agent.log_position()?;
    let said = as_nobody(&path)?;
    // It depends on who is faster.
    let sent_away = ["saying something to the agent", "hearing from the agent", "closed the connection"];
    ensure!(sent_away.iter().any(|way| said.contains(way)), "it heard {said}");
    agent.wait_for_log(position, SOON, |line| line.contains("only root may hand pods over"))?;

    // Nonsense, and another protocol, end the conversation and nothing else.
    let mut confused = Visitor::connect(&path)?;
    confused.say("good morning")?;
    ensure!(confused.hear().is_err());
    let mut newer = Visitor::connect(&path)?;
    ensure!(newer.greet(PROTOCOL + 1)?["refusal"] == "protocol");
    works(&one, &two)
}

/// Visits the hand-over socket as a user without rights, and returns what came of it.
fn as_nobody(path: &std::path::Path) -> Result<String> {
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(env::current_exe()?).arg(VISIT).arg(path);
    process::succeed(&mut command)
}

/// First argument of the program when it is a visitor; the socket's path follows.
pub(crate) const VISIT: &str = "--visit";

/// Says what an agent answers to a visitor, or why it does not.
pub(crate) fn visit(path: &str) -> String {
    let visited = || Visitor::connect(path.as_ref())?.greet(PROTOCOL);
    match visited() {
        Ok(answer) => answer.to_string(),
        Err(error) => format!("{error:#}"),
    }
}

pub(crate) fn an_agent_of_another_protocol_is_served_beside() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let (one, two) = (mesh.pod("shop/one", "n1")?, mesh.pod("shop/two", "n2")?);
    traffic::echo(&two, ECHO)?;
    handover::refuse_everybody(&socket(mesh.agent("n1")))?;
    mesh.start()?;
    works(&one, &two)?;
    // What it found there it has replaced by itself.
    ensure!(Visitor::connect(&socket(mesh.agent("n1")))?.greet(PROTOCOL)?["refusal"].is_null());
    Ok(())
}

pub(crate) fn a_crashed_agent_is_replaced_within_seconds() -> Result<()> {
    let (mesh, one, two) = pair(Settings::default())?;
    let agent = mesh.agent("n1");
    let rules = || one.run("nft", &["list", "ruleset"]);
    let before = rules()?;
    for _ in 0..3 {
        agent.kill()?;
        ensure!(Held::open(&one, two.at(ECHO)).is_err(), "without an agent a connection found its way");
        ensure!(rules()? == before, "the rules changed: {before}, then {}", rules()?);
        agent.launch()?;
        let (_, took) = wait::until("connections to work again", SOON, || works(&one, &two))?;
        eprintln!("connections work again {took:?} after the start");
        ensure!(rules()? == before, "the rules changed: {before}, then {}", rules()?);
        ensure!(took < Duration::from_secs(10), "it took {took:?}");
    }
    Ok(())
}

/// As on Kubernetes, where no pod names its network namespace.
pub(crate) fn pods_that_are_found_by_their_uid_change_hands_and_outlive_a_crash() -> Result<()> {
    let mesh = Mesh::with_settings(Settings { finding: Finding::Processes, ..Settings::default() }, ["n1"])?;
    let agent = mesh.agent("n1");
    let processes = HostProc::create("n1", agent.namespace())?;
    mesh.ambient_namespace("shop")?;
    let pod = |name| mesh.pod_with(name, "n1", Families::Dual, |object| object.annotations.clear());
    let (one, two) = (pod("shop/one")?, pod("shop/two")?);
    for (id, pod) in (100..).zip([&one, &two]) {
        traffic::echo(pod, ECHO)?;
        processes.start(id, &cgroup(&pod.object().uid), pod.namespace())?;
    }
    mesh.start()?;
    let mut held = Held::open(&one, two.at(ECHO))?;
    let sockets = listening(&[&one])?;
    for workers in [1, 2] {
        agent.replace(&Differences::workers(workers))?;
        ensure!(listening(&[&one])?.is_superset(&sockets), "a socket was closed");
        held.exchange()?;
        works(&one, &two)?;
    }
    held.close()?;
    agent.wait_for_former()?;

    agent.kill()?;
    ensure!(Held::open(&one, two.at(ECHO)).is_err(), "without an agent a connection found its way");
    agent.launch()?;
    let (_, took) = wait::until("connections to work again", SOON, || works(&one, &two))?;
    eprintln!("connections work again {took:?} after the start");
    ensure!(took < Duration::from_secs(10), "it took {took:?}");
    Ok(())
}
