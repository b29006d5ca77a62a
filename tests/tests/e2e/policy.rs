//! Authorization as an operator meets it: a file is edited, and who may talk changes (bar 4).

use std::time::{Duration, Instant};

use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::Mesh;
use ambit_tests::pod::Pod;
use ambit_tests::traffic::{self, End, Held};
use ambit_tests::wait::{self, SOON};
use anyhow::{Result, ensure};

/// Bar 4: "in under 1 s".
const AT_ONCE: Duration = Duration::from_secs(1);
const ECHO: u16 = 9000;

/// Clients `one` and `other` on n1, and `web` with nginx and an echo server on n2.
fn shop() -> Result<(Mesh, Pod, Pod, Pod)> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let (one, other) = (mesh.pod("shop/one", "n1")?, mesh.pod("shop/other", "n1")?);
    let web = mesh.pod("shop/web", "n2")?;
    apps::nginx(&web, "hello")?;
    traffic::echo(&web, ECHO)?;
    mesh.start()?;
    Ok((mesh, one, other, web))
}

/// A policy for `web`, with this action and these rules.
fn policy(name: &str, action: &str, rules: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
         metadata: {{ name: {name}, namespace: shop }}\n\
         spec:\n  selector: {{ matchLabels: {{ app: web }} }}\n  action: {action}\n  rules:\n{rules}"
    )
}

fn from(service_account: &str) -> String {
    format!("  - from:\n    - source: {{ principals: [cluster.local/ns/shop/sa/{service_account}] }}\n")
}

pub(crate) fn an_edit_reaches_new_and_open_connections_within_a_second() -> Result<()> {
    let (mesh, one, other, web) = shop()?;
    let mut of_one = Held::open(&one, web.at(ECHO))?;
    let mut of_other = Held::open(&other, web.at(ECHO))?;

    mesh.apply("web.yaml", &policy("web", "ALLOW", &from("other")))?;
    let edited = Instant::now();
    let (end, _) = of_one.wait_until_cut(SOON)?;
    let cut_after = edited.elapsed();
    ensure!(cut_after < AT_ONCE, "the open connection was cut after {cut_after:?}");
    ensure!(end == End::Reset, "an open connection that is cut must not look finished");
    one.get(web.at(NGINX))?.expect_refused()?;
    ensure!(edited.elapsed() < AT_ONCE, "new connections were refused after {:?}", edited.elapsed());
    of_other.exchange()?;
    other.get(web.at(NGINX))?.expect_body("hello")?;

    mesh.apply("web.yaml", &policy("web", "ALLOW", &from("one")))?;
    let edited = Instant::now();
    of_other.wait_until_cut(SOON)?;
    ensure!(edited.elapsed() < AT_ONCE, "the second edit took {:?}", edited.elapsed());
    one.get(web.at(NGINX))?.expect_body("hello")?;

    mesh.withdraw("web.yaml")?;
    let allowed = || other.get(web.at(NGINX))?.expect_body("hello");
    let (_, took) = wait::until("the deleted policy to be gone", SOON, allowed)?;
    ensure!(took < AT_ONCE, "the deletion took {took:?}");
    Ok(())
}

pub(crate) fn the_log_of_a_denial_names_policy_and_rule() -> Result<()> {
    let (mesh, one, other, web) = shop()?;
    let rules = from("nobody") + &from("one");
    mesh.apply("no-one.yaml", &policy("no-one", "DENY", &rules))?;
    let refused = || one.get(web.at(NGINX))?.expect_refused();
    wait::until("the policy to hold", SOON, refused)?;
    let start = mesh.agent("n2").log_position()?;
    one.get(web.at(NGINX))?.expect_refused()?;

    let denied = mesh.agent("n2").wait_for_access(start, |record| {
        record.text("src.identity") == Some(&one.identity()) && record.text("error").is_some()
    })?;
    let why = denied.expect("error")?;
    // Rules are counted from 0, as Istio's own logs do.
    ensure!(why.contains("shop/no-one"), "the denial does not name the policy: {why}");
    ensure!(why.contains("rule 1"), "the denial does not name the rule: {why}");

    other.get(web.at(NGINX))?.expect_body("hello")?;
    mesh.apply("only.yaml", &policy("only-nobody", "ALLOW", &from("nobody")))?;
    wait::until("the second policy to hold", SOON, || other.get(web.at(NGINX))?.expect_refused())?;
    let denied = mesh.agent("n2").wait_for_access(start, |record| {
        record.text("src.identity") == Some(&other.identity()) && record.text("error").is_some()
    })?;
    let why = denied.expect("error")?;
    ensure!(why.to_lowercase().contains("allow"), "the denial does not say that no ALLOW matched: {why}");
    Ok(())
}

pub(crate) fn ports_and_namespaces_are_told_apart() -> Result<()> {
    let (mesh, one, _, web) = shop()?;
    mesh.ambient_namespace("bank")?;
    let banker = mesh.pod("bank/banker", "n1")?;
    mesh.wait_until_captured()?;

    let port = format!("  - to:\n    - operation: {{ ports: [\"{NGINX}\"] }}\n");
    mesh.apply("port.yaml", &policy("port", "DENY", &port))?;
    wait::until("the port to be closed", SOON, || one.get(web.at(NGINX))?.expect_refused())?;
    Held::open(&one, web.at(ECHO))?;
    mesh.withdraw("port.yaml")?;
    wait::until("the port to be open", SOON, || one.get(web.at(NGINX))?.expect_body("hello"))?;

    let bank = "  - from:\n    - source: { namespaces: [bank] }\n";
    mesh.apply("bank.yaml", &policy("bank", "ALLOW", bank))?;
    wait::until("the namespace to be shut out", SOON, || one.get(web.at(NGINX))?.expect_refused())?;
    banker.get(web.at(NGINX))?.expect_body("hello").map(drop)
}

pub(crate) fn strict_refuses_who_comes_in_clear() -> Result<()> {
    let (mesh, one, _, web) = shop()?;
    mesh.plain_namespace("outside")?;
    let outsider = mesh.pod("outside/visitor", "n1")?;
    // PERMISSIVE is the default of PeerAuthentication.
    outsider.get(web.at(NGINX))?.expect_body("hello")?;
    outsider.get(web.at_v6(NGINX))?.expect_body("hello")?;
    let mut open = Held::open(&outsider, web.at(ECHO))?;

    mesh.apply(
        "strict.yaml",
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: { name: default, namespace: shop }\nspec: { mtls: { mode: STRICT } }\n",
    )?;
    let edited = Instant::now();
    open.wait_until_cut(SOON)?;
    ensure!(edited.elapsed() < AT_ONCE, "an open connection in clear lived for {:?}", edited.elapsed());
    for to in [web.at(NGINX), web.at_v6(NGINX)] {
        outsider.get(to)?.expect_refused()?;
        one.get(to)?.expect_body("hello")?;
    }

    mesh.withdraw("strict.yaml")?;
    let permitted = || outsider.get(web.at(NGINX))?.expect_body("hello");
    wait::until("PERMISSIVE to be back", SOON, permitted).map(drop)
}
