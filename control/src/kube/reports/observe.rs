//! What this replica knows of its own proxies at one moment.

use std::sync::Arc;

use ambit_xds::resources::{Collection, Resources};
use ambit_xds::server::Subscribers;

use super::digest::Digests;
use super::layers::{LAYERS, Layers};
use super::own::{self, Observed};
use super::report::ProxyReportSpec;

/// Looks at subscribers, and remembers the digests of what they are to acknowledge.
#[derive(Debug, Default)]
pub struct Observer {
    layers: Layers<Option<Serving>>,
}

/// What this replica knows of its proxies.
#[derive(Clone, Debug)]
pub struct Own {
    /// The policies that it is said of.
    pub serving: Layers<Serving>,
    /// As it is reported, without the time.
    pub report: ProxyReportSpec,
}

/// Policies of one layer.
#[derive(Clone, Debug)]
pub struct Serving {
    /// They themselves.
    pub policies: Arc<Collection>,
    /// Their digests.
    pub digests: Arc<Digests>,
}

impl Serving {
    /// Those of a generation; digests that were made before are used again.
    fn of(policies: &Arc<Collection>, before: Option<Self>) -> Self {
        before.filter(|before| Arc::ptr_eq(&before.policies, policies)).unwrap_or_else(|| Self {
            policies: Arc::clone(policies),
            digests: Arc::new(Digests::of(policies)),
        })
    }
}

impl Observer {
    /// What subscribers have acknowledged of `resources` at this moment.
    pub fn observe(&mut self, resources: &Resources, subscribers: &Subscribers) -> Own {
        let serving = LAYERS.zip(std::mem::take(&mut self.layers)).map(|(kind, before)| {
            let serving = Serving::of(resources.of_type(kind), before);
            (kind, serving)
        });
        let observed = serving.clone().map(|(kind, serving)| Observed {
            standing: subscribers.standing(kind, resources),
            total: serving.policies.len(),
            digests: serving.digests,
        });
        let serving = serving.map(|(_, serving)| serving);
        self.layers = serving.clone().map(Some);
        Own { report: own::report(&observed), serving }
    }
}
