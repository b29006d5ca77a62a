//! Which endpoint of a backend is tried, and which after it: those that were silent come last.

use std::rc::Rc;
use std::sync::Arc;

use ambit_mesh::decide::OutboundDecision;
use ambit_mesh::http::{Backend, UpstreamError, WaypointSnapshot};
use ambit_mesh::workload::{Workload, WorkloadUid};
use ambit_runtime::suspects::Asked;
use tokio::task::spawn_local;

use super::Carrier;
use super::dial::{DialError, try_carrier};
use crate::worker::Worker;

/// The endpoints of a backend, as one request or connection tries them.
pub struct Choice<'a> {
    worker: &'a Rc<Worker>,
    snapshot: &'a WaypointSnapshot,
    backend: &'a Backend,
    tried: Vec<WorkloadUid>,
    /// They are taken only where there is no other.
    suspects: Vec<WorkloadUid>,
}

impl<'a> Choice<'a> {
    /// None was tried so far.
    pub fn new(worker: &'a Rc<Worker>, snapshot: &'a WaypointSnapshot, backend: &'a Backend) -> Self {
        let suspects = worker.shared.suspects.current();
        Self { worker, snapshot, backend, tried: Vec::new(), suspects }
    }

    /// The next one to try.
    ///
    /// # Errors
    /// When none is left.
    pub fn choose(&self) -> Result<OutboundDecision, UpstreamError> {
        self.without(&self.tried)
    }

    /// Whether another one could be tried in place of this one. To be asked once it is silent.
    pub fn is_other_there(&self, chosen: &OutboundDecision) -> bool {
        let Some(endpoint) = &chosen.endpoint else { return false };
        let tried: Vec<_> = self.tried.iter().chain([&endpoint.uid]).cloned().collect();
        let is_suspect = |one: &Arc<Workload>| self.suspects.contains(&one.uid);
        // No suspect is waited for less because of another one.
        let is_better = |other: OutboundDecision| {
            is_suspect(endpoint) || !other.endpoint.as_ref().is_some_and(is_suspect)
        };
        self.may_go_on() && self.without(&tried).is_ok_and(is_better)
    }

    /// It answers.
    pub fn answered(&self, chosen: &OutboundDecision) {
        if let Some(endpoint) = &chosen.endpoint {
            self.worker.shared.suspects.clear(&endpoint.uid);
        }
    }

    /// It could not be connected to: whether another one may be tried.
    pub fn failed(&mut self, chosen: &OutboundDecision, error: &DialError) -> bool {
        if error.is_silence() {
            self.suspect(chosen);
        }
        let may_go_on = self.may_go_on() && !error.is_denied();
        match &chosen.endpoint {
            Some(endpoint) if may_go_on => self.tried.push(endpoint.uid.clone()),
            Some(_) | None => return false,
        }
        true
    }

    /// It gives no sign of life: others are taken first until it does.
    pub fn suspect(&self, chosen: &OutboundDecision) {
        let Some(endpoint) = &chosen.endpoint else { return };
        let Some(suspicion) = self.worker.shared.suspects.note(&endpoint.uid) else { return };
        let (worker, carrier) = (Rc::clone(self.worker), Carrier::of(chosen));
        spawn_local(suspicion.follow_up(move || {
            let (worker, carrier) = (Rc::clone(&worker), carrier.clone());
            async move {
                match try_carrier(&worker, &carrier).await {
                    Err(DialError::NoIdentity) => Asked::Nobody,
                    Err(error) if error.is_silence() => Asked::Silent,
                    Ok(()) | Err(_) => Asked::Answered,
                }
            }
        }));
    }

    fn without(&self, tried: &[WorkloadUid]) -> Result<OutboundDecision, UpstreamError> {
        let rng = &mut *self.worker.rng.borrow_mut();
        self.snapshot.upstream(self.backend, tried, &self.suspects, rng)
    }

    fn may_go_on(&self) -> bool {
        self.tried.len() + 1 < MAX_ENDPOINTS_TRIED
    }
}

/// Endpoints that one request or connection tries before it gives up.
const MAX_ENDPOINTS_TRIED: usize = 3;
