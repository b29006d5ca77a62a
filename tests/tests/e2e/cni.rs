//! The CNI plugin in a real chain, after Debian's `bridge` and `host-local`: pods of the mesh start
//! captured or not at all, and a node always boots (bar 3).

use std::fs;
use std::time::{Duration, Instant};

use ambit_tests::agent::CNI_TIMEOUT;
use ambit_tests::apps::{self, NGINX};
use ambit_tests::cni::{PluginError, PodSandbox};
use ambit_tests::mesh::{CniPlugin, Mesh, Settings};
use ambit_tests::pod::{CAPTURE_PORTS, Pod};
use ambit_tests::process;
use ambit_tests::sandbox::program;
use ambit_tests::wait::{self, SOON};
use ambit_tests::wire::Capture;
use anyhow::{Context, Result, bail, ensure};

use crate::encryption::marker;

/// Well below what a pod waits for that must be captured.
const AT_ONCE: Duration = Duration::from_secs(6);

fn mesh() -> Result<Mesh> {
    let mesh =
        Mesh::with_settings(Settings { cni: CniPlugin::Installed, ..Settings::default() }, ["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    for name in ["plain", "ambit-system"] {
        mesh.plain_namespace(name)?;
    }
    Ok(mesh)
}

/// Waits until the runtime of a node would call the plugin.
fn wait_until_chained(mesh: &Mesh, node: &str) -> Result<()> {
    let chained = || {
        let chain = mesh.runtime(node).chain()?;
        ensure!(chain.last().is_some_and(|last| last == "ambit-cni"), "the chain is {chain:?}");
        Ok(())
    };
    wait::until(format!("the plugin to be in the chain of {node}"), SOON, chained).map(drop)
}

fn is_captured(sandbox: &PodSandbox) -> bool {
    CAPTURE_PORTS.iter().all(|port| sandbox.namespace.listens_on(*port).is_ok())
}

/// What the plugin said in refusing to start a pod, and after which time.
fn refusal(mesh: &Mesh, sandbox: &PodSandbox) -> Result<(PluginError, Duration)> {
    let start = Instant::now();
    match mesh.runtime("n1").add(sandbox) {
        Ok(addresses) => bail!("{} has started with {addresses:?}", sandbox.pod),
        Err(error) => Ok((error.downcast::<PluginError>()?, start.elapsed())),
    }
}

fn start_at_once(mesh: &Mesh, sandbox: &PodSandbox) -> Result<Pod> {
    let start = Instant::now();
    let pod = mesh.start_sandbox(sandbox, "n1")?;
    ensure!(start.elapsed() < AT_ONCE, "{} waited: {:?}", sandbox.pod, start.elapsed());
    Ok(pod)
}

pub(crate) fn a_pod_is_captured_before_it_starts() -> Result<()> {
    let mesh = mesh()?;
    let marker = marker();
    let web = mesh.pod("shop/web", "n2")?;
    apps::nginx(&web, &marker)?;
    mesh.start()?;
    wait_until_chained(&mesh, "n1")?;

    for round in 0..5 {
        let sandbox = mesh.sandbox(&format!("shop/client-{round}"), "n1")?;
        let capture = Capture::start(&marker)?;
        let start = mesh.agent("n2").log_position()?;
        let addresses = mesh.runtime("n1").add(&sandbox)?;
        // Nothing was waited for in between: what the pod's first process would do at once.
        ensure!(is_captured(&sandbox), "{} has started uncaptured", sandbox.pod);
        let client = mesh.publish_sandbox(&sandbox, &addresses)?;
        client.get(web.at(NGINX))?.expect_body(&marker)?;
        let seen = capture.finish()?;
        ensure!(seen.marked == 0, "the first connection of {} is readable", sandbox.pod);
        mesh.agent("n2")
            .wait_for_access(start, |record| record.text("src.identity") == Some(&client.identity()))?;
        mesh.runtime("n1").check(&sandbox)?;
    }

    // And what is not of the mesh is not held up.
    let visitor = start_at_once(&mesh, &mesh.sandbox("plain/visitor", "n1")?)?;
    visitor.get(web.at(NGINX))?.expect_body(&marker)?;
    ensure!(CAPTURE_PORTS.iter().all(|port| visitor.namespace().listens_on(*port).is_err()));
    Ok(())
}

pub(crate) fn without_its_agent_a_node_starts_what_is_not_of_the_mesh() -> Result<()> {
    let mesh = mesh()?;
    mesh.start()?;
    wait_until_chained(&mesh, "n1")?;
    let before = mesh.sandbox("shop/before", "n1")?;
    let captured = mesh.start_sandbox(&before, "n1")?;
    mesh.runtime("n1").check(&before)?;

    mesh.agent("n1").kill()?;
    mesh.runtime("n1").check(&before).context("its rules stay without an agent")?;
    let enrolled = mesh.sandbox("shop/late", "n1")?;
    let (error, took) = refusal(&mesh, &enrolled)?;
    ensure!(error.plugin == "ambit-cni" && error.code == 11, "{error}");
    ensure!(error.said.contains("ztunnel is not running on this node"), "{error}");
    ensure!(took > CNI_TIMEOUT / 2 && took < CNI_TIMEOUT + SOON, "it failed after {took:?}");
    start_at_once(&mesh, &mesh.sandbox("plain/web", "n1")?)?;
    start_at_once(&mesh, &mesh.sandbox("ambit-system/control-x", "n1")?)?;

    // Rules that somebody removes are missed.
    captured.run("nft", &["flush", "ruleset"])?;
    let check = mesh.runtime("n1").check(&before).err().context("nobody noticed")?;
    ensure!(check.downcast_ref::<PluginError>().is_some_and(|error| error.code == 11), "{check:#}");

    for sandbox in [&enrolled, &before] {
        for _ in 0..2 {
            mesh.runtime("n1").delete(sandbox)?;
        }
    }
    mesh.agent("n1").start()?;
    let again = mesh.sandbox("shop/again", "n1")?;
    mesh.start_sandbox(&again, "n1")?;
    ensure!(is_captured(&again), "it has started uncaptured");
    let pod = mesh.sandbox("shop/removed", "n1")?;
    let captured = mesh.start_sandbox(&pod, "n1")?;
    captured.run("nft", &["delete", "table", "inet", "ambit"])?;
    let check = mesh.runtime("n1").check(&pod).err().context("nobody noticed")?;
    ensure!(check.downcast_ref::<PluginError>().is_some_and(|error| error.code == 101), "{check:#}");
    Ok(())
}

pub(crate) fn a_node_that_reboots_comes_up_by_itself() -> Result<()> {
    let mesh = mesh()?;
    mesh.start()?;
    wait_until_chained(&mesh, "n1")?;
    mesh.agent("n1").kill()?;
    mesh.agent("n1").forget_as_a_reboot_does()?;

    // The kubelet starts everything at once; the agent's own pod happens to be the last in line.
    let enrolled = mesh.sandbox("shop/web", "n1")?;
    let (error, _) = refusal(&mesh, &enrolled)?;
    ensure!(error.code == 11, "{error}");
    start_at_once(&mesh, &mesh.sandbox("plain/web", "n1")?)?;
    start_at_once(&mesh, &mesh.sandbox("kube-system/dns", "n1")?)?;
    start_at_once(&mesh, &mesh.sandbox("ambit-system/ztunnel-x", "n1")?)?;
    mesh.agent("n1").launch()?;
    // The kubelet tries again, as it does after every failure.
    let retry = || mesh.start_sandbox(&enrolled, "n1");
    wait::until("the enrolled pod to start", SOON, retry)?;
    ensure!(is_captured(&enrolled), "it has started uncaptured");
    Ok(())
}

pub(crate) fn another_pods_arguments_gain_nothing() -> Result<()> {
    let mesh = mesh()?;
    mesh.start()?;
    wait_until_chained(&mesh, "n1")?;
    let (one, other) = (mesh.sandbox("shop/one", "n1")?, mesh.sandbox("shop/other", "n1")?);
    mesh.start_sandbox(&one, "n1")?;
    mesh.start_sandbox(&other, "n1")?;

    // The namespace of one under the UID of the other, and under one that nobody has.
    for uid in [&*other.uid, "00000000-0000-4000-8000-999999999999"] {
        let forged = PodSandbox {
            id: "forged".to_owned(),
            namespace: one.namespace.clone(),
            pod: other.pod.clone(),
            uid: uid.to_owned(),
        };
        let forging = mesh.runtime("n1").call_last("ADD", &forged);
        let error = forging.err().context("it was accepted")?;
        ensure!(error.downcast_ref::<PluginError>().is_some_and(|error| error.code == 100), "{error:#}");
    }
    for sandbox in [&one, &other] {
        mesh.runtime("n1").check(sandbox)?;
        ensure!(is_captured(sandbox));
    }
    Ok(())
}

pub(crate) fn the_chain_is_repaired_and_restored() -> Result<()> {
    let mesh = mesh()?;
    let list = mesh.runtime("n1").conf_dir().join("10-pods.conflist");
    let original = fs::read_to_string(&list)?;
    mesh.start()?;
    wait_until_chained(&mesh, "n1")?;
    // As a network plugin does when it is upgraded.
    let upgraded = original.replace("\"isDefaultGateway\"", "\"mtu\": 1450,\n      \"isDefaultGateway\"");
    ensure!(upgraded != original);
    let aside = list.with_extension("tmp");
    fs::write(&aside, &upgraded)?;
    fs::rename(&aside, &list)?;
    wait_until_chained(&mesh, "n1")?;
    ensure!(fs::read_to_string(&list)?.contains("1450"), "what it wrote is kept");

    mesh.agent("n1").terminate()?;
    let mut uninstall = mesh.agent("n1").namespace().command(program("ztunnel"));
    uninstall.args(["cni", "uninstall", "--cni-conf-dir"]).arg(mesh.runtime("n1").conf_dir());
    uninstall.arg("--cni-bin-dir").arg(mesh.runtime("n1").bin_dir());
    process::succeed(&mut uninstall)?;
    ensure!(fs::read_to_string(&list)? == upgraded, "the chain is not as its owner wrote it");
    ensure!(!mesh.runtime("n1").bin_dir().join("ambit-cni").exists(), "the plugin is left");
    Ok(())
}
