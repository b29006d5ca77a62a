//! A session's subscription to one type of resource.

use std::collections::BTreeSet;

use ambit_mesh::snapshot::Change;
use ambit_proto::envoy::config::core::v3::Node;
use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource};
use ambit_proto::google::rpc::Status;
use prost_types::Value;
use prost_types::value::Kind;

use super::held::{Held, Rejection};
use super::{Interest, Reaction};
use crate::{MORE_FOLLOWS, PARTS_FEATURE, ResourceType};

/// The name that stands for all resources of a type.
const WILDCARD: &str = "*";

/// How many names a client asks for at most. Beyond it a new destination stays unknown, which is
/// closed.
const MAX_NAMES: usize = 65_536;

/// How many refused resources an answer names; the rest are counted.
const MAX_NAMED_REJECTIONS: usize = 10;

/// gRPC status 3.
const INVALID_ARGUMENT: i32 = 3;

#[derive(Debug)]
pub(super) struct Subscription {
    node: Node,
    kind: ResourceType,
    interest: Interest,
    /// On demand only: the names asked for.
    names: BTreeSet<String>,
    held: Held,
    /// A response was received, on any stream, and what came last was not a part that others follow.
    is_whole: bool,
    stream: Option<Stream>,
}

/// What is remembered for as long as a stream lives.
#[derive(Debug)]
struct Stream {
    /// The nonce answered last.
    answered_nonce: Option<String>,
    /// Names held but not declared, until the first response is complete. The server does not know of
    /// them and will not say that they are gone: the first response has to list them.
    undeclared: BTreeSet<String>,
}

impl Subscription {
    pub(super) fn new(node: Node, kind: ResourceType, interest: Interest) -> Self {
        let held = Held::new(kind);
        Self { node, kind, interest, names: BTreeSet::new(), held, is_whole: false, stream: None }
    }

    pub(super) fn open(&mut self) -> DeltaDiscoveryRequest {
        self.stream = Some(Stream { answered_nonce: None, undeclared: self.held.undeclared() });
        let (subscribe, unsubscribe) = match self.interest {
            // "If this is the first request for a type and it names nothing, it is a wildcard
            // subscription" (xDS protocol, "How the client specifies what resources to return").
            Interest::Everything => (Vec::new(), Vec::new()),
            // Nothing is wanted yet: to say so without becoming a wildcard, ask and take back.
            Interest::OnDemand if self.names.is_empty() => (vec![WILDCARD.into()], vec![WILDCARD.into()]),
            Interest::OnDemand => (self.names.iter().cloned().collect(), Vec::new()),
        };
        DeltaDiscoveryRequest {
            node: Some(taking_parts(self.node.clone())),
            type_url: self.kind.type_url().into(),
            resource_names_subscribe: subscribe,
            resource_names_unsubscribe: unsubscribe,
            initial_resource_versions: self.held.versions(),
            ..DeltaDiscoveryRequest::default()
        }
    }

    pub(super) fn close(&mut self) {
        self.stream = None;
    }

    pub(super) fn synced(&self) -> bool {
        match self.interest {
            Interest::Everything => self.is_whole,
            Interest::OnDemand => true,
        }
    }

    /// Whether it was asked for on this stream.
    pub(super) fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// Whether all of it was answered for on this stream.
    pub(super) fn is_answered(&self) -> bool {
        self.is_whole && self.stream.as_ref().is_some_and(|stream| stream.answered_nonce.is_some())
    }

    pub(super) fn subscribe(
        &mut self,
        names: impl IntoIterator<Item = String>,
    ) -> Option<DeltaDiscoveryRequest> {
        match self.interest {
            Interest::Everything => return None,
            Interest::OnDemand => {}
        }
        let mut new_names = Vec::new();
        for name in names {
            if name != WILDCARD && self.names.len() < MAX_NAMES && self.names.insert(name.clone()) {
                new_names.push(name);
            }
        }
        let is_sent = self.stream.is_some() && !new_names.is_empty();
        is_sent.then(|| DeltaDiscoveryRequest {
            type_url: self.kind.type_url().into(),
            resource_names_subscribe: new_names,
            ..DeltaDiscoveryRequest::default()
        })
    }

    pub(super) fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Reaction {
        let Some(stream) = &mut self.stream else { return Reaction::default() };
        let nonce = response.nonce;
        if !nonce.is_empty() && stream.answered_nonce.as_ref() == Some(&nonce) {
            return Reaction::default();
        }
        let more_follows = response.system_version_info == MORE_FOLLOWS;
        let mut unlisted = unlisted(std::mem::take(&mut stream.undeclared), &response.resources);
        if more_follows {
            stream.undeclared = std::mem::take(&mut unlisted);
        }
        let mut changes: Vec<Change> = Vec::with_capacity(response.resources.len());
        let mut rejected = Vec::new();
        for name in unlisted.iter().chain(&response.removed_resources) {
            changes.extend(self.held.remove(name));
        }
        for resource in response.resources {
            rejected.extend(self.held.receive(resource, &mut changes).err());
        }
        self.is_whole = !more_follows;
        if self.is_whole {
            self.held.pack();
        }
        let answer = (!nonce.is_empty()).then(|| self.answer(nonce, &rejected));
        Reaction { changes, rejected, answer, further: Vec::new() }
    }

    fn answer(&mut self, nonce: String, rejected: &[Rejection]) -> DeltaDiscoveryRequest {
        if let Some(stream) = &mut self.stream {
            stream.answered_nonce = Some(nonce.clone());
        }
        DeltaDiscoveryRequest {
            type_url: self.kind.type_url().into(),
            response_nonce: nonce,
            error_detail: (!rejected.is_empty()).then(|| refusal(rejected)),
            ..DeltaDiscoveryRequest::default()
        }
    }
}

/// Says that a generation may come in parts.
fn taking_parts(mut node: Node) -> Node {
    let yes = Value { kind: Some(Kind::BoolValue(true)) };
    node.metadata.get_or_insert_default().fields.insert(PARTS_FEATURE.into(), yes);
    node
}

fn unlisted(mut undeclared: BTreeSet<String>, listed: &[Resource]) -> BTreeSet<String> {
    for resource in listed {
        undeclared.remove(&resource.name);
    }
    undeclared
}

fn refusal(rejected: &[Rejection]) -> Status {
    let named: Vec<String> = rejected.iter().take(MAX_NAMED_REJECTIONS).map(ToString::to_string).collect();
    let mut message = named.join("; ");
    let unnamed = rejected.len().saturating_sub(MAX_NAMED_REJECTIONS);
    if unnamed > 0 {
        message.push_str(&format!("; and {unnamed} more"));
    }
    Status { code: INVALID_ARGUMENT, message, details: Vec::new() }
}
