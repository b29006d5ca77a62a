//! Which pod is whose: network namespaces found by the pods' UIDs, as on Kubernetes.

use std::time::Duration;

use ambit_tests::apps::{self, NGINX};
use ambit_tests::configuration::Dataplane;
use ambit_tests::host_proc::{HostProc, cgroup};
use ambit_tests::mesh::{Finding, Mesh, Settings};
use ambit_tests::pod::{CAPTURE_PORTS, Pod};
use ambit_tests::traffic::{self, Held};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, bail, ensure};

const ECHO: u16 = 9000;

/// Long enough for an agent to look at the processes of its node several times.
const SEVERAL_LOOKS: Duration = Duration::from_secs(4);

/// A mesh whose agents find pods by their processes, and the `/proc` of its one node.
fn mesh() -> Result<(Mesh, HostProc)> {
    let mesh = Mesh::with_settings(Settings { finding: Finding::Processes, ..Settings::default() }, ["n1"])?;
    let proc = HostProc::create("n1", mesh.agent("n1").namespace())?;
    Ok((mesh, proc))
}

/// A pod of n1 without processes.
fn pod(mesh: &Mesh, name: &str) -> Result<Pod> {
    mesh.pod_with(name, "n1", ambit_tests::mesh::fabric::Families::Dual, |object| object.annotations.clear())
}

fn start(mesh: &Mesh) -> Result<()> {
    mesh.start_control()?;
    mesh.agent("n1").start()
}

/// What the agent says of a pod: its state and its UID, and why.
fn state(mesh: &Mesh, pod: &Pod) -> Result<(String, String, String)> {
    let workload = format!("Kubernetes//Pod/{}/{}", pod.object().namespace, pod.object().name);
    let dump = mesh.agent("n1").dump()?;
    let pods = dump["workloadState"].as_array().context("workloadState is a list")?;
    let Some(pod) = pods.iter().find(|pod| pod["workload"] == workload.as_str()) else {
        bail!("the agent does not tell of {workload}: {pods:?}");
    };
    let text = |key: &str| pod[key].as_str().unwrap_or_default().to_owned();
    Ok((text("state"), text("pod_uid"), text("error")))
}

fn wait_for_state(mesh: &Mesh, pod: &Pod, wanted: &str, about: &str) -> Result<()> {
    let is_so = || {
        let (state, _, error) = state(mesh, pod)?;
        ensure!(state == wanted && error.contains(about), "it is {state}: {error}");
        Ok(())
    };
    wait::until(format!("{} to be {wanted}", pod.object().name), SOON, is_so).map(drop)
}

fn ensure_untouched(pods: &[&Pod]) -> Result<()> {
    wait::throughout("pods being left alone", SEVERAL_LOOKS, || {
        for pod in pods {
            let listens = CAPTURE_PORTS.iter().any(|port| pod.namespace().listens_on(*port).is_ok());
            ensure!(!listens, "{} is captured", pod.object().name);
            let rules = pod.run("nft", &["list", "ruleset"])?;
            ensure!(rules.trim().is_empty(), "{} has rules: {rules}", pod.object().name);
        }
        Ok(())
    })
}

pub(crate) fn a_pod_is_found_by_its_processes() -> Result<()> {
    let (mesh, proc) = mesh()?;
    mesh.ambient_namespace("shop")?;
    let (client, web) = (pod(&mesh, "shop/client")?, pod(&mesh, "shop/web")?);
    apps::nginx(&web, "hello")?;
    traffic::echo(&web, ECHO)?;
    start(&mesh)?;
    for pod in [&client, &web] {
        wait_for_state(&mesh, pod, "pending", "network namespace is not known")?;
    }
    let missing = mesh.agent("n1").metric("ambit_pods_not_found", &[""; 0])?;
    ensure!(missing as u32 == 2, "{missing} pods are said to be missing");

    proc.start(100, &cgroup(&client.object().uid), client.namespace())?;
    proc.start(101, &cgroup(&web.object().uid), web.namespace())?;
    mesh.wait_until_captured()?;
    let from = mesh.agent("n1").log_position()?;
    client.get(web.at(NGINX))?.expect_body("hello")?;
    mesh.agent("n1")
        .wait_for_access(from, |record| record.text("src.identity") == Some(&client.identity()))?;

    // A label changes, and no connection is lost on the way out or back in.
    let mut held = Held::open(&client, web.at(ECHO))?;
    mesh.set_dataplane("shop", Dataplane::Unset)?;
    wait_for_state(&mesh, &client, "leaving", "")?;
    held.exchange()?;
    mesh.set_dataplane("shop", Dataplane::Ambient)?;
    wait_for_state(&mesh, &client, "captured", "")?;
    wait_for_state(&mesh, &web, "captured", "")?;
    held.exchange()?;
    client.get(web.at(NGINX))?.expect_body("hello")?;

    // That its processes are not seen for a while opens nothing.
    proc.end(101)?;
    wait::throughout("the pod being captured", SEVERAL_LOOKS, || {
        wait_for_state(&mesh, &web, "captured", "")
    })?;
    held.exchange()
}

pub(crate) fn forgeries_gain_nothing() -> Result<()> {
    let (mesh, proc) = mesh()?;
    mesh.ambient_namespace("shop")?;
    mesh.plain_namespace("plain")?;
    let victim = pod(&mesh, "plain/victim")?;
    proc.start(100, &cgroup(&victim.object().uid), victim.namespace())?;
    let forger = mesh.pod_with("shop/forger", "n1", ambit_tests::mesh::fabric::Families::Dual, |object| {
        let path = victim.namespace().path().display().to_string();
        object.annotations = vec![("ambit.dev/netns".to_owned(), path)];
    })?;
    let other = pod(&mesh, "shop/other")?;
    start(&mesh)?;
    let forged = &cgroup(&forger.object().uid);

    // The annotation of directory mode names the victim's namespace.
    wait_for_state(&mesh, &forger, "pending", "network namespace is not known")?;
    ensure_untouched(&[&victim, &forger])?;
    // A process of the victim is in a nested cgroup that is named for the forger.
    proc.start(101, &format!("{}/{}", cgroup(&victim.object().uid), &forged[4..]), victim.namespace())?;
    // A user of the node has a cgroup of their own.
    proc.start(102, &format!("0::/user.slice/user-1000.slice{}", &forged[3..]), victim.namespace())?;
    // A process of the forger is in the node's own network.
    proc.start(103, forged, mesh.agent("n1").namespace())?;
    ensure_untouched(&[&victim, &forger])?;
    wait_for_state(&mesh, &forger, "pending", "network namespace is not known")?;

    // Two pods claim one namespace: neither has it, until one of them does not.
    proc.start(104, forged, other.namespace())?;
    proc.start(105, &cgroup(&other.object().uid), other.namespace())?;
    for pod in [&forger, &other] {
        wait_for_state(&mesh, pod, "pending", "claimed")?;
    }
    ensure_untouched(&[&other])?;
    proc.end(104)?;
    other.wait_until_captured()?;

    // Who comes late to a namespace takes nobody's place, and its own sandbox is the oldest.
    proc.start(110, forged, forger.namespace())?;
    proc.start(111, forged, other.namespace())?;
    forger.wait_until_captured()?;
    wait_for_state(&mesh, &other, "captured", "")
}

pub(crate) fn a_pod_with_a_new_uid_is_another_pod() -> Result<()> {
    const SECOND: &str = "99999999-0000-4000-8000-000000000001";
    let (mesh, proc) = mesh()?;
    mesh.ambient_namespace("shop")?;
    let (client, web) = (pod(&mesh, "shop/client")?, pod(&mesh, "shop/web")?);
    traffic::echo(&web, ECHO)?;
    proc.start(100, &cgroup(&client.object().uid), client.namespace())?;
    proc.start(101, &cgroup(&web.object().uid), web.namespace())?;
    start(&mesh)?;
    mesh.wait_until_captured()?;
    let mut held = Held::open(&client, web.at(ECHO))?;

    // A StatefulSet makes the next pod of the same name, which has no sandbox so far.
    mesh.change_pod(&web, |object| object.uid = SECOND.to_owned())?;
    held.wait_until_cut(SOON)?;
    wait_for_state(&mesh, &web, "pending", "")?;
    web.wait_until_released()?;
    proc.end(101)?;
    proc.start(102, &cgroup(SECOND), web.namespace())?;
    web.wait_until_captured()?;
    let (_, uid, _) = state(&mesh, &web)?;
    ensure!(uid == SECOND, "the pod that is captured is {uid}");
    Held::open(&client, web.at(ECHO)).map(drop)
}

pub(crate) fn uninstalling_finds_what_no_path_leads_to() -> Result<()> {
    let (mesh, proc) = mesh()?;
    mesh.ambient_namespace("shop")?;
    mesh.plain_namespace("plain")?;
    let (client, plain) = (pod(&mesh, "shop/client")?, pod(&mesh, "plain/bystander")?);
    plain.run("nft", &["add", "table", "inet", "theirs"])?;
    proc.start(100, &cgroup(&client.object().uid), client.namespace())?;
    proc.start(101, &cgroup(&client.object().uid), client.namespace())?;
    proc.start(102, &cgroup(&plain.object().uid), plain.namespace())?;
    start(&mesh)?;
    client.wait_until_captured()?;
    mesh.agent("n1").kill()?;

    let said = mesh.agent("n1").uninstall()?;
    ensure!(said.contains("redirections removed: 1"), "{said}");
    let rules = client.run("nft", &["list", "ruleset"])?;
    ensure!(rules.trim().is_empty(), "rules are left: {rules}");
    for family in ["-4", "-6"] {
        let routing = client.run("ip", &[family, "rule", "list"])?;
        ensure!(!routing.contains("fwmark"), "routing rules are left: {routing}");
    }
    let theirs = plain.run("nft", &["list", "ruleset"])?;
    ensure!(theirs.contains("theirs"), "what is not ours was removed: {theirs}");
    let again = mesh.agent("n1").uninstall()?;
    ensure!(again.contains("redirections removed: 0"), "{again}");
    Ok(())
}
