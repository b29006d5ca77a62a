//! Redirection: it begins and ends under open connections, and fails closed (bar 6).

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ambit_tests::apps::{self, NGINX};
use ambit_tests::configuration::Dataplane;
use ambit_tests::mesh::fabric::Families;
use ambit_tests::mesh::{Mesh, Settings};
use ambit_tests::pod::Pod;
use ambit_tests::process;
use ambit_tests::traffic::{self, Held};
use ambit_tests::wait::{self, SOON};
use ambit_tests::wire::{Capture, Flow, Seen};
use anyhow::{Result, ensure};

use crate::encryption::marker;

const ECHO: u16 = 9000;

/// A client on n1, and on n2 a server whose answer is the marker.
fn pair(mesh: &Mesh, marker: &str) -> Result<(Pod, Pod)> {
    let (client, web) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/web", "n2")?);
    apps::nginx(&web, marker)?;
    traffic::echo(&web, ECHO)?;
    Ok((client, web))
}

pub(crate) fn entering_and_leaving_the_mesh_keeps_open_connections() -> Result<()> {
    const OPEN: usize = 50;
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.plain_namespace("shop")?;
    let marker = marker();
    let (client, web) = pair(&mesh, &marker)?;
    mesh.start()?;
    let mut plain = Held::open_many(OPEN, &client, web.at(ECHO))?;

    mesh.set_dataplane("shop", Dataplane::Ambient)?;
    mesh.wait_until_captured()?;
    plain.iter_mut().try_for_each(Held::exchange)?;
    let start = mesh.agent("n2").log_position()?;
    ensure!(!readable(&client, web.at(NGINX), &marker)?, "a new connection of enrolled pods is readable");
    mesh.agent("n2")
        .wait_for_access(start, |record| record.text("src.identity") == Some(&client.identity()))?;
    let mut tunnelled = Held::open_many(OPEN, &client, web.at(ECHO))?;
    plain.iter_mut().try_for_each(Held::exchange)?;

    mesh.set_dataplane("shop", Dataplane::Unset)?;
    let left = || {
        ensure!(readable(&client, web.at(NGINX), &marker)?, "new connections are still captured");
        Ok(())
    };
    wait::until("new connections to be plain", SOON, left)?;
    for held in plain.iter_mut().chain(&mut tunnelled) {
        held.exchange()?;
    }
    plain.into_iter().chain(tunnelled).try_for_each(Held::close)?;
    client.wait_until_released()?;
    web.wait_until_released()?;
    client.get(web.at(NGINX))?.expect_body(&marker).map(drop)
}

/// Fetches over HTTP and tells whether the answer could be read between the nodes.
fn readable(client: &Pod, from: SocketAddr, marker: &str) -> Result<bool> {
    let capture = Capture::start(marker)?;
    client.get(from)?.expect_body(marker)?;
    Ok(capture.finish()?.marked > 0)
}

pub(crate) fn without_its_agent_a_pod_is_closed() -> Result<()> {
    closed_without_agent(Settings::default())
}

pub(crate) fn the_iptables_backend_closes_too() -> Result<()> {
    closed_without_agent(Settings { capture: "iptables", ..Settings::default() })
}

fn closed_without_agent(settings: Settings) -> Result<()> {
    let mesh = Mesh::with_settings(settings, ["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    mesh.plain_namespace("plain")?;
    let marker = marker();
    let (client, web) = pair(&mesh, &marker)?;
    let plain = mesh.pod("plain/visitor", "n1")?;
    let service = mesh.service("shop/web", 80, NGINX)?;
    mesh.start()?;
    let places = [web.at(NGINX), web.at_v6(NGINX), service.v4(), service.v6()];
    for to in places {
        client.get(to)?.expect_body(&marker)?;
    }

    for (agent, ends) in
        [("n1", End::Killed), ("n1", End::Stopped), ("n2", End::Killed), ("n2", End::Stopped)]
    {
        let capture = Capture::start(&marker)?;
        ends.apply(&mesh, agent)?;
        for to in places {
            client.get(to)?.expect_refused()?;
        }
        if agent == "n2" {
            plain.get(web.at(NGINX))?.expect_refused()?;
        }
        let seen = capture.finish()?;
        ensure!(seen.marked == 0, "with the agent of {agent} {ends:?} the marker was readable");
        ensure_nothing_left(&client, &seen)?;

        mesh.agent(agent).start()?;
        mesh.wait_until_captured()?;
        for to in places {
            let back = || client.get(to)?.expect_body(&marker);
            wait::until(format!("{to} to answer again"), SOON, back)?;
        }
    }
    Ok(())
}

/// Insists that `pod` opened no connection of its own on the wire; tunnels are its agent's.
fn ensure_nothing_left(pod: &Pod, seen: &Seen) -> Result<()> {
    let own = [IpAddr::from(pod.v4()), pod.v6().into()];
    let is_left = |(from, to): &&Flow| own.contains(&from.ip()) && to.port() != 15008;
    let left: Vec<_> = seen.opened.iter().filter(is_left).collect();
    ensure!(left.is_empty(), "connections left the pod: {left:?}");
    Ok(())
}

/// How an agent goes.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Stopped,
}

impl End {
    fn apply(self, mesh: &Mesh, node: &str) -> Result<()> {
        match self {
            Self::Killed => mesh.agent(node).kill(),
            Self::Stopped => mesh.agent(node).terminate(),
        }
    }
}

pub(crate) fn a_pod_is_closed_before_its_first_agent() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let marker = marker();
    let (client, web) = pair(&mesh, &marker)?;
    client.get(web.at(NGINX))?.expect_body(&marker)?;

    let capture = Capture::start(&marker)?;
    mesh.agent("n1").close(&client)?;
    for to in [web.at(NGINX), web.at_v6(NGINX)] {
        client.get(to)?.expect_refused()?;
    }
    let seen = capture.finish()?;
    ensure!(seen.opened.is_empty(), "connections left a pod without an agent: {:?}", seen.opened);

    mesh.start()?;
    client.get(web.at(NGINX))?.expect_body(&marker).map(drop)
}

pub(crate) fn uninstalling_leaves_pods_as_they_were() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let marker = marker();
    let (client, web) = pair(&mesh, &marker)?;
    mesh.start()?;
    client.get(web.at(NGINX))?.expect_body(&marker)?;
    for agent in mesh.agents() {
        agent.kill()?;
        agent.uninstall()?;
    }
    for pod in [&client, &web] {
        let rules = pod.run("nft", &["list", "ruleset"])?;
        ensure!(rules.trim().is_empty(), "rules are left: {rules}");
        for family in ["-4", "-6"] {
            let routing = pod.run("ip", &[family, "rule", "list"])?;
            ensure!(!routing.contains("fwmark"), "routing rules are left: {routing}");
        }
    }
    ensure!(readable(&client, web.at(NGINX), &marker)?, "the pods are not in clear");
    Ok(())
}

pub(crate) fn an_agent_that_knows_nothing_keeps_a_pod_closed() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let marker = marker();
    let (client, web) = pair(&mesh, &marker)?;
    mesh.start_control()?;
    mesh.control().kill()?;
    mesh.agent("n1").close(&client)?;

    let capture = Capture::start(&marker)?;
    mesh.agent("n1").launch()?;
    mesh.agent("n1").wait_for_log(0, SOON, |line| line.contains("xds"))?;
    let closed = || client.get(web.at(NGINX))?.expect_refused().map(drop);
    wait::throughout("being closed without configuration", Duration::from_secs(2), closed)?;
    ensure!(capture.finish()?.marked == 0, "the marker was readable");

    mesh.start_control()?;
    mesh.agent("n2").start()?;
    mesh.agent("n1").wait_until_ready()?;
    mesh.wait_until_captured()?;
    client.get(web.at(NGINX))?.expect_body(&marker).map(drop)
}

pub(crate) fn a_mark_does_not_open_the_way() -> Result<()> {
    /// Marks that other meshes and tools are known to use.
    const KNOWN: [u32; 8] = [0x539, 0x111, 0x4000, 0x8000, 0x4000_0000, 0x8000_0000, 0xffff_ffff, 1];
    const GUESSES: u32 = 4096;
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let marker = marker();
    let (client, web) = pair(&mesh, &marker)?;
    mesh.start()?;
    // With the agent gone whatever is redirected is refused at once.
    mesh.agent("n1").kill()?;

    let capture = Capture::start(&marker)?;
    for mark in KNOWN.into_iter().chain((0..GUESSES).map(|_| rand::random())) {
        for to in [web.at(NGINX), web.at_v6(NGINX)] {
            let connected = client.namespace().connect_marked(to, mark, SOON);
            ensure!(connected.is_err(), "mark {mark:#x} led past the redirection to {to}");
        }
    }
    let seen = capture.finish()?;
    ensure_nothing_left(&client, &seen)?;

    // Nor can the mark be looked up with what a container has.
    let mut look = client.command("setpriv");
    look.args(["--inh-caps", "-all,+net_raw", "--bounding-set", "-all,+net_raw", "nft", "list", "ruleset"]);
    match process::succeed(&mut look) {
        Err(_) => Ok(()),
        Ok(rules) => {
            ensure!(!rules.contains("mark"), "CAP_NET_RAW reads the rules: {rules}");
            Ok(())
        }
    }
}

pub(crate) fn every_address_family_is_carried() -> Result<()> {
    for_each_family(Settings::default())
}

pub(crate) fn the_iptables_backend_carries_every_family() -> Result<()> {
    for_each_family(Settings { capture: "iptables", ..Settings::default() })
}

fn for_each_family(settings: Settings) -> Result<()> {
    let mesh = Mesh::with_settings(settings, ["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let marker = marker();
    let mut pods = Vec::new();
    for (name, families) in [("v4", Families::V4), ("v6", Families::V6), ("dual", Families::Dual)] {
        let client = mesh.pod_with(&format!("shop/client-{name}"), "n1", families, |_| {})?;
        let server = mesh.pod_with(&format!("shop/server-{name}"), "n2", families, |_| {})?;
        apps::nginx(&server, &marker)?;
        pods.push((families, client, server));
    }
    let service = mesh.service_selecting("shop/dual", 80, NGINX, ("app", "server-dual"))?;
    mesh.start()?;

    let capture = Capture::start(&marker)?;
    for (families, client, _) in &pods {
        for (other, _, server) in &pods {
            if *families != Families::V6 && *other != Families::V6 {
                client.get(server.at(NGINX))?.expect_body(&marker)?;
            }
            if *families != Families::V4 && *other != Families::V4 {
                client.get(server.at_v6(NGINX))?.expect_body(&marker)?;
            }
        }
        let virtual_address = if *families == Families::V6 { service.v6() } else { service.v4() };
        client.get(virtual_address)?.expect_body(&marker)?;
    }
    let seen = capture.finish()?;
    ensure!(
        seen.marked == 0 && seen.flows_beside_hbone().is_empty(),
        "in clear: {:?}",
        seen.flows_beside_hbone()
    );
    Ok(())
}
