//! The steps of the demo.

use std::time::{Duration, Instant};

use ambit_tests::apps::{self, NGINX, REDIS};
use ambit_tests::certificates;
use ambit_tests::configuration::Dataplane;
use ambit_tests::mesh::{Mesh, Service, Settings};
use ambit_tests::pod::Pod;
use ambit_tests::sandbox::Sandbox;
use ambit_tests::traffic::{self, Held};
use ambit_tests::wait::{self, SOON};
use ambit_tests::waypoint::Waypoint;
use ambit_tests::wire::{Capture, TLS_1_3};
use anyhow::{Result, ensure};

use crate::narrator::Narrator;

mod layer7;

/// Short, so that a rotation can be waited for.
const CERTIFICATE_LIFE: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::from_secs(1);
const SECRET: &str = "the-recipe-of-the-house-sauce";
const ECHO: u16 = 9000;

/// What the demo has built.
#[derive(Debug)]
pub(crate) struct Demo {
    mesh: Mesh,
    cart: Pod,
    reports: Pod,
    web: Pod,
    store: Pod,
    visitor: Pod,
    web_service: Service,
    /// From the chapter on, in which it is deployed.
    waypoint: Option<Waypoint>,
}

/// Shows all steps, and hands out the mesh at their end.
pub(crate) fn run(narrator: &mut Narrator) -> Result<Demo> {
    let mut demo = build(narrator)?;
    show_clear(narrator, &demo)?;
    opt_in(narrator, &demo)?;
    show_encrypted(narrator, &demo)?;
    show_identities(narrator, &demo)?;
    cut_one_client_off(narrator, &demo)?;
    refuse_the_outsider(narrator, &demo)?;
    rotate_under_load(narrator, &demo)?;
    lose_an_agent(narrator, &demo)?;
    demo.waypoint = Some(layer7::show(narrator, &demo)?);
    Ok(demo)
}

fn build(narrator: &mut Narrator) -> Result<Demo> {
    narrator.step("Two nodes with five pods, each a Linux network namespace, and unmodified applications")?;
    let mesh = Mesh::with_settings(
        Settings { certificate_life: CERTIFICATE_LIFE, ..Settings::default() },
        ["node-1", "node-2"],
    )?;
    mesh.plain_namespace("shop")?;
    mesh.plain_namespace("outside")?;
    let demo = Demo {
        cart: mesh.pod("shop/cart", "node-1")?,
        reports: mesh.pod("shop/reports", "node-1")?,
        web: mesh.pod("shop/web", "node-2")?,
        store: mesh.pod("shop/store", "node-2")?,
        visitor: mesh.pod("outside/visitor", "node-1")?,
        web_service: mesh.service("shop/web", 80, NGINX)?,
        waypoint: None,
        mesh,
    };
    apps::nginx(&demo.web, SECRET)?;
    traffic::echo(&demo.web, ECHO)?;
    apps::redis(&demo.store)?;
    demo.mesh.start()?;
    narrator.show(
        "node-1: shop/cart, shop/reports, outside/visitor (curl, redis-cli)\n\
         node-2: shop/web (nginx), shop/store (redis)",
    )?;
    narrator.held("control and one ztunnel per node are ready; no namespace is in the mesh so far")?;
    Ok(demo)
}

/// Uses nginx and redis, and hands out what an eavesdropper between the nodes saw.
fn eavesdrop(demo: &Demo) -> Result<ambit_tests::wire::Seen> {
    let capture = Capture::start(SECRET)?;
    demo.cart.get(demo.web.at(NGINX))?.expect_body(SECRET)?;
    demo.cart.get(demo.web.at_v6(NGINX))?.expect_body(SECRET)?;
    for store in [demo.store.at(REDIS), demo.store.at_v6(REDIS)] {
        apps::redis_cli(&demo.cart, store, &["SET", "recipe", SECRET])?;
        ensure!(apps::redis_cli(&demo.cart, store, &["GET", "recipe"])? == SECRET);
    }
    capture.finish()
}

fn show_clear(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    narrator.step("Without the mesh, whoever listens between the nodes reads everything")?;
    narrator.show(&format!(
        "shop/cart: curl http://{}/; redis-cli -h {} SET recipe ..",
        demo.web.at(NGINX),
        demo.store.v4()
    ))?;
    let seen = eavesdrop(demo)?;
    ensure!(seen.marked > 0, "the secret was not seen in {} packets", seen.packets);
    narrator.held(&format!("the secret was readable in {} packets", seen.marked))
}

fn opt_in(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    narrator.step("A label puts the namespace into the mesh; open connections stay")?;
    narrator
        .show("kind: Namespace\nmetadata: { name: shop, labels: { istio.io/dataplane-mode: ambient } }")?;
    let mut open = Held::open(&demo.cart, demo.web.at(ECHO))?;
    demo.mesh.set_dataplane("shop", Dataplane::Ambient)?;
    demo.mesh.wait_until_captured()?;
    open.exchange()?;
    open.close()?;
    narrator.held("the four pods of shop are captured, without a restart")?;
    narrator.held("a connection that was open before still works")
}

fn show_encrypted(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    narrator.step("The same again: now there is nothing to read between the nodes")?;
    let seen = eavesdrop(demo)?;
    ensure!(seen.marked == 0, "the secret was readable in {} packets", seen.marked);
    let beside = seen.flows_beside_hbone();
    ensure!(beside.is_empty(), "TCP beside port 15008: {beside:?}");
    ensure!(seen.tls_versions == [TLS_1_3].into(), "TLS versions chosen: {:x?}", seen.tls_versions);
    narrator.held(&format!("the secret was in none of {} packets", seen.packets))?;
    narrator.held("between the nodes there was only port 15008, and on it only TLS 1.3")?;
    demo.cart.get(demo.web_service.v4())?.expect_body(SECRET)?;
    narrator.held(&format!(
        "the Service answers at its virtual address {}, without kube-proxy",
        demo.web_service.v4()
    ))
}

fn show_identities(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    narrator.step("Both nodes know who called whom")?;
    for (node, direction) in [("node-1", "outbound"), ("node-2", "inbound")] {
        let record = demo.mesh.agent(node).wait_for_access(0, |record| {
            record.text("direction") == Some(direction) && record.text("dst.workload") == Some("web")
        })?;
        let (source, destination) = (record.expect("src.identity")?, record.expect("dst.identity")?);
        ensure!(source == demo.cart.identity() && destination == demo.web.identity(), "{record:?}");
        narrator.show(&format!("{node}, {direction}: {source} -> {destination}"))?;
    }
    narrator.held("from certificates that control issued, on both ends")
}

fn cut_one_client_off(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    const POLICY: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
        metadata: { name: no-reports, namespace: shop }\nspec:\n  selector: { matchLabels: { app: web } }\n  \
        action: DENY\n  rules:\n  - from:\n    - source: { principals: [cluster.local/ns/shop/sa/reports] }\n";
    narrator.step("An edited policy cuts one client off, also where it is connected already")?;
    narrator.show(POLICY)?;
    let mut of_reports = Held::open(&demo.reports, demo.web.at(ECHO))?;
    let mut of_cart = Held::open(&demo.cart, demo.web.at(ECHO))?;
    let start = demo.mesh.agent("node-2").log_position()?;
    let edited = Instant::now();
    demo.mesh.apply("no-reports.yaml", POLICY)?;
    of_reports.wait_until_cut(SOON)?;
    let took = edited.elapsed();
    demo.reports.get(demo.web.at(NGINX))?.expect_refused()?;
    ensure!(took < AT_ONCE, "it took {took:?}");
    narrator.held(&format!("shop/reports was cut off {} ms after the edit", took.as_millis()))?;
    of_cart.exchange()?;
    demo.cart.get(demo.web.at(NGINX))?.expect_body(SECRET)?;
    narrator.held("shop/cart did not notice")?;
    let denial = demo.mesh.agent("node-2").wait_for_access(start, |record| {
        record.text("error").is_some_and(|error| error.contains("shop/no-reports"))
    })?;
    narrator.held(&format!("the log says why: {}", denial.expect("error")?))
}

fn refuse_the_outsider(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    const STRICT: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
        metadata: { name: default, namespace: shop }\nspec: { mtls: { mode: STRICT } }\n";
    narrator.step("STRICT refuses who comes without a certificate")?;
    demo.visitor.get(demo.web.at(NGINX))?.expect_body(SECRET)?;
    narrator.held("outside/visitor, which is not in the mesh, is let in while the mode is PERMISSIVE")?;
    narrator.show(STRICT)?;
    demo.mesh.apply("strict.yaml", STRICT)?;
    wait::until("the visitor to be refused", SOON, || {
        demo.visitor.get(demo.web.at(NGINX))?.expect_refused()
    })?;
    narrator.held("now it is refused")?;
    demo.cart.get(demo.web.at(NGINX))?.expect_body(SECRET)?;
    narrator.held("shop/cart is not")
}

fn rotate_under_load(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    narrator.step("Certificates are renewed under load")?;
    narrator.show(&format!("certificates live for {CERTIFICATE_LIFE:?} here, 24 h by default"))?;
    let ends = [&demo.cart, &demo.web];
    let serials = || ends.map(|pod| certificates::of_pod(&demo.mesh, pod));
    let [of_cart, of_web] = serials();
    let (of_cart, of_web) = (of_cart?, of_web?);
    let load = traffic::under_load(&demo.cart, demo.web.at(NGINX), demo.web.at(ECHO), || {
        wait::until("new certificates at both ends", CERTIFICATE_LIFE * 2, || {
            let [cart, web] = serials();
            ensure!(cart? != of_cart && web? != of_web, "the certificates are those from before");
            Ok(())
        })
        .map(drop)
    })?;
    narrator.held(&format!(
        "both ends have new ones; none of {} requests failed, nor did one of {} exchanges on an open connection",
        load.requests, load.exchanges
    ))
}

fn lose_an_agent(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    narrator.step("A node whose ztunnel is killed is closed, not open")?;
    let capture = Capture::start(SECRET)?;
    demo.mesh.agent("node-1").kill()?;
    demo.cart.get(demo.web.at(NGINX))?.expect_refused()?;
    let seen = capture.finish()?;
    ensure!(seen.marked == 0, "the secret was readable");
    narrator.held("shop/cart reaches nothing, and nothing left it in clear")?;
    demo.mesh.agent("node-1").start()?;
    let back = || demo.cart.get(demo.web.at(NGINX))?.expect_body(SECRET);
    wait::until("shop/cart to be back", SOON, back)?;
    narrator.held("a new ztunnel takes over, and the pods were not touched")
}

/// What a user can do in the mesh that was left running.
pub(crate) fn say_what_to_try(narrator: &mut Narrator, demo: &Demo, sandbox: Sandbox) -> Result<()> {
    let inside = format!("nsenter --target {} --mount --pid --net --", sandbox.outer_pid);
    narrator.say("The mesh runs until Ctrl-C. From another shell, as root:")?;
    narrator.show(&format!(
        "{inside} ip netns exec shop-cart curl -sS http://{}/\n\
         {inside} ip netns exec outside-visitor curl -sS http://{}/\n\
         {inside} ls {configuration}\n\
         {inside} rm {configuration}/strict.yaml\n\
         {inside} ip netns exec node-1 curl -sS http://127.0.0.1:15000/config_dump\n\
         {inside} ip netns exec node-2 curl -sS http://127.0.0.1:15020/metrics\n\
         {inside} ip netns exec control curl -sS http://127.0.0.1:15000/",
        demo.web_service.v4(),
        demo.web.at(NGINX),
        configuration = demo.mesh.configuration().directory().display(),
    ))
}
