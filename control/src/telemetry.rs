//! control's own metrics.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ambit_xds::server::Subscribers;
use metrics::{counter, describe_counter, describe_gauge, gauge};

use crate::inputs::Inputs;
use crate::status::{Verdict, verdict};

/// How often the state of subscribers is looked at: a stall is a matter of seconds.
const LOOK_AT_SUBSCRIBERS: Duration = Duration::from_secs(5);

/// Says what each metric means.
pub fn describe() {
    describe_counter!("ambit_control_generations_total", "Changes applied.");
    describe_gauge!("ambit_control_translation_seconds", "How long the last change took to apply.");
    describe_gauge!("ambit_control_objects", "Objects by what became of them.");
    describe_gauge!(
        "ambit_control_source_problems",
        "Files and documents that cannot be read, and duplicates."
    );
    describe_gauge!("ambit_control_leader", "1 while this replica writes statuses and Events.");
    describe_gauge!("ambit_control_statuses_waiting", "Statuses that are due and not yet written.");
    describe_counter!(
        "ambit_control_status_writes_total",
        "Attempts to write a status, by what became of it."
    );
    describe_counter!("ambit_control_events_total", "Attempts to tell an Event, by what became of it.");
    describe_gauge!("ambit_control_subscribers", "Connected subscribers.");
    describe_gauge!(
        "ambit_control_oldest_unanswered_seconds",
        "How long the oldest unanswered response waits: a subscriber has stalled if it only grows."
    );
    describe_counter!("ambit_control_certificate_requests_total", "Requests for certificates by answer.");
    describe_counter!("ambit_control_connections_refused_total", "Connections over an address's limits.");
}

/// Records that a change was applied.
pub fn applied(inputs: &Inputs, elapsed: Duration) {
    counter!("ambit_control_generations_total").increment(1);
    gauge!("ambit_control_translation_seconds").set(elapsed.as_secs_f64());
    gauge!("ambit_control_source_problems").set(as_gauge(inputs.problems().len()));
    let mut objects: BTreeMap<_, usize> = Verdict::ALL.into_iter().map(|verdict| (verdict, 0)).collect();
    for (key, entry) in inputs.entries() {
        *objects.entry(verdict(key, entry).0).or_default() += 1;
    }
    for (verdict, count) in objects {
        gauge!("ambit_control_objects", "verdict" => verdict.label()).set(as_gauge(count));
    }
}

/// What became of a request for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// It was signed.
    Issued,
    /// The caller is nobody that is known.
    Unauthenticated,
    /// Whether the caller is known could not be told.
    CannotTell,
    /// The caller may not have it, or has asked for it in a way that cannot be answered.
    Refused,
    /// The caller, or its address, asks for too much.
    TooMany,
    /// It was to be signed and could not be.
    Failed,
}

impl Answered {
    fn label(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Unauthenticated => "unauthenticated",
            Self::CannotTell => "cannot_tell",
            Self::Refused => "refused",
            Self::TooMany => "too_many",
            Self::Failed => "failed",
        }
    }
}

/// Records that a request for a certificate was answered.
pub fn certificate_answered(answered: Answered) {
    counter!("ambit_control_certificate_requests_total", "answer" => answered.label()).increment(1);
}

/// Records that a connection was not taken.
pub fn connection_refused() {
    counter!("ambit_control_connections_refused_total").increment(1);
}

/// Records how subscribers are, for as long as it runs.
pub async fn watch(subscribers: Subscribers) {
    let connected = gauge!("ambit_control_subscribers");
    let unanswered = gauge!("ambit_control_oldest_unanswered_seconds");
    let mut looks = tokio::time::interval(LOOK_AT_SUBSCRIBERS);
    loop {
        looks.tick().await;
        connected.set(as_gauge(subscribers.count()));
        unanswered.set(subscribers.oldest_unanswered(Instant::now()).unwrap_or_default().as_secs_f64());
    }
}

/// Counts here stay far below what a double holds exactly.
fn as_gauge(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
