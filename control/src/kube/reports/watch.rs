//! Watches the reports of all replicas.

use std::collections::HashSet;
use std::time::Instant;

use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::heard::Heard;
use super::report::ProxyReport;

/// What the watch has seen.
#[derive(Debug)]
pub enum HeardReport {
    /// A report is there.
    Put(Box<ProxyReport>),
    /// It is gone.
    Gone(String),
    /// These are all there are.
    All(HashSet<String>),
}

impl HeardReport {
    /// Takes it in.
    pub fn apply(self, heard: &mut Heard, now: Instant) {
        match self {
            Self::Put(report) => {
                let owners = report.metadata.owner_references.iter().flatten();
                let owner =
                    owners.into_iter().find(|owner| owner.kind == "Pod").map(|owner| owner.uid.as_str());
                let name = report.metadata.name.as_deref().unwrap_or_default();
                heard.put(name, owner, &report.spec, now);
            }
            Self::Gone(name) => heard.remove(&name),
            Self::All(names) => heard.retain(|name| names.contains(name)),
        }
    }
}

/// Watches until nobody listens. While the kind is not served, each replica counts its own proxies
/// alone.
pub async fn watch(client: Client, namespace: String, heard: mpsc::Sender<HeardReport>) {
    let api: Api<ProxyReport> = Api::namespaced(client, &namespace);
    let events = watcher(api, watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        let name = |report: &ProxyReport| report.metadata.name.clone().unwrap_or_default();
        let sent = match event {
            Ok(Event::Init) => {
                listed.clear();
                continue;
            }
            Ok(Event::InitApply(report)) => {
                listed.insert(name(&report));
                heard.send(HeardReport::Put(Box::new(report))).await
            }
            Ok(Event::InitDone) => heard.send(HeardReport::All(std::mem::take(&mut listed))).await,
            Ok(Event::Apply(report)) => heard.send(HeardReport::Put(Box::new(report))).await,
            Ok(Event::Delete(report)) => heard.send(HeardReport::Gone(name(&report))).await,
            Err(error) => {
                tracing::debug!(%error, "the watch of ProxyReports is interrupted");
                continue;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}
