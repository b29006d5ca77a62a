//! Tunnels whose other end is Envoy, an implementation that is not ours (bar 3).

use std::net::{Shutdown, SocketAddr};

use ambit_tests::apps::{self, NGINX};
use ambit_tests::certificates::{Authority, Validity};
use ambit_tests::envoy::{self, CLIENT_PORT, Tunnel};
use ambit_tests::mesh::Mesh;
use ambit_tests::traffic::{self, End, Received, serve_one};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};

const BYTES: u64 = 64 << 20;
const PORT: u16 = 9000;

pub(crate) fn envoy_reaches_our_pods() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    mesh.plain_namespace("envoy")?;
    let web = mesh.pod("shop/web", "n2")?;
    let client = mesh.pod("envoy/client", "n1")?;
    apps::nginx(&web, "hello")?;
    mesh.start()?;
    let credentials = Authority::of_control()?.issue(&client.identity(), Validity::Current)?;
    let to = web.at(15008);
    let tunnel = Tunnel { to, authority: web.at(PORT), expected_identity: &web.identity() };
    envoy::client(&client, &credentials, &mesh.control().root_certificate()?, tunnel)?;

    let serving = serve_one(&web, PORT, |stream| {
        let received = traffic::receive(&stream)?;
        let digest = traffic::send(&stream, BYTES)?;
        stream.shutdown(Shutdown::Write)?;
        Ok((received, digest))
    })?;
    let stream = client.connect(SocketAddr::from(([127, 0, 0, 1], CLIENT_PORT)))?;
    let up = traffic::send(&stream, BYTES)?;
    stream.shutdown(Shutdown::Write)?;
    let received = traffic::receive(&stream)?;
    let (server_received, down) = serving.finish()?;
    ensure!(
        server_received == Received { bytes: BYTES, digest: up, end: End::Clean },
        "up: {server_received:?}"
    );
    ensure!(received == Received { bytes: BYTES, digest: down, end: End::Clean }, "down: {received:?}");

    let record = mesh.agent("n2").wait_for_access(0, |record| record.text("direction") == Some("inbound"))?;
    ensure!(record.expect("src.identity")? == client.identity(), "{record:?}");
    Ok(())
}

pub(crate) fn our_pods_reach_envoy() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let client = mesh.pod("shop/client", "n1")?;
    let web = mesh.pod("shop/web", "n2")?;
    apps::nginx(&web, "behind envoy")?;
    let service = mesh.service("shop/web", 80, NGINX)?;
    // No agent on n2: Envoy is the pod's HBONE listener.
    mesh.start_control()?;
    let credentials = Authority::of_control()?.issue(&web.identity(), Validity::Current)?;
    envoy::server(&web, &credentials, &mesh.control().root_certificate()?)?;
    mesh.agent("n1").start()?;
    client.wait_until_captured()?;

    client.get(service.v4())?.expect_body("behind envoy")?;
    let line = wait::until("Envoy's log of the tunnel", SOON, || {
        let lines = web.application_lines();
        lines.iter().find(|line| line.contains("authority=")).cloned().context("no line so far")
    })?
    .0;
    for part in [
        format!("authority={} ", web.at(NGINX)),
        format!("peer={} ", client.identity()),
        format!("for=\"{}:", client.v4()),
        "host=web.shop.svc.cluster.local".to_owned(),
        "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=client".to_owned(),
        "code=200".to_owned(),
    ] {
        ensure!(line.contains(&part), "Envoy did not see {part}: {line}");
    }

    // Envoy drops what comes after its own half-close, so here the client always ends first.
    let serving = serve_one(&web, PORT, |stream| {
        let received = traffic::receive(&stream)?;
        let digest = traffic::send(&stream, BYTES)?;
        stream.shutdown(Shutdown::Write)?;
        Ok((received, digest))
    })?;
    let stream = client.connect(web.at(PORT))?;
    let up = traffic::send(&stream, BYTES)?;
    stream.shutdown(Shutdown::Write)?;
    let received = traffic::receive(&stream)?;
    let (server_received, down) = serving.finish()?;
    ensure!(
        server_received == Received { bytes: BYTES, digest: up, end: End::Clean },
        "up: {server_received:?}"
    );
    ensure!(received == Received { bytes: BYTES, digest: down, end: End::Clean }, "down: {received:?}");
    Ok(())
}
