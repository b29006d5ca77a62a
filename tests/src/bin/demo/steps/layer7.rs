//! The chapter about a waypoint: a canary, and a policy that looks at requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ambit_tests::apps::{self, NGINX};
use ambit_tests::wait::{self, SOON};
use ambit_tests::waypoint::Waypoint;
use anyhow::{Result, anyhow, ensure};

use super::{Demo, SECRET};
use crate::narrator::Narrator;

/// What the new version answers.
const NEW: &str = "the-sauce-without-a-secret";

/// Requests that show a split.
const DRAWS: u32 = 200;

const NO_ADMIN: &str = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
    metadata: { name: no-admin, namespace: shop }\nspec:\n  targetRefs: [{ group: \"\", kind: Service, name: web }]\n  \
    action: DENY\n  rules:\n  - from: [{ source: { principals: [cluster.local/ns/shop/sa/cart] } }]\n    \
    to: [{ operation: { paths: [\"/admin*\"] } }]\n";

/// Hands out the waypoint, which ends when it is dropped.
pub(super) fn show(narrator: &mut Narrator, demo: &Demo) -> Result<Waypoint> {
    let waypoint = deploy(narrator, demo)?;
    shift_a_canary(narrator, demo)?;
    refuse_a_path(narrator, demo, &waypoint)?;
    Ok(waypoint)
}

fn deploy(narrator: &mut Narrator, demo: &Demo) -> Result<Waypoint> {
    narrator.step("A waypoint in front of the shop: its services' requests pass it, or nothing does")?;
    narrator.show(
        "kind: Gateway\nmetadata: { name: waypoint, namespace: shop }\nspec: { gatewayClassName: ambit-waypoint, .. }\n\
         kind: Namespace\nmetadata: { name: shop, labels: { istio.io/use-waypoint: waypoint, .. } }",
    )?;
    let new = demo.mesh.pod("shop/web-v2", "node-1")?;
    apps::nginx(&new, NEW)?;
    demo.mesh.service("shop/web-v2", 80, NGINX)?;
    demo.mesh.gateway("shop/waypoint")?;
    let waypoint = demo.mesh.waypoint("waypoint", "shop/waypoint-a", "node-2")?;
    demo.mesh.use_waypoint("shop", Some("waypoint"))?;
    wait::until("the service to be refused", SOON, || {
        demo.cart.get(demo.web_service.v4())?.expect_refused()
    })?;
    narrator.held("while it is not ready the service is refused, and never reached around it")?;
    demo.mesh.start_waypoint(&waypoint)?;
    demo.mesh.wait_until_captured()?;
    wait::until("the service to answer", SOON, || demo.cart.get(demo.web_service.v4())?.expect_body(SECRET))?;
    narrator.held("once it is, the service answers through it, in the same encrypted tunnels")?;
    Ok(waypoint)
}

fn route(old: u32, new: u32) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: web, namespace: shop }}\nspec:\n  \
         parentRefs: [{{ group: \"\", kind: Service, name: web }}]\n  rules:\n  - backendRefs:\n    \
         - {{ name: web, port: 80, weight: {old} }}\n    - {{ name: web-v2, port: 80, weight: {new} }}\n"
    )
}

/// How many of so many answers are the new version's; every one must be good.
fn count(demo: &Demo, requests: u32) -> Result<u32> {
    let mut new = 0;
    for _ in 0..requests {
        let fetched = demo.cart.get(demo.web_service.v4())?.expect_ok()?;
        ensure!(fetched.body == NEW || fetched.body == SECRET, "{fetched:?}");
        new += u32::from(fetched.body == NEW);
    }
    Ok(new)
}

fn shift_a_canary(narrator: &mut Narrator, demo: &Demo) -> Result<()> {
    narrator.step("A canary takes a tenth of the requests, and then all, under load and without an error")?;
    narrator.show(&route(90, 10))?;
    demo.mesh.apply("route.yaml", &route(90, 10))?;
    wait::until("the canary to get a request", SOON, || {
        ensure!(count(demo, 20)? > 0, "none of 20 requests reached it");
        Ok(())
    })?;
    let new = count(demo, DRAWS)?;
    ensure!((1..=DRAWS / 3).contains(&new), "{new} of {DRAWS} requests reached the canary");
    narrator.held(&format!("{new} of {DRAWS} requests reached the new version"))?;
    let done = AtomicBool::new(false);
    let (asked, shifted) = thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<u32> {
            let mut asked = 0;
            while !done.load(Ordering::Relaxed) {
                count(demo, 1)?;
                asked += 1;
            }
            Ok(asked)
        });
        let shifted = demo.mesh.apply("route.yaml", &route(0, 100)).and_then(|()| {
            wait::until("the canary to have everything", SOON, || {
                let new = count(demo, 30)?;
                ensure!(new == 30, "{new} of 30");
                Ok(())
            })
        });
        done.store(true, Ordering::Relaxed);
        let asked = load.join().map_err(|_| anyhow!("the load panicked"))?;
        Ok::<_, anyhow::Error>((asked, shifted))
    })?;
    shifted?;
    narrator.held(&format!("shifted to 0/100: {} requests beside it, none failed", asked?))
}

fn refuse_a_path(narrator: &mut Narrator, demo: &Demo, waypoint: &Waypoint) -> Result<()> {
    narrator.step("A policy refuses one path to one identity, and the log says why")?;
    narrator.show(NO_ADMIN)?;
    let admin = format!("http://{}/admin", demo.web_service.v4());
    let at = waypoint.log_position()?;
    demo.mesh.apply("no-admin.yaml", NO_ADMIN)?;
    wait::until("the path to be refused", SOON, || {
        let fetched = demo.cart.curl(&admin)?;
        ensure!(fetched.status == Some(403), "{fetched:?}");
        Ok(())
    })?;
    narrator.held("shop/cart gets 403 for /admin")?;
    demo.cart.get(demo.web_service.v4())?.expect_body(NEW)?;
    demo.store.curl(&admin)?.expect_body(NEW)?;
    narrator.held("shop/cart may ask for the rest, and shop/store for /admin too")?;
    let record = waypoint.wait_for_access(at, |record| record.number("response_code") == Some(403))?;
    narrator.held(&format!("the log says why: {}", record.expect("response_code_details")?))
}
