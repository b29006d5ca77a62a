//! Where connections go: services, plain neighbours, the world outside, and nowhere (DESIGN.md 3).

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ambit_tests::apps::{self, NGINX};
use ambit_tests::mesh::Mesh;
use ambit_tests::mesh::fabric::Families;
use ambit_tests::wait::{self, SOON};
use anyhow::{Result, ensure};

/// Draws after which three equal endpoints have been seen but for one time in 10^17.
const DRAWS: usize = 100;

pub(crate) fn a_service_spreads_over_its_ready_pods() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let client = mesh.pod("shop/client", "n1")?;
    let mut pods = Vec::new();
    for (name, node) in [("a", "n1"), ("b", "n2"), ("c", "n2")] {
        let label = ("serves".to_owned(), "web".to_owned());
        let families = Families::Dual;
        let pod =
            mesh.pod_with(&format!("shop/{name}"), node, families, |object| object.labels.push(label))?;
        apps::nginx(&pod, name)?;
        pods.push(pod);
    }
    let web = mesh.service_selecting("shop/web", 80, NGINX, ("serves", "web"))?;
    mesh.start()?;

    let answers = |to: SocketAddr| -> Result<BTreeSet<String>> {
        (0..DRAWS).map(|_| Ok(client.get(to)?.expect_ok()?.body)).collect()
    };
    for to in [web.v4(), web.v6()] {
        ensure!(answers(to)? == ["a", "b", "c"].map(String::from).into(), "{to} does not reach every pod");
    }

    mesh.change_pod(&pods[1], |object| object.ready = false)?;
    mesh.change_pod(&pods[2], |object| object.terminating = true)?;
    let alone = || {
        let answers = answers(web.v4())?;
        ensure!(answers == ["a"].map(String::from).into(), "{answers:?} answer");
        Ok(())
    };
    wait::until("the two pods to be left out", SOON, alone)?;
    mesh.change_pod(&pods[1], |object| object.ready = true)?;
    let back = || {
        let answers = answers(web.v4())?;
        ensure!(answers == ["a", "b"].map(String::from).into(), "{answers:?} answer");
        Ok(())
    };
    wait::until("the pod to be back", SOON, back).map(drop)
}

pub(crate) fn a_failed_connect_is_tried_on_another_endpoint() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let client = mesh.pod("shop/client", "n1")?;
    let families = Families::Dual;
    let label = || ("serves".to_owned(), "web".to_owned());
    let works = mesh.pod_with("shop/works", "n2", families, |object| object.labels.push(label()))?;
    // Nothing listens in this pod, which claims to be ready.
    mesh.pod_with("shop/broken", "n2", families, |object| object.labels.push(label()))?;
    apps::nginx(&works, "works")?;
    let web = mesh.service_selecting("shop/web", 80, NGINX, ("serves", "web"))?;
    mesh.start()?;
    for _ in 0..DRAWS {
        client.get(web.v4())?.expect_body("works")?;
    }
    Ok(())
}

/// Kubernetes knows that a node is lost after most of a minute. Clients wait less long, also those whose connection
/// would have gone on a tunnel to it that is open.
pub(crate) fn a_lost_node_is_left_for_another_endpoint_before_anybody_knows() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let client = mesh.pod("shop/client", "n1")?;
    for (name, node) in [("here", "n1"), ("there", "n2"), ("also-there", "n2")] {
        let label = ("serves".to_owned(), "web".to_owned());
        let pod =
            mesh.pod_with(&format!("shop/{name}"), node, Families::Dual, |object| object.labels.push(label))?;
        apps::nginx(&pod, name)?;
    }
    let web = mesh.service_selecting("shop/web", 80, NGINX, ("serves", "web"))?;
    mesh.start()?;
    let mut answered = BTreeSet::new();
    while !answered.contains("there") {
        answered.insert(client.get(web.v4())?.expect_ok()?.body);
    }
    mesh.unplug("n2")?;
    let start = Instant::now();
    for _ in 0..DRAWS {
        // Two silent endpoints in turn cost less than half of that.
        let fetched = client.curl_with(&["--max-time", "9"], &format!("http://{}/", web.v4()))?;
        fetched.expect_body("here")?;
    }
    // Found out once, not by every connection.
    ensure!(start.elapsed() < Duration::from_secs(30), "{DRAWS} requests took {:?}", start.elapsed());
    mesh.plug_in("n2")?;
    // Not with clients' connections is it found out, and long before the suspicion is too old.
    wait::until("the node to be used again", SOON, || {
        let fetched = client.get(web.v4())?.expect_ok()?;
        ensure!(fetched.body != "here", "{fetched:?}");
        Ok(())
    })
    .map(drop)
}

pub(crate) fn a_pod_reaches_itself_through_its_service() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1"])?;
    mesh.ambient_namespace("shop")?;
    let web = mesh.pod("shop/web", "n1")?;
    apps::nginx(&web, "myself")?;
    let service = mesh.service("shop/web", 80, NGINX)?;
    mesh.start()?;
    for to in [service.v4(), service.v6(), web.at(NGINX), web.at_v6(NGINX)] {
        web.get(to)?.expect_body("myself")?;
    }
    web.curl(&format!("http://127.0.0.1:{NGINX}/"))?.expect_body("myself").map(drop)
}

pub(crate) fn plain_neighbours_are_reached_in_clear_and_see_the_client() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    mesh.plain_namespace("plain")?;
    let (client, web) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/web", "n2")?);
    let neighbour = mesh.pod("plain/neighbour", "n2")?;
    apps::nginx(&web, "web")?;
    apps::nginx(&neighbour, "neighbour")?;
    let outside = mesh.outside_host("outside", 100)?;
    let _listener = outside.listen(443)?;
    mesh.start()?;

    client.get(neighbour.at(NGINX))?.expect_body("neighbour")?;
    client.get(neighbour.at_v6(NGINX))?.expect_body("neighbour")?;
    neighbour.get(web.at(NGINX))?.expect_body("web")?;
    client.connect("10.200.0.100:443".parse()?)?;
    client.connect("[fd00:200::64]:443".parse()?)?;

    // Applications see who connected, through the tunnel and in clear alike.
    for from in [&client, &neighbour] {
        for (to, address) in
            [(web.at(NGINX), from.v4().to_string()), (web.at_v6(NGINX), from.v6().to_string())]
        {
            from.curl(&format!("http://{to}/whoami"))?.expect_body(&address)?;
        }
    }
    Ok(())
}

pub(crate) fn an_unknown_address_of_the_mesh_is_refused() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let client = mesh.pod("shop/client", "n1")?;
    mesh.start()?;
    for nobody in ["10.96.0.250:80", "10.10.2.250:80", "[fd00:96::250]:80"] {
        client.get(nobody.parse()?)?.expect_refused()?;
    }
    let start = mesh.agent("n1").log_position()?;
    client.get("10.96.0.250:80".parse()?)?.expect_refused()?;
    mesh.agent("n1").wait_for_access(start, |record| {
        record.text("dst.addr") == Some("10.96.0.250:80") && record.text("error").is_some()
    })?;
    Ok(())
}

pub(crate) fn both_ends_are_named_in_logs_and_metrics() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let (client, web) = (mesh.pod("shop/client", "n1")?, mesh.pod("shop/web", "n2")?);
    apps::nginx(&web, "hello")?;
    let service = mesh.service("shop/web", 80, NGINX)?;
    mesh.start()?;
    client.get(service.v4())?.expect_body("hello")?;

    for (node, direction) in [("n1", "outbound"), ("n2", "inbound")] {
        let record =
            mesh.agent(node).wait_for_access(0, |record| record.text("direction") == Some(direction))?;
        for (key, value) in [
            ("src.identity", client.identity()),
            ("dst.identity", web.identity()),
            ("src.workload", "client".to_owned()),
            ("src.namespace", "shop".to_owned()),
            ("dst.workload", "web".to_owned()),
            ("dst.namespace", "shop".to_owned()),
            ("dst.service", "web.shop.svc.cluster.local".to_owned()),
        ] {
            ensure!(record.expect(key)? == value, "{direction} {key}: {record:?}");
        }
        ensure!(record.text("error").is_none(), "{record:?}");
        ensure!(record.number("bytes_sent") > Some(0) && record.number("bytes_recv") > Some(0), "{record:?}");
    }
    for (node, reporter) in [("n1", "source"), ("n2", "destination")] {
        let labels = [
            format!("reporter=\"{reporter}\""),
            format!("source_principal=\"{}\"", client.identity()),
            format!("destination_principal=\"{}\"", web.identity()),
            "destination_service=\"web.shop.svc.cluster.local\"".to_owned(),
            "connection_security_policy=\"mutual_tls\"".to_owned(),
            "response_flags=\"-\"".to_owned(),
        ];
        let agent = mesh.agent(node);
        for metric in ["opened", "closed"] {
            let name = format!("istio_tcp_connections_{metric}_total");
            let counted = || {
                let value = agent.metric(&name, &labels)?;
                ensure!((value - 1.0).abs() < f64::EPSILON, "{name} on {node} is {value}");
                Ok(())
            };
            wait::until("the connection to be counted", SOON, counted)?;
        }
        ensure!(agent.metric("istio_tcp_sent_bytes_total", &labels)? > 0.0);
        ensure!(agent.metric("istio_tcp_received_bytes_total", &labels)? > 0.0);
    }
    Ok(())
}
