//! Lists: pages, selectors, revisions.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use kube::api::{ListParams, VersionMatch};
use serde_json::{Value, json};

use crate::place::{Place, refused};
use ambit_tests::cluster::crowd::ACCOUNT;
use ambit_tests::cluster::kinds::{CONFIG_MAPS, PODS};

pub(crate) async fn pages_are_of_one_revision(place: &Place) -> Result<()> {
    let of_trial = ListParams::default().labels("trial=pages").limit(3);
    let map = |name: &str| json!({"metadata": {"name": name, "labels": {"trial": "pages"}}});
    for number in 0..7 {
        place.create(CONFIG_MAPS, map(&format!("m{number}"))).await?;
    }
    let maps = place.api(CONFIG_MAPS);
    let mut page = maps.list(&of_trial).await?;
    let revision = page.metadata.resource_version.clone();
    place.create(CONFIG_MAPS, map("m9")).await?;
    place.delete(CONFIG_MAPS, "m6").await?;
    let mut names = BTreeSet::new();
    let mut pages = 0;
    loop {
        pages += 1;
        ensure!(page.metadata.resource_version == revision, "page {pages} is of another revision");
        ensure!(page.items.len() <= 3, "page {pages} is too long");
        names.extend(page.items.iter().map(ResourceExt::name_any));
        let Some(token) = page.metadata.continue_.filter(|token| !token.is_empty()) else { break };
        page = maps.list(&of_trial.clone().continue_token(&token)).await?;
    }
    let before: BTreeSet<String> = (0..7).map(|number| format!("m{number}")).collect();
    ensure!(pages == 3 && names == before, "{pages} pages with {names:?}");
    // Without a selector the server knows how many are left.
    let page = maps.list(&ListParams::default().limit(2)).await?;
    ensure!(page.metadata.remaining_item_count.is_some_and(|left| left >= 5), "{:?}", page.metadata);
    Ok(())
}

pub(crate) async fn selectors_select(place: &Place) -> Result<()> {
    for (name, labels) in [
        ("a", json!({"app": "web", "tier": "front"})),
        ("b", json!({"app": "web"})),
        ("c", json!({"app": "db", "trial": "selectors"})),
    ] {
        place.create(CONFIG_MAPS, json!({"metadata": {"name": name, "labels": labels}})).await?;
    }
    for (selector, wanted) in [
        ("app=web", vec!["a", "b"]),
        ("app==web,tier", vec!["a"]),
        ("app in (db, web),!tier", vec!["b", "c"]),
        ("app notin (web),app", vec!["c"]),
        ("app,app!=web", vec!["c"]),
    ] {
        let found = place.api(CONFIG_MAPS).list(&ListParams::default().labels(selector)).await?;
        let names: Vec<String> = found.items.iter().map(ResourceExt::name_any).collect();
        ensure!(names == wanted, "{selector}: {names:?}");
    }
    for (name, node) in [("p", "n1"), ("q", "n2")] {
        let spec = json!({
            "nodeName": format!("{node}-{}", place.namespace), "serviceAccountName": ACCOUNT,
            "containers": [{"name": "c", "image": "none"}],
        });
        place.create(PODS, json!({"metadata": {"name": name}, "spec": spec})).await?;
    }
    let on_node = format!("spec.nodeName=n1-{}", place.namespace);
    for (selector, wanted) in [(on_node.as_str(), vec!["p"]), ("metadata.name!=p", vec!["q"])] {
        let found = place.api(PODS).list(&ListParams::default().fields(selector)).await?;
        let names: Vec<String> = found.items.iter().map(ResourceExt::name_any).collect();
        ensure!(names == wanted, "{selector}: {names:?}");
    }
    let unknown = place.api(PODS).list(&ListParams::default().fields("spec.terminated=true")).await;
    refused(unknown, 400, "BadRequest")?;
    Ok(())
}

pub(crate) async fn revisions_that_cannot_be_are_refused(place: &Place) -> Result<()> {
    let path = |options: &str| format!("/api/v1/namespaces/{}/configmaps?{options}", place.namespace);
    refused(place.raw(&path("resourceVersionMatch=Exact")).await, 422, "Invalid")?;
    refused(place.raw(&path("resourceVersion=0&resourceVersionMatch=Exact")).await, 422, "Invalid")?;
    refused(place.raw(&path("limit=1&continue=nonsense")).await, 400, "BadRequest")?;
    let future = format!("resourceVersion={}", u64::MAX >> 2);
    refused(place.raw(&path(&future)).await, 504, "Timeout")?;
    let any = place.raw(&path("resourceVersion=0")).await?;
    ensure!(any["kind"] == "ConfigMapList", "{any}");
    Ok(())
}

/// Only the double can be told to compact; a server does it by itself, after minutes.
pub(crate) async fn what_is_compacted_is_gone(place: &Place) -> Result<()> {
    let map = place.create(CONFIG_MAPS, json!({"metadata": {"name": "m"}, "data": {"a": "1"}})).await?;
    let revision = map.resource_version().context("no revision")?;
    place.merge(CONFIG_MAPS, "m", json!({"data": {"a": "2"}})).await?;
    let exact = ListParams::default().matching(VersionMatch::Exact).at(&revision);
    let old = place.api(CONFIG_MAPS).list(&exact).await?;
    let first = old.items.iter().find(|item| item.name_any() == "m").context("it was there")?;
    ensure!(first.data["data"]["a"] == "1", "{}", first.data);
    if let Some(double) = &place.double {
        double.compact();
        refused(place.api(CONFIG_MAPS).list(&exact).await, 410, "Expired")?;
    } else {
        // Revision 1 may be gone or not. If it is not, nothing of ours was there.
        let first = ListParams::default().matching(VersionMatch::Exact).at("1");
        match place.api(CONFIG_MAPS).list(&first).await {
            Ok(list) => ensure!(
                list.items.is_empty(),
                "{:?}",
                list.items.iter().map(|i| &i.data).collect::<Vec<&Value>>()
            ),
            Err(error) => drop(refused::<()>(Err(error), 410, "Expired")?),
        }
    }
    Ok(())
}
