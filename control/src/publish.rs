//! One generation of everything that control serves, and the channels by which it is handed out.

use std::collections::BTreeMap;
use std::sync::Arc;

use ambit_mesh::mesh::Mesh;
use ambit_xds::ResourceType;
use ambit_xds::resources::{Resource, Resources, Update};
use tokio::sync::watch;

use crate::ca::grant::NodeIdentities;
use crate::inputs::Inputs;
use crate::translate::Translated;

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
    let publisher = Publisher { generation, resources, identities };
    (
        publisher,
        Published { generation: generation_out, resources: resources_out, identities: identities_out },
    )
}

impl Publisher {
    /// Hands out the next generation. Resources that did not change keep their versions, so that
    /// subscribers are sent only what did.
    pub fn publish(&self, inputs: Inputs, translated: Translated) {
        let before = self.generation.borrow().clone();
        let resources = self.resources.borrow().with(updates(&before, &inputs, &translated));
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

/// What differs between two generations. Most of one is shared with the other, and encoding is what
/// costs.
fn updates<'a>(
    before: &'a Generation,
    inputs: &Inputs,
    now: &'a Translated,
) -> impl Iterator<Item = Update> + 'a {
    // The mesh as a whole is always there: none would mean that nothing is known of it.
    let is_first = before.number == 0;
    let [mesh_before, mesh] = [(&before.inputs, &before.translated), (inputs, now)].map(mesh);
    let before = &before.translated;
    let workloads = differing([&before.workloads, &now.workloads], Resource::workload, |uid| {
        Update::Remove(ResourceType::Address, uid.to_string())
    });
    let services = differing([&before.services, &now.services], Resource::service, |name| {
        Update::Remove(ResourceType::Address, name.to_string())
    });
    let policies = differing([&before.policies, &now.policies], Resource::policy, |name| {
        Update::Remove(ResourceType::Authorization, name.to_string())
    });
    let routes =
        differing([&before.for_waypoints.routes, &now.for_waypoints.routes], Resource::route, |name| {
            Update::Remove(ResourceType::Route, name.to_string())
        });
    let subsets = [&before.for_waypoints.subsets, &now.for_waypoints.subsets];
    let subsets =
        differing(subsets, Resource::subset, |name| Update::Remove(ResourceType::Subset, name.to_string()));
    let http_policies = [&before.for_waypoints.policies, &now.for_waypoints.policies];
    let http_policies = differing(http_policies, Resource::http_policy, |name| {
        Update::Remove(ResourceType::HttpPolicy, name.to_string())
    });
    let mesh = (is_first || mesh != mesh_before).then(|| Update::Put(Resource::mesh(&mesh)));
    workloads.chain(services).chain(policies).chain(subsets).chain(routes).chain(http_policies).chain(mesh)
}

fn mesh((inputs, of): (&Inputs, &Translated)) -> Mesh {
    Mesh::new(of.enrolled_namespaces.iter().cloned(), of.mesh_ranges.iter().copied())
        .being_uninstalled(inputs.uninstalling())
}

fn differing<'a, K: Ord, V: PartialEq>(
    [before, now]: [&'a BTreeMap<K, Arc<V>>; 2],
    encode: fn(&V) -> Resource,
    remove: fn(&K) -> Update,
) -> impl Iterator<Item = Update> + 'a {
    let is_same = |key: &K, value: &Arc<V>| {
        before.get(key).is_some_and(|before| Arc::ptr_eq(before, value) || before == value)
    };
    let gone = before.keys().filter(|key| !now.contains_key(*key)).map(remove);
    let put = now.iter().filter(move |(key, value)| !is_same(key, value));
    gone.chain(put.map(move |(_, value)| Update::Put(encode(value))))
}
