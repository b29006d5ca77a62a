//! What one client is subscribed to.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use crate::resources::{Resource, Viewer};

/// The name that stands for all resources of a type.
const WILDCARD: &str = "*";

/// Names and the wildcard, and which of them were not responded to yet.
#[derive(Debug)]
pub(super) struct Interest {
    viewer: Viewer,
    everything: bool,
    names: BTreeSet<Arc<str>>,
    requested: Requested,
}

/// What was asked for since the last response.
#[derive(Debug, Default)]
pub(super) struct Requested {
    pub(super) everything: bool,
    pub(super) names: BTreeSet<Arc<str>>,
}

impl Interest {
    /// Of a client that has asked for nothing.
    pub(super) fn of(viewer: Viewer) -> Self {
        Self { viewer, everything: false, names: BTreeSet::new(), requested: Requested::default() }
    }

    /// What the client is.
    pub(super) fn viewer(&self) -> &Viewer {
        &self.viewer
    }

    /// Takes up the first request of a stream.
    pub(super) fn open(&mut self, request: &DeltaDiscoveryRequest) {
        // xDS protocol: a first request that subscribes to nothing is a wildcard subscription.
        if request.resource_names_subscribe.is_empty() {
            self.subscribe(WILDCARD);
        }
        self.update(request);
    }

    /// Takes up a later request. What is both asked for and taken back is not wanted.
    pub(super) fn update(&mut self, request: &DeltaDiscoveryRequest) {
        request.resource_names_subscribe.iter().for_each(|name| self.subscribe(name));
        request.resource_names_unsubscribe.iter().for_each(|name| self.unsubscribe(name));
    }

    /// Whether this resource is for the client, and it wants it: by its name or by one of its aliases.
    pub(super) fn covers(&self, resource: &Resource) -> bool {
        let is_wanted = || {
            self.everything
                || self.names.contains(resource.name())
                || resource.aliases().iter().any(|alias| self.names.contains(alias))
        };
        self.sees(resource) && is_wanted()
    }

    /// Whether this resource is for the client.
    pub(super) fn sees(&self, resource: &Resource) -> bool {
        resource.audience().includes(&self.viewer)
    }

    /// Whether the client wants every resource that is for it.
    pub(super) fn is_everything(&self) -> bool {
        self.everything
    }

    /// How many names it wants.
    pub(super) fn name_count(&self) -> usize {
        self.names.len()
    }

    /// What was asked for since the last call.
    pub(super) fn take_requested(&mut self) -> Requested {
        std::mem::take(&mut self.requested)
    }

    fn subscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.everything = true;
            self.requested.everything = true;
            return;
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone());
        self.requested.names.insert(name);
    }

    fn unsubscribe(&mut self, name: &str) {
        if name == WILDCARD {
            self.everything = false;
            self.requested.everything = false;
            return;
        }
        self.names.remove(name);
        self.requested.names.remove(name);
    }
}
