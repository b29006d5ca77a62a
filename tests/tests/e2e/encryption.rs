//! What is visible between the nodes, and who is let in (bar 2).

use std::net::SocketAddr;

use ambit_tests::apps::{self, IPERF3, IPERF3_REVERSE, NGINX, REDIS};
use ambit_tests::certificates::{Answer, Authority, Validity, knock};
use ambit_tests::mesh::Mesh;
use ambit_tests::pod::Pod;
use ambit_tests::wire::{Capture, TLS_1_3};
use anyhow::{Result, bail, ensure};
use rand::distr::{Alphanumeric, SampleString};

const BULK: usize = 32 << 20;

/// Text that no program holds by chance.
pub(crate) fn marker() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 32)
}

/// nginx, redis and iperf3, each carrying `marker` from `client` to `server` and back.
pub(crate) fn host_applications(server: &Pod, marker: &str) -> Result<()> {
    apps::nginx(server, marker)?;
    apps::redis(server)?;
    apps::iperf3(server, marker)
}

/// Ports of [`host_applications`].
pub(crate) const APPLICATIONS: [u16; 4] = [NGINX, REDIS, IPERF3, IPERF3_REVERSE];

/// Uses one application of [`host_applications`], so that the marker travels.
pub(crate) fn use_application(client: &Pod, at: SocketAddr, marker: &str) -> Result<()> {
    match at.port() {
        NGINX => client.get(at)?.expect_body(marker).map(drop),
        REDIS => {
            apps::redis_cli(client, at, &["SET", "marker", marker])?;
            ensure!(apps::redis_cli(client, at, &["GET", "marker"])? == marker);
            Ok(())
        }
        IPERF3 => most_of_bulk(apps::iperf3_send(client, at, marker, BULK)?),
        IPERF3_REVERSE => most_of_bulk(apps::iperf3_receive(client, at, BULK)?),
        port => bail!("no application has port {port}"),
    }
}

/// iperf3 stops to count when its sender is done, with the last of the data still on its way.
fn most_of_bulk(arrived: u64) -> Result<()> {
    ensure!(arrived > u64::try_from(BULK)? / 2, "{arrived} of {BULK} octets arrived");
    Ok(())
}

pub(crate) fn nothing_readable_passes_between_nodes() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let (one, other) = (mesh.pod("shop/one", "n1")?, mesh.pod("shop/other", "n2")?);
    let marker = marker();
    host_applications(&one, &marker)?;
    host_applications(&other, &marker)?;
    mesh.start()?;

    let capture = Capture::start(&marker)?;
    for port in APPLICATIONS {
        for (client, to) in [(&one, other.at(port)), (&other, one.at(port)), (&one, other.at_v6(port))] {
            use_application(client, to, &marker)?;
        }
    }
    let seen = capture.finish()?;

    ensure!(seen.marked == 0, "the marker was readable in {} packets", seen.marked);
    let beside = seen.flows_beside_hbone();
    ensure!(beside.is_empty(), "TCP beside 15008: {beside:?}");
    ensure!(seen.tls_versions == [TLS_1_3].into(), "TLS versions chosen: {:x?}", seen.tls_versions);
    Ok(())
}

pub(crate) fn strangers_are_refused_before_any_connect() -> Result<()> {
    let mesh = Mesh::of_nodes(["n1", "n2"])?;
    mesh.ambient_namespace("shop")?;
    let web = mesh.pod("shop/web", "n2")?;
    apps::nginx(&web, "hello")?;
    let stranger = mesh.outside_host("stranger", 100)?;
    mesh.start()?;

    let (ours, other) = (Authority::of_control()?, Authority::generate("another root")?);
    let here = "spiffe://cluster.local/ns/shop/sa/client";
    let elsewhere = "spiffe://elsewhere.example/ns/shop/sa/client";
    let no_identity = "https://cluster.local/ns/shop/sa/client";
    for (what, credentials, expected) in [
        ("a certificate of the mesh", Some(ours.issue(here, Validity::Current)?), true),
        ("no certificate", None, false),
        ("a certificate of another trust domain", Some(ours.issue(elsewhere, Validity::Current)?), false),
        ("a certificate without a SPIFFE identity", Some(ours.issue(no_identity, Validity::Current)?), false),
        ("an expired certificate", Some(ours.issue(here, Validity::Expired)?), false),
        ("a certificate of another root", Some(other.issue(here, Validity::Current)?), false),
    ] {
        for to in [web.at(15008), web.at_v6(15008)] {
            let answer = knock(&stranger, to, credentials.as_ref())?;
            ensure!((answer == Answer::Accepted) == expected, "{what} at {to}: {answer:?}");
        }
    }
    Ok(())
}
