//! Discovery: which kinds there are, and since when.

use std::time::Duration;

use ambit_tests::wait::until_answered;
use anyhow::{Result, ensure};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::place::{Place, refused};
use ambit_tests::cluster::kinds::{CRDS, Custom};
use ambit_tests::cluster::unique;

pub(crate) async fn what_is_served_is_said(place: &Place) -> Result<()> {
    let version = place.client.apiserver_version().await?;
    ensure!(version.major == "1", "{version:?}");
    let kinds = place.client.list_core_api_resources("v1").await?.resources;
    let pods = kinds.iter().find(|kind| kind.name == "pods");
    ensure!(pods.is_some_and(|pods| pods.namespaced && pods.verbs.iter().any(|verb| verb == "watch")));
    ensure!(kinds.iter().any(|kind| kind.name == "pods/status"));
    let groups: Vec<String> =
        place.client.list_api_groups().await?.groups.into_iter().map(|group| group.name).collect();
    for group in ["discovery.k8s.io", "coordination.k8s.io", "authentication.k8s.io", "apiextensions.k8s.io"]
    {
        ensure!(groups.iter().any(|name| name == group), "{group} is not among {groups:?}");
    }
    let leases = place.client.list_api_group_resources("coordination.k8s.io/v1").await?.resources;
    ensure!(leases.iter().any(|kind| kind.name == "leases" && kind.kind == "Lease"));
    refused(place.raw("/apis/no.such.group").await, 404, "")?;
    refused(place.raw("/apis/no.such.group/v1").await, 404, "")?;
    refused(place.raw("/apis/no.such.group/v1/things").await, 404, "")?;
    Ok(())
}

pub(crate) async fn a_kind_comes_and_goes_with_its_definition(place: &Place) -> Result<()> {
    let group = format!("{}.ambit.test", unique("g"));
    let Custom { kind, definition } = Custom::sample(&group);
    let path = format!("/apis/{group}");
    refused(place.raw(&path).await, 404, "")?;
    refused(place.api(kind).list(&ListParams::default()).await, 404, "")?;

    place.define(kind, definition).await?;
    // What is served and what is said of it are not told at one instant.
    let (found, _) =
        until_answered("the group to be listed", SOON, async || Ok(place.raw(&path).await?)).await?;
    ensure!(found["kind"] == "APIGroup" && found["name"] == group.as_str(), "{found}");
    until_answered("its kinds to be listed", SOON, async || {
        let kinds = place.client.list_api_group_resources(&kind.api_version()).await?.resources;
        ensure!(kinds.iter().any(|one| one.name == "samples/status"), "{kinds:?}");
        Ok(())
    })
    .await?;
    place.create(kind, json!({"metadata": {"name": "one"}, "spec": {"a": 1}})).await?;

    let name = format!("samples.{group}");
    place.delete(CRDS, &name).await?;
    let gone = async || -> Result<()> {
        refused(place.api(kind).list(&ListParams::default()).await, 404, "")?;
        refused(place.raw(&path).await, 404, "")?;
        Ok(())
    };
    until_answered("kind and group to go", SOON, gone).await?;
    // It comes back without the objects that it had.
    until_answered("the definition to go", SOON, async || {
        refused(place.api(CRDS).get(&name).await, 404, "NotFound")
    })
    .await?;
    place.define(kind, Custom::sample(&group).definition).await?;
    let found = place.api(kind).list(&ListParams::default()).await?;
    ensure!(
        found.items.is_empty(),
        "{:?}",
        found.items.iter().map(|item| &item.data).collect::<Vec<&Value>>()
    );
    Ok(())
}

const SOON: Duration = Duration::from_secs(60);
