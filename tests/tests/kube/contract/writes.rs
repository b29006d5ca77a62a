//! Writes: names, conflicts, the server's own fields, deletion.

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams, Preconditions};
use serde_json::json;

use crate::place::{Place, refused};
use ambit_tests::cluster::crowd::ACCOUNT;
use ambit_tests::cluster::kinds::{CONFIG_MAPS, Custom, NAMESPACES, PODS};
use ambit_tests::cluster::unique;

pub(crate) async fn a_name_is_taken_once(place: &Place) -> Result<()> {
    place.create(CONFIG_MAPS, json!({"metadata": {"name": "m"}})).await?;
    let maps = place.api(CONFIG_MAPS);
    let again = CONFIG_MAPS.object(json!({"metadata": {"name": "m"}}))?;
    refused(maps.create(&PostParams::default(), &again).await, 409, "AlreadyExists")?;
    let nameless = CONFIG_MAPS.object(json!({"metadata": {}}))?;
    refused(maps.create(&PostParams::default(), &nameless).await, 422, "Invalid")?;
    let made = place.create(CONFIG_MAPS, json!({"metadata": {"generateName": "m-"}})).await?;
    ensure!(made.name_any().len() == "m-".len() + 5, "{}", made.name_any());
    let nowhere = CONFIG_MAPS.api(place.client.clone(), "ambit-contract-nowhere");
    refused(nowhere.create(&PostParams::default(), &again).await, 404, "NotFound")?;
    refused(maps.get("nobody").await, 404, "NotFound")?;
    refused(maps.delete("nobody", &DeleteParams::default()).await, 404, "NotFound")?;
    Ok(())
}

pub(crate) async fn who_is_late_conflicts(place: &Place) -> Result<()> {
    let old = place.create(CONFIG_MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await?;
    let maps = place.api(CONFIG_MAPS);
    let update = |object: &DynamicObject, value: &str| {
        let mut object = object.clone();
        object.data["data"] = json!({"a": value});
        object
    };
    let new = maps.replace("m", &PostParams::default(), &update(&old, "2")).await?;
    refused(maps.replace("m", &PostParams::default(), &update(&old, "3")).await, 409, "Conflict")?;
    let mut patch = json!({"metadata": {"resourceVersion": old.resource_version()}, "data": {"a": "4"}});
    refused(patched(place, &patch).await, 409, "Conflict")?;
    patch["metadata"]["resourceVersion"] = new.resource_version().into();
    patched(place, &patch).await?;
    // Who names no revision has the last word, but for custom objects.
    let mut unconditional = update(&old, "5");
    unconditional.metadata.resource_version = None;
    maps.replace("m", &PostParams::default(), &unconditional).await?;
    let other = DeleteParams {
        preconditions: Some(Preconditions { uid: Some("other".into()), resource_version: None }),
        ..DeleteParams::default()
    };
    refused(maps.delete("m", &other).await, 409, "Conflict")?;

    let group = format!("{}.ambit.test", unique("late"));
    let Custom { kind, definition } = Custom::sample(&group);
    place.define(kind, definition).await?;
    let mut sample = place.create(kind, json!({"metadata": {"name": "s"}, "spec": {"a": 1}})).await?;
    sample.metadata.resource_version = None;
    refused(place.api(kind).replace("s", &PostParams::default(), &sample).await, 422, "Invalid")?;
    Ok(())
}

async fn patched(place: &Place, patch: &serde_json::Value) -> kube::Result<DynamicObject> {
    let maps = place.api(CONFIG_MAPS);
    maps.patch("m", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(patch)).await
}

pub(crate) async fn nothing_new_is_not_written(place: &Place) -> Result<()> {
    let map = place.create(CONFIG_MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await?;
    let same = place.merge(CONFIG_MAPS, "m", json!({"data": {"a": "1"}})).await?;
    ensure!(same.resource_version() == map.resource_version(), "{:?}", same.resource_version());
    let again = place.api(CONFIG_MAPS).replace("m", &PostParams::default(), &map).await?;
    ensure!(again.resource_version() == map.resource_version(), "{:?}", again.resource_version());
    let cleared = place.merge(CONFIG_MAPS, "m", json!({"data": {"a": null, "b": "2"}})).await?;
    ensure!(cleared.data["data"] == json!({"b": "2"}), "{}", cleared.data);
    Ok(())
}

pub(crate) async fn the_server_keeps_its_own_fields(place: &Place) -> Result<()> {
    let foreign = json!({"name": "m", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"});
    let map = place.create(CONFIG_MAPS, json!({"metadata": foreign})).await?;
    let uid = map.uid().context("it has a UID")?;
    ensure!(uid.len() == 36 && uid != "mine", "{uid}");
    let created = map.creation_timestamp().context("it has a time")?;
    let later =
        place.merge(CONFIG_MAPS, "m", json!({"metadata": {"creationTimestamp": null}, "data": {"a": "1"}}));
    let later = later.await?;
    ensure!(later.uid() == Some(uid.clone()) && later.creation_timestamp() == Some(created));
    place.delete(CONFIG_MAPS, "m").await?;
    let next = place.create(CONFIG_MAPS, json!({"metadata": {"name": "m"}})).await?;
    ensure!(next.uid() != Some(uid), "the next object of the name has the UID of the last");
    let namespace = place.api(NAMESPACES).get(&place.namespace).await?;
    let label = namespace.labels().get("kubernetes.io/metadata.name");
    ensure!(label == Some(&place.namespace), "{:?}", namespace.labels());
    ensure!(namespace.data["status"]["phase"] == "Active", "{}", namespace.data);
    Ok(())
}

pub(crate) async fn finalizers_hold_an_object(place: &Place) -> Result<()> {
    let held = json!({"metadata": {"name": "m", "finalizers": ["ambit.test/held"]}});
    place.create(CONFIG_MAPS, held).await?;
    place.delete(CONFIG_MAPS, "m").await?;
    let marked = place.api(CONFIG_MAPS).get("m").await?;
    ensure!(marked.metadata.deletion_timestamp.is_some(), "{:?}", marked.metadata);
    place.merge(CONFIG_MAPS, "m", json!({"metadata": {"finalizers": null}})).await?;
    refused(place.api(CONFIG_MAPS).get("m").await, 404, "NotFound")?;
    Ok(())
}

pub(crate) async fn pods_wait_for_their_kubelet(place: &Place) -> Result<()> {
    let pod = |name: &str, node: Option<String>| {
        let mut spec = json!({
            "serviceAccountName": ACCOUNT, "containers": [{"name": "c", "image": "none"}],
            "terminationGracePeriodSeconds": 60,
        });
        if let Some(node) = node {
            spec["nodeName"] = node.into();
        } else {
            // No scheduler takes it.
            spec["schedulerName"] = "nobody".into();
        }
        json!({"metadata": {"name": name}, "spec": spec})
    };
    let pods = place.api(PODS);
    place.create(PODS, pod("waiting", None)).await?;
    pods.delete("waiting", &DeleteParams::default()).await?;
    refused(pods.get("waiting").await, 404, "NotFound")?;

    place.create(PODS, pod("running", Some(format!("node-{}", place.namespace)))).await?;
    place.set_status(PODS, "running", json!({"phase": "Running"})).await?;
    pods.delete("running", &DeleteParams::default()).await?;
    let marked = pods.get("running").await?;
    ensure!(marked.metadata.deletion_grace_period_seconds == Some(60), "{:?}", marked.metadata);
    // The kubelet says that it has ended.
    place.delete(PODS, "running").await?;
    refused(pods.get("running").await, 404, "NotFound")?;
    Ok(())
}

pub(crate) async fn a_dry_run_leaves_nothing(place: &Place) -> Result<()> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let map = CONFIG_MAPS.object(json!({"metadata": {"name": "m"}}))?;
    let shown = place.api(CONFIG_MAPS).create(&dry, &map).await?;
    ensure!(shown.uid().is_some(), "{:?}", shown.metadata);
    refused(place.api(CONFIG_MAPS).get("m").await, 404, "NotFound")?;
    let found = place.api(CONFIG_MAPS).list(&ListParams::default().fields("metadata.name=m")).await?;
    ensure!(found.items.is_empty());
    Ok(())
}
