//! The status conditions of policies, written by the replica that leads.
//!
//! What they should say is decided in `desired`, how they stand beside those of others in
//! `condition`, and which of them are to be written when in `ledger`; here is the API server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ambit_xds::resources::Resources;
use ambit_xds::server::Subscribers;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Error};
use metrics::{counter, gauge};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::pace::Pace;
use super::reports::heard::Heard;
use super::reports::layers::Layer;
use super::reports::merge::{Progress, Reported, progress};
use super::reports::observe::{Observer, Serving};
use super::reports::watch::{HeardReport, watch as watch_reports};
use super::{FIELD_MANAGER, Replica, at};
use crate::objects::{Kind, KnownKind, ObjectKey};
use crate::publish::Generation;
use desired::{KINDS, desired};
use ledger::{Ledger, Outcome, Write};
use seen::Seen;

pub mod condition;
pub mod desired;
pub mod ledger;

mod seen;

/// Changes that come within this time are looked at together.
const TOGETHER: Duration = Duration::from_millis(300);

/// How long the reports of other replicas are waited for at first: without them too few proxies are
/// counted.
const FIRST_REPORTS: Duration = Duration::from_secs(3);

/// Writes under way at a time.
const AT_ONCE: usize = 8;

/// Writes at once, and then in each second: the API server has more to do than this.
const BURST: u32 = 50;
const PER_SECOND: u32 = 20;

/// How long one write may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// What statuses are made of.
#[derive(Clone)]
pub struct Facts {
    /// What is written and what became of it.
    pub generations: watch::Receiver<Arc<Generation>>,
    /// What proxies are to acknowledge.
    pub resources: watch::Receiver<Arc<Resources>>,
    /// What those connected to this replica have acknowledged.
    pub subscribers: Subscribers,
}

/// Writes statuses until it is dropped, which is when this replica leads no more, or until control
/// has nothing more to serve.
pub async fn run(client: Client, replica: &Replica, facts: Facts) {
    let (seen, incoming) = mpsc::channel(256);
    let (heard, reports) = mpsc::channel(64);
    // The watches end with this task.
    let mut watches = JoinSet::new();
    for kind in KINDS {
        watches.spawn(seen::watch(client.clone(), kind, seen.clone()));
    }
    watches.spawn(watch_reports(client.clone(), replica.namespace.clone(), heard));
    let now = Instant::now().into_std();
    Writer {
        client,
        replica,
        facts,
        observer: Observer::default(),
        heard: Heard::default(),
        ledger: Ledger::default(),
        served: HashMap::new(),
        pace: Pace::new(BURST, PER_SECOND, now),
        under_way: JoinSet::new(),
    }
    .run(incoming, reports)
    .await;
}

struct Writer<'a> {
    client: Client,
    replica: &'a Replica,
    facts: Facts,
    observer: Observer,
    heard: Heard,
    ledger: Ledger,
    /// Under which version each kind is served.
    served: HashMap<KnownKind, Arc<ApiResource>>,
    pace: Pace,
    under_way: JoinSet<(ObjectKey, Outcome)>,
}

impl Writer<'_> {
    async fn run(mut self, mut seen: mpsc::Receiver<Seen>, mut reports: mpsc::Receiver<HeardReport>) {
        let mut progress = self.facts.subscribers.progress();
        // Set while something has changed that statuses are made of.
        let mut compare_at = Some(Instant::now() + FIRST_REPORTS);
        loop {
            let now = Instant::now();
            if compare_at.is_some_and(|at| at <= now) {
                compare_at = None;
                self.compare();
            }
            let paced = self.start_writes(now);
            gauge!("ambit_control_statuses_waiting").set(as_gauge(self.ledger.waiting()));
            let expiry = self.heard.next_expiry(now.into_std()).map(Instant::from_std);
            let look = self.ledger.next_look().map(Instant::from_std);
            let wake = [compare_at, paced, expiry, look].into_iter().flatten().min();
            let soon = Some(Instant::now() + TOGETHER);
            // Each arm only receives: cancelling one loses nothing.
            tokio::select! {
                changed = self.facts.generations.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    compare_at = compare_at.or(soon);
                }
                // The registry lives as long as we hold it, so this never fails.
                _ = progress.changed() => compare_at = compare_at.or(soon),
                Some(report) = reports.recv() => {
                    compare_at = match &report {
                        HeardReport::All(_) => Some(Instant::now()),
                        HeardReport::Put(_) | HeardReport::Gone(_) => compare_at.or(soon),
                    };
                    report.apply(&mut self.heard, Instant::now().into_std());
                }
                Some(seen) = seen.recv() => self.on_seen(seen),
                Some(ended) = self.under_way.join_next() => self.on_ended(ended),
                () = at(wake) => {
                    if expiry.is_some_and(|expiry| expiry <= Instant::now()) {
                        compare_at = compare_at.or(soon);
                    }
                }
            }
        }
    }

    /// Works out what every status should say.
    fn compare(&mut self) {
        // The resources come second: they are then of this generation, or of a later one.
        let generation = self.facts.generations.borrow_and_update().clone();
        let resources = self.facts.resources.borrow().clone();
        if generation.number == 0 {
            return;
        }
        let own = self.observer.observe(&resources, &self.facts.subscribers);
        let own_report = Reported::of(&own.report);
        let is_gone = |name: &str, uid: &str| is_gone(&generation, self.replica, name, uid);
        let now = Instant::now().into_std();
        let others: Vec<&Reported> = self.heard.counting(&self.replica.name, &is_gone, now).collect();
        let how_far = |policy: &ambit_mesh::policy::PolicyName| -> Option<Progress> {
            let name = policy.to_string();
            Layer::ALL.into_iter().find_map(|layer| {
                let Serving { policies, digests } = own.serving.of(layer);
                let policy = policies.get(&name)?;
                let reports = others.iter().copied().chain([&own_report]);
                Some(progress(reports, layer, digests, policy))
            })
        };
        self.ledger.want(desired(&generation, &how_far));
    }

    /// Starts as many writes as may be; says when the next may follow, if one has to wait.
    fn start_writes(&mut self, now: Instant) -> Option<Instant> {
        while self.under_way.len() < AT_ONCE {
            // First whether there is one: a permit is not given back.
            if !self.ledger.is_due(now.into_std()) {
                return None;
            }
            if let Err(again) = self.pace.take(now.into_std()) {
                return Some(Instant::from_std(again));
            }
            let write = self.ledger.next(now.into_std())?;
            let Kind::Known(kind) = write.key.kind else { return None };
            let resource = self.served.get(&kind).cloned()?;
            self.under_way.spawn(perform(self.client.clone(), resource, write));
        }
        None
    }

    fn on_seen(&mut self, seen: Seen) {
        match seen {
            Seen::Put(kind, resource, key, there) => {
                self.served.insert(kind, resource);
                self.ledger.see(&key, there);
            }
            Seen::Gone(key) => self.ledger.unsee(&key),
            Seen::All(kind, listed) => {
                self.ledger.retain(|key| key.kind == Kind::Known(kind), |key| listed.contains(key));
            }
        }
    }

    fn on_ended(&mut self, ended: Result<(ObjectKey, Outcome), tokio::task::JoinError>) {
        match ended {
            Ok((key, outcome)) => self.ledger.on_outcome(&key, outcome, Instant::now().into_std()),
            Err(error) => tracing::error!(%error, "a task that writes a status has died"),
        }
    }
}

async fn perform(client: Client, resource: Arc<ApiResource>, write: Write) -> (ObjectKey, Outcome) {
    let Write { key, desired, there } = write;
    let namespace = key.namespace.as_deref().unwrap_or_default();
    let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &*resource);
    let body = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {
            "name": &*key.name,
            "namespace": namespace,
            "uid": there.uid,
            "resourceVersion": there.resource_version,
        },
        "status": desired.merged_into(&there.status, Timestamp::now()),
    });
    // By force, because the list that it goes into may have been written by another: what is in it of
    // others is what they wrote.
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let patch = Patch::Apply(&body);
    let written = timeout(REQUEST_DEADLINE, api.patch_status(&key.name, &parameters, &patch)).await;
    let outcome = match written {
        Ok(Ok(object)) => {
            counter!("ambit_control_status_writes_total", "result" => "written").increment(1);
            Outcome::Written(seen::there(&object))
        }
        Ok(Err(Error::Api(status))) if status.code == 404 => Outcome::Gone,
        Ok(Err(Error::Api(status))) if status.code == 409 => {
            counter!("ambit_control_status_writes_total", "result" => "conflict").increment(1);
            Outcome::Conflict
        }
        Ok(Err(error)) => failed(&key, &error),
        Err(_) => failed(&key, &"no answer in time"),
    };
    (key, outcome)
}

fn failed(key: &ObjectKey, error: &dyn std::fmt::Display) -> Outcome {
    counter!("ambit_control_status_writes_total", "result" => "failed").increment(1);
    tracing::warn!(object = %key, %error, "cannot write a status: check the API server and our Role");
    Outcome::Failed
}

/// Whether the pod of a report is known to have ended: the pods of our own namespace are among what
/// was read if our own is.
fn is_gone(generation: &Generation, replica: &Replica, name: &str, uid: &str) -> bool {
    let has_pod = |name: &str, uid: &str| {
        let key = ObjectKey {
            kind: Kind::Known(KnownKind::Pod),
            namespace: Some(replica.namespace.as_str().into()),
            name: name.into(),
        };
        let object = generation.inputs.entry(&key).and_then(|entry| entry.object());
        object.is_some_and(|object| object.metadata().uid == uid)
    };
    let ours_is_known = replica.uid.as_deref().is_some_and(|uid| has_pod(&replica.name, uid));
    ours_is_known && !has_pod(name, uid)
}

/// Counts here stay far below what a double holds exactly.
fn as_gauge(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests;
