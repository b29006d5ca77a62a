//! The open inbound connections of one worker, so that a policy change can end those it forbids.
//!
//! Each connection's relay holds a [`Stop`]; nothing on the path of its octets looks in here.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use tokio::sync::Notify;

use ambit_hbone::relay::Stop;
use ambit_mesh::policy::{Connection, Denied, authorize};
use ambit_mesh::snapshot::Snapshot;
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

impl Flows {
    /// Lists a connection of `pod`; `authorized` is what its policies are asked about again.
    pub fn list(&self, pod: &WorkloadUid, authorized: Option<Connection>) -> Listed {
        let stop = Stop::default();
        let mut table = self.table.borrow_mut();
        let key = table.next;
        table.next += 1;
        table.flows.insert(key, Flow { pod: pod.clone(), authorized, stop: stop.clone() });
        Listed { flows: self.clone(), key, stop }
    }

    /// Asks the policies of `snapshot` about every inbound connection and stops what they deny.
    pub fn reauthorize(&self, snapshot: &Snapshot) {
        for flow in self.table.borrow().flows.values() {
            // A pod that the snapshot does not know is on its way out: its removal decides.
            let (Some(connection), Some(workload)) = (&flow.authorized, snapshot.workload(&flow.pod)) else {
                continue;
            };
            if let Err(denied) = authorize(snapshot, workload, connection) {
                flow.stop.stop(StopReason::Denied(denied));
            }
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

    /// Open connections of a pod.
    pub fn of_pod(&self, pod: &WorkloadUid) -> usize {
        self.table.borrow().flows.values().filter(|flow| flow.pod == *pod).count()
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
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.flows.table.borrow_mut().flows.remove(&self.key);
        if self.flows.is_empty() {
            self.flows.emptied.notify_waiters();
        }
    }
}
