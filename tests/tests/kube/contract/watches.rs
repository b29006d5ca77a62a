//! Watches: order, resumption, bookmarks, and what becomes of those that come too late.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::time::timeout;
use tokio_stream::{Stream, StreamExt};

use crate::place::Place;
use ambit_tests::cluster::kinds::{CONFIG_MAPS, Custom};
use ambit_tests::cluster::unique;

/// How long an event may take.
const SOON: Duration = Duration::from_secs(20);

type Event = WatchEvent<DynamicObject>;

async fn next(events: &mut (impl Stream<Item = kube::Result<Event>> + Unpin)) -> Result<Event> {
    let next = timeout(SOON, events.next()).await.context("no event comes")?;
    next.context("the watch has ended")?.context("the watch has failed")
}

/// What an event says, in short: its kind and the object's name.
fn short(event: &Event) -> String {
    match event {
        WatchEvent::Added(object) => format!("ADDED {}", object.name_any()),
        WatchEvent::Modified(object) => format!("MODIFIED {}", object.name_any()),
        WatchEvent::Deleted(object) => format!("DELETED {}", object.name_any()),
        WatchEvent::Bookmark(bookmark) => format!("BOOKMARK {}", bookmark.metadata.resource_version),
        WatchEvent::Error(error) => format!("ERROR {} {}", error.code, error.reason),
    }
}

fn revision(event: &Event) -> Result<u64> {
    let text = match event {
        WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
            object.resource_version().context("an object has a revision")?
        }
        WatchEvent::Bookmark(bookmark) => bookmark.metadata.resource_version.clone(),
        WatchEvent::Error(error) => bail!("{error:?}"),
    };
    Ok(text.parse()?)
}

async fn revision_now(place: &Place) -> Result<String> {
    let list = place.api(CONFIG_MAPS).list(&ListParams::default().limit(1)).await?;
    list.metadata.resource_version.context("a list has a revision")
}

pub(crate) async fn changes_come_in_order(place: &Place) -> Result<()> {
    let from = revision_now(place).await?;
    let maps = place.api(CONFIG_MAPS);
    let only_ours = WatchParams::default().labels("trial=order").timeout(60);
    let mut events = pin!(maps.watch(&only_ours, &from).await?);
    let map = |name: &str| json!({"metadata": {"name": name, "labels": {"trial": "order"}}});
    place.create(CONFIG_MAPS, map("a")).await?;
    place.create(CONFIG_MAPS, map("b")).await?;
    place.merge(CONFIG_MAPS, "a", json!({"data": {"x": "y"}})).await?;
    place.delete(CONFIG_MAPS, "b").await?;
    let mut last = from.parse()?;
    for wanted in ["ADDED a", "ADDED b", "MODIFIED a", "DELETED b"] {
        let event = next(&mut events).await?;
        ensure!(short(&event) == wanted, "{} in place of {wanted}", short(&event));
        // An object that is gone shows the revision of its end.
        ensure!(revision(&event)? > last, "{wanted} has revision {} after {last}", revision(&event)?);
        last = revision(&event)?;
    }
    Ok(())
}

pub(crate) async fn a_watch_resumes_after_the_list(place: &Place) -> Result<()> {
    place.create(CONFIG_MAPS, json!({"metadata": {"name": "before"}})).await?;
    let from = revision_now(place).await?;
    place.create(CONFIG_MAPS, json!({"metadata": {"name": "between"}})).await?;
    let maps = place.api(CONFIG_MAPS);
    let ours = WatchParams::default().fields("metadata.name!=kube-root-ca.crt").timeout(60);
    let mut events = pin!(maps.watch(&ours, &from).await?);
    place.create(CONFIG_MAPS, json!({"metadata": {"name": "after"}})).await?;
    for wanted in ["ADDED between", "ADDED after"] {
        let event = next(&mut events).await?;
        ensure!(short(&event) == wanted, "{} in place of {wanted}", short(&event));
    }
    Ok(())
}

pub(crate) async fn a_bookmark_comes_before_the_end(place: &Place) -> Result<()> {
    let from = revision_now(place).await?;
    let maps = place.api(CONFIG_MAPS);
    // Bookmarks are asked for unless one asks for none.
    let none_of_ours = WatchParams::default().labels("trial=nobody").timeout(6);
    let mut events = pin!(maps.watch(&none_of_ours, &from).await?);
    place.create(CONFIG_MAPS, json!({"metadata": {"name": "unseen"}})).await?;
    let event = next(&mut events).await?;
    ensure!(short(&event).starts_with("BOOKMARK"), "{}", short(&event));
    ensure!(revision(&event)? > from.parse()?, "the bookmark does not move on: {}", short(&event));
    while let Some(event) = timeout(SOON, events.next()).await.context("the watch does not end")? {
        let event = event?;
        ensure!(short(&event).starts_with("BOOKMARK"), "{}", short(&event));
    }
    Ok(())
}

/// Of a kind that was defined a moment ago no server knows anything of revision 1.
pub(crate) async fn a_revision_that_is_too_old_is_an_error_event(place: &Place) -> Result<()> {
    let group = format!("{}.ambit.test", unique("old"));
    let Custom { kind, definition } = Custom::sample(&group);
    place.define(kind, definition).await?;
    place.create(kind, json!({"metadata": {"name": "one"}, "spec": {}})).await?;
    if let Some(double) = &place.double {
        double.compact();
    }
    let samples = place.api(kind);
    let mut events = pin!(samples.watch(&WatchParams::default().timeout(30), "1").await?);
    let event = next(&mut events).await?;
    ensure!(short(&event) == "ERROR 410 Expired", "{}", short(&event));
    ensure!(timeout(SOON, events.next()).await?.is_none(), "the watch goes on after its error");
    Ok(())
}

pub(crate) async fn what_no_longer_matches_is_gone(place: &Place) -> Result<()> {
    let from = revision_now(place).await?;
    let maps = place.api(CONFIG_MAPS);
    let selected = WatchParams::default().labels("chosen=yes").timeout(60);
    let mut events = pin!(maps.watch(&selected, &from).await?);
    place.create(CONFIG_MAPS, json!({"metadata": {"name": "m"}})).await?;
    for chosen in ["yes", "no", "yes"] {
        place.merge(CONFIG_MAPS, "m", json!({"metadata": {"labels": {"chosen": chosen}}})).await?;
    }
    place.delete(CONFIG_MAPS, "m").await?;
    let mut last = from.parse()?;
    for wanted in ["ADDED m", "DELETED m", "ADDED m", "DELETED m"] {
        let event = next(&mut events).await?;
        ensure!(short(&event) == wanted, "{} in place of {wanted}", short(&event));
        ensure!(revision(&event)? > last, "{wanted} has revision {} after {last}", revision(&event)?);
        last = revision(&event)?;
    }
    Ok(())
}

pub(crate) async fn a_watch_can_begin_with_what_there_is(place: &Place) -> Result<()> {
    for name in ["a", "b"] {
        place
            .create(CONFIG_MAPS, json!({"metadata": {"name": name, "labels": {"trial": "initial"}}}))
            .await?;
    }
    let maps = place.api(CONFIG_MAPS);
    // With bookmarks such a watch is a streamed list, which servers on an older etcd refuse.
    let ours = WatchParams::default().labels("trial=initial").disable_bookmarks().timeout(60);
    let mut events = pin!(maps.watch(&ours, "0").await?);
    let mut begun = [short(&next(&mut events).await?), short(&next(&mut events).await?)];
    begun.sort();
    ensure!(begun == ["ADDED a", "ADDED b"], "{begun:?}");
    place.create(CONFIG_MAPS, json!({"metadata": {"name": "c", "labels": {"trial": "initial"}}})).await?;
    let event = next(&mut events).await?;
    ensure!(short(&event) == "ADDED c", "{}", short(&event));
    Ok(())
}
