//! What a server has to offer: one immutable generation of resources, encoded once for all
//! subscribers.
//!
//! Who wants which of them, and who has them, is [`crate::subscriber`]'s business.

mod audience;
mod collection;
mod resource;

use std::sync::Arc;

pub use audience::{Audience, Viewer};
pub use collection::{Collection, Difference};
pub use resource::Resource;

use crate::ResourceType;

/// One generation of all resources.
///
/// Cheap to clone, and never changed: a new configuration is a new generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    addresses: Arc<Collection>,
    authorizations: Arc<Collection>,
    mesh: Arc<Collection>,
    routes: Arc<Collection>,
    http_policies: Arc<Collection>,
    subsets: Arc<Collection>,
}

/// One resource that is to be different in the next generation.
#[derive(Clone, Debug)]
pub enum Update {
    /// It is new or has changed.
    Put(Resource),
    /// The one of this name is gone.
    Remove(ResourceType, String),
}

impl Resources {
    /// The next generation. It shares with this one whatever the updates do not touch.
    #[must_use]
    pub fn with(&self, updates: impl IntoIterator<Item = Update>) -> Self {
        let mut next = self.clone();
        for update in updates {
            match update {
                Update::Put(resource) => next.of_type_mut(resource.kind()).insert(Arc::new(resource)),
                Update::Remove(kind, name) => next.of_type_mut(kind).remove(&name),
            }
        }
        next
    }

    fn of_type_mut(&mut self, kind: ResourceType) -> &mut Collection {
        Arc::make_mut(match kind {
            ResourceType::Address => &mut self.addresses,
            ResourceType::Authorization => &mut self.authorizations,
            ResourceType::Mesh => &mut self.mesh,
            ResourceType::Route => &mut self.routes,
            ResourceType::HttpPolicy => &mut self.http_policies,
            ResourceType::Subset => &mut self.subsets,
        })
    }

    /// The resources of one type.
    pub fn of_type(&self, kind: ResourceType) -> &Arc<Collection> {
        match kind {
            ResourceType::Address => &self.addresses,
            ResourceType::Authorization => &self.authorizations,
            ResourceType::Mesh => &self.mesh,
            ResourceType::Route => &self.routes,
            ResourceType::HttpPolicy => &self.http_policies,
            ResourceType::Subset => &self.subsets,
        }
    }

    /// The same generation, sharing with the one before it whatever has not changed.
    ///
    /// Differences between generations that share are found by comparing pointers, and memory is
    /// held once while subscribers are still on the older one.
    #[must_use]
    pub fn sharing_with(self, previous: &Self) -> Self {
        Self {
            addresses: Collection::sharing(self.addresses, &previous.addresses),
            authorizations: Collection::sharing(self.authorizations, &previous.authorizations),
            mesh: Collection::sharing(self.mesh, &previous.mesh),
            routes: Collection::sharing(self.routes, &previous.routes),
            http_policies: Collection::sharing(self.http_policies, &previous.http_policies),
            subsets: Collection::sharing(self.subsets, &previous.subsets),
        }
    }
}

impl FromIterator<Resource> for Resources {
    /// Of two resources with one name and type the later one counts.
    fn from_iter<I: IntoIterator<Item = Resource>>(resources: I) -> Self {
        Self::default().with(resources.into_iter().map(Update::Put))
    }
}
