//! Which network namespace belongs to which pod, by the pod's UID: what the runtime told through the
//! CNI plugin, and what a look at the node's processes shows.
//!
//! The runtime's word goes before a look: it names the namespace that it made. Neither takes a
//! namespace away from another pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::capture::netns::NetworkNamespaceId;
use crate::pods::processes::Sight;

/// The table, of namespaces that are held open as `N`.
#[derive(Debug)]
pub(super) struct Found<N> {
    pods: BTreeMap<Arc<str>, Entry<N>>,
    /// Namespaces of sandboxes that the runtime took down. A process that is still to be killed must
    /// not bring them back.
    departed: BTreeMap<Arc<str>, NetworkNamespaceId>,
    /// Pods that cannot be told apart, as the last look showed.
    contested: BTreeMap<Arc<str>, Contested>,
}

#[derive(Debug)]
struct Entry<N> {
    id: NetworkNamespaceId,
    namespace: Arc<N>,
    origin: Origin,
    /// Whether control knew the pod at the last look.
    was_known: bool,
}

/// How a namespace was found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// The runtime said so when it started this sandbox.
    Runtime { sandbox: Arc<str> },
    /// The pod's processes are in it.
    Processes,
}

/// A namespace that is another pod's, too.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its network namespace is claimed for the pods {} as well: it is bound to no other pod until that ends",
    list(others)
)]
pub(super) struct Contested {
    /// The UIDs of the other pods.
    pub(super) others: BTreeSet<Arc<str>>,
}

/// What the end of a sandbox means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The pod has no namespace any more.
    Pod,
    /// Another of its sandboxes, or a pod that is not known: nothing changes.
    Other,
    /// It is not known which sandbox the pod is in: its processes will show.
    Unsure,
}

impl<N> Default for Found<N> {
    fn default() -> Self {
        Self { pods: BTreeMap::new(), departed: BTreeMap::new(), contested: BTreeMap::new() }
    }
}

impl<N> Found<N> {
    /// The namespace of a pod.
    pub(super) fn namespace(&self, pod_uid: &str) -> Option<(NetworkNamespaceId, &Arc<N>)> {
        self.pods.get(pod_uid).map(|entry| (entry.id, &entry.namespace))
    }

    /// Why a pod has none, if others claim it.
    pub(super) fn contested(&self, pod_uid: &str) -> Option<&Contested> {
        self.contested.get(pod_uid)
    }

    /// The runtime starts a sandbox.
    pub(super) fn arrive(
        &mut self,
        pod_uid: &Arc<str>,
        sandbox: &Arc<str>,
        id: NetworkNamespaceId,
        namespace: N,
    ) -> Result<(), Contested> {
        if let Some(other) = self.holder(id, pod_uid) {
            return Err(Contested { others: [Arc::clone(other)].into() });
        }
        self.departed.remove(pod_uid);
        self.contested.remove(pod_uid);
        let origin = Origin::Runtime { sandbox: Arc::clone(sandbox) };
        match self.pods.get_mut(pod_uid) {
            // The descriptor stays the one that the captured pod is served by.
            Some(known) if known.id == id => known.origin = origin,
            Some(_) | None => self.bind(pod_uid, id, namespace, origin),
        }
        Ok(())
    }

    /// The runtime takes down a sandbox.
    pub(super) fn depart(&mut self, pod_uid: &Arc<str>, sandbox: &str) -> Ended {
        match self.pods.get(pod_uid).map(|entry| (&entry.origin, entry.id)) {
            Some((Origin::Runtime { sandbox: known }, id)) if **known == *sandbox => {
                self.pods.remove(pod_uid);
                self.departed.insert(Arc::clone(pod_uid), id);
                Ended::Pod
            }
            Some((Origin::Processes, _)) => Ended::Unsure,
            Some((Origin::Runtime { .. }, _)) | None => Ended::Other,
        }
    }

    /// Takes in what the node's processes show, and the namespaces that were opened of those pods that
    /// had none.
    pub(super) fn see(&mut self, sight: &Sight, opened: BTreeMap<Arc<str>, N>) {
        self.contested = contested(sight);
        let contested = &self.contested;
        let is_as_before = |uid: &Arc<str>, entry: &Entry<N>| {
            sight.pods.get(uid).is_some_and(|process| process.namespace == entry.id)
        };
        self.pods.retain(|uid, entry| {
            entry.origin != Origin::Processes || contested.contains_key(uid) || is_as_before(uid, entry)
        });
        for (uid, namespace) in opened {
            let Some(id) = sight.pods.get(&uid).map(|process| process.namespace) else { continue };
            let is_over = self.departed.get(&uid) == Some(&id);
            if is_over || self.pods.contains_key(&uid) {
                continue;
            }
            match self.holder(id, &uid).cloned() {
                Some(other) => drop(self.contested.insert(uid, Contested { others: [other].into() })),
                None => self.bind(&uid, id, namespace, Origin::Processes),
            }
        }
    }

    /// Lets go of pods that control knew and does not know any more. One that it has not told of so
    /// far is kept.
    pub(super) fn prune(&mut self, known: &BTreeSet<Arc<str>>) {
        self.pods.retain(|uid, entry| {
            let is_known = known.contains(uid);
            let is_over = entry.was_known && !is_known;
            entry.was_known = is_known;
            !is_over
        });
        self.departed.retain(|uid, _| known.contains(uid));
    }

    fn bind(&mut self, pod_uid: &Arc<str>, id: NetworkNamespaceId, namespace: N, origin: Origin) {
        let entry = Entry { id, namespace: Arc::new(namespace), origin, was_known: false };
        self.pods.insert(Arc::clone(pod_uid), entry);
    }

    /// Another pod that a namespace is bound to.
    fn holder(&self, id: NetworkNamespaceId, pod_uid: &str) -> Option<&Arc<str>> {
        let mut pods = self.pods.iter();
        pods.find(|(uid, entry)| ***uid != *pod_uid && entry.id == id).map(|(uid, _)| uid)
    }
}

fn contested(sight: &Sight) -> BTreeMap<Arc<str>, Contested> {
    let others = |uid: &Arc<str>, all: &BTreeSet<Arc<str>>| {
        let others = all.iter().filter(|other| *other != uid).cloned().collect();
        (Arc::clone(uid), Contested { others })
    };
    sight.contested.values().flat_map(|all| all.iter().map(move |uid| others(uid, all))).collect()
}

fn list(uids: &BTreeSet<Arc<str>>) -> String {
    uids.iter().map(|uid| &**uid).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
