//! What this replica knows of its own proxies at one moment.

use std::sync::Arc;

use ambit_xds::ResourceType;
use ambit_xds::resources::{Collection, Resources};
use ambit_xds::server::Subscribers;

use super::digest::Digests;
use super::own;
use super::report::ProxyReportSpec;

/// Looks at subscribers, and remembers the digests of what they are to acknowledge.
#[derive(Debug, Default)]
pub struct Observer {
    digests: Option<(Arc<Collection>, Arc<Digests>)>,
}

/// What this replica knows of its proxies.
#[derive(Clone, Debug)]
pub struct Own {
    /// The policies that it is said of.
    pub policies: Arc<Collection>,
    /// Their digests.
    pub digests: Arc<Digests>,
    /// As it is reported, without the time.
    pub report: ProxyReportSpec,
}

impl Observer {
    /// What subscribers have acknowledged of `resources` at this moment.
    pub fn observe(&mut self, resources: &Resources, subscribers: &Subscribers) -> Own {
        const KIND: ResourceType = ResourceType::Authorization;
        let policies = resources.of_type(KIND);
        let known = self.digests.take().filter(|(of, _)| Arc::ptr_eq(of, policies));
        let digests = known.map_or_else(|| Arc::new(Digests::of(policies)), |(_, digests)| digests);
        self.digests = Some((policies.clone(), digests.clone()));
        let standing = subscribers.standing(KIND, resources);
        let report = own::report(&standing, &digests, policies.len());
        Own { policies: policies.clone(), digests, report }
    }
}
