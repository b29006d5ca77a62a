//! Parts that die, and input that is broken: what works goes on, and nothing opens (bar 7).

use std::fs::File;
use std::io::Write;
use std::thread;
use std::time::Duration;

use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::Mesh;
use ambit_tests::pod::Pod;
use ambit_tests::traffic::{self, Held};
use ambit_tests::wait::{self, SOON};
use anyhow::{Result, ensure};

const ECHO: u16 = 9000;

fn shop() -> Result<(Mesh, Pod, Pod)> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let (client, web) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/web", "n2")?);
    apps::nginx(&web, "hello")?;
    traffic::echo(&web, ECHO)?;
    mesh.start()?;
    Ok((mesh, client, web))
}

fn deny(name: &str, service_account: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{ name: {name}, namespace: shop }}\n\
         spec:\n  action: DENY\n  rules:\n  - from:\n    \
         - source: {{ principals: [cluster.local/ns/shop/sa/{service_account}] }}\n"
    )
}

pub(crate) fn control_may_be_away() -> Result<()> {
    let (mesh, client, web) = shop()?;
    let other = mesh.pod("shop/other", "n1")?;
    mesh.apply("no-other.yaml", &deny("no-other", "other"))?;
    mesh.wait_until_captured()?;
    wait::until("the policy to hold", SOON, || other.get(web.at(NGINX))?.expect_refused())?;
    let mut held = Held::open(&client, web.at(ECHO))?;

    mesh.control().kill()?;
    held.exchange()?;
    client.get(web.at(NGINX))?.expect_body("hello")?;
    other.get(web.at(NGINX))?.expect_refused()?;
    // While it is away one policy goes and another comes.
    mesh.withdraw("no-other.yaml")?;
    mesh.apply("no-client.yaml", &deny("no-client", "client"))?;
    held.exchange()?;

    mesh.start_control()?;
    wait::until("the new policy to hold", SOON, || client.get(web.at(NGINX))?.expect_refused())?;
    wait::until("the old policy to be gone", SOON, || other.get(web.at(NGINX))?.expect_body("hello"))?;
    mesh.withdraw("no-client.yaml")?;
    wait::until("all to be open again", SOON, || client.get(web.at(NGINX))?.expect_body("hello")).map(drop)
}

pub(crate) fn controls_return_interrupts_nothing() -> Result<()> {
    let (mesh, client, web) = shop()?;
    let mut held = Held::open_many(20, &client, web.at(ECHO))?;
    for _ in 0..3 {
        mesh.control().kill()?;
        held.iter_mut().try_for_each(Held::exchange)?;
        mesh.start_control()?;
        for _ in 0..20 {
            held.iter_mut().try_for_each(Held::exchange)?;
            client.get(web.at(NGINX))?.expect_body("hello")?;
        }
    }
    Ok(())
}

pub(crate) fn an_agent_restarts_while_control_is_away() -> Result<()> {
    let (mesh, client, web) = shop()?;
    let other = mesh.pod("shop/other", "n1")?;
    mesh.apply("no-other.yaml", &deny("no-other", "other"))?;
    mesh.wait_until_captured()?;
    wait::until("the policy to hold", SOON, || other.get(web.at(NGINX))?.expect_refused())?;
    for agent in mesh.agents() {
        wait::until("the policy to be kept", SOON, || agent.keeps("no-other"))?;
    }

    mesh.control().kill()?;
    for node in ["n1", "n2"] {
        mesh.agent(node).kill()?;
        mesh.agent(node).start()?;
        mesh.wait_until_captured()?;
        client.get(web.at(NGINX))?.expect_body("hello")?;
        other.get(web.at(NGINX))?.expect_refused()?;
    }

    mesh.withdraw("no-other.yaml")?;
    mesh.start_control()?;
    wait::until("the old policy to be gone", SOON, || other.get(web.at(NGINX))?.expect_body("hello"))
        .map(drop)
}

pub(crate) fn a_file_that_is_written_slowly_is_read_when_it_is_whole() -> Result<()> {
    let (mesh, client, web) = shop()?;
    let policy = deny("no-client", "client");
    let (beginning, end) = policy.split_at(policy.len() / 2);
    let path = mesh.configuration().directory().join("no-client.yaml");
    let mut file = File::create(path)?;
    file.write_all(beginning.as_bytes())?;
    file.sync_all()?;
    wait::throughout("being open while the policy is half written", Duration::from_millis(100), || {
        client.get(web.at(NGINX))?.expect_body("hello").map(drop)
    })?;
    file.write_all(end.as_bytes())?;
    drop(file);
    wait::until("the policy to hold", SOON, || client.get(web.at(NGINX))?.expect_refused()).map(drop)
}

pub(crate) fn broken_documents_cost_only_themselves() -> Result<()> {
    let (mesh, client, web) = shop()?;
    mesh.ambient_namespace("bank")?;
    let banker = mesh.pod("bank/banker", "n1")?;
    mesh.wait_until_captured()?;
    mesh.apply("no-client.yaml", &deny("no-client", "client"))?;
    wait::until("the policy to hold", SOON, || client.get(web.at(NGINX))?.expect_refused())?;
    banker.get(web.at(NGINX))?.expect_body("hello")?;

    // The policy that shuts the client out becomes unreadable: its last good version stays.
    mesh.apply("no-client.yaml", &deny("no-client", "client").replace("action: DENY", "action: [DENY"))?;
    let broken = [
        ("syntax.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: x\nspec:\n  ports: [\n"),
        (
            "types.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: x, namespace: shop}\nspec: {ports: 80}\n",
        ),
        (
            "cidr.yaml",
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {name: cidr, namespace: bank}\nspec:\n  rules:\n  - from:\n    \
             - source: {ipBlocks: [10.0.0.0/99]}\n",
        ),
        ("kind.yaml", "apiVersion: example.com/v1\nkind: Teapot\nmetadata: {name: x, namespace: shop}\n"),
        (
            "zz-duplicate.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: twice, namespace: shop}\n\
             spec: {ports: [{port: 81}]}\n---\napiVersion: v1\nkind: Service\n\
             metadata: {name: twice, namespace: shop}\nspec: {ports: [{port: 82}]}\n",
        ),
        ("half.yaml", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: half\n  namesp"),
    ];
    for (file, text) in broken {
        mesh.apply(file, text)?;
    }
    for file in broken.map(|(file, _)| file).into_iter().chain(["no-client.yaml"]) {
        wait::until(format!("{file} to be reported"), SOON, || {
            let statuses = mesh.control().statuses()?;
            let of_file = statuses.iter().any(|status| names_place(status, file));
            ensure!(of_file, "no status names {file} and a line: {statuses:?}");
            Ok(())
        })?;
    }

    // Everything else is applied, also what came after the broken files.
    mesh.apply(
        "no-banker.yaml",
        &deny("no-banker", "nobody").replace("ns/shop/sa/nobody", "ns/bank/sa/banker"),
    )?;
    wait::until("a good policy to hold", SOON, || banker.get(web.at(NGINX))?.expect_refused())?;
    client.get(web.at(NGINX))?.expect_refused()?;
    // A policy that never had a good version denies what it selects.
    let bank = mesh.pod("bank/vault", "n2")?;
    apps::nginx(&bank, "gold")?;
    mesh.wait_until_captured()?;
    banker.get(bank.at(NGINX))?.expect_refused().map(drop)
}

/// Whether a status file says of `file` where in it the problem is.
fn names_place(status: &str, file: &str) -> bool {
    let structured = status.contains(&format!("\"{file}\"")) && status.contains("\"line\"");
    structured || status.contains(&format!("{file}:")) || (status.contains(file) && status.contains("line"))
}

pub(crate) fn a_drained_agent_lets_connections_finish() -> Result<()> {
    let (mesh, client, web) = shop()?;
    let mut held = Held::open(&client, web.at(ECHO))?;
    thread::scope(|scope| {
        let ending = scope.spawn(|| mesh.agent("n1").terminate());
        // As soon as its listeners are gone it drains.
        wait::until_true("the agent to stop listening", SOON, || {
            client.namespace().listens_on(15001).is_err()
        })?;
        held.exchange()?;
        held.close()?;
        ending.join().expect("ending does not panic")
    })?;
    client.get(web.at(NGINX))?.expect_refused()?;
    mesh.agent("n1").start()?;
    client.wait_until_captured()?;
    client.get(web.at(NGINX))?.expect_body("hello").map(drop)
}
