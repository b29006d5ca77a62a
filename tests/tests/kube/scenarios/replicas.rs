//! Replicas of control: one root, one writer.

use std::fs;
use std::time::{Duration, Instant};

use ambit_tests::wait::until_answered;
use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::mesh::{Mesh, SOON, START};
use ambit_tests::cluster::control::Control;
use ambit_tests::cluster::crowd::Pod;
use ambit_tests::cluster::kinds::{LEASES, POLICIES, SECRETS};

pub(crate) async fn replicas_that_race_have_one_root(mesh: &Mesh<'_>) -> Result<()> {
    mesh.enrol(true).await?;
    mesh.pods().run_all([Pod::numbered(0)]).await?;
    let replicas: Vec<Control> = ["control-a", "control-b", "control-c"]
        .into_iter()
        .map(|name| mesh.control(name))
        .collect::<Result<_>>()?;
    for replica in &replicas {
        replica.ready(START).await?;
    }
    let secrets = SECRETS.api(mesh.place.client.clone(), &mesh.namespace);
    let found = secrets.list(&Default::default()).await?;
    let roots: Vec<String> =
        found.items.iter().map(ResourceExt::name_any).filter(|name| name.starts_with("ambit-ca")).collect();
    ensure!(roots == ["ambit-ca"], "{roots:?}");
    // The published root is the Secret's, and each replica's certificate chains to it.
    let roots = fs::read_to_string(mesh.root_file().await?)?;
    let secret = secrets.get("ambit-ca").await?;
    let encoded = secret.data["data"]["root-cert.pem"].as_str().context("no root-cert.pem")?;
    ensure!(decoded(encoded)? == roots, "the ConfigMap says something else than the Secret");
    for replica in &replicas {
        let mut observer = mesh.observe(replica).await?;
        observer.synced(SOON).await.with_context(|| replica.name().to_owned())?;
    }
    Ok(())
}

fn decoded(text: &str) -> Result<String> {
    use base64::Engine;
    Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text)?)?)
}

pub(crate) async fn a_writer_that_is_killed_is_followed_by_another(mesh: &Mesh<'_>) -> Result<()> {
    // The Lease has to run out.
    change_of_writer(mesh, Duration::from_secs(60), |control| control.kill()).await
}

pub(crate) async fn a_writer_that_leaves_hands_over(mesh: &Mesh<'_>) -> Result<()> {
    change_of_writer(mesh, Duration::from_secs(3), |control| control.terminate()).await
}

async fn change_of_writer(
    mesh: &Mesh<'_>,
    within: Duration,
    end: impl Fn(&Control) -> Result<()>,
) -> Result<()> {
    mesh.define_policies().await?;
    mesh.enrol(true).await?;
    mesh.pods().run_all([Pod::numbered(0)]).await?;
    let replicas = [mesh.control("control-a")?, mesh.control("control-b")?];
    for replica in &replicas {
        replica.ready(START).await?;
    }
    policy(mesh, "first").await?;
    until_answered("the first status", START, async || written(mesh, "first").await).await?;
    let writer = holder(mesh).await?;
    let (leaving, staying): (Vec<&Control>, Vec<&Control>) =
        replicas.iter().partition(|replica| writer.contains(replica.name()));
    ensure!(leaving.len() == 1 && staying.len() == 1, "the Lease names {writer:?}");
    let begin = Instant::now();
    end(leaving[0])?;
    let (next, took) = until_answered("another writer", within, async || {
        let now = holder(mesh).await?;
        ensure!(now.contains(staying[0].name()), "the Lease names {now:?}");
        Ok(now)
    })
    .await?;
    eprintln!("{next} has the Lease {took:.1?} after {writer} ended");
    policy(mesh, "second").await?;
    until_answered("the second status", SOON, async || written(mesh, "second").await).await?;
    eprintln!("a status was written {:.1?} after the end", begin.elapsed());
    Ok(())
}

async fn policy(mesh: &Mesh<'_>, name: &str) -> Result<()> {
    let spec = json!({"action": "DENY", "rules": [{"to": [{"operation": {"ports": ["9999"]}}]}]});
    mesh.place.create(POLICIES, json!({"metadata": {"name": name}, "spec": spec})).await?;
    Ok(())
}

/// The conditions of a policy that has been judged.
async fn written(mesh: &Mesh<'_>, name: &str) -> Result<Value> {
    let policy = mesh.place.api(POLICIES).get(name).await?;
    let conditions = policy.data["status"]["conditions"].clone();
    ensure!(conditions.as_array().is_some_and(|list| !list.is_empty()), "{name} has no status");
    Ok(conditions)
}

async fn holder(mesh: &Mesh<'_>) -> Result<String> {
    let lease = LEASES.api(mesh.place.client.clone(), &mesh.namespace).get("ambit-control").await?;
    Ok(lease.data["spec"]["holderIdentity"].as_str().context("nobody has the Lease")?.to_owned())
}
