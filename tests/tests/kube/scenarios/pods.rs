//! Pods that come, go and change, and what a proxy knows of them.

use std::collections::BTreeMap;
use std::env;
use std::time::{Duration, Instant};

use ambit_mesh::snapshot::Snapshot;
use ambit_mesh::workload::{TunnelProtocol, Workload};
use anyhow::{Context, Result, ensure};

use super::mesh::{Mesh, SOON, START};
use ambit_tests::cluster::crowd::Pod;

/// A number from the environment, or what CI uses.
pub(crate) fn setting(name: &str, in_ci: usize) -> Result<usize> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is {text:?}, and not a number")),
        Err(_) => Ok(in_ci),
    }
}

/// The workloads of a namespace, by name.
pub(crate) fn workloads<'a>(snapshot: &'a Snapshot, namespace: &str) -> BTreeMap<&'a str, &'a Workload> {
    let of_namespace = snapshot.workloads().filter(|workload| &*workload.namespace == namespace);
    of_namespace.map(|workload| (&*workload.name, &**workload)).collect()
}

/// What has to be so in the end: the proxy knows the pods that the API server has, by UID and address.
pub(crate) async fn agrees(
    mesh: &Mesh<'_>,
    observer: &mut ambit_tests::observer::Observer,
    addresses: &BTreeMap<String, String>,
    within: Duration,
) -> Result<Duration> {
    let known: BTreeMap<String, String> = mesh.pods().known().await?.into_iter().collect();
    ensure!(known.keys().eq(addresses.keys()), "the scenario does not know its pods");
    let (_, took) = observer
        .until("the proxy to agree with the API server", within, |snapshot| {
            let found = workloads(snapshot, &mesh.place.namespace);
            let extra: Vec<&&str> = found.keys().filter(|name| !known.contains_key(**name)).collect();
            ensure!(extra.is_empty(), "{} pods too many, {:?} among them", extra.len(), extra.first());
            for (name, uid) in &known {
                let workload = found.get(name.as_str()).with_context(|| format!("{name} is missing"))?;
                let own = workload.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
                ensure!(own == [addresses[name].clone()], "{name} has {own:?} and not {}", addresses[name]);
                let bound = workload.pod.as_ref().map(|pod| &*pod.pod_uid);
                ensure!(bound == Some(uid.as_str()), "{name} is {bound:?} and not {uid}");
            }
            Ok(())
        })
        .await?;
    Ok(took)
}

fn addresses(pods: &[Pod]) -> BTreeMap<String, String> {
    pods.iter().map(|pod| (pod.name.clone(), pod.ip.clone())).collect()
}

pub(crate) async fn a_cold_start_with_many_pods(mesh: &Mesh<'_>) -> Result<()> {
    let count = setting("AMBIT_KUBE_PODS", 5_000)?;
    mesh.enrol(true).await?;
    let pods: Vec<Pod> = (0..count).map(Pod::numbered).collect();
    let begin = Instant::now();
    mesh.pods().run_all(pods.clone()).await?;
    for (number, ends) in pods.chunks(10).enumerate().take(50) {
        mesh.pods().serve(&format!("service-{number}"), ends).await?;
    }
    eprintln!("{count} pods made in {:.1?}", begin.elapsed());

    let control = mesh.control("control-a")?;
    let ready = control.ready(START + Duration::from_secs(60)).await?;
    let mut observer = mesh.observe(&control).await?;
    let synced = observer.synced(START).await?;
    agrees(mesh, &mut observer, &addresses(&pods), SOON).await?;
    eprintln!("control ready {ready:.1?} after its start; a proxy has everything {synced:.1?} later");

    // Another start under the eyes of a proxy takes nothing from it.
    control.kill()?;
    let control = mesh.control("control-b")?;
    control.ready(START + Duration::from_secs(60)).await?;
    let mut again = mesh.observe(&control).await?;
    again.synced(START).await?;
    agrees(mesh, &mut again, &addresses(&pods), SOON).await?;
    Ok(())
}

pub(crate) async fn a_label_enrols_and_its_removal_ends_that(mesh: &Mesh<'_>) -> Result<()> {
    const PODS: usize = 50;
    let pods: Vec<Pod> = (0..PODS).map(Pod::numbered).collect();
    mesh.pods().run_all(pods.clone()).await?;
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    let mut observer = mesh.observe(&control).await?;
    observer.synced(START).await?;
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let enrolled = round % 2 == 0;
        let wanted = if enrolled { TunnelProtocol::Hbone } else { TunnelProtocol::None };
        let begin = Instant::now();
        mesh.enrol(enrolled).await?;
        let what = format!("all pods to be {wanted:?} in round {round}");
        observer
            .until(&what, SOON, |snapshot| {
                let found = workloads(snapshot, &mesh.place.namespace);
                let right = found.values().filter(|one| one.tunnel_protocol == wanted).count();
                ensure!(found.len() == PODS && right == PODS, "{right} of {}", found.len());
                Ok(())
            })
            .await?;
        slowest = slowest.max(begin.elapsed());
    }
    eprintln!("the slowest of 10 flips of {PODS} pods took {slowest:.1?}");
    agrees(mesh, &mut observer, &addresses(&pods), SOON).await?;
    Ok(())
}

/// Names, addresses and both are used again, as by StatefulSets, by an address pool, and by chance.
pub(crate) async fn churn_ends_in_what_there_is(mesh: &Mesh<'_>) -> Result<()> {
    let count = setting("AMBIT_KUBE_CHURN", 1_000)?;
    mesh.enrol(true).await?;
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    let mut observer = mesh.observe(&control).await?;
    observer.synced(START).await?;
    let mut pods: Vec<Pod> = (0..count).map(Pod::numbered).collect();
    mesh.pods().run_all(pods.clone()).await?;
    for round in 1..=3 {
        let (gone, stay): (Vec<_>, Vec<_>) =
            pods.iter().cloned().enumerate().partition(|(i, _)| i % 3 != round % 3);
        let gone: Vec<Pod> = gone.into_iter().map(|(_, pod)| pod).collect();
        mesh.pods().end_all(gone.clone()).await?;
        // The same names come back with the addresses of others.
        let names = gone.iter().map(|pod| pod.name.clone());
        let ips = gone.iter().rev().map(|pod| pod.ip.clone());
        let back: Vec<Pod> = names.zip(ips).map(|(name, ip)| Pod { name, ip }).collect();
        mesh.pods().run_all(back.clone()).await?;
        pods = stay.into_iter().map(|(_, pod)| pod).chain(back).collect();
    }
    let took = agrees(mesh, &mut observer, &addresses(&pods), SOON).await?;
    eprintln!("after three rounds with {count} pods the proxy agreed within {took:.1?}");
    // What has ended is no workload, and one that never had an address is.
    let ended = &pods[0];
    let status =
        serde_json::json!({"phase": "Succeeded", "conditions": [{"type": "Ready", "status": "False"}]});
    mesh.place.set_status(ambit_tests::cluster::kinds::PODS, &ended.name, status).await?;
    observer
        .until("the pod that has ended to go", SOON, |snapshot| {
            let found = workloads(snapshot, &mesh.place.namespace);
            ensure!(!found.contains_key(ended.name.as_str()), "{} is still there", ended.name);
            Ok(())
        })
        .await?;
    let reused = Pod { name: "heir".into(), ip: ended.ip.clone() };
    mesh.pods().run_all([reused.clone()]).await?;
    observer
        .until("its address to be another's", SOON, |snapshot| {
            let found = workloads(snapshot, &mesh.place.namespace);
            let heir = found.get("heir").context("the heir is missing")?;
            ensure!(heir.addresses == [reused.ip.parse::<std::net::IpAddr>()?], "{:?}", heir.addresses);
            Ok(())
        })
        .await?;
    Ok(())
}
