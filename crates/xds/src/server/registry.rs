//! Who is subscribed, and how far each has come.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use tokio::sync::watch;

use crate::ResourceType;
use crate::resources::Resources;
use crate::server::authenticator::Known;
use crate::server::standing::Standing;
use crate::subscriber::{Acknowledgement, Status, Subscriber};
use crate::subscriptions::Subscriptions;

/// Streams of one node at a time: an agent, its successor during an upgrade, and what a flapping
/// network leaves behind until keepalive notices.
const MAX_STREAMS_PER_NODE: usize = 16;

/// All subscribers. Clones see the same.
#[derive(Clone, Debug, Default)]
pub struct Subscribers(Arc<Registry>);

#[derive(Debug, Default)]
struct Registry {
    streams: Mutex<Streams>,
    progress: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Streams {
    next_id: u64,
    by_id: BTreeMap<u64, Arc<Entry>>,
}

/// One stream.
#[derive(Debug)]
struct Entry {
    node: Arc<str>,
    peer: Option<SocketAddr>,
    since: Instant,
    client: Mutex<Client>,
}

/// What the client itself has said, and its subscriptions. Locked for the length of one step of
/// the state machine, never across an await.
#[derive(Debug)]
struct Client {
    id: String,
    subscriptions: Subscriptions,
    problems: Vec<Arc<str>>,
}

/// One subscriber at one moment.
#[derive(Clone, Debug)]
pub struct SubscriberStatus {
    /// The node that it has authenticated as.
    pub node: Arc<str>,
    /// How it calls itself.
    pub id: String,
    /// What it tells of itself that a person should know.
    pub problems: Vec<Arc<str>>,
    /// Its address, where the transport knows one.
    pub peer: Option<SocketAddr>,
    /// Since when it is connected.
    pub since: Instant,
    /// Its subscriptions, one for each type.
    pub subscriptions: Vec<Status>,
}

/// How far a resource has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// How many subscribers have its newest version in force.
    pub acknowledged: usize,
    /// How many want it.
    pub wanted: usize,
    /// What those have said that refused it: node and message.
    pub refusals: Vec<(Arc<str>, String)>,
}

impl Subscribers {
    /// All subscribers at this moment, in the order in which they came.
    pub fn status(&self) -> Vec<SubscriberStatus> {
        self.entries().iter().map(|entry| entry.status()).collect()
    }

    /// What those that have problems say of themselves, by the nodes that they have authenticated as.
    pub fn problems(&self) -> Vec<(Arc<str>, Vec<Arc<str>>)> {
        let problems = |entry: &Arc<Entry>| {
            let problems = lock(&entry.client).problems.clone();
            (!problems.is_empty()).then(|| (Arc::clone(&entry.node), problems))
        };
        self.entries().iter().filter_map(problems).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        lock(&self.0.streams).by_id.len()
    }

    /// How far the newest version of a resource, or its removal, has come.
    pub fn programmed(&self, kind: ResourceType, name: &str) -> Programmed {
        let mut programmed = Programmed::default();
        for entry in self.entries() {
            let client = lock(&entry.client);
            let Some(subscriber) = client.subscriptions.of_type(kind) else { continue };
            programmed.count(&entry.node, subscriber, name);
        }
        programmed
    }

    /// How far one type of a generation has come at all subscribers.
    pub fn standing(&self, kind: ResourceType, generation: &Resources) -> Standing {
        let mut standing = Standing::default();
        for entry in self.entries() {
            let client = lock(&entry.client);
            if let Some(subscriber) = client.subscriptions.of_type(kind) {
                standing.add(&entry.node, &client.id, &client.problems, subscriber, generation.of_type(kind));
            }
        }
        standing
    }

    /// How long the oldest unanswered response has been waiting. One that only grows is a client
    /// that has stalled.
    pub fn oldest_unanswered(&self, now: Instant) -> Option<Duration> {
        let oldest = |entry: &Arc<Entry>| {
            let client = lock(&entry.client);
            client.subscriptions.iter().filter_map(Subscriber::unanswered_since).min()
        };
        let oldest = self.entries().iter().filter_map(oldest).min();
        oldest.map(|since| now.saturating_duration_since(since))
    }

    /// Changes whenever a subscriber comes, goes or answers.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.0.progress.subscribe()
    }

    /// Takes in a stream, which begins with this generation; `None` when its node has too many.
    pub(super) fn enter(
        &self,
        client: Known,
        generation: &Resources,
        peer: Option<SocketAddr>,
    ) -> Option<Subscribed> {
        let Known { name: node, viewer } = client;
        let mut streams = lock(&self.0.streams);
        if streams.by_id.values().filter(|entry| entry.node == node).count() >= MAX_STREAMS_PER_NODE {
            return None;
        }
        let id = streams.next_id;
        streams.next_id += 1;
        let subscriptions = Subscriptions::new(viewer, generation.clone());
        let client = Mutex::new(Client { id: String::new(), subscriptions, problems: Vec::new() });
        let entry = Arc::new(Entry { node, peer, since: Instant::now(), client });
        streams.by_id.insert(id, entry.clone());
        drop(streams);
        self.0.advance();
        Some(Subscribed { registry: self.0.clone(), id, entry })
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.0.streams).by_id.values().cloned().collect()
    }
}

impl Registry {
    fn advance(&self) {
        self.progress.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Entry {
    fn status(&self) -> SubscriberStatus {
        let client = lock(&self.client);
        SubscriberStatus {
            node: self.node.clone(),
            id: client.id.clone(),
            problems: client.problems.clone(),
            peer: self.peer,
            since: self.since,
            subscriptions: client.subscriptions.iter().map(Subscriber::status).collect(),
        }
    }
}

impl Programmed {
    fn count(&mut self, node: &Arc<str>, subscriber: &Subscriber, name: &str) {
        match subscriber.acknowledgement(name) {
            Acknowledgement::NotWanted => return,
            Acknowledgement::Acknowledged => self.acknowledged += 1,
            Acknowledgement::Pending => {}
            Acknowledgement::Refused => {
                let message = subscriber.last_refusal().map(|refusal| refusal.message.clone());
                self.refusals.push((node.clone(), message.unwrap_or_default()));
            }
        }
        self.wanted += 1;
    }
}

/// A stream's place among the subscribers; given up when dropped.
#[derive(Debug)]
pub(super) struct Subscribed {
    registry: Arc<Registry>,
    id: u64,
    entry: Arc<Entry>,
}

impl Subscribed {
    pub(super) fn node(&self) -> &str {
        &self.entry.node
    }

    pub(super) fn on_request(
        &self,
        kind: ResourceType,
        request: &DeltaDiscoveryRequest,
        now: Instant,
    ) -> Vec<DeltaDiscoveryResponse> {
        let mut client = lock(&self.entry.client);
        if let Some(node) = &request.node {
            client.id.clone_from(&node.id);
        }
        let responses = client.subscriptions.on_request(kind, request, now);
        drop(client);
        self.registry.advance();
        responses
    }

    pub(super) fn has_problems(&self, problems: Vec<Arc<str>>) {
        let before = std::mem::replace(&mut lock(&self.entry.client).problems, problems.clone());
        if before != problems {
            self.registry.advance();
        }
    }

    pub(super) fn on_change(&self, resources: &Resources, now: Instant) -> Vec<DeltaDiscoveryResponse> {
        lock(&self.entry.client).subscriptions.on_change(resources, now)
    }
}

impl Drop for Subscribed {
    fn drop(&mut self) {
        lock(&self.registry.streams).by_id.remove(&self.id);
        self.registry.advance();
    }
}

/// A panic elsewhere leaves whole values behind: every step ends before the next begins.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Resource, Viewer};
    use crate::samples;

    fn enter(subscribers: &Subscribers, node: &str) -> Option<Subscribed> {
        enter_with(subscribers, node, &Resources::default())
    }

    fn enter_with(subscribers: &Subscribers, node: &str, generation: &Resources) -> Option<Subscribed> {
        subscribers.enter(Known { name: node.into(), viewer: Viewer::Node }, generation, None)
    }

    #[test]
    fn a_node_has_so_many_streams_and_no_more() {
        let subscribers = Subscribers::default();
        let mut streams: Vec<Subscribed> =
            (0..MAX_STREAMS_PER_NODE).filter_map(|_| enter(&subscribers, "n1")).collect();
        assert_eq!(streams.len(), MAX_STREAMS_PER_NODE);
        assert!(enter(&subscribers, "n1").is_none());
        assert!(enter(&subscribers, "n2").is_some(), "another node's are counted apart");
        streams.pop();
        assert!(enter(&subscribers, "n1").is_some(), "one has left");
    }

    #[test]
    fn a_resource_is_programmed_where_it_was_acknowledged() {
        let subscribers = Subscribers::default();
        let kind = ResourceType::Address;
        let resources: Resources =
            [Resource::workload(&samples::workload_on("a", "n1"))].into_iter().collect();
        let enter = |node| enter_with(&subscribers, node, &resources).unwrap();
        let (one, two) = (enter("n1"), enter("n2"));
        let (then, now) = (Instant::now(), Instant::now() + Duration::from_secs(7));
        let request = DeltaDiscoveryRequest::default();
        let response = one.on_request(kind, &request, then).remove(0);
        two.on_request(kind, &request, now).remove(0);
        let programmed = |acknowledged| Programmed { acknowledged, wanted: 2, refusals: Vec::new() };
        assert_eq!(subscribers.programmed(kind, "a"), programmed(0));
        assert_eq!(subscribers.oldest_unanswered(now), Some(now - then));

        let answer = DeltaDiscoveryRequest { response_nonce: response.nonce, ..request };
        assert_eq!(one.on_request(kind, &answer, now), []);
        assert_eq!(subscribers.programmed(kind, "a"), programmed(1));
        assert_eq!(subscribers.oldest_unanswered(now), Some(Duration::ZERO));
    }
}
