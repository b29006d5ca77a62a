//! Answering the CNI plugin: a pod starts when it is captured, when it is not in the mesh, or when
//! control does not tell of it in time.
//!
//! Nothing here waits for control to answer: a pod's certificate is asked for and its connections
//! wait for it, but its start does not.

use std::sync::Arc;
use std::time::Instant;

use ambit_identity::manager::Issuer;
use ambit_mesh::snapshot::Snapshot;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use super::arrival::{Arrival, Arrived, Check, Checked, CniEvent, Departure};
use super::found::Ended;
use super::plan::{Standing, standing};
use super::{PodManager, PodState};
use crate::capture;

/// A pod whose start waits for an answer.
pub(super) struct Waiting {
    pod_uid: Arc<str>,
    until: Instant,
    answer: oneshot::Sender<Arrived>,
}

impl<I: Issuer> PodManager<I> {
    pub(super) fn on_cni(&mut self, event: CniEvent, snapshot: Option<&Snapshot>) {
        match event {
            CniEvent::Arrival(arrival) => self.on_arrival(arrival),
            CniEvent::Departure(departure) => self.on_departure(&departure),
            CniEvent::Check(check) => self.on_check(check, snapshot),
        }
    }

    /// Only takes note: the round that follows captures the pod if it should be.
    fn on_arrival(&mut self, arrival: Arrival) {
        let Arrival { pod_uid, sandbox, namespace, answer } = arrival;
        let refused = if self.is_no_pods(namespace.id()) {
            Some("its network namespace is the node's own".to_owned())
        } else {
            let id = namespace.id();
            self.found.arrive(&pod_uid, &sandbox, id, namespace).err().map(|contested| contested.to_string())
        };
        if let Some(reason) = refused {
            warn!(pod = %pod_uid, %sandbox, reason, "a pod that starts cannot be bound to its network namespace");
            // Who asked may have given up waiting.
            let _ = answer.send(Arrived::Failed(reason));
            return;
        }
        let until = Instant::now() + self.settings.arrival_wait;
        self.waiting.push(Waiting { pod_uid, until, answer });
    }

    fn on_departure(&mut self, departure: &Departure) {
        let Departure { pod_uid, sandbox } = departure;
        match self.found.depart(pod_uid, sandbox) {
            Ended::Pod => {
                debug!(pod = %pod_uid, %sandbox, "sandbox gone");
                self.forget_pod(pod_uid);
            }
            Ended::Other => {}
            Ended::Unsure => {
                self.unsure.insert(Arc::clone(pod_uid));
                self.schedule.hurry(Instant::now());
            }
        }
    }

    fn on_check(&self, check: Check, snapshot: Option<&Snapshot>) {
        let Check { pod_uid, namespace, answer } = check;
        let standing =
            snapshot.map_or(Standing::Unknown, |snapshot| standing(snapshot, &self.settings.node, &pod_uid));
        let checked = match standing {
            Standing::Unknown | Standing::NotEnrolled => Checked::NotEnrolled,
            Standing::Enrolled(uid) => match self.pods.get(&uid).map(|pod| &pod.state) {
                Some(PodState::Captured(netns)) if netns.id() != namespace.id() => {
                    Checked::Missing("another network namespace is captured for this pod".to_owned())
                }
                Some(PodState::Captured(netns)) => match capture::is_in_place(netns) {
                    Ok(true) => Checked::Captured,
                    Ok(false) => Checked::Missing("its redirection was removed".to_owned()),
                    Err(error) => Checked::Missing(error.to_string()),
                },
                Some(PodState::Failed(failure)) => Checked::Missing(failure.to_string()),
                Some(PodState::Leaving(_)) | None => Checked::Missing("it is not captured".to_owned()),
            },
        };
        // Who asked may have given up waiting.
        let _ = answer.send(checked);
    }

    /// Answers those pods that an answer is known for, and those that have waited long enough.
    pub(super) fn answer_waiting(&mut self, snapshot: Option<&Snapshot>) {
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.waiting) {
            match self.arrived(&waiting.pod_uid, snapshot, waiting.until <= now) {
                None => self.waiting.push(waiting),
                Some(arrived) => {
                    info!(pod = %waiting.pod_uid, ?arrived, "a pod starts");
                    // Who asked may have given up waiting.
                    let _ = waiting.answer.send(arrived);
                }
            }
        }
    }

    fn arrived(&self, pod_uid: &str, snapshot: Option<&Snapshot>, is_late: bool) -> Option<Arrived> {
        let standing =
            snapshot.map_or(Standing::Unknown, |snapshot| standing(snapshot, &self.settings.node, pod_uid));
        match standing {
            Standing::NotEnrolled => Some(Arrived::NotEnrolled),
            Standing::Unknown => is_late.then_some(Arrived::Unknown),
            Standing::Enrolled(uid) => match self.pods.get(&uid).map(|pod| &pod.state) {
                Some(PodState::Captured(_)) => Some(Arrived::Captured),
                Some(PodState::Failed(failure)) => Some(Arrived::Failed(failure.to_string())),
                Some(PodState::Leaving(_)) | None => is_late.then(|| {
                    let reason = self.unbound.get(&uid).and_then(|pod| pod.place.as_ref().err());
                    Arrived::Failed(
                        reason.map_or_else(|| "it was not captured in time".to_owned(), ToString::to_string),
                    )
                }),
            },
        }
    }
}
