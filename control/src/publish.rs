//! One generation of everything that control serves, and the channels by which it is handed out.

mod audiences;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use ambit_mesh::mesh::Mesh;
use ambit_xds::ResourceType;
use ambit_xds::resources::{Audience, Resource, Resources, Update};
use tokio::sync::watch;

use crate::ca::grant::NodeIdentities;
use crate::inputs::Inputs;
use crate::translate::Translated;
use audiences::Audiences;

/// What the configuration was and what became of it.
#[derive(Debug, Default)]
pub struct Generation {
    /// Counts up from 1 while control runs; 0 before anything was read.
    pub number: u64,
    /// What is written and what is in force.
    pub inputs: Inputs,
    /// What the data plane needs.
    pub translated: Translated,
}

/// The sending ends.
#[derive(Debug)]
pub struct Publisher {
    generation: watch::Sender<Arc<Generation>>,
    resources: watch::Sender<Arc<Resources>>,
    identities: watch::Sender<Arc<NodeIdentities>>,
    /// Those of the resources.
    audiences: Audiences,
}

/// The receiving ends.
#[derive(Clone, Debug)]
pub struct Published {
    /// For statuses and dumps.
    pub generation: watch::Receiver<Arc<Generation>>,
    /// For xDS.
    pub resources: watch::Receiver<Arc<Resources>>,
    /// For the certificate authority.
    pub identities: watch::Receiver<Arc<NodeIdentities>>,
}

/// Makes both ends, with nothing published yet.
pub fn channel() -> (Publisher, Published) {
    let (generation, generation_out) = watch::channel(Arc::default());
    let (resources, resources_out) = watch::channel(Arc::default());
    let (identities, identities_out) = watch::channel(Arc::default());
    let publisher = Publisher { generation, resources, identities, audiences: Audiences::default() };
    (
        publisher,
        Published { generation: generation_out, resources: resources_out, identities: identities_out },
    )
}

impl Publisher {
    /// Hands out the next generation. Resources that did not change keep their versions, so that
    /// subscribers are sent only what did.
    pub fn publish(&mut self, inputs: Inputs, translated: Translated) {
        let before = self.generation.borrow().clone();
        let audiences = Audiences::of(&translated);
        let resources = {
            let before = Configuration {
                number: before.number,
                inputs: &before.inputs,
                translated: &before.translated,
                audiences: &self.audiences,
            };
            let number = before.number + 1;
            let now =
                Configuration { number, inputs: &inputs, translated: &translated, audiences: &audiences };
            self.resources.borrow().with(updates(before, now))
        };
        self.audiences = audiences;
        // The authority first: no agent learns of a workload before it can have its certificate.
        replace(&self.identities, translated.identities.clone());
        replace(&self.resources, resources);
        let number = before.number + 1;
        self.generation.send_replace(Arc::new(Generation { number, inputs, translated }));
    }
}

impl Published {
    /// Waits until the first generation is published. Nothing may be served before: it would tell
    /// clients that come back to forget everything.
    ///
    /// # Errors
    /// When the publisher is gone.
    pub async fn first(&mut self) -> Result<(), watch::error::RecvError> {
        self.generation.wait_for(|generation| generation.number > 0).await.map(drop)
    }
}

fn replace<T: PartialEq>(channel: &watch::Sender<Arc<T>>, next: T) {
    channel.send_if_modified(|current| {
        let is_new = **current != next;
        if is_new {
            *current = Arc::new(next);
        }
        is_new
    });
}

/// What resources are made of.
#[derive(Clone, Copy)]
struct Configuration<'a> {
    number: u64,
    inputs: &'a Inputs,
    translated: &'a Translated,
    audiences: &'a Audiences,
}

/// What differs between two generations. Most of one is shared with the other, and encoding is what
/// costs.
fn updates<'a>(before: Configuration<'a>, now: Configuration<'a>) -> impl Iterator<Item = Update> + 'a {
    let step =
        Step { before: before.audiences, now: now.audiences, moved: before.audiences != now.audiences };
    // The mesh as a whole is always there: none would mean that nothing is known of it.
    let is_first = before.number == 0;
    let (mesh_before, mesh) = (mesh(before), mesh(now));
    let mesh = (is_first || mesh != mesh_before).then(|| Update::Put(Resource::mesh(&mesh)));
    let (before, now) = (before.translated, now.translated);
    let workloads = [&before.workloads, &now.workloads];
    let workloads = step.differing(ResourceType::Address, workloads, Resource::workload, Audiences::workload);
    let services = [&before.services, &now.services];
    let services = step.differing(ResourceType::Address, services, Resource::service, Audiences::service);
    let policies = [&before.policies, &now.policies];
    let policies = step.differing(ResourceType::Authorization, policies, Resource::policy, Audiences::policy);
    let (before, now) = (&before.for_waypoints, &now.for_waypoints);
    let subsets = [&before.subsets, &now.subsets];
    let subsets = step.differing(ResourceType::Subset, subsets, Resource::subset, Audiences::subset);
    let routes = [&before.routes, &now.routes];
    let routes = step.differing(ResourceType::Route, routes, Resource::route, Audiences::route);
    let http = [&before.policies, &now.policies];
    let http = step.differing(ResourceType::HttpPolicy, http, Resource::http_policy, Audiences::http_policy);
    workloads.chain(services).chain(policies).chain(subsets).chain(routes).chain(http).chain(mesh)
}

fn mesh(of: Configuration<'_>) -> Mesh {
    let Translated { enrolled_namespaces, mesh_ranges, .. } = of.translated;
    Mesh::new(enrolled_namespaces.iter().cloned(), mesh_ranges.iter().copied())
        .being_uninstalled(of.inputs.uninstalling())
}

/// From one generation to the next.
#[derive(Clone, Copy)]
struct Step<'a> {
    before: &'a Audiences,
    now: &'a Audiences,
    /// Whether they differ.
    moved: bool,
}

impl<'a> Step<'a> {
    fn differing<K: Ord + Display, V: PartialEq>(
        self,
        kind: ResourceType,
        [before, now]: [&'a BTreeMap<K, Arc<V>>; 2],
        encode: fn(&V) -> Resource,
        audience: fn(&Audiences, &V) -> Audience,
    ) -> impl Iterator<Item = Update> + 'a {
        let is_same = move |key: &K, value: &Arc<V>| {
            let same = |before: &&Arc<V>| Arc::ptr_eq(before, value) || *before == value;
            before.get(key).filter(same).is_some_and(|before| {
                !self.moved || audience(self.before, before) == audience(self.now, value)
            })
        };
        let gone = before.keys().filter(|key| !now.contains_key(*key));
        let gone = gone.map(move |key| Update::Remove(kind, key.to_string()));
        let put = now.iter().filter(move |(key, value)| !is_same(key, value));
        gone.chain(put.map(move |(_, value)| Update::Put(encode(value).to(audience(self.now, value)))))
    }
}

#[cfg(test)]
mod tests;
