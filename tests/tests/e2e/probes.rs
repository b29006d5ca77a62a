//! Kubelet probes: they pass where a policy refuses plain text, and nobody passes for them.

use std::net::{IpAddr, SocketAddr};

use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::Mesh;
use ambit_tests::mesh::fabric::Families;
use ambit_tests::namespace::Namespace;
use ambit_tests::pod::Pod;
use ambit_tests::process;
use ambit_tests::traffic::{self, Held};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};

const ECHO: u16 = 9000;

/// A pod `web` on n1 with nginx and an echo server, which takes no plain text. One of the two is
/// probed.
fn shop(probed: u16) -> Result<(Mesh, Pod)> {
    let mesh = Mesh::of_nodes(["n1"])?;
    mesh.ambient_namespace("shop")?;
    let web = mesh.pod_with("shop/web", "n1", Families::Dual, |object| object.probe_port = Some(probed))?;
    apps::nginx(&web, "hello")?;
    traffic::echo(&web, ECHO)?;
    mesh.plain_namespace("plain")?;
    mesh.apply(
        "strict.yaml",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: { name: default, namespace: shop }\nspec: { mtls: { mode: STRICT } }\n",
    )?;
    mesh.start()?;
    Ok((mesh, web))
}

/// Fetches from a place that is no pod, as `user`.
fn get(from: &Namespace, user: u32, to: SocketAddr) -> Result<String> {
    let user = user.to_string();
    let mut command = from.command("setpriv");
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"])
        .args(["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "10"])
        .arg(format!("http://{to}/"));
    process::succeed(&mut command)
}

/// Sends something from a place that is no pod, as `user`, and closes the connection at once. It may be
/// refused before.
fn say_and_leave(from: &Namespace, user: u32, to: SocketAddr) -> Result<()> {
    let user = user.to_string();
    let mut command = from.command("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--", "bash", "-c"]);
    command.arg(format!("echo DELETE / > /dev/tcp/{}/{}", to.ip(), to.port()));
    command.output().map(drop).context("bash cannot be started")
}

pub(crate) fn a_strict_pod_is_probed_by_its_kubelet_and_by_nobody_else() -> Result<()> {
    let (mesh, web) = shop(NGINX)?;
    let (node, agent) = (mesh.agent("n1").namespace().clone(), mesh.agent("n1"));
    let from = agent.log_position()?;
    for to in [web.at(NGINX), web.at_v6(NGINX)] {
        let body = get(&node, 0, to)?;
        ensure!(body == "hello", "the probe of {to} got {body:?}");
        let probe = agent.wait_for_access(from, |record| {
            record.text("dst.addr") == Some(&to.to_string()) && record.text("bypass").is_some()
        })?;
        ensure!(probe.expect("bypass")? == "kubelet probe" && probe.text("error").is_none(), "{probe:?}");
    }

    // A probe that only connects.
    let from = agent.log_position()?;
    drop(node.connect(web.at(NGINX))?);
    let probe = agent.wait_for_access(from, |record| record.text("bypass").is_some())?;
    ensure!(probe.text("error").is_none(), "{probe:?}");
    // Who says something and leaves without waiting for an answer is nobody's by then, and refused.
    let from = agent.log_position()?;
    say_and_leave(&node, 1000, web.at(NGINX))?;
    let refused = agent.wait_for_access(from, |record| record.text("dst.workload") == Some("web"))?;
    ensure!(refused.text("bypass").is_none() && refused.text("error").is_some(), "{refused:?}");

    // Another user of the node, another port, another place.
    let plain = mesh.pod("plain/visitor", "n1")?;
    let elsewhere = mesh.outside_host("elsewhere", 99)?;
    for to in [web.at(NGINX), web.at_v6(NGINX)] {
        ensure!(get(&node, 1000, to).is_err(), "a user of the node who is not root reached {to}");
        ensure!(get(&elsewhere, 0, to).is_err(), "root of another machine reached {to}");
        plain.get(to)?.expect_refused()?;
    }
    for to in [web.at(ECHO), web.at_v6(ECHO)] {
        let refused = node.connect(to).and_then(Held::over);
        ensure!(refused.is_err(), "{to} is not probed and was reached");
    }
    Ok(())
}

pub(crate) fn an_address_of_the_node_does_not_make_a_probe() -> Result<()> {
    let (mesh, web) = shop(ECHO)?;
    let forger = mesh.pod("plain/forger", "n1")?;
    let agent = mesh.agent("n1");
    let hardware = mac(&forger)?;
    // The node's own addresses, and the one from which Istio has kubelets call.
    for (address, family) in [("10.10.1.1", "-4"), ("169.254.7.127", "-4"), ("fd00:10:0:1::1", "-6")] {
        let address: IpAddr = address.parse()?;
        let host = if address.is_ipv4() { 32 } else { 128 };
        forger.namespace().ip(&format!("addr add {address}/{host} dev eth0"))?;
        // As if the forger had won over the node in answering who has the address.
        let there = web.namespace();
        there.ip(&format!("{family} route replace {address}/{host} dev eth0"))?;
        there.ip(&format!("{family} neigh replace {address} lladdr {hardware} dev eth0 nud permanent"))?;
        let to = if address.is_ipv4() { web.at(ECHO) } else { web.at_v6(ECHO) };
        let from = agent.log_position()?;
        let reached = forger.namespace().connect_from(address, to).and_then(Held::over);
        ensure!(reached.is_err(), "{address} passed for the node's kubelet");
        let refused = agent.wait_for_access(from, |record| {
            record.text("src.addr").is_some_and(|source| source.contains(&address.to_string()))
        })?;
        ensure!(refused.text("bypass").is_none() && refused.text("error").is_some(), "{refused:?}");
        there.ip(&format!("{family} route del {address}/{host} dev eth0"))?;
        there.ip(&format!("{family} neigh del {address} dev eth0"))?;
    }

    // The kubelet still passes, and stays when policies change.
    let node = agent.namespace();
    let mut probe = Held::over(node.connect(web.at(ECHO))?)?;
    mesh.apply(
        "deny.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: { name: deny, namespace: shop }\nspec: { action: DENY, rules: [{}] }\n",
    )?;
    let is_known = || {
        let policies = agent.dump()?["policies"].to_string();
        ensure!(policies.contains("\"deny\""), "{policies}");
        Ok(())
    };
    wait::until("the policy to be in force", SOON, is_known)?;
    probe.exchange()?;
    probe.close()
}

/// The hardware address of a pod's interface.
fn mac(pod: &Pod) -> Result<String> {
    let shown = pod.run("ip", &["-o", "link", "show", "dev", "eth0"])?;
    let address = shown.split_whitespace().skip_while(|word| *word != "link/ether").nth(1);
    address.map(str::to_owned).with_context(|| format!("no hardware address: {shown}"))
}
