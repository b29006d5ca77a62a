//! Which network namespace is a pod's, of those that its processes are in. Pure.
//!
//! The oldest process decides: the runtime starts the sandbox's first, in the namespace that it made
//! for the pod, and what a container does later, such as making a namespace of its own, does not
//! count. A process in the node's namespace, or in the agent's, decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::capture::netns::NetworkNamespaceId;

/// A process of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) id: u32,
    /// When it was started, in ticks since the node was: with the id it is unique.
    pub(super) started: u64,
    /// The pod, by its cgroup.
    pub(super) pod_uid: Arc<str>,
    /// The namespace that it is in.
    pub(super) namespace: NetworkNamespaceId,
}

/// What is known of the pods' namespaces at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sight {
    /// By pod, the process that decides.
    pub(super) pods: BTreeMap<Arc<str>, Process>,
    /// Namespaces that are claimed for several pods: none of them is to have it.
    pub(super) contested: BTreeMap<NetworkNamespaceId, BTreeSet<Arc<str>>>,
}

/// Looks at all processes of pods. `not_pods` are the namespaces of the node and of the agent.
pub(super) fn sight(processes: impl IntoIterator<Item = Process>, not_pods: &[NetworkNamespaceId]) -> Sight {
    let mut pods: BTreeMap<Arc<str>, Process> = BTreeMap::new();
    for process in processes.into_iter().filter(|process| !not_pods.contains(&process.namespace)) {
        let age = |process: &Process| (process.started, process.id);
        let is_younger = pods.get(&process.pod_uid).is_some_and(|oldest| age(oldest) < age(&process));
        if !is_younger {
            pods.insert(Arc::clone(&process.pod_uid), process);
        }
    }
    let mut claims: BTreeMap<NetworkNamespaceId, BTreeSet<Arc<str>>> = BTreeMap::new();
    for (uid, process) in &pods {
        claims.entry(process.namespace).or_default().insert(Arc::clone(uid));
    }
    claims.retain(|_, uids| uids.len() > 1);
    pods.retain(|_, process| !claims.contains_key(&process.namespace));
    Sight { pods, contested: claims }
}

/// When a process was started, from its `/proc/<pid>/stat`: field 22. The second field is its name in
/// parentheses, which may itself contain spaces and parentheses.
pub(super) fn started(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NetworkNamespaceId = NetworkNamespaceId { device: 4, inode: 1 };

    fn namespace(inode: u64) -> NetworkNamespaceId {
        NetworkNamespaceId { device: 4, inode }
    }

    fn process(id: u32, started: u64, pod: &str, inode: u64) -> Process {
        Process { id, started, pod_uid: pod.into(), namespace: namespace(inode) }
    }

    fn bound(processes: Vec<Process>) -> Vec<(String, u64)> {
        let sight = sight(processes, &[NODE]);
        sight.pods.iter().map(|(uid, process)| (uid.to_string(), process.namespace.inode)).collect()
    }

    fn pods(expected: &[(&str, u64)]) -> Vec<(String, u64)> {
        expected.iter().map(|(uid, inode)| ((*uid).to_owned(), *inode)).collect()
    }

    #[test]
    fn the_oldest_process_of_a_pod_says_which_namespace_is_its_own() {
        for (rule, processes, expected) in [
            (
                "a pod's processes share the sandbox's",
                vec![process(11, 6, "a", 20), process(10, 5, "a", 20)],
                vec![("a", 20)],
            ),
            (
                "a container that makes a namespace of its own gains nothing, whatever its id",
                vec![process(9, 6, "a", 21), process(10, 5, "a", 20)],
                vec![("a", 20)],
            ),
            (
                "of two that started in one tick the first by its id",
                vec![process(11, 5, "a", 21), process(10, 5, "a", 20)],
                vec![("a", 20)],
            ),
            ("a pod of the node's network has no namespace", vec![process(10, 5, "a", 1)], vec![]),
            (
                "a process that is on its way into the sandbox still is in the node's",
                vec![process(10, 5, "a", 1), process(11, 6, "a", 20)],
                vec![("a", 20)],
            ),
            (
                "a process that entered another pod's namespace is younger than its own sandbox",
                vec![process(10, 5, "a", 20), process(11, 6, "b", 21), process(12, 7, "a", 21)],
                vec![("a", 20), ("b", 21)],
            ),
        ] {
            assert_eq!(bound(processes), pods(&expected), "{rule}");
        }
    }

    #[test]
    fn a_namespace_that_two_pods_claim_is_bound_to_neither() {
        let processes = [process(10, 5, "a", 20), process(11, 6, "b", 20), process(12, 7, "c", 21)];
        let sight = sight(processes, &[NODE]);
        assert_eq!(sight.pods.keys().map(|uid| &**uid).collect::<Vec<_>>(), ["c"]);
        let uids = BTreeSet::from(["a".into(), "b".into()]);
        assert_eq!(sight.contested, BTreeMap::from([(namespace(20), uids)]));
    }

    #[test]
    fn the_start_is_read_past_whatever_a_process_calls_itself() {
        let fields = "S 1 10 10 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1024 77";
        for name in ["pause", "a b", "x) R 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1"] {
            assert_eq!(started(&format!("10 ({name}) {fields}")), Some(987_654), "{name}");
        }
        assert_eq!(started("10 (pause) S 1"), None);
        assert_eq!(started(""), None);
    }
}
