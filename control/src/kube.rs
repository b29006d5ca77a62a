//! What control does at a Kubernetes API server besides reading its configuration there: it keeps the root,
//! knows callers, and tells statuses, Events, and what each replica knows of its proxies.
//!
//! Every replica serves and reports; one of them, the holder of a Lease, writes what users see. What is to
//! be written is decided by pure functions of a generation and of reports; the shells read, write and
//! retry.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use kube::Client;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use crate::publish::Generation;
use lease::{Elector, Leadership};
use status::Facts;
use waypoints::Deploying;

pub mod bundle;
pub mod crds;
pub mod events;
pub mod gateway_api;
pub mod lease;
pub mod reports;
pub mod root;
pub mod status;
pub mod token_review;
pub mod waypoints;

#[cfg(test)]
pub(crate) mod fake;
mod pace;
#[cfg(test)]
pub(crate) mod testing;

/// Under this name our writes are known to the API server.
pub const FIELD_MANAGER: &str = "ambit-control";

/// What all objects of ours carry.
fn labels() -> BTreeMap<String, String> {
    [("app.kubernetes.io/part-of".to_owned(), "ambit".to_owned())].into()
}

/// Which replica of control this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Its pod's name.
    pub name: String,
    /// Its pod's UID, where it is known.
    pub uid: Option<String>,
    /// The mesh's own namespace.
    pub namespace: String,
}

impl Replica {
    /// A name for a process that runs in no pod: another on the same machine has another.
    pub fn name_of_process() -> String {
        let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let machine = match machine.trim() {
            "" => "control",
            machine => machine,
        };
        format!("{}-{}", machine.to_lowercase(), std::process::id())
    }
}

/// The task that writes.
#[derive(Debug)]
pub struct Writing {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Writing {
    /// Begins to report, to take part in the election and, while this replica leads, to write statuses
    /// and Events.
    pub fn start(client: Client, replica: Replica, facts: Facts, deploying: Option<Deploying>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let stopped = async move {
            let _ = stopped.await;
        };
        Self { stop, task: tokio::spawn(run(client, replica, facts, deploying, stopped)) }
    }

    /// Ends, and gives up whatever others would otherwise wait for.
    pub async fn end(self) {
        drop(self.stop);
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the task that writes statuses has died");
        }
    }
}

async fn run(
    client: Client,
    replica: Replica,
    facts: Facts,
    deploying: Option<Deploying>,
    stop: impl Future<Output = ()>,
) {
    let (elector, leadership) = Elector::new(client.clone(), &replica.namespace, &replica.name);
    let (stop_election, stopped) = oneshot::channel::<()>();
    let election = tokio::spawn(elector.run(async move {
        let _ = stopped.await;
    }));
    let (resources, subscribers) = (facts.resources.clone(), facts.subscribers.clone());
    let generations = facts.generations.clone();
    tokio::select! {
        () = stop => {}
        () = reports::publish::run(client.clone(), &replica, resources, subscribers.clone()) => {}
        () = events::of_agents(client.clone(), &replica, generations, subscribers) => {}
        () = write_while_leading(client.clone(), &replica, facts, deploying, leadership) => {}
    }
    // Nothing is written any more: another may.
    drop(stop_election);
    let (_, ended) = tokio::join!(reports::publish::withdraw(client, &replica), election);
    if let Err(error) = ended {
        tracing::error!(%error, "the task that takes part in the election has died");
    }
}

/// Writes only while this replica leads. Each time begins from what is there then.
async fn write_while_leading(
    client: Client,
    replica: &Replica,
    facts: Facts,
    deploying: Option<Deploying>,
    mut leadership: watch::Receiver<Leadership>,
) {
    while leadership.wait_for(|now| *now == Leadership::Leading).await.is_ok() {
        let generations = facts.generations.clone();
        // What is dropped when leadership ends is either not sent, or conditional on what was read.
        tokio::select! {
            _ = leadership.wait_for(|now| *now == Leadership::Following) => {}
            () = status::run(client.clone(), replica, facts.clone()) => return,
            () = events::run(client.clone(), replica, generations.clone()) => return,
            () = deploy(client.clone(), replica, deploying.clone(), generations.clone()) => return,
            () = gateway_api::run(client.clone(), generations) => return,
        }
    }
}

/// Deploys waypoints, where that is wanted.
async fn deploy(
    client: Client,
    replica: &Replica,
    deploying: Option<Deploying>,
    generations: watch::Receiver<Arc<Generation>>,
) {
    match deploying {
        Some(deploying) => waypoints::run(client, replica, deploying, generations).await,
        None => std::future::pending().await,
    }
}

/// Waits for a moment; where there is none, for ever.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
