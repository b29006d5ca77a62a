//! A waypoint is sent what its services need, and decides by that as by the whole mesh: never without a policy that
//! guards what it serves.

use std::time::Instant;

use ambit_tests::agent::AccessRecord;
use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::{Mesh, Service};
use ambit_tests::pod::Pod;
use ambit_tests::wait::{self, SOON};
use ambit_tests::waypoint::Waypoint;
use anyhow::{Result, ensure};

/// Requests after a change has shown.
const REQUESTS: u32 = 20;

/// Namespace `shop` with a service and waypoints, namespace `stock` with another service, and a client of a third.
struct Shop {
    mesh: Mesh,
    client: Pod,
    web: Service,
    waypoints: [Waypoint; 2],
}

impl Shop {
    fn open() -> Result<Self> {
        let mesh = Mesh::of_nodes(["n1", "n2"])?;
        ["shop", "stock", "visitors"].into_iter().try_for_each(|name| mesh.ambient_namespace(name))?;
        let client = mesh.pod("visitors/client", "n1")?;
        let (web, store) = (mesh.pod("shop/web", "n2")?, mesh.pod("stock/store", "n2")?);
        apps::nginx(&web, "web")?;
        apps::nginx(&store, "store")?;
        let service = mesh.http_service("shop/web", 80, NGINX)?;
        mesh.service("stock/store", 80, NGINX)?;
        let waypoints = ["waypoint", "another"];
        waypoints.into_iter().try_for_each(|name| mesh.gateway(&format!("shop/{name}")))?;
        mesh.use_waypoint("shop", Some("waypoint"))?;
        let waypoints = [
            mesh.waypoint("waypoint", "shop/waypoint-a", "n2")?,
            mesh.waypoint("another", "shop/another-a", "n1")?,
        ];
        mesh.start()?;
        waypoints.iter().try_for_each(|waypoint| mesh.start_waypoint(waypoint))?;
        let shop = Self { mesh, client, web: service, waypoints };
        wait::until("the shop to be reached", SOON, || shop.client.get(shop.web.v4())?.expect_body("web"))?;
        Ok(shop)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.web.v4())
    }

    /// So many workloads and services are known to a waypoint.
    fn knows(&self, waypoint: usize, counts: (u64, u64)) -> Result<()> {
        wait::until(format!("{counts:?} workloads and services to be known"), SOON, || {
            let dump = self.waypoints[waypoint].config_dump()?;
            let known = (dump["workloads"].as_u64(), dump["services"].as_u64());
            ensure!(known == (Some(counts.0), Some(counts.1)), "{known:?}");
            Ok(())
        })
        .map(drop)
    }
}

pub(crate) fn a_waypoint_is_sent_what_its_services_need() -> Result<()> {
    let shop = Shop::open()?;
    // Its own pod and service, and those that are bound to it.
    shop.knows(0, (2, 2))?;
    shop.knows(1, (1, 1))?;

    // Whoever asks is named all the same: by the node's agent.
    let at = shop.waypoints[0].log_position()?;
    shop.client.curl(&shop.url("/"))?.expect_body("web")?;
    let record = shop.waypoints[0].wait_for_access(at, |record| record.text("src.identity").is_some())?;
    ensure!(record.expect("src.workload")? == "client", "{record:?}");
    ensure!(record.expect("src.namespace")? == "visitors", "{record:?}");
    let metrics = shop.waypoints[0].metrics()?;
    let counted = metrics.lines().find(|line| line.starts_with("istio_requests_total{"));
    let named = [
        "source_workload=\"client\"",
        "source_workload_namespace=\"visitors\"",
        "source_canonical_service=\"client\"",
        "source_cluster=\"Kubernetes\"",
    ];
    ensure!(counted.is_some_and(|line| named.iter().all(|label| line.contains(label))), "{counted:?}");

    // A route may lead elsewhere, as long as it is there.
    shop.mesh.apply(
        "route.yaml",
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: web\n  namespace: shop\n\
         spec:\n  parentRefs:\n  - group: \"\"\n    kind: Service\n    name: web\n  rules:\n  - backendRefs:\n    \
         - name: store\n      namespace: stock\n      port: 80\n---\n\
         apiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\nmetadata:\n  name: shop\n  \
         namespace: stock\nspec:\n  from:\n  - group: gateway.networking.k8s.io\n    kind: HTTPRoute\n    \
         namespace: shop\n  to:\n  - group: \"\"\n    kind: Service\n",
    )?;
    wait::until("the store to answer", SOON, || shop.client.curl(&shop.url("/"))?.expect_body("store"))?;
    shop.knows(0, (3, 3))?;
    shop.mesh.withdraw("route.yaml")?;
    wait::until("the shop to answer", SOON, || shop.client.curl(&shop.url("/"))?.expect_body("web"))?;
    shop.knows(0, (2, 2))
}

pub(crate) fn a_service_changes_its_waypoint_and_no_request_gets_around_its_policy() -> Result<()> {
    let shop = Shop::open()?;
    shop.mesh.apply(
        "policy.yaml",
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: guard\n  namespace: shop\n\
         spec:\n  targetRefs:\n  - group: \"\"\n    kind: Service\n    name: web\n  action: DENY\n  rules:\n  - to:\n    \
         - operation:\n        paths: [/admin]\n",
    )?;
    let is_guarded = || {
        let fetched = shop.client.curl(&shop.url("/admin"))?;
        ensure!(fetched.status == Some(403), "{fetched:?}");
        Ok(())
    };
    wait::until("the policy to be in force", SOON, is_guarded)?;
    for (turn, (name, waypoint)) in [("another", 1), ("waypoint", 0), ("another", 1)].into_iter().enumerate()
    {
        let at = shop.waypoints[waypoint].log_position()?;
        shop.mesh.use_waypoint("shop", Some(name))?;
        let start = Instant::now();
        let refuses = |record: &AccessRecord| record.number("response_code") == Some(403);
        while !shop.waypoints[waypoint].has_access(at, refuses)? {
            // In the moment of a change the waypoint of before serves it still.
            is_guarded()?;
            ensure!(start.elapsed() < SOON, "turn {turn}: {name} has not been asked");
        }
        // The agent asks the other one from now on.
        (0..REQUESTS).try_for_each(|_| is_guarded())?;
    }
    Ok(())
}
