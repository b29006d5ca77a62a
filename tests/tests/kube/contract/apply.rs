//! Server-side apply: who owns what.

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::place::{Place, refused};
use ambit_tests::cluster::kinds::{CONFIG_MAPS, Custom, Kind, SERVICES};
use ambit_tests::cluster::unique;

/// Applies a status.
async fn apply_status(
    place: &Place,
    kind: Kind,
    manager: &str,
    status: Value,
    force: bool,
) -> kube::Result<DynamicObject> {
    let mut body = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": "x"}});
    if !status.is_null() {
        body["status"] = status;
    }
    let options = PatchParams { force, field_manager: Some(manager.into()), ..PatchParams::default() };
    place.api(kind).patch_status("x", &options, &Patch::Apply(body)).await
}

fn conditions(of: &[(&str, &str)]) -> Value {
    let time = "2026-01-01T00:00:00Z";
    let condition = |(kind, status): &(&str, &str)| json!({"type": kind, "status": status, "reason": "Test", "message": "", "lastTransitionTime": time});
    json!({"conditions": of.iter().map(condition).collect::<Vec<Value>>()})
}

fn shown(object: &DynamicObject) -> Vec<(String, String)> {
    let conditions = object.data["status"]["conditions"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut shown: Vec<_> = conditions.map(|one| (text(&one["type"]), text(&one["status"]))).collect();
    shown.sort();
    shown
}

fn is(object: &DynamicObject, wanted: &[(&str, &str)]) -> Result<()> {
    let wanted: Vec<(String, String)> =
        wanted.iter().map(|(kind, status)| ((*kind).to_owned(), (*status).to_owned())).collect();
    ensure!(shown(object) == wanted, "{:?} in place of {wanted:?}", shown(object));
    Ok(())
}

async fn service(place: &Place) -> Result<()> {
    let spec = json!({"ports": [{"port": 80, "protocol": "TCP"}]});
    place.create(SERVICES, json!({"metadata": {"name": "x"}, "spec": spec})).await?;
    Ok(())
}

pub(crate) async fn each_manager_has_its_own_conditions(place: &Place) -> Result<()> {
    service(place).await?;
    apply_status(place, SERVICES, "one", conditions(&[("A", "True")]), false).await?;
    let both = apply_status(place, SERVICES, "two", conditions(&[("B", "True")]), false).await?;
    is(&both, &[("A", "True"), ("B", "True")])?;
    // Another's condition is not to be had unasked, and an error names whose it is.
    let taken =
        apply_status(place, SERVICES, "two", conditions(&[("A", "False"), ("B", "True")]), false).await;
    let status = refused(taken, 409, "Conflict")?;
    ensure!(status.message.contains("one"), "{}", status.message);
    let forced =
        apply_status(place, SERVICES, "two", conditions(&[("A", "False"), ("B", "True")]), true).await?;
    is(&forced, &[("A", "False"), ("B", "True")])?;
    refused(
        apply_status(place, SERVICES, "one", conditions(&[("A", "True")]), false).await,
        409,
        "Conflict",
    )?;
    // Who writes without applying takes what it changes.
    let mut list = forced.data["status"]["conditions"].as_array().context("there are conditions")?.clone();
    list.iter_mut().filter(|one| one["type"] == "B").for_each(|one| one["status"] = "Unknown".into());
    place.set_status(SERVICES, "x", json!({"conditions": list})).await?;
    let back =
        apply_status(place, SERVICES, "two", conditions(&[("A", "False"), ("B", "True")]), false).await;
    refused(back, 409, "Conflict")?;
    let anonymous = PatchParams::default();
    let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}});
    let outcome = place.api(SERVICES).patch("x", &anonymous, &Patch::Apply(body)).await;
    ensure!(outcome.is_err(), "applied by nobody");
    Ok(())
}

pub(crate) async fn what_is_left_out_goes(place: &Place) -> Result<()> {
    service(place).await?;
    apply_status(place, SERVICES, "one", conditions(&[("A", "True"), ("B", "True")]), false).await?;
    apply_status(place, SERVICES, "two", conditions(&[("B", "True"), ("C", "True")]), false).await?;
    // B is said by both with the same value, and stays for as long as one says it.
    let object = apply_status(place, SERVICES, "one", conditions(&[("A", "True")]), false).await?;
    is(&object, &[("A", "True"), ("B", "True"), ("C", "True")])?;
    let object = apply_status(place, SERVICES, "two", conditions(&[("C", "True")]), false).await?;
    is(&object, &[("A", "True"), ("C", "True")])?;
    let object = apply_status(place, SERVICES, "one", Value::Null, false).await?;
    is(&object, &[("C", "True")])?;
    let entries = object.managed_fields().iter().filter_map(|entry| entry.manager.as_deref());
    ensure!(!entries.clone().any(|manager| manager == "one"), "{:?}", entries.collect::<Vec<&str>>());
    // What is applied to one endpoint is not written to the other.
    let options = PatchParams::apply("three");
    let body = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "x", "labels": {"a": "b"}}, "status": conditions(&[("D", "True")]),
    });
    let object = place.api(SERVICES).patch("x", &options, &Patch::Apply(body)).await?;
    is(&object, &[("C", "True")])?;
    ensure!(object.labels()["a"] == "b", "{:?}", object.labels());
    let body = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}});
    let object = place.api(SERVICES).patch("x", &options, &Patch::Apply(body)).await?;
    ensure!(object.labels().is_empty(), "{:?}", object.labels());
    Ok(())
}

pub(crate) async fn who_is_taken_from_the_entries_owns_nothing(place: &Place) -> Result<()> {
    let api = place.api(CONFIG_MAPS);
    let labels = |labels: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "labels": labels}});
    let maker = PostParams { field_manager: Some("maker".into()), ..PostParams::default() };
    let object = serde_json::from_value(labels(json!({"a": "1", "b": "1", "c": "1"})))?;
    api.create(&maker, &object).await?;
    let options = PatchParams::apply("one");
    let applied = api.patch("x", &options, &Patch::Apply(labels(json!({"a": "1", "b": "1"})))).await?;
    let others = applied.managed_fields().iter().filter(|entry| entry.manager.as_deref() != Some("maker"));
    let others: Vec<_> = others.collect();
    // Who has not seen the last version takes nothing.
    let take = |version: Option<String>| {
        let metadata = json!({"managedFields": others, "resourceVersion": version});
        Patch::Merge(json!({"metadata": metadata}))
    };
    refused(api.patch("x", &PatchParams::default(), &take(Some("1".into()))).await, 409, "Conflict")?;
    let taken = api.patch("x", &PatchParams::default(), &take(applied.resource_version())).await?;
    let managers: Vec<_> =
        taken.managed_fields().iter().filter_map(|entry| entry.manager.as_deref()).collect();
    ensure!(managers == ["one"], "{managers:?}");
    // What nobody else owns goes with the one who applied it; what nobody applied stays.
    let left = api.patch("x", &options, &Patch::Apply(labels(json!({"a": "1"})))).await?;
    let keys: Vec<_> = left.labels().keys().collect();
    ensure!(keys == ["a", "c"], "{keys:?}");
    Ok(())
}

pub(crate) async fn a_list_that_is_one_value_has_one_owner(place: &Place) -> Result<()> {
    let group = format!("{}.ambit.test", unique("apply"));
    let Custom { kind, definition } = Custom::sample(&group);
    place.define(kind, definition).await?;
    // A status has to have something to be the status of.
    refused(apply_status(place, kind, "one", conditions(&[]), false).await, 404, "NotFound")?;
    place.create(kind, json!({"metadata": {"name": "x"}, "spec": {}})).await?;
    let one = |name: &str, of: &str| json!({name: [{"type": of, "status": "True"}]});
    apply_status(place, kind, "one", one("conditions", "A"), false).await?;
    let object = apply_status(place, kind, "two", one("conditions", "B"), false).await?;
    is(&object, &[("A", "True"), ("B", "True")])?;
    apply_status(place, kind, "three", one("plain", "A"), false).await?;
    refused(apply_status(place, kind, "four", one("plain", "B"), false).await, 409, "Conflict")?;
    let object = apply_status(place, kind, "four", one("plain", "B"), true).await?;
    ensure!(object.data["status"]["plain"] == json!([{"type": "B", "status": "True"}]), "{}", object.data);
    is(&object, &[("A", "True"), ("B", "True")])
}

pub(crate) async fn applying_the_same_again_writes_nothing(place: &Place) -> Result<()> {
    service(place).await?;
    let first = apply_status(place, SERVICES, "one", conditions(&[("A", "True")]), false).await?;
    let again = apply_status(place, SERVICES, "one", conditions(&[("A", "True")]), true).await?;
    ensure!(again.resource_version() == first.resource_version(), "{again:?}");
    Ok(())
}

pub(crate) async fn applying_makes_what_is_missing(place: &Place) -> Result<()> {
    let body = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "1"},
    });
    let maps = place.api(CONFIG_MAPS);
    let made = maps.patch("m", &PatchParams::apply("one"), &Patch::Apply(&body)).await?;
    ensure!(made.uid().is_some() && made.data["data"] == json!({"a": "1"}), "{made:?}");
    let mut other = body.clone();
    other["data"] = json!({"b": "2"});
    let both = maps.patch("m", &PatchParams::apply("two"), &Patch::Apply(&other)).await?;
    ensure!(both.data["data"] == json!({"a": "1", "b": "2"}), "{}", both.data);
    Ok(())
}
