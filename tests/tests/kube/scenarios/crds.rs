//! Kinds that come late, and objects that cannot be used.

use ambit_mesh::policy::PolicyName;
use ambit_mesh::snapshot::Snapshot;
use ambit_tests::wait::until_answered;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::mesh::{Mesh, SOON, START};
use ambit_tests::cluster::crowd::Pod;
use ambit_tests::cluster::kinds::POLICIES;

fn has_policy(snapshot: &Snapshot, namespace: &str, name: &str) -> Result<()> {
    let name = PolicyName { namespace: namespace.into(), name: name.into() };
    snapshot.policy(&name).with_context(|| format!("{name:?} is not there"))?;
    Ok(())
}

fn allowing(principal: &str) -> Value {
    json!({"selector": {"matchLabels": {"app": "crowd"}}, "action": "ALLOW",
           "rules": [{"from": [{"source": {"principals": [principal]}}]}]})
}

pub(crate) async fn a_kind_that_comes_later_counts_from_then(mesh: &Mesh<'_>) -> Result<()> {
    // Where the cluster has the kind, control is kept from seeing it; elsewhere it comes in earnest.
    mesh.gate.hide(Some(POLICIES.group));
    mesh.enrol(true).await?;
    mesh.pods().run_all([Pod::numbered(0)]).await?;
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    let mut observer = mesh.observe(&control).await?;
    observer.synced(START).await?;

    mesh.define_policies().await?;
    mesh.gate.hide(None);
    let spec = allowing("cluster.local/ns/a/sa/b");
    mesh.place.create(POLICIES, json!({"metadata": {"name": "late"}, "spec": spec})).await?;
    let namespace = mesh.place.namespace.clone();
    // Absent kinds are asked for again from time to time.
    let patience = SOON * 4;
    let (_, took) =
        observer.until("the policy", patience, |seen| has_policy(seen, &namespace, "late")).await?;
    eprintln!("a policy of a kind that came later was in force after {took:.1?}");
    mesh.place.delete(POLICIES, "late").await?;
    observer
        .until("the policy to go", SOON, |seen| {
            ensure!(has_policy(seen, &namespace, "late").is_err(), "it is still there");
            Ok(())
        })
        .await?;
    Ok(())
}

pub(crate) async fn a_broken_object_costs_only_itself(mesh: &Mesh<'_>) -> Result<()> {
    mesh.define_policies().await?;
    mesh.enrol(true).await?;
    mesh.pods().run_all([Pod::numbered(0)]).await?;
    let broken = json!({"selector": {"matchLabels": {"app": "crowd"}}, "action": "ALLOW",
                        "rules": [{"from": [{"source": {"ipBlocks": ["not an address"]}}]}]});
    mesh.place.create(POLICIES, json!({"metadata": {"name": "broken"}, "spec": broken})).await?;
    let spec = allowing("cluster.local/ns/a/sa/b");
    mesh.place.create(POLICIES, json!({"metadata": {"name": "good"}, "spec": spec})).await?;
    let control = mesh.control("control-a")?;
    control.ready(START).await?;
    let mut observer = mesh.observe(&control).await?;
    observer.synced(START).await?;
    let namespace = mesh.place.namespace.clone();
    observer.until("the good policy", SOON, |seen| has_policy(seen, &namespace, "good")).await?;
    // It is told to its author, and nothing of the kind to the author of the good one.
    until_answered("the broken policy's status", SOON, async || {
        let accepted = accepted(mesh, "broken").await?;
        ensure!(accepted["status"] == "False", "{accepted}");
        Ok(())
    })
    .await?;
    until_answered("the good policy's status", SOON, async || {
        let accepted = accepted(mesh, "good").await?;
        ensure!(accepted["status"] == "True", "{accepted}");
        Ok(())
    })
    .await?;
    // Mended, it counts.
    mesh.place.merge(POLICIES, "broken", json!({"spec": allowing("cluster.local/ns/c/sa/d")})).await?;
    until_answered("the mended policy's status", SOON, async || {
        let accepted = accepted(mesh, "broken").await?;
        ensure!(accepted["status"] == "True", "{accepted}");
        Ok(())
    })
    .await?;
    observer.until("the mended policy", SOON, |seen| has_policy(seen, &namespace, "broken")).await?;
    Ok(())
}

/// The condition `AmbitAccepted` of a policy.
async fn accepted(mesh: &Mesh<'_>, name: &str) -> Result<Value> {
    let policy = mesh.place.api(POLICIES).get(name).await?;
    let conditions = policy.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition["type"] == "AmbitAccepted");
    found.with_context(|| format!("{name} has no condition AmbitAccepted: {}", policy.data["status"]))
}
