//! Events: what users must see of objects that have no status of ours, and of policies that are not in
//! force as written. The replica that leads tells them. What an agent says of itself is told of its node, by the replica
//! that hears it: agents have no rights of their own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ambit_xds::server::Subscribers;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Error};
use metrics::counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::pace::Pace;
use super::{FIELD_MANAGER, Replica, at};
use crate::publish::Generation;
use allowance::Allowances;
use plan::{Plan, Telling, tellings, tellings_of_agents};

mod allowance;
pub mod plan;

/// Events at once, and then in each second: those of the configuration, and apart from them those of agents.
const BURST: u32 = 25;
const PER_SECOND: u32 = 5;

/// How long one request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);

/// Changes that come within this time are looked at together.
const TOGETHER: Duration = Duration::from_secs(1);

/// The pause after a failure.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Tells Events of the configuration until it is dropped, which is when this replica leads no more, or until control
/// has nothing more to serve.
pub async fn run(client: Client, replica: &Replica, generations: watch::Receiver<Arc<Generation>>) {
    let changes = generations.clone();
    let wanted = || {
        let generation = generations.borrow().clone();
        tellings(&generation)
    };
    follow(client, replica, changes, wanted).await;
}

/// Tells Events of what the agents connected to this replica say of themselves, until it is dropped. The words are
/// theirs, so each node has an allowance of its own.
pub async fn of_agents(
    client: Client,
    replica: &Replica,
    generations: watch::Receiver<Arc<Generation>>,
    subscribers: Subscribers,
) {
    let mut allowances = Allowances::default();
    let wanted = || {
        let generation = generations.borrow().clone();
        let problems = allowances.of(subscribers.problems(), Instant::now().into_std());
        tellings_of_agents(&generation.inputs, &problems)
    };
    follow(client, replica, subscribers.progress(), wanted).await;
}

/// Tells what is wanted at first and after each change, until there are no more of these.
async fn follow<T>(
    client: Client,
    replica: &Replica,
    mut changes: watch::Receiver<T>,
    mut wanted: impl FnMut() -> BTreeSet<Telling>,
) {
    let mut plan = Plan::default();
    let mut pace = Pace::new(BURST, PER_SECOND, Instant::now().into_std());
    let mut look_at = Some(Instant::now());
    let mut tell_at = Instant::now();
    loop {
        let idle = plan.waiting() == 0;
        // An Event that is being told is not cancelled: its arm has come to an end before.
        tokio::select! {
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                look_at = look_at.or(Some(Instant::now() + TOGETHER));
            }
            () = at(look_at) => {
                look_at = None;
                plan.want(wanted());
            }
            () = sleep_until(tell_at), if !idle => {
                let now = Instant::now();
                tell_at = match pace.take(now.into_std()) {
                    Err(again) => Instant::from_std(again),
                    Ok(()) => match plan.take() {
                        Some(telling) => tell(&client, replica, telling, &mut plan).await,
                        None => now,
                    },
                };
            }
        }
    }
}

/// Tells one; says when the next may follow.
async fn tell(client: &Client, replica: &Replica, telling: Telling, plan: &mut Plan) -> Instant {
    let Err(error) = create(client, replica, &telling).await else { return Instant::now() };
    let object = &telling.key;
    tracing::warn!(%object, error, "cannot write an Event: check the API server and our Role");
    plan.on_failure(telling);
    Instant::now() + RETRY_AFTER
}

/// Writes an Event, which is there once however often it is told.
///
/// # Errors
/// When the API server does not take it.
pub async fn create(client: &Client, replica: &Replica, telling: &Telling) -> Result<(), String> {
    let events: Api<Event> = Api::namespaced(client.clone(), telling.namespace());
    let event = telling.event(&replica.name, Timestamp::now());
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let problem = match timeout(REQUEST_DEADLINE, events.create(&parameters, &event)).await {
        Ok(Ok(_)) => {
            counter!("ambit_control_events_total", "result" => "told").increment(1);
            return Ok(());
        }
        // It was told before, by us or by another replica.
        Ok(Err(Error::Api(status))) if status.code == 409 => return Ok(()),
        // The namespace is gone, or going: nobody will look there.
        Ok(Err(Error::Api(status))) if status.code == 404 || is_terminating(&status) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    counter!("ambit_control_events_total", "result" => "failed").increment(1);
    Err(problem)
}

fn is_terminating(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}

#[cfg(test)]
mod tests;
