//! What the CNI plugin tells of pods that start and end, and what it is answered.
//!
//! The plugin's side only sends [`CniEvent`]s and waits for the answers; what they lead to is
//! decided by [`PodManager`](super::PodManager).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::capture::netns::NetworkNamespace;

/// What the plugin was called for.
#[derive(Debug)]
pub enum CniEvent {
    /// ADD.
    Arrival(Arrival),
    /// DEL.
    Departure(Departure),
    /// CHECK.
    Check(Check),
}

/// A pod that the runtime is starting. None of its containers runs yet.
#[derive(Debug)]
pub struct Arrival {
    /// The pod's UID, as the runtime gives it. Of a static pod the runtime knows no other than
    /// that of its file; control binds the pod by the same.
    pub pod_uid: Arc<str>,
    /// Which of the pod's sandboxes this is (`CNI_CONTAINERID`): a pod may lose one and get another.
    pub sandbox: Arc<str>,
    /// The network namespace that the runtime made for it.
    pub namespace: NetworkNamespace,
    /// Takes the answer. Who asks may have given up.
    pub answer: oneshot::Sender<Arrived>,
}

/// What came of an arrival.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrived {
    /// The pod's connections are captured: it may start.
    Captured,
    /// The pod is not in the mesh: it may start.
    NotEnrolled,
    /// Control has not told of the pod within the wait.
    Unknown,
    /// The pod is in the mesh and could not be captured: why.
    Failed(String),
}

/// A pod whose network is being taken down. There may be several calls for one sandbox, also when
/// the pod has got another one by then, and there is none when the node fails.
#[derive(Debug)]
pub struct Departure {
    /// The pod's UID.
    pub pod_uid: Arc<str>,
    /// Which of the pod's sandboxes ends.
    pub sandbox: Arc<str>,
}

/// Whether a running pod still is as it was left.
#[derive(Debug)]
pub struct Check {
    /// The pod's UID.
    pub pod_uid: Arc<str>,
    /// Its network namespace.
    pub namespace: NetworkNamespace,
    /// Takes the answer. Who asks may have given up.
    pub answer: oneshot::Sender<Checked>,
}

/// What came of a check.
#[derive(Debug, PartialEq, Eq)]
pub enum Checked {
    /// The pod is captured, as it should be.
    Captured,
    /// The pod is not in the mesh, and nothing of ours is asked of it.
    NotEnrolled,
    /// The pod should be captured and is not: why.
    Missing(String),
}

/// The way of events from the plugin's socket to the manager of pods.
pub fn channel() -> (mpsc::Sender<CniEvent>, mpsc::Receiver<CniEvent>) {
    mpsc::channel(WAITING)
}

/// Events that wait for the manager; who has more waits before sending. A kubelet starts pods one
/// after the other, or a few at once.
const WAITING: usize = 64;
