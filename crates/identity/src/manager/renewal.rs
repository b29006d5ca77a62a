//! The task that keeps one identity's certificate valid.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use ambit_mesh::identity::SpiffeId;
use tokio::sync::watch;
use tracing::{info, warn};

use super::gate::{Turn, Urgency};
use super::status::with_causes;
use super::{CertificateStatus, HeldCertificate, Issuer, Shared, lock};
use crate::certificate::WorkloadCertificate;
use crate::schedule::{Next, Schedule};
use crate::store::CertificateStore;
use crate::tls::TlsIdentity;

pub(super) struct Renewal<I> {
    id: SpiffeId,
    shared: Arc<Shared<I>>,
    publish: watch::Sender<Option<Arc<TlsIdentity>>>,
    requested: watch::Receiver<bool>,
    custody: Arc<Custody>,
    schedule: Schedule,
}

impl<I: Issuer> Renewal<I> {
    pub(super) fn new(
        id: SpiffeId,
        shared: Arc<Shared<I>>,
        publish: watch::Sender<Option<Arc<TlsIdentity>>>,
        requested: watch::Receiver<bool>,
        custody: Arc<Custody>,
    ) -> Self {
        Self { id, shared, publish, requested, custody, schedule: Schedule::default() }
    }

    pub(super) async fn run(mut self) {
        let mut next = self.restore();
        loop {
            if let Some(next) = next {
                self.custody.planned(next);
                self.unless_expired(self.shared.clock.reaches(next.at())).await;
            }
            next = Some(self.attempt().await);
        }
    }

    /// Takes up what an earlier process left, if it is still good.
    fn restore(&mut self) -> Option<Next> {
        let store = self.shared.store()?;
        let now = self.shared.clock.now();
        let kept = store.load(&self.id, now).unwrap_or_else(|error| {
            warn!(identity = %self.id, error = with_causes(&error), "the stored certificate is not used");
            None
        })?;
        // When it was received is not known any more; its own start is at most a little earlier.
        self.hold(&kept, kept.not_before(), now)
            .inspect(|_| info!(identity = %self.id, serial = kept.serial(), "stored certificate taken up"))
            .inspect_err(
                |reason| warn!(identity = %self.id, error = reason, "the stored certificate is not used"),
            )
            .ok()
    }

    async fn attempt(&mut self) -> Next {
        let issued = self
            .unless_expired(async {
                let _turn = self.turn().await;
                self.custody.under_way();
                self.shared.issuer.issue(&self.id).await
            })
            .await;
        let now = self.shared.clock.now();
        match issued.map_err(|error| with_causes(&error)).and_then(|issued| self.take(&issued, now)) {
            Ok(next) => next,
            Err(reason) => self.fail(reason, now),
        }
    }

    /// Waits for a place among the concurrent requests; moves up when somebody comes to wait for
    /// this identity.
    async fn turn(&self) -> Turn {
        let gate = &self.shared.gate;
        if self.publish.borrow().is_some() {
            return gate.enter(Urgency::Renewal).await;
        }
        let mut requested = self.requested.clone();
        tokio::select! {
            biased;
            // Also ends when the identity is forgotten; this task is then about to be aborted.
            () = async { drop(requested.wait_for(|requested| *requested).await) } => {}
            turn = gate.enter(Urgency::WarmUp) => return turn,
        }
        gate.enter(Urgency::Requested).await
    }

    fn take(&mut self, issued: &WorkloadCertificate, now: SystemTime) -> Result<Next, String> {
        let next = self.hold(issued, now, now)?;
        self.custody.keep(issued, self.shared.store());
        info!(identity = %self.id, serial = issued.serial(), "certificate issued");
        Ok(next)
    }

    fn hold(
        &mut self,
        certificate: &WorkloadCertificate,
        from: SystemTime,
        now: SystemTime,
    ) -> Result<Next, String> {
        let generation = self.shared.generations.fetch_add(1, Ordering::Relaxed);
        let identity = TlsIdentity::new(certificate, generation, &self.shared.trust)
            .map_err(|error| with_causes(&error))?;
        let (schedule, next) = Schedule::issued(from, certificate.not_after(), now, &mut rand::rng());
        self.schedule = schedule;
        self.custody.held(certificate, generation);
        self.publish.send_replace(Some(Arc::new(identity)));
        Ok(next)
    }

    fn fail(&mut self, reason: String, now: SystemTime) -> Next {
        warn!(identity = %self.id, error = reason, "no certificate issued; trying again");
        let (schedule, next) = self.schedule.failed(now, &mut rand::rng());
        self.schedule = schedule;
        self.custody.failed(reason);
        next
    }

    /// Does `work`; if the held certificate expires meanwhile, withdraws it and goes on.
    async fn unless_expired<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        let held_until = self.publish.borrow().as_ref().map(|identity| identity.not_after);
        if let Some(not_after) = held_until {
            tokio::select! {
                biased;
                output = &mut work => return output,
                () = self.shared.clock.reaches(not_after) => self.withdraw(),
            }
        }
        work.await
    }

    fn withdraw(&self) {
        warn!(identity = %self.id, "the certificate expired before another was issued");
        self.custody.expired();
        self.publish.send_replace(None);
    }
}

/// An identity's status and its place in the store, under one lock: once the identity is forgotten,
/// nothing is stored for it any more.
pub(super) struct Custody {
    state: Mutex<State>,
}

struct State {
    status: CertificateStatus,
    ended: bool,
}

impl Custody {
    pub(super) fn new(id: &SpiffeId) -> Self {
        let status =
            CertificateStatus { id: id.clone(), certificate: None, next_attempt: None, last_error: None };
        Self { state: Mutex::new(State { status, ended: false }) }
    }

    pub(super) fn status(&self) -> CertificateStatus {
        lock(&self.state).status.clone()
    }

    /// The identity is forgotten: removes what is stored.
    pub(super) fn end(&self, id: &SpiffeId, store: Option<&CertificateStore>) {
        let mut state = lock(&self.state);
        state.ended = true;
        if let Some(Err(error)) = store.map(|store| store.remove(id)) {
            warn!(identity = %id, error = with_causes(&error), "a stored key of a workload that is gone remains");
        }
    }

    fn keep(&self, certificate: &WorkloadCertificate, store: Option<&CertificateStore>) {
        let state = lock(&self.state);
        let Some(store) = store.filter(|_| !state.ended) else { return };
        if let Err(error) = store.save(certificate) {
            let error = with_causes(&error);
            warn!(identity = %certificate.id(), error, "the certificate will not survive a restart");
        }
    }

    fn held(&self, certificate: &WorkloadCertificate, generation: u64) {
        let mut state = lock(&self.state);
        state.status.last_error = None;
        state.status.certificate = Some(HeldCertificate {
            serial: certificate.serial().to_owned(),
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
            generation,
        });
    }

    fn planned(&self, next: Next) {
        lock(&self.state).status.next_attempt = Some(next.at());
    }

    fn under_way(&self) {
        lock(&self.state).status.next_attempt = None;
    }

    fn failed(&self, reason: String) {
        lock(&self.state).status.last_error = Some(reason);
    }

    fn expired(&self) {
        lock(&self.state).status.certificate = None;
    }
}
