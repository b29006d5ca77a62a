//! The server's side of delta xDS for all types on one stream, without IO.
//!
//! The types of an agent's stream do not wait for each other. A waypoint is sent only what its services need, so that what
//! guards a service may come, or go, with the service: one must not be in force without the other, and a route not without
//! its backends. So on a waypoint's stream one generation follows the other, each as a whole:
//!
//! ```text
//! every type that changes, ──answered──▶ "that was all", ──answered──▶ the next generation
//! held open if there are several         for each held open
//! ```
//!
//! While a type is held open, which is said as of one that comes in parts, the client decides by what it had before. Types
//! of a client that does not take parts are sent one by one all the same.

use std::collections::BTreeMap;
use std::time::Instant;

use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use crate::ResourceType;
use crate::resources::{Resources, Viewer};
use crate::subscriber::Subscriber;

/// What every supported version of a waypoint asks for. Only when all of it was asked for, a first generation is whole: a
/// type that an older version does not know has no place here.
const OF_WAYPOINTS: [ResourceType; 5] = [
    ResourceType::Address,
    ResourceType::Authorization,
    ResourceType::Route,
    ResourceType::HttpPolicy,
    ResourceType::Subset,
];

/// The state of one stream.
#[derive(Debug)]
pub struct Subscriptions {
    viewer: Viewer,
    /// What the client is brought to.
    generation: Resources,
    /// What comes after that.
    next: Option<Resources>,
    by_type: BTreeMap<ResourceType, Subscriber>,
}

impl Subscriptions {
    /// Of a client that has asked for nothing.
    pub fn new(viewer: Viewer, generation: Resources) -> Self {
        Self { viewer, generation, next: None, by_type: BTreeMap::new() }
    }

    /// The client subscribes, unsubscribes or answers.
    pub fn on_request(
        &mut self,
        kind: ResourceType,
        request: &DeltaDiscoveryRequest,
        now: Instant,
    ) -> Vec<DeltaDiscoveryResponse> {
        let (generation, viewer) = (&self.generation, &self.viewer);
        let subscriber = self.by_type.entry(kind).or_insert_with(|| {
            let mut subscriber = Subscriber::new(kind, generation, viewer.clone());
            if matches!(viewer, Viewer::Waypoint(_)) {
                subscriber.hold_open();
            }
            subscriber
        });
        let mut responses: Vec<_> = subscriber.on_request(request, now).into_iter().collect();
        responses.extend(self.go_on(now));
        responses
    }

    /// There is a new generation.
    pub fn on_change(&mut self, generation: &Resources, now: Instant) -> Vec<DeltaDiscoveryResponse> {
        match self.viewer {
            Viewer::Node => {
                self.generation = generation.clone();
                let subscribers = self.by_type.values_mut();
                subscribers.filter_map(|subscriber| subscriber.on_change(generation, now)).collect()
            }
            Viewer::Waypoint(_) => {
                self.by_type.values_mut().for_each(|subscriber| subscriber.hear_of(generation));
                self.next = Some(generation.clone());
                self.go_on(now)
            }
        }
    }

    /// Each type that was asked for.
    pub fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.by_type.values()
    }

    /// One of them.
    pub fn of_type(&self, kind: ResourceType) -> Option<&Subscriber> {
        self.by_type.get(&kind)
    }

    /// Takes a waypoint the next step, once it has answered for the last one.
    fn go_on(&mut self, now: Instant) -> Vec<DeltaDiscoveryResponse> {
        let is_asked_for = |kind| self.by_type.contains_key(kind);
        let is_settled =
            OF_WAYPOINTS.iter().all(is_asked_for) && self.by_type.values().all(Subscriber::is_settled);
        if matches!(self.viewer, Viewer::Node) || !is_settled {
            return Vec::new();
        }
        let closed: Vec<_> =
            self.by_type.values_mut().filter_map(|subscriber| subscriber.close(now)).collect();
        if !closed.is_empty() {
            return closed;
        }
        let Some(next) = self.next.take() else { return Vec::new() };
        self.generation = next;
        let generation = &self.generation;
        let touched = self.by_type.values_mut().filter(|subscriber| subscriber.is_touched_by(generation));
        let touched: Vec<_> = touched.collect();
        // One alone is whole by itself. Of several none counts as acknowledged before all are in force.
        if touched.len() > 1 {
            touched.into_iter().for_each(Subscriber::hold_open);
        }
        let subscribers = self.by_type.values_mut();
        subscribers.filter_map(|subscriber| subscriber.on_change(generation, now)).collect()
    }
}
