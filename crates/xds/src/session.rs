//! One client's side of delta xDS, without IO: requests out, responses in, changes out.
//!
//! ```text
//!            connect()                       on_response()
//! away ───────────────────▶ asked ──────────────────────────▶ following ─┐ on_response():
//!  ▲                          │                                  │   ▲   │ changes and one
//!  └──────────────────────────┴────────── on_disconnect() ───────┘   └───┘ answer per nonce
//! ```
//!
//! A type that nothing waits for is asked for last, once the others are answered on the stream: a
//! server that does not know it holds up nothing.
//!
//! What was received stays while the session is away, and is declared by name and version when it
//! comes back. Opening connections and waiting between them is [`crate::client`]'s work.

mod held;
mod subscription;

use std::collections::BTreeMap;

use ambit_mesh::snapshot::Change;
use ambit_proto::envoy::config::core::v3::Node;
use ambit_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

pub use held::Rejection;

use crate::ResourceType;
use crate::resource_type::{Need, Role};
use subscription::Subscription;

/// What a session asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every resource of the type.
    Everything,
    /// Only what [`Session::subscribe`] names.
    OnDemand,
}

/// The state of one client, across all of its streams.
#[derive(Debug)]
pub struct Session {
    role: Role,
    subscriptions: BTreeMap<ResourceType, Subscription>,
}

/// What a response leads to.
#[derive(Debug, Default)]
pub struct Reaction {
    /// To be applied in this order.
    pub changes: Vec<Change>,
    /// What could not be used. A name listed here keeps its last good version.
    pub rejected: Vec<Rejection>,
    /// The acknowledgement or refusal to send once the changes are applied; `None` for a response
    /// that is of an unknown type, or has no nonce or one that was answered before.
    pub answer: Option<DeltaDiscoveryRequest>,
    /// To be sent after the answer: the first requests of the types that nothing waits for.
    pub further: Vec<DeltaDiscoveryRequest>,
}

impl Session {
    /// A session that has received nothing yet.
    ///
    /// Policies are always asked for as a whole: one that is not known could be the one that
    /// denies.
    pub fn new(node: Node, addresses: Interest, role: Role) -> Self {
        let interest = |kind| match kind {
            ResourceType::Address => addresses,
            ResourceType::Authorization
            | ResourceType::Mesh
            | ResourceType::Route
            | ResourceType::HttpPolicy
            | ResourceType::Subset => Interest::Everything,
        };
        let subscription = |kind| (kind, Subscription::new(node.clone(), kind, interest(kind)));
        let kinds = ResourceType::ALL.into_iter().filter(|kind| kind.is_for(role));
        Self { role, subscriptions: kinds.map(subscription).collect() }
    }

    /// A stream is open: the first requests on it, one for each type that is waited for.
    pub fn connect(&mut self) -> Vec<DeltaDiscoveryRequest> {
        self.of_need(Need::Required).map(Subscription::open).collect()
    }

    /// The stream is gone. Everything that was received stays.
    pub fn on_disconnect(&mut self) {
        self.subscriptions.values_mut().for_each(Subscription::close);
    }

    /// A response has arrived.
    pub fn on_response(&mut self, response: DeltaDiscoveryResponse) -> Reaction {
        let kind = ResourceType::from_type_url(&response.type_url);
        let subscription = kind.and_then(|kind| self.subscriptions.get_mut(&kind));
        let Some(subscription) = subscription else { return Reaction::default() };
        let mut reaction = subscription.on_response(response);
        if self.of_need(Need::Required).all(|required| required.is_answered()) {
            let unopened = self.of_need(Need::Supplementary).filter(|further| !further.is_open());
            reaction.further = unopened.map(Subscription::open).collect();
        }
        reaction
    }

    fn of_need(&mut self, need: Need) -> impl Iterator<Item = &mut Subscription> {
        self.subscriptions.iter_mut().filter(move |(kind, _)| kind.need() == need).map(|(_, of)| of)
    }

    /// Asks for addresses by name: a workload's uid, `<namespace>/<hostname>` of a service, or
    /// `<network>/<ip>`.
    ///
    /// Returns the request to send, if there is a stream and one of the names is new. Names are
    /// asked for again on every later stream.
    pub fn subscribe(&mut self, names: impl IntoIterator<Item = String>) -> Option<DeltaDiscoveryRequest> {
        self.subscriptions.get_mut(&ResourceType::Address)?.subscribe(names)
    }

    /// Whether each type that is waited for and asked for as a whole has been answered once, on any stream, and none
    /// is in the middle of an answer that comes in parts. What a waypoint is sent on one stream belongs together, and
    /// not with what it was sent on another: there each has to have been answered on this stream.
    ///
    /// An answer that held unusable resources counts: one bad resource must not keep a node from
    /// becoming ready, and what is unknown because of it stays closed.
    pub fn synced(&self) -> bool {
        let required = self.subscriptions.iter().filter(|(kind, _)| kind.need() == Need::Required);
        required.map(|(_, subscription)| subscription).all(|subscription| match self.role {
            Role::Node => subscription.synced(),
            Role::Waypoint => subscription.is_answered(),
        })
    }
}

#[cfg(test)]
mod tests;
