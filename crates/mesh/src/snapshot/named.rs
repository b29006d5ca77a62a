//! Which workloads name which policies, and what has to be prepared anew after a change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Snapshot;
use crate::policy::{PolicyName, PolicyNames};
use crate::workload::Workload;

/// What the policies that a workload names depend on, beside the policies themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Naming {
    /// Of the workload: policies of its scopes are not named ones.
    pub(super) namespace: Arc<str>,
    pub(super) names: PolicyNames,
}

impl Naming {
    /// `None` for a workload that names none.
    pub(super) fn of(workload: &Workload) -> Option<Self> {
        let names = &workload.authorization_policies;
        let naming = || Self { namespace: workload.namespace.clone(), names: names.clone() };
        (!names.is_empty()).then(naming)
    }
}

/// How many workloads there are of each naming, and where each policy is named.
#[derive(Clone, Debug, Default)]
pub(super) struct Namings {
    workloads: BTreeMap<Naming, usize>,
    by_policy: BTreeMap<PolicyName, BTreeSet<Naming>>,
}

impl Namings {
    /// Counts a workload. Returns its naming if it is the first of it.
    pub(super) fn add(&mut self, workload: &Workload) -> Option<Naming> {
        let naming = Naming::of(workload)?;
        let count = self.workloads.entry(naming.clone()).or_default();
        *count += 1;
        if *count > 1 {
            return None;
        }
        for name in naming.names.iter() {
            self.by_policy.entry(name.clone()).or_default().insert(naming.clone());
        }
        Some(naming)
    }

    /// Counts a workload no more. Returns its naming if it was the last of it.
    pub(super) fn remove(&mut self, workload: &Workload) -> Option<Naming> {
        let naming = Naming::of(workload)?;
        let count = self.workloads.get_mut(&naming)?;
        *count -= 1;
        if *count > 0 {
            return None;
        }
        self.workloads.remove(&naming);
        for name in naming.names.iter() {
            let Some(namings) = self.by_policy.get_mut(name) else { continue };
            namings.remove(&naming);
            if namings.is_empty() {
                self.by_policy.remove(name);
            }
        }
        Some(naming)
    }

    /// The list that workloads with these names share; `names` itself if it is the first.
    pub(super) fn shared(&self, namespace: &Arc<str>, names: &PolicyNames) -> PolicyNames {
        let naming = Naming { namespace: namespace.clone(), names: names.clone() };
        self.workloads.get_key_value(&naming).map_or_else(|| names.clone(), |(known, _)| known.names.clone())
    }

    /// Where a policy is named.
    pub(super) fn of_policy(&self, name: &PolicyName) -> impl Iterator<Item = &Naming> {
        self.by_policy.get(name).into_iter().flatten()
    }
}

/// What is to be prepared before the next snapshot is handed out.
#[derive(Clone, Debug, Default)]
pub(super) struct Stale {
    pub(super) mesh: bool,
    pub(super) namespaces: BTreeSet<Arc<str>>,
    pub(super) namings: BTreeSet<Naming>,
}

impl Stale {
    /// Prepares it.
    pub(super) fn refresh(&mut self, snapshot: &mut Snapshot) {
        if std::mem::take(&mut self.mesh) {
            Arc::make_mut(&mut snapshot.mesh_policies).compile();
        }
        for namespace in std::mem::take(&mut self.namespaces) {
            if snapshot.namespace_policies.get(&namespace).is_some() {
                Arc::make_mut(snapshot.namespace_policies.entry(&namespace)).compile();
            }
        }
        for naming in std::mem::take(&mut self.namings) {
            let mut set = snapshot.named_by(&naming);
            set.compile();
            snapshot.named_policies.insert(naming, Arc::new(set));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.mesh && self.namespaces.is_empty() && self.namings.is_empty()
    }
}
