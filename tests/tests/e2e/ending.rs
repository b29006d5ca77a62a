//! An agent that nobody succeeds: pods stay closed, unless the mesh was uninstalled.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ambit_tests::agent::Differences;
use ambit_tests::api_server::{ApiServer, Apis};
use ambit_tests::mesh::{Mesh, Settings};
use ambit_tests::pod::Pod;
use ambit_tests::process::Process;
use ambit_tests::traffic::{self, Held};
use ambit_tests::wait::{self, SOON};
use anyhow::{Result, ensure};
use nix::sys::signal::Signal;

const ECHO: u16 = 9000;

/// Addresses of the API server.
const HOST: u8 = 120;
const ADDRESS: ([u8; 4], u16) = ([10, 200, 0, HOST], 6443);

/// A mesh of which nothing runs on n1 so far.
fn shop(apis: Apis) -> Result<(Mesh, Pod, Pod, ApiServer)> {
    let settings = Settings { drain: Duration::from_secs(2), ..Settings::default() };
    let mesh = Mesh::with_settings(settings, ["n1", "n2"])?;
    let api = ApiServer::start(&*mesh.outside_host("api", HOST)?, SocketAddr::from(ADDRESS), apis)?;
    mesh.ambient_namespace("shop")?;
    let (client, web) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/web", "n2")?);
    traffic::echo(&web, ECHO)?;
    mesh.start_control()?;
    mesh.agent("n2").start()?;
    Ok((mesh, client, web, api))
}

/// Asks `api` for so long.
fn asking(api: &ApiServer, wait: &str) -> Differences {
    let mut arguments = api.arguments();
    arguments.extend(["--uninstall-wait".to_owned(), wait.to_owned()]);
    Differences::arguments(arguments)
}

/// Starts the agent of n1, and tells it to end.
fn start_and_end(mesh: &Mesh, differences: &Differences) -> Result<Arc<Process>> {
    let agent = mesh.agent("n1");
    agent.launch_as(differences)?;
    agent.wait_until_ready()?;
    mesh.wait_until_captured()?;
    let process = agent.process()?;
    process.signal(Signal::SIGTERM)?;
    Ok(process)
}

fn works(from: &Pod, to: &Pod) -> Result<()> {
    Held::open(from, to.at(ECHO))?.close()
}

fn rules(pod: &Pod) -> Result<String> {
    pod.run("nft", &["list", "ruleset"])
}

pub(crate) fn an_agent_that_is_told_to_end_leaves_pods_closed() -> Result<()> {
    let (mesh, client, web, api) = shop(Apis::installed())?;
    for (case, apis, said) in [
        ("the mesh is installed", Apis::installed(), "the mesh is installed"),
        ("no right to ask", Apis::Status(403), "status 403"),
        ("an API server that is not itself", Apis::Groups(Vec::new()), "not even apps is listed"),
        ("an API server that cannot", Apis::Status(503), "status 503"),
    ] {
        api.set(apis);
        let asked = api.asked();
        let agent = start_and_end(&mesh, &asking(&api, "4s"))?;
        let before = rules(&client)?;
        wait::until_true("the API server to be asked twice", SOON, || api.asked() >= asked + 2)?;
        works(&client, &web)?;
        agent.log().wait_from(0, SOON, |line| line.contains(said))?;
        ensure!(agent.wait_for_end(SOON)?.success(), "{case}");
        ensure!(works(&client, &web).is_err(), "{case}: the pod is open");
        ensure!(rules(&client)? == before, "{case}: the rules changed");
    }
    // A node that is shut down may have lost its network before.
    let mut nobody = asking(&api, "2s");
    nobody.arguments.extend(["--uninstall-check".to_owned(), "https://10.200.0.120:1".to_owned()]);
    nobody.arguments.drain(..2);
    ensure!(start_and_end(&mesh, &nobody)?.wait_for_end(SOON)?.success());
    ensure!(works(&client, &web).is_err(), "the pod is open");
    Ok(())
}

pub(crate) fn an_agent_of_an_uninstalled_mesh_opens_its_pods_and_leaves_nothing() -> Result<()> {
    let (mesh, client, web, api) = shop(Apis::installed())?;
    let agent = mesh.agent("n1");
    let process = start_and_end(&mesh, &asking(&api, "60s"))?;
    ensure!(rules(&client)?.contains("ambit"), "nothing to be removed");
    wait::until_true("the API server to be asked", SOON, || api.asked() > 0)?;
    let mut held = Held::open(&client, web.at(ECHO))?;
    // The signal comes first, and the resource definitions go a while after.
    api.set(Apis::gone());
    process.log().wait_from(0, SOON, |line| line.contains("the mesh was uninstalled"))?;
    held.exchange()?;
    held.close()?;
    ensure!(process.wait_for_end(SOON)?.success());

    works(&client, &web)?;
    ensure!(rules(&client)?.trim().is_empty(), "rules are left: {}", rules(&client)?);
    for list in ["rule", "-6 rule"] {
        let words: Vec<&str> = list.split(' ').chain(["list"]).collect();
        let routing = client.run("ip", &words)?;
        ensure!(!routing.contains("fwmark"), "a routing rule is left: {routing}");
    }
    client.wait_until_released()?;
    let left: Vec<_> = fs::read_dir(agent.state_directory())?.collect();
    ensure!(left.is_empty(), "files are left: {left:?}");
    Ok(())
}

pub(crate) fn a_second_signal_ends_the_asking() -> Result<()> {
    let (mesh, client, web, api) = shop(Apis::installed())?;
    let process = start_and_end(&mesh, &asking(&api, "120s"))?;
    wait::until_true("the API server to be asked", SOON, || api.asked() > 0)?;
    let _held = Held::open(&client, web.at(ECHO))?;
    process.signal(Signal::SIGTERM)?;
    ensure!(process.wait_for_end(SOON)?.success());
    ensure!(works(&client, &web).is_err(), "the pod is open");
    Ok(())
}

pub(crate) fn a_successor_may_come_while_the_agent_asks() -> Result<()> {
    let (mesh, client, web, api) = shop(Apis::installed())?;
    let process = start_and_end(&mesh, &asking(&api, "120s"))?;
    wait::until_true("the API server to be asked", SOON, || api.asked() > 0)?;
    let mut held = Held::open(&client, web.at(ECHO))?;
    drop(mesh.agent("n1").launch_successor(&Differences::default())?);
    mesh.agent("n1").wait_until_ready()?;
    works(&client, &web)?;
    held.exchange()?;
    held.close()?;
    // It was told before, and now it has nothing left to do.
    ensure!(process.wait_for_end(SOON)?.success());
    works(&client, &web)
}
