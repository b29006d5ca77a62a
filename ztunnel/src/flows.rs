//! The open connections of one worker, so that a policy change can end those it forbids and an end of
//! the worker can wait for all of them.
//!
//! Each connection's relay holds a [`Stop`]; nothing on the path of its octets looks in here.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tokio::sync::Notify;

use ambit_hbone::relay::Stop;
use ambit_mesh::policy::{Connection, Denied, authorize};
use ambit_mesh::snapshot::{PolicyStamp, Snapshot};
use ambit_mesh::workload::WorkloadUid;

/// Why this proxy ended a connection that was open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// A policy no longer allows it.
    Denied(Denied),
    /// The pod is gone, or is no longer one of this proxy's.
    PodGone,
    /// The proxy is going away and the time to finish is over.
    Drained,
}

/// Open connections of a worker, in order of their opening. Clones share them.
#[derive(Clone, Default)]
pub struct Flows {
    table: Rc<RefCell<Table>>,
    emptied: Rc<Notify>,
}

#[derive(Default)]
struct Table {
    next: u64,
    flows: BTreeMap<u64, Flow>,
    inbound: BTreeMap<WorkloadUid, Inbound>,
    /// Connections that were accepted and are not listed yet.
    pending: BTreeMap<WorkloadUid, usize>,
    /// Tunnels of others, on which the next connection may come.
    tunnels: usize,
}

/// The inbound connections of one pod.
#[derive(Default)]
struct Inbound {
    /// The policies that all of them were last asked about; `None` before the first time.
    asked: Option<PolicyStamp>,
    flows: BTreeSet<u64>,
}

struct Flow {
    pod: WorkloadUid,
    /// What was authorized; `None` for an outbound connection, which its destination authorizes.
    authorized: Option<Connection>,
    stop: Stop<StopReason>,
}

/// Keeps a connection listed while it lives.
pub struct Listed {
    flows: Flows,
    key: u64,
    /// To be polled by the connection's relay.
    pub stop: Stop<StopReason>,
}

/// Counts an accepted connection until it is listed, a tunnel, or over: it may be asking for a
/// certificate or dialling, and nothing else would know that it is there.
pub struct Pending {
    flows: Flows,
    pod: WorkloadUid,
}

/// Counts a tunnel of somebody else's while it lives.
pub struct CountedTunnel(Flows);

impl Flows {
    /// Counts a connection from its accept on.
    pub fn accept(&self, pod: &WorkloadUid) -> Pending {
        *self.table.borrow_mut().pending.entry(pod.clone()).or_default() += 1;
        Pending { flows: self.clone(), pod: pod.clone() }
    }

    /// Counts a tunnel that was accepted.
    pub fn tunnel(&self) -> CountedTunnel {
        self.table.borrow_mut().tunnels += 1;
        CountedTunnel(self.clone())
    }

    /// Lists a connection of `pod`; `authorized` is what its policies are asked about again.
    pub fn list(&self, pod: &WorkloadUid, authorized: Option<Connection>) -> Listed {
        let stop = Stop::default();
        let mut table = self.table.borrow_mut();
        let key = table.next;
        table.next += 1;
        if authorized.is_some() {
            // It was authorized in this very step, so not by older policies than the others of its
            // pod. If by newer ones, those are asked before long, and all of the pod with them.
            table.inbound.entry(pod.clone()).or_default().flows.insert(key);
        }
        table.flows.insert(key, Flow { pod: pod.clone(), authorized, stop: stop.clone() });
        Listed { flows: self.clone(), key, stop }
    }

    /// Asks the policies of `snapshot` about every inbound connection and stops what they deny.
    ///
    /// Connections of a pod whose policies are those of the last time are not asked about: a worker
    /// must not pause for thousands of them whenever a workload anywhere changes.
    pub fn reauthorize(&self, snapshot: &Snapshot) {
        let Table { flows, inbound, .. } = &mut *self.table.borrow_mut();
        for (pod, inbound) in inbound {
            // A pod that the snapshot does not know is on its way out: its removal decides.
            let Some(workload) = snapshot.workload(pod) else { continue };
            let stamp = snapshot.policy_stamp(workload);
            if inbound.asked.as_ref().is_some_and(|asked| stamp.is_still(asked)) {
                continue;
            }
            for flow in inbound.flows.iter().filter_map(|key| flows.get(key)) {
                let Some(connection) = &flow.authorized else { continue };
                if let Err(denied) = authorize(snapshot, workload, connection) {
                    flow.stop.stop(StopReason::Denied(denied));
                }
            }
            inbound.asked = Some(stamp);
        }
    }

    /// Stops every connection of a pod.
    pub fn stop_pod(&self, pod: &WorkloadUid, reason: &StopReason) {
        let table = self.table.borrow();
        table.flows.values().filter(|flow| flow.pod == *pod).for_each(|flow| flow.stop.stop(reason.clone()));
    }

    /// Stops every connection.
    pub fn stop_all(&self, reason: &StopReason) {
        self.table.borrow().flows.values().for_each(|flow| flow.stop.stop(reason.clone()));
    }

    /// Open connections of a pod, also those that are being opened.
    pub fn of_pod(&self, pod: &WorkloadUid) -> usize {
        let table = self.table.borrow();
        let open = table.flows.values().filter(|flow| flow.pod == *pod).count();
        open + table.pending.get(pod).copied().unwrap_or(0)
    }

    /// Open connections.
    pub fn len(&self) -> usize {
        self.table.borrow().flows.len()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until none is open.
    pub async fn emptied(&self) {
        while !self.is_empty() {
            // One thread: nothing ends between the look and the wait.
            self.emptied.notified().await;
        }
    }

    /// Waits until none is open, none is being opened, and no tunnel is left on which another could
    /// come.
    pub async fn over(&self) {
        while !self.table.borrow().is_over() {
            self.emptied.notified().await;
        }
    }
}

impl Table {
    fn is_over(&self) -> bool {
        self.flows.is_empty() && self.pending.is_empty() && self.tunnels == 0
    }

    fn forget(&mut self, key: u64) {
        let Some(flow) = self.flows.remove(&key) else { return };
        if let Entry::Occupied(mut inbound) = self.inbound.entry(flow.pod) {
            inbound.get_mut().flows.remove(&key);
            if inbound.get().flows.is_empty() {
                inbound.remove();
            }
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.flows.table.borrow_mut().forget(self.key);
        if self.flows.is_empty() {
            self.flows.emptied.notify_waiters();
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut table = self.flows.table.borrow_mut();
        if let Some(count) = table.pending.get_mut(&self.pod) {
            *count -= 1;
            if *count == 0 {
                table.pending.remove(&self.pod);
            }
        }
        if table.is_over() {
            self.flows.emptied.notify_waiters();
        }
    }
}

impl Drop for CountedTunnel {
    fn drop(&mut self) {
        let mut table = self.0.table.borrow_mut();
        table.tunnels -= 1;
        if table.is_over() {
            self.0.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::task::{Context, Waker};

    use ambit_mesh::policy::{Action, AuthorizationPolicy, Peer, PolicyName, PolicyScope, Rule};
    use ambit_mesh::snapshot::{Change, State};

    use super::*;
    use crate::samples::workload;

    fn policy(name: &str, scope: PolicyScope, rules: Vec<Rule>) -> Change {
        let name = PolicyName { namespace: "shop".into(), name: name.into() };
        Change::Policy(Arc::new(AuthorizationPolicy {
            name,
            scope,
            action: Action::Deny,
            rules,
            dry_run: false,
        }))
    }

    fn is_stopped(listed: &Listed) -> bool {
        listed.stop.poll_stopped(&Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn connections_are_asked_about_when_policies_of_their_pod_change() {
        let denies_all = || vec![Rule::default()];
        let changes = [
            ("one of its namespace", policy("new", PolicyScope::Namespace, denies_all())),
            ("one of the mesh", policy("new", PolicyScope::Global, denies_all())),
            ("one that it names", policy("selecting", PolicyScope::WorkloadSelector, denies_all())),
        ];
        for (case, change) in changes {
            let web = Arc::new(workload("web"));
            let mut state = State::default();
            state.apply([
                Change::Workload(Arc::clone(&web)),
                policy("selecting", PolicyScope::WorkloadSelector, Vec::new()),
            ]);
            let connection = Connection {
                peer: Peer::Unauthenticated,
                source_ip: [10, 0, 0, 9].into(),
                destination: ([10, 0, 0, 1], 80).into(),
                through_waypoint: false,
            };
            let flows = Flows::default();
            let listed = flows.list(&web.uid, Some(connection.clone()));
            flows.reauthorize(&state.snapshot());
            // Another workload changes, and a connection comes that is not asked about again.
            state.apply([Change::Workload(Arc::new(workload("other")))]);
            flows.reauthorize(&state.snapshot());
            let later = flows.list(&web.uid, Some(connection));
            assert_eq!([&listed, &later].map(is_stopped), [false; 2], "{case}");
            state.apply([change]);
            flows.reauthorize(&state.snapshot());
            assert_eq!([&listed, &later].map(is_stopped), [true; 2], "{case}");
            drop((listed, later));
            assert!(flows.is_empty() && flows.table.borrow().inbound.is_empty());
        }
    }

    /// A worker that ended meanwhile would cut the connection, or the next one on the tunnel.
    #[tokio::test]
    async fn it_is_over_when_nothing_is_open_nor_can_come() {
        let flows = Flows::default();
        let pod = workload("web").uid;
        let is_over = async || {
            tokio::select! {
                biased;
                () = flows.over() => true,
                () = tokio::task::yield_now() => false,
            }
        };
        let pending = flows.accept(&pod);
        assert_eq!((is_over().await, flows.of_pod(&pod)), (false, 1));
        let listed = flows.list(&pod, None);
        drop(pending);
        let tunnel = flows.tunnel();
        assert_eq!((is_over().await, flows.of_pod(&pod)), (false, 1));
        drop(listed);
        assert_eq!((is_over().await, flows.of_pod(&pod)), (false, 0), "the pod may leave, the worker not");
        drop(tunnel);
        assert!(is_over().await);
    }
}
