//! Requests through a waypoint: captured, routed, authorized, and never around it (DESIGN.md 3, 6.2, 6.3).

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ambit_tests::agent::Differences;
use ambit_tests::apps::{self, NGINX};
use ambit_tests::explain;
use ambit_tests::mesh::fabric::Families;
use ambit_tests::mesh::{Mesh, Service};
use ambit_tests::pod::{Fetched, Pod};
use ambit_tests::wait::{self, SOON};
use ambit_tests::waypoint::Waypoint;
use anyhow::{Context, Result, ensure};

/// How long a request may wait for its answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A shop of two versions behind one Service, with a waypoint.
struct Shop {
    mesh: Mesh,
    client: Pod,
    other: Pod,
    web: Service,
    /// Each version, with a Service of its own.
    versions: Vec<(Pod, Service)>,
}

impl Shop {
    fn create() -> Result<Self> {
        let mesh = Mesh::of_nodes(["n1", "n2"])?;
        mesh.ambient_namespace("shop")?;
        let (client, other) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/other", "n1")?);
        let mut versions = Vec::new();
        for (version, node) in [("v1", "n1"), ("v2", "n2")] {
            let pod = mesh.pod_with(&format!("shop/web-{version}"), node, Families::Dual, |object| {
                object.labels.push(("serves".to_owned(), "web".to_owned()));
            })?;
            apps::nginx(&pod, version)?;
            let service = mesh.service(&format!("shop/web-{version}"), 80, NGINX)?;
            versions.push((pod, service));
        }
        let web = mesh.service_selecting("shop/web", 80, NGINX, ("serves", "web"))?;
        mesh.gateway("shop/waypoint")?;
        mesh.use_waypoint("shop", Some("waypoint"))?;
        Ok(Self { mesh, client, other, web, versions })
    }

    /// The same with an instance of the waypoint that serves.
    fn open() -> Result<(Self, Waypoint)> {
        let shop = Self::create()?;
        let waypoint = shop.mesh.waypoint("waypoint", "shop/waypoint-a", "n2")?;
        shop.mesh.start()?;
        shop.mesh.start_waypoint(&waypoint)?;
        wait::until("the shop to be reached", SOON, || shop.ask(&shop.client, "/", &[])?.expect_ok())?;
        Ok((shop, waypoint))
    }

    /// An HTTPRoute of the Service `web` with these rules.
    fn route(&self, rules: &str) -> Result<()> {
        self.mesh.apply(
            "route.yaml",
            &format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: web\n  namespace: shop\n\
                 spec:\n  parentRefs:\n  - group: \"\"\n    kind: Service\n    name: web\n    port: 80\n  rules:\n{rules}"
            ),
        )
    }

    fn policy(&self, spec: &str) -> Result<()> {
        self.mesh.apply(
            "policy.yaml",
            &format!(
                "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\n  \
                 namespace: shop\nspec:\n{spec}"
            ),
        )
    }

    /// A request, of which `ambit explain` has to say what became of it.
    fn ask(&self, from: &Pod, path: &str, headers: &[(&str, &str)]) -> Result<Fetched> {
        let url = self.url(path);
        let headers_of_curl: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let mut arguments = vec!["--path-as-is"];
        headers_of_curl.iter().for_each(|header| arguments.extend(["-H", header]));
        let fetched = from.curl_with(&arguments, &url)?;
        let backend = fetched.status.filter(|status| *status == 200).map(|_| format!("web-{}", fetched.body));
        explain::check(&self.mesh, from, ("GET", &url), headers, fetched.status, backend.as_deref())?;
        Ok(fetched)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.web.v4())
    }

    /// How often each version answers.
    fn answers(&self, requests: u32) -> Result<BTreeMap<String, u32>> {
        let mut connection = Connection::open(&self.client, self.web.v4())?;
        let mut answers = BTreeMap::new();
        for _ in 0..requests {
            let (status, body) = connection.get("/")?;
            ensure!(status == 200, "status {status}: {body}");
            *answers.entry(body).or_default() += 1;
        }
        Ok(answers)
    }
}

/// An HTTP/1.1 connection that stays open.
struct Connection(BufReader<TcpStream>);

impl Connection {
    fn open(from: &Pod, to: SocketAddr) -> Result<Self> {
        let stream = from.connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn get(&mut self, path: &str) -> Result<(u16, String)> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: web\r\n\r\n"))
    }

    /// Sends a request and reads an answer with a length.
    fn ask(&mut self, request: &str) -> Result<(u16, String)> {
        self.0.get_mut().write_all(request.as_bytes()).context("sending a request")?;
        let mut line = String::new();
        ensure!(
            self.0.read_line(&mut line).context("waiting for an answer")? > 0,
            "the connection was closed"
        );
        let status = line.split(' ').nth(1).context("an answer has a status")?.parse()?;
        let mut length = 0;
        loop {
            line.clear();
            self.0.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.parse()?
                }
                Some(_) => {}
                None => break,
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8(body)?))
    }
}

/// A canary at 10 %, picked by a header in any case.
fn weighted(v1: u32, v2: u32) -> String {
    format!(
        "  - matches:\n    - headers:\n      - name: x-version\n        value: v2\n    backendRefs:\n    \
         - name: web-v2\n      port: 80\n  - backendRefs:\n    - name: web-v1\n      port: 80\n      weight: {v1}\n    \
         - name: web-v2\n      port: 80\n      weight: {v2}\n"
    )
}

pub(crate) fn a_canary_is_shifted_without_an_error() -> Result<()> {
    let (shop, waypoint) = Shop::open()?;
    shop.route(&weighted(90, 10))?;
    let picked = || shop.ask(&shop.client, "/", &[("X-Version", "v2")])?.expect_body("v2").map(drop);
    wait::until("the route to be in force", SOON, || {
        // Both versions serve without a route: ten in a row are the route.
        (0..10).try_for_each(|_| picked())
    })?;
    let answers = shop.answers(2000)?;
    let canary = answers.get("v2").copied().unwrap_or_default();
    // Six standard deviations around 200.
    ensure!((120..=280).contains(&canary), "{answers:?}");

    // Shifted step by step under load, on connections that are new and on one that stays.
    let done = AtomicBool::new(false);
    let (asked, failed) = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut asked, mut failed) = (0_u32, Vec::new());
            while !done.load(Ordering::Relaxed) {
                asked += 1;
                if let Err(error) = shop.client.get(shop.web.v4()).and_then(|fetched| fetched.expect_ok()) {
                    failed.push(format!("{error:#}"));
                }
            }
            (asked, failed)
        });
        let shifted = (|| {
            for v2 in [25, 50, 100] {
                shop.route(&weighted(100 - v2, v2))?;
                shop.answers(300)?;
            }
            wait::until("the canary to have everything", SOON, || {
                let answers = shop.answers(50)?;
                ensure!(answers.keys().eq(["v2"]), "{answers:?}");
                shop.ask(&shop.client, "/", &[]).map(drop)
            })
        })();
        done.store(true, Ordering::Relaxed);
        let load = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        shifted.map(|_| load)
    })?;
    ensure!(failed.is_empty(), "{} of {asked} requests failed: {:?}", failed.len(), failed.first());
    ensure!(asked >= 20, "only {asked} requests were made");

    let at = waypoint.log_position()?;
    picked()?;
    let record = waypoint.wait_for_access(at, |record| {
        record.text("response_code").is_some() || record.number("response_code").is_some()
    })?;
    ensure!(record.number("response_code") == Some(200), "{record:?}");
    Ok(())
}

/// Refused by path, for one of two identities.
const NO_ADMIN: &str = "  targetRefs:\n  - group: \"\"\n    kind: Service\n    name: web\n  action: DENY\n  rules:\n  \
     - from:\n    - source:\n        principals: [cluster.local/ns/shop/sa/client]\n    to:\n    \
     - operation:\n        paths: [\"/admin*\"]\n";

pub(crate) fn a_path_is_refused_for_one_identity_and_the_log_says_why() -> Result<()> {
    let (shop, waypoint) = Shop::open()?;
    let from = |pod: &Pod, path: &str| shop.ask(pod, path, &[]);
    from(&shop.client, "/admin")?.expect_ok()?;
    let mut open = Connection::open(&shop.client, shop.web.v4())?;
    ensure!(open.get("/admin/x")?.0 == 200, "nothing forbids it so far");
    let at = waypoint.log_position()?;
    shop.policy(NO_ADMIN)?;
    wait::until("the policy to be in force", SOON, || {
        let fetched = from(&shop.client, "/admin")?;
        ensure!(fetched.status == Some(403) && fetched.body == "RBAC: access denied", "{fetched:?}");
        Ok(())
    })?;
    // The connection that was open is no way around it, and stays of use for what is allowed.
    for round in 0..100 {
        let (status, _) = open.get("/admin/x")?;
        ensure!(status == 403, "round {round}: {status}");
        let (status, _) = open.get("/")?;
        ensure!(status == 200, "round {round}: {status}");
    }
    from(&shop.other, "/admin")?.expect_ok()?;
    let record = waypoint.wait_for_access(at, |record| record.number("response_code") == Some(403))?;
    let said = format!("{record:?}");
    ensure!(said.contains("shop/p") || said.contains("shop-p"), "the log does not name the policy: {said}");
    ensure!(said.contains("ns/shop/sa/client"), "the log does not name the client: {said}");

    // The same path in other words.
    for path in ["/admin%2fx", "/%61dmin/x", "//admin", "/x/../admin"] {
        let fetched = from(&shop.client, path)?;
        ensure!(matches!(fetched.status, Some(400 | 403)), "{path}: {fetched:?}");
    }
    shop.mesh.withdraw("policy.yaml")?;
    wait::until("the policy to be gone", SOON, || from(&shop.client, "/admin")?.expect_ok()).map(drop)
}

/// What `ambit.dev/require-waypoint` is for: nobody goes around the policies of a waypoint by another address.
pub(crate) fn a_destination_may_take_nothing_around_its_waypoint() -> Result<()> {
    let (shop, _waypoint) = Shop::open()?;
    let endpoint = SocketAddr::from((shop.versions[0].0.v4(), NGINX));
    shop.client.get(endpoint)?.expect_ok()?;
    let mut open = Connection::open(&shop.client, endpoint)?;
    ensure!(open.get("/")?.0 == 200, "nothing forbids it so far");
    shop.mesh.label_namespace("shop", "ambit.dev/require-waypoint", Some("true"))?;
    wait::until("the pod's own address to be refused", SOON, || shop.client.get(endpoint)?.expect_refused())?;
    // Also what was open.
    wait::until("the connection to be cut", SOON, || {
        ensure!(open.get("/").is_err(), "it is still served");
        Ok(())
    })?;
    for _ in 0..20 {
        shop.ask(&shop.client, "/", &[])?.expect_ok()?;
    }
    shop.mesh.label_namespace("shop", "ambit.dev/require-waypoint", None)?;
    wait::until("the pod to be reached again", SOON, || shop.client.get(endpoint)?.expect_ok()).map(drop)
}

/// What `ambit.dev/waypoint-failure: open` is for.
pub(crate) fn a_service_may_be_reached_without_a_waypoint_that_is_away() -> Result<()> {
    let (shop, waypoint) = Shop::open()?;
    waypoint.kill()?;
    shop.client.get(shop.web.v4())?.expect_refused()?;
    shop.mesh.label_namespace("shop", "ambit.dev/waypoint-failure", Some("open"))?;
    wait::until("the shop to be reached around it", SOON, || shop.client.get(shop.web.v4())?.expect_ok())?;
    shop.mesh.change_pod(waypoint.pod(), |object| object.ready = false)?;
    wait::until("the explanation to agree", SOON, || shop.ask(&shop.client, "/", &[])?.expect_ok())?;
    shop.mesh.label_namespace("shop", "ambit.dev/waypoint-failure", None)?;
    wait::until("the shop to be refused", SOON, || shop.client.get(shop.web.v4())?.expect_refused()).map(drop)
}

/// By what it was last sent: a policy does not lapse with the process that enforced it.
pub(crate) fn a_waypoint_restarts_while_control_is_away() -> Result<()> {
    let (shop, waypoint) = Shop::open()?;
    shop.policy(NO_ADMIN)?;
    let is_refused = || {
        let fetched = shop.client.curl(&shop.url("/admin"))?;
        ensure!(fetched.status == Some(403), "{fetched:?}");
        Ok(())
    };
    wait::until("the policy to be in force", SOON, is_refused)?;
    wait::until("the policy to be kept", SOON, || waypoint.keeps("shop/p"))?;

    shop.mesh.control().kill()?;
    waypoint.kill()?;
    waypoint.launch()?;
    waypoint.wait_until_ready()?;
    for _ in 0..DRAWS {
        is_refused()?;
        shop.client.curl(&shop.url("/"))?.expect_ok()?;
    }

    shop.mesh.withdraw("policy.yaml")?;
    shop.mesh.start_control()?;
    wait::until("the old policy to be gone", SOON, || shop.client.curl(&shop.url("/admin"))?.expect_ok())
        .map(drop)
}

/// As its clients' agents would: also requests whose connection to the lost node is open.
pub(crate) fn a_lost_node_is_left_by_the_waypoint_and_used_again_when_it_is_back() -> Result<()> {
    let shop = Shop::create()?;
    let waypoint = shop.mesh.waypoint("waypoint", "shop/waypoint-a", "n1")?;
    shop.mesh.start()?;
    shop.mesh.start_waypoint(&waypoint)?;
    let is_used = || -> Result<()> {
        let answers = shop.answers(DRAWS)?;
        ensure!(answers.contains_key("v2"), "{answers:?}");
        Ok(())
    };
    wait::until("both nodes to be used", SOON, is_used)?;
    let mut connection = Connection::open(&shop.client, shop.web.v4())?;
    shop.mesh.unplug("n2")?;
    let start = Instant::now();
    for _ in 0..DRAWS {
        // One silent endpoint costs less than half of what this waits.
        let (status, body) = connection.get("/")?;
        ensure!((status, body.as_str()) == (200, "v1"), "status {status}: {body}");
    }
    // Found out once, not by every other request.
    ensure!(start.elapsed() < PATIENCE, "{DRAWS} requests took {:?}", start.elapsed());
    ensure!(waypoint.metrics()?.contains("ambit_suspected_endpoints 1"), "{}", waypoint.metrics()?);
    shop.mesh.plug_in("n2")?;
    wait::until("the node to be used again", SOON, is_used).map(drop)
}

/// Enough requests for each of two endpoints to get one.
const DRAWS: u32 = 24;

pub(crate) fn without_its_waypoint_a_service_is_refused() -> Result<()> {
    let shop = Shop::create()?;
    let waypoint = shop.mesh.waypoint("waypoint", "shop/waypoint-a", "n2")?;
    shop.mesh.start()?;
    let refused = |what: &str| {
        wait::until(format!("requests to be refused {what}"), SOON, || {
            shop.client.get(shop.web.v4())?.expect_refused()
        })
    };
    let explained = |what: &str| {
        wait::until(format!("requests to be refused {what}, as explained"), SOON, || {
            shop.ask(&shop.client, "/", &[])?.expect_refused()
        })
    };
    let agent = shop.mesh.agent("n1");
    let at = agent.log_position()?;
    refused("before the waypoint is ready")?;
    explained("before the waypoint is ready")?;
    let record = agent.wait_for_access(at, |record| record.text("error").is_some())?;
    ensure!(record.expect("error")?.contains("waypoint"), "{record:?}");
    shop.mesh.start_waypoint(&waypoint)?;
    wait::until("the shop to be reached", SOON, || shop.client.get(shop.web.v4())?.expect_ok())?;
    waypoint.kill()?;
    refused("when it has crashed")?;
    shop.mesh.change_pod(waypoint.pod(), |object| object.ready = false)?;
    explained("when it is not ready")?;
    shop.mesh.use_waypoint("shop", None)?;
    wait::until("the shop to be reached directly", SOON, || shop.ask(&shop.client, "/", &[])?.expect_ok())
        .map(drop)
}

pub(crate) fn a_policy_of_the_workload_that_names_the_client_holds_behind_a_waypoint() -> Result<()> {
    let (shop, _waypoint) = Shop::open()?;
    shop.policy(
        "  selector:\n    matchLabels:\n      serves: web\n  action: ALLOW\n  rules:\n  - from:\n    - source:\n        \
         principals: [cluster.local/ns/shop/sa/client]\n",
    )?;
    shop.ask(&shop.client, "/", &[])?.expect_ok()?;
    wait::until("the other client to be refused", SOON, || {
        let fetched = shop.ask(&shop.other, "/", &[])?;
        ensure!(fetched.status == Some(503), "{fetched:?}");
        Ok(())
    })?;
    // Each endpoint's agent learns of it for itself.
    for (_, version) in &shop.versions {
        wait::until("each endpoint to refuse the other client", SOON, || {
            let fetched = shop.other.get(version.v4())?;
            ensure!(fetched.status == Some(503), "{fetched:?}");
            Ok(())
        })?;
    }
    // Also while both use the waypoint at the same time, and its connections.
    for _ in 0..50 {
        shop.client.get(shop.web.v4())?.expect_ok()?;
        let fetched = shop.other.get(shop.web.v4())?;
        ensure!(fetched.status == Some(503), "{fetched:?}");
    }
    Ok(())
}

pub(crate) fn rolling_the_waypoint_under_load_loses_nothing() -> Result<()> {
    let (shop, first) = Shop::open()?;
    let done = AtomicBool::new(false);
    let mut current = first;
    let (asked, failed) = thread::scope(|scope| {
        let load = scope.spawn(|| {
            let (mut asked, mut failed) = (0_u32, Vec::new());
            // On a busy machine a roll may be over before there was much of a load.
            while !done.load(Ordering::Relaxed) || asked < 50 {
                asked += 1;
                if let Err(error) = shop.client.get(shop.web.v4()).and_then(|fetched| fetched.expect_ok()) {
                    failed.push(format!("request {asked}: {error:#}"));
                }
            }
            (asked, failed)
        });
        let rolled = (|| {
            for (name, node) in [("shop/waypoint-b", "n1"), ("shop/waypoint-c", "n2")] {
                let next = shop.mesh.waypoint("waypoint", name, node)?;
                shop.mesh.start_waypoint(&next)?;
                // As Kubernetes does: it is told to end and taken out of the endpoints at once.
                shop.mesh.change_pod(current.pod(), |object| object.terminating = true)?;
                current.terminate(Duration::from_secs(20))?;
                current = next;
            }
            Ok::<_, anyhow::Error>(())
        })();
        done.store(true, Ordering::Relaxed);
        let load = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        rolled.map(|()| load)
    })?;
    ensure!(failed.is_empty(), "{} of {asked} requests failed: {:?}", failed.len(), failed.first());
    Ok(())
}

/// An agent that was replaced ends when nobody uses it any more: the connections that a waypoint keeps must not
/// hold it for as long as there are requests.
pub(crate) fn a_replaced_agent_is_left_while_requests_go_on() -> Result<()> {
    let (shop, _waypoint) = Shop::open()?;
    let done = AtomicBool::new(false);
    let (asked, replaced) = thread::scope(|scope| {
        let load = scope.spawn(|| -> Result<()> {
            let mut connection = Connection::open(&shop.client, shop.web.v4())?;
            let mut asked = 0;
            // A few more than the replacement needs, where it is quick.
            while !done.load(Ordering::Relaxed) || asked < ENOUGH {
                let (status, body) = connection.get("/")?;
                ensure!(status == 200, "request {asked}: {status} {body}");
                asked += 1;
            }
            Ok(())
        });
        // The client's own agent is another one: it keeps the client's connection.
        let agent = shop.mesh.agent("n2");
        let replaced = agent.replace(&Differences::workers(1)).and_then(|()| agent.wait_for_former());
        done.store(true, Ordering::Relaxed);
        let asked = load.join().map_err(|_| anyhow::anyhow!("the load panicked"))?;
        Ok::<_, anyhow::Error>((asked, replaced))
    })?;
    replaced.context("the agent that was replaced does not end")?;
    asked
}

/// Requests that are enough for a claim.
const ENOUGH: u32 = 50;
