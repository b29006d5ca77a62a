//! The wall between `status` and the rest of an object.

use anyhow::{Result, ensure};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::place::Place;
use ambit_tests::cluster::crowd::ACCOUNT;
use ambit_tests::cluster::kinds::{Custom, PODS};
use ambit_tests::cluster::unique;

pub(crate) async fn each_endpoint_writes_its_part(place: &Place) -> Result<()> {
    let spec = json!({
        "nodeName": format!("node-{}", place.namespace), "serviceAccountName": ACCOUNT,
        "containers": [{"name": "c", "image": "none"}],
    });
    let pod = json!({"metadata": {"name": "p"}, "spec": spec, "status": {"phase": "Running"}});
    let pod = place.create(PODS, pod).await?;
    ensure!(pod.data["status"]["phase"] == "Pending", "a new pod has a status: {}", pod.data["status"]);
    let ip = json!({"phase": "Running", "podIP": "10.9.8.7", "podIPs": [{"ip": "10.9.8.7"}]});
    let pod = place.set_status(PODS, "p", ip).await?;
    ensure!(pod.data["status"]["podIP"] == "10.9.8.7", "{}", pod.data["status"]);
    // The other endpoint keeps it.
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Failed"}});
    let pod = place.merge(PODS, "p", patch).await?;
    ensure!(pod.data["status"]["phase"] == "Running" && pod.labels()["a"] == "b", "{}", pod.data);
    Ok(())
}

pub(crate) async fn generation_counts_what_is_asked_for(place: &Place) -> Result<()> {
    let group = format!("{}.ambit.test", unique("status"));
    let Custom { kind, definition } = Custom::sample(&group);
    place.define(kind, definition).await?;
    let sample = json!({"metadata": {"name": "s"}, "spec": {"a": 1}, "status": {"note": "ignored"}});
    let sample = place.create(kind, sample).await?;
    ensure!(sample.metadata.generation == Some(1) && sample.data["status"].is_null(), "{sample:?}");
    let sample = place.merge(kind, "s", json!({"spec": {"a": 2}, "status": {"note": "ignored"}})).await?;
    ensure!(sample.metadata.generation == Some(2) && sample.data["status"].is_null(), "{sample:?}");
    let sample = place.merge(kind, "s", json!({"metadata": {"labels": {"x": "y"}}})).await?;
    ensure!(sample.metadata.generation == Some(2), "{sample:?}");
    let api = place.api(kind);
    let patch = Patch::Merge(json!({"spec": {"a": 3}, "status": {"note": "kept"}}));
    let sample = api.patch_status("s", &PatchParams::default(), &patch).await?;
    ensure!(sample.metadata.generation == Some(2), "{sample:?}");
    ensure!(sample.data["spec"]["a"] == 2 && sample.data["status"]["note"] == "kept", "{}", sample.data);
    let mut replaced = sample.clone();
    replaced.data["spec"]["a"] = 4.into();
    replaced.data["status"]["note"] = "changed".into();
    let replaced = api.replace_status("s", &PostParams::default(), &replaced).await?;
    ensure!(
        replaced.data["spec"]["a"] == 2 && replaced.data["status"]["note"] == "changed",
        "{}",
        replaced.data
    );
    let mut replaced = replaced.clone();
    replaced.data["spec"]["a"] = 5.into();
    replaced.data["status"]["note"] = "ignored".into();
    let replaced = api.replace("s", &PostParams::default(), &replaced).await?;
    ensure!(replaced.metadata.generation == Some(3), "{replaced:?}");
    ensure!(
        replaced.data["spec"]["a"] == 5 && replaced.data["status"]["note"] == "changed",
        "{}",
        replaced.data
    );
    Ok(())
}
