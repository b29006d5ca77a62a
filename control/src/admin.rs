//! The pages of the admin server: what control read, what it made of it, and who has it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use ambit_runtime::admin::{Reply, Router};
use ambit_xds::server::{SubscriberStatus, Subscribers};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::dump;
use crate::publish::Generation;
use crate::status::{place, verdict};

/// The pages that only control has.
pub fn with_debug_pages(
    router: Router,
    generations: &watch::Receiver<Arc<Generation>>,
    subscribers: Subscribers,
) -> Router {
    let (of_inputs, of_resources) = (generations.clone(), generations.clone());
    router
        .get("/debug/inputs", "every object, where it is written and what became of it", move |_| {
            let generation = of_inputs.borrow().clone();
            Reply::json(&inputs(&generation))
        })
        .get("/debug/resources", "workloads, services and policies as the data plane gets them", move |_| {
            let generation = of_resources.borrow().clone();
            Reply::json(&dump::translated(&generation.translated))
        })
        .get("/debug/subscribers", "who is subscribed, and what each has acknowledged", move |_| {
            let now = Instant::now();
            let subscribers = subscribers.status();
            Reply::json(&subscribers.iter().map(|status| subscriber(status, now)).collect::<Vec<_>>())
        })
}

fn inputs(generation: &Generation) -> Value {
    let objects = generation.inputs.entries().map(|(key, entry)| {
        let (verdict, message) = verdict(key, entry);
        json!({
            "object": key.to_string(),
            "origin": place(entry).to_string(),
            "verdict": verdict,
            "message": message,
        })
    });
    let problems = generation.inputs.problems().iter().map(|problem| {
        json!({
            "origin": problem.origin.to_string(),
            "reason": problem.reason,
            "message": problem.message,
        })
    });
    json!({
        "generation": generation.number,
        "objects": objects.collect::<Vec<_>>(),
        "problems": problems.collect::<Vec<_>>(),
    })
}

fn subscriber(status: &SubscriberStatus, now: Instant) -> Value {
    let seconds = |since: Instant| now.saturating_duration_since(since).as_secs_f64();
    let subscriptions = status.subscriptions.iter().map(|subscription| {
        let refusal = subscription.last_refusal.as_ref();
        let acknowledged = subscription.acknowledged.iter();
        let acknowledged: BTreeMap<_, _> =
            acknowledged.map(|(name, version)| (&**name, &**version)).collect();
        json!({
            "type": subscription.kind.type_url(),
            "wildcard": subscription.wildcard,
            "names": subscription.names,
            "wanted": subscription.wanted,
            "upToDate": subscription.up_to_date,
            "acknowledged": acknowledged,
            "unansweredSeconds": subscription.unanswered_since.map(seconds),
            "lastRefusal": refusal.map(|refusal| refusal.message.as_str()),
        })
    });
    json!({
        "node": &*status.node,
        "id": status.id,
        "peer": status.peer,
        "connectedSeconds": seconds(status.since),
        "subscriptions": subscriptions.collect::<Vec<_>>(),
    })
}
