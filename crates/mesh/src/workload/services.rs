//! Which services a workload serves, and where their ports lead on it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::address::ServiceName;
use crate::service::PortMapping;

/// Services by name, with the target of each service port.
///
/// A sorted list rather than a map: most workloads serve one service or two, and those of one
/// Deployment the same. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ServicePorts(Arc<[(ServiceName, Arc<[PortMapping]>)]>);

impl ServicePorts {
    /// The ports of a service.
    pub fn get(&self, name: &ServiceName) -> Option<&Arc<[PortMapping]>> {
        let at = self.0.binary_search_by(|(other, _)| other.cmp(name)).ok()?;
        Some(&self.0[at].1)
    }

    /// Whether the workload serves a service.
    pub fn contains_key(&self, name: &ServiceName) -> bool {
        self.get(name).is_some()
    }

    /// The services, in order of their names.
    pub fn keys(&self) -> impl Iterator<Item = &ServiceName> {
        self.0.iter().map(|(name, _)| name)
    }

    /// Services and ports, in order of the services' names.
    pub fn iter(&self) -> impl Iterator<Item = (&ServiceName, &Arc<[PortMapping]>)> {
        self.0.iter().map(|(name, ports)| (name, ports))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many hold this very list.
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.0)
    }
}

impl Default for ServicePorts {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl FromIterator<(ServiceName, Vec<PortMapping>)> for ServicePorts {
    /// Of two entries with one name the later one counts.
    fn from_iter<I: IntoIterator<Item = (ServiceName, Vec<PortMapping>)>>(services: I) -> Self {
        let sorted: BTreeMap<_, _> = services.into_iter().collect();
        Self(sorted.into_iter().map(|(name, ports)| (name, ports.into())).collect())
    }
}

impl<const N: usize> From<[(ServiceName, Vec<PortMapping>); N]> for ServicePorts {
    fn from(services: [(ServiceName, Vec<PortMapping>); N]) -> Self {
        services.into_iter().collect()
    }
}

impl fmt::Debug for ServicePorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
