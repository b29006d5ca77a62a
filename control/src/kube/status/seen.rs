//! Watches what the API server has of the objects whose statuses we write.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, ResourceExt, discovery};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::ledger::There;
use crate::objects::{Kind, KnownKind, ObjectKey};

/// The pause before it is asked again whether a kind is served.
const ASK_AGAIN: Duration = Duration::from_secs(15);

/// What a watch has seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// An object is there.
    Put(KnownKind, Arc<ApiResource>, ObjectKey, There),
    /// It is gone.
    Gone(ObjectKey),
    /// These are all there are.
    All(KnownKind, HashSet<ObjectKey>),
}

/// Watches a kind until nobody listens. One that is not served is waited for.
pub(super) async fn watch(client: Client, kind: KnownKind, seen: mpsc::Sender<Seen>) {
    while !seen.is_closed() {
        match served(&client, kind).await {
            Some(resource) => {
                // Ends when the kind is not served any more.
                watch_served(&client, kind, Arc::new(resource), &seen).await;
            }
            None => tracing::debug!(kind = kind.name(), "not served: its statuses are not written"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// The newest version that we know and the API server serves.
async fn served(client: &Client, kind: KnownKind) -> Option<ApiResource> {
    for version in kind.versions() {
        let gvk = GroupVersionKind::gvk(kind.group(), version, kind.name());
        if let Ok((resource, _)) = discovery::pinned_kind(client, &gvk).await {
            return Some(resource);
        }
    }
    None
}

async fn watch_served(
    client: &Client,
    kind: KnownKind,
    resource: Arc<ApiResource>,
    seen: &mpsc::Sender<Seen>,
) {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &*resource);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        let sent = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(object)) => {
                let Some(key) = key(kind, &object) else { continue };
                listed.insert(key.clone());
                seen.send(Seen::Put(kind, resource.clone(), key, there(&object))).await
            }
            Ok(Event::InitDone) => seen.send(Seen::All(kind, std::mem::take(&mut listed))).await,
            Ok(Event::Apply(object)) => {
                let Some(key) = key(kind, &object) else { continue };
                seen.send(Seen::Put(kind, resource.clone(), key, there(&object))).await
            }
            Ok(Event::Delete(object)) => {
                let Some(key) = key(kind, &object) else { continue };
                seen.send(Seen::Gone(key)).await
            }
            Err(watcher::Error::InitialListFailed(kube::Error::Api(status))) if status.code == 404 => return,
            Err(error) => {
                tracing::debug!(kind = kind.name(), %error, "watch interrupted");
                continue;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn key(kind: KnownKind, object: &DynamicObject) -> Option<ObjectKey> {
    let namespace = object.metadata.namespace.as_deref()?.into();
    let name = object.metadata.name.as_deref()?.into();
    Some(ObjectKey { kind: Kind::Known(kind), namespace: Some(namespace), name })
}

/// The part of an object that a status depends on.
pub(super) fn there(object: &DynamicObject) -> There {
    let status = &object.data["status"];
    let kept = |field: &str| status.get(field).cloned().unwrap_or(Value::Null);
    let mut status = json!({"conditions": kept("conditions")});
    if let generation @ (Value::Number(_) | Value::String(_)) = kept("observedGeneration") {
        status["observedGeneration"] = generation;
    }
    There {
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        generation: object.metadata.generation.unwrap_or_default(),
        status,
    }
}
