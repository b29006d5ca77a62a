//! The server's side of delta xDS for one type on one stream, without IO.
//!
//! A subscriber remembers the generation that its client was brought to, not a copy of it: what to
//! send is the difference to the current one, seen through what the client is subscribed to. At
//! most one response is unanswered; changes meanwhile are folded into the next. To a client that takes
//! a generation in parts no response is large.

mod interest;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use ambit_proto::envoy::config::core::v3::Node;
use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

pub use status::{Acknowledgement, Lack, Refusal, Status};

use crate::resources::{Collection, Difference, Resource, Resources, Viewer};
use crate::{MORE_FOLLOWS, PARTS_FEATURE, ResourceType};
use interest::{Interest, Requested};

/// The server's state of one client and type.
#[derive(Debug)]
pub struct Subscriber {
    kind: ResourceType,
    interest: Interest,
    /// The newest generation there is.
    newest: Arc<Collection>,
    /// The one that the client is brought to.
    current: Arc<Collection>,
    /// The generation that the last response brought the client to; `None` before the first.
    sent: Option<Arc<Collection>>,
    /// The generation that the client has answered for.
    answered: Arc<Collection>,
    outstanding: Option<Outstanding>,
    /// Name and version of what the client refused and was not sent again.
    refused: BTreeMap<Arc<str>, Arc<str>>,
    last_refusal: Option<Refusal>,
    responses: u64,
    /// Whether the client takes a generation in parts.
    takes_parts: bool,
    /// What is still to be sent to bring the client to `sent`.
    unsent: Contents,
    /// More belongs to what the client is being brought to than there is of this type.
    is_held_open: bool,
}

/// Resources of one response to a client that takes parts: together a megabyte at most, as they are
/// encoded, and one resource at least.
const OCTETS_IN_A_PART: usize = 1 << 20;

/// The response that is not answered yet.
#[derive(Debug)]
struct Outstanding {
    nonce: String,
    since: Instant,
    generation: Arc<Collection>,
    resources: Vec<Arc<Resource>>,
}

/// What a response is made of.
#[derive(Debug, Default)]
struct Contents {
    resources: BTreeMap<Arc<str>, Arc<Resource>>,
    removed: BTreeSet<String>,
}

impl Subscriber {
    /// A subscriber to one type of the current generation that has asked for nothing yet.
    pub fn new(kind: ResourceType, resources: &Resources, viewer: Viewer) -> Self {
        Self {
            kind,
            interest: Interest::of(viewer),
            newest: resources.of_type(kind).clone(),
            current: resources.of_type(kind).clone(),
            sent: None,
            answered: Arc::default(),
            outstanding: None,
            refused: BTreeMap::new(),
            last_refusal: None,
            responses: 0,
            takes_parts: false,
            unsent: Contents::default(),
            is_held_open: false,
        }
    }

    /// The client subscribes, unsubscribes or answers, in any mixture.
    ///
    /// Its first request is always responded to, if need be with nothing in it: the client cannot
    /// know otherwise that nothing is all there is.
    pub fn on_request(
        &mut self,
        request: &DeltaDiscoveryRequest,
        now: Instant,
    ) -> Option<DeltaDiscoveryResponse> {
        if self.sent.is_none() {
            self.interest.open(request);
            self.takes_parts = request.node.as_ref().is_some_and(takes_parts);
            let contents = self.first_contents(&request.initial_resource_versions);
            return Some(self.respond(contents, now));
        }
        self.on_answer(request, now);
        self.interest.update(request);
        self.next_response(now)
    }

    /// There is a new generation.
    pub fn on_change(&mut self, resources: &Resources, now: Instant) -> Option<DeltaDiscoveryResponse> {
        self.hear_of(resources);
        self.current = self.newest.clone();
        self.next_response(now)
    }

    /// There is a new generation, which the client is not brought to yet.
    pub fn hear_of(&mut self, resources: &Resources) {
        self.newest = resources.of_type(self.kind).clone();
    }

    fn on_answer(&mut self, request: &DeltaDiscoveryRequest, now: Instant) {
        // An answer to anything but the outstanding response is late or made up.
        let is_answer = |outstanding: &mut Outstanding| outstanding.nonce == request.response_nonce;
        let Some(answered) = self.outstanding.take_if(is_answer) else { return };
        self.answered = answered.generation;
        for resource in answered.resources {
            match request.error_detail {
                None => self.refused.remove(resource.name()),
                Some(_) => self.refused.insert(resource.name().clone(), resource.version().clone()),
            };
        }
        if let Some(error) = &request.error_detail {
            let message = error.message.clone();
            self.last_refusal = Some(Refusal { nonce: answered.nonce, message, at: now });
        }
        let (current, answered) = (&self.current, &self.answered);
        self.refused.retain(|name, _| current.get(name).is_some() || answered.get(name).is_some());
    }

    fn next_response(&mut self, now: Instant) -> Option<DeltaDiscoveryResponse> {
        let sent = self.sent.clone()?;
        if self.outstanding.is_some() {
            return None;
        }
        let mut contents = std::mem::take(&mut self.unsent);
        contents.replace_by(self.contents_since(&sent));
        if contents.is_empty() {
            // Nothing that the client sees has changed: it is at this generation already.
            self.sent = Some(self.current.clone());
            if !self.is_open() {
                self.answered = self.current.clone();
            }
            return None;
        }
        Some(self.respond(contents, now))
    }

    fn respond(&mut self, mut contents: Contents, now: Instant) -> DeltaDiscoveryResponse {
        if self.takes_parts {
            self.unsent = contents.split_off_after(OCTETS_IN_A_PART);
        }
        let is_last = self.unsent.is_empty() && !self.is_open();
        self.responses += 1;
        let nonce = self.responses.to_string();
        self.sent = Some(self.current.clone());
        let resources: Vec<Arc<Resource>> = contents.resources.into_values().collect();
        let response = DeltaDiscoveryResponse {
            system_version_info: if is_last { String::new() } else { MORE_FOLLOWS.into() },
            resources: resources.iter().map(|resource| resource.to_proto()).collect(),
            type_url: self.kind.type_url().into(),
            nonce: nonce.clone(),
            removed_resources: contents.removed.into_iter().collect(),
        };
        // Only with its last part a generation is there.
        let generation = if is_last { self.current.clone() } else { self.answered.clone() };
        self.outstanding = Some(Outstanding { nonce, since: now, generation, resources });
        response
    }

    /// Whether the client has answered for all that there is to send.
    pub fn is_settled(&self) -> bool {
        self.sent.is_some() && self.outstanding.is_none() && self.unsent.is_empty()
    }

    /// Whether a generation would bring the client anything.
    pub fn is_touched_by(&self, resources: &Resources) -> bool {
        let sees = |resource: &Arc<Resource>| self.interest.covers(resource);
        let touches = |difference: Difference<'_>| match difference {
            Difference::Added(one) | Difference::Removed(one) => sees(one),
            Difference::Changed { from, to } => match (sees(from), sees(to)) {
                (true, true) => from.version() != to.version(),
                (before, after) => before || after,
            },
        };
        let sent = self.sent.as_ref();
        sent.is_some_and(|sent| sent.differences(resources.of_type(self.kind)).any(touches))
    }

    /// What is sent from here on is not whole for the client until [`Self::close`]. One that does not take parts cannot
    /// be told.
    pub fn hold_open(&mut self) {
        self.is_held_open = true;
    }

    /// Says that all is there, if it was held open.
    pub fn close(&mut self, now: Instant) -> Option<DeltaDiscoveryResponse> {
        let was_open = self.is_open();
        self.is_held_open = false;
        was_open.then(|| self.respond(Contents::default(), now))
    }

    fn is_open(&self) -> bool {
        self.is_held_open && self.takes_parts
    }

    /// Everything the client is subscribed to, less what it has declared to hold, and the removal
    /// of whatever else it has declared.
    fn first_contents(&mut self, declared: &BTreeMap<String, String>) -> Contents {
        let mut contents = Contents::default();
        contents.add_requested(self.interest.take_requested(), &self.interest, &self.current);
        contents.resources.retain(|name, resource| {
            declared.get(&**name).is_none_or(|version| **version != **resource.version())
        });
        let is_gone = |name: &&String| {
            let resource = self.current.get(name);
            resource.is_none_or(|resource| !self.interest.covers(resource))
        };
        contents.removed.extend(declared.keys().filter(is_gone).cloned());
        contents
    }

    /// What has changed since the generation sent, and what was newly asked for.
    fn contents_since(&mut self, sent: &Collection) -> Contents {
        let mut contents = Contents::default();
        for difference in sent.differences(&self.current) {
            match difference {
                Difference::Added(to) if self.interest.covers(to) => contents.add(to),
                Difference::Changed { from, to } if self.interest.covers(to) => {
                    if from.version() != to.version() || !self.interest.covers(from) {
                        contents.add(to);
                    }
                }
                Difference::Changed { from, .. } | Difference::Removed(from)
                    if self.interest.covers(from) =>
                {
                    contents.removed.insert(from.name().to_string());
                }
                Difference::Added(_) | Difference::Changed { .. } | Difference::Removed(_) => {}
            }
        }
        contents.add_requested(self.interest.take_requested(), &self.interest, &self.current);
        contents
    }
}

impl Contents {
    fn is_empty(&self) -> bool {
        self.resources.is_empty() && self.removed.is_empty()
    }

    /// Takes in what has changed since.
    fn replace_by(&mut self, newer: Self) {
        for name in &newer.removed {
            self.resources.remove(name.as_str());
        }
        self.removed.retain(|name| !newer.resources.contains_key(name.as_str()));
        self.resources.extend(newer.resources);
        self.removed.extend(newer.removed);
    }

    /// Keeps as many resources as have so many octets, and returns the rest. Removals stay: they
    /// are small.
    fn split_off_after(&mut self, octets: usize) -> Self {
        let mut total = 0;
        let first_beyond = self.resources.iter().skip(1).find(|(_, resource)| {
            total += resource.octets();
            total > octets
        });
        let name = first_beyond.map(|(name, _)| name.clone());
        let rest = name.map(|name| self.resources.split_off(&name)).unwrap_or_default();
        Self { resources: rest, removed: BTreeSet::new() }
    }

    fn add(&mut self, resource: &Arc<Resource>) {
        self.resources.insert(resource.name().clone(), resource.clone());
    }

    /// xDS protocol: what is newly asked for is sent even if the client has it, and a name that
    /// does not exist for it is reported as removed.
    fn add_requested(&mut self, requested: Requested, by: &Interest, current: &Collection) {
        if requested.everything {
            current.iter().filter(|resource| by.sees(resource)).for_each(|resource| self.add(resource));
        }
        for name in &requested.names {
            let mut found = current.named_or_aliased(name).filter(|resource| by.sees(resource)).peekable();
            if found.peek().is_none() {
                self.removed.insert(name.to_string());
            }
            found.for_each(|resource| self.add(resource));
        }
    }
}

fn takes_parts(node: &Node) -> bool {
    node.metadata.as_ref().is_some_and(|metadata| metadata.fields.contains_key(PARTS_FEATURE))
}

#[cfg(test)]
mod tests;
