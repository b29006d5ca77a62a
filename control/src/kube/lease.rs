//! Which replica of control writes: the holder of the Lease `ambit-control`.
//!
//! When to read, take, renew or give up is decided in [`election`]; here is the API server, and the
//! channel by which others learn of it.

use std::future::Future;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client, Error};
use metrics::gauge;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::FIELD_MANAGER;
use election::{Candidate, Step};

pub mod election;

/// The Lease's name.
pub const LEASE: &str = "ambit-control";

/// How long one request may take: what is lost in it leaves time for another before we give up.
const REQUEST_DEADLINE: Duration = Duration::from_secs(4);

/// Whether this replica writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// It does, and no other can.
    Leading,
    /// Another does, or nobody.
    Following,
}

/// Takes part in the election.
pub struct Elector {
    leases: Api<Lease>,
    namespace: String,
    candidate: Candidate,
    leadership: watch::Sender<Leadership>,
}

impl Elector {
    /// A candidate of this name for the Lease in `namespace`, and whether it leads.
    pub fn new(client: Client, namespace: &str, identity: &str) -> (Self, watch::Receiver<Leadership>) {
        let (leadership, seen) = watch::channel(Leadership::Following);
        let leases = Api::namespaced(client, namespace);
        let namespace = namespace.to_owned();
        (Self { leases, namespace, candidate: Candidate::new(identity), leadership }, seen)
    }

    /// Takes part until `stop`, and then gives the Lease up, so that another replica need not wait
    /// for it to expire. Whoever works as leader is told before.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        loop {
            let wake = tokio::select! {
                () = &mut stop => break,
                wake = self.step() => wake,
            };
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep_until(wake) => {}
            }
        }
        self.tell(Leadership::Following);
        self.release().await;
    }

    /// Does what is to be done now, and says when to ask again.
    async fn step(&mut self) -> Instant {
        let now = Instant::now();
        self.tell(self.candidate.leadership(now.into_std()));
        match self.candidate.step(now.into_std()) {
            Step::Wait(until) => return Instant::from_std(until),
            Step::Look => self.look(now).await,
            Step::Create => self.create(now).await,
            Step::Write(lease) => self.write(now, *lease).await,
        }
        let now = Instant::now();
        self.tell(self.candidate.leadership(now.into_std()));
        now
    }

    async fn look(&mut self, now: Instant) {
        let found = timeout_at(self.deadline(now), self.leases.get_opt(LEASE)).await;
        let at = Instant::now().into_std();
        match found {
            Ok(Ok(lease)) => self.candidate.on_seen(lease, at),
            Ok(Err(error)) => self.failed("read", &error, at),
            Err(_) => self.failed("read", &"no answer in time", at),
        }
    }

    async fn create(&mut self, now: Instant) {
        let metadata = ObjectMeta {
            name: Some(LEASE.to_owned()),
            namespace: Some(self.namespace.clone()),
            labels: Some([("app.kubernetes.io/part-of".to_owned(), "ambit".to_owned())].into()),
            ..ObjectMeta::default()
        };
        let lease = self.candidate.claim(Lease { metadata, spec: None }, Timestamp::now());
        let created = timeout_at(self.deadline(now), self.leases.create(&parameters(), &lease)).await;
        self.on_written("create", created, now);
    }

    async fn write(&mut self, now: Instant, lease: Lease) {
        let lease = self.candidate.claim(lease, Timestamp::now());
        let written = timeout_at(self.deadline(now), self.leases.replace(LEASE, &parameters(), &lease)).await;
        self.on_written("write", written, now);
    }

    fn on_written(
        &mut self,
        what: &str,
        answer: Result<Result<Lease, Error>, tokio::time::error::Elapsed>,
        sent: Instant,
    ) {
        let at = Instant::now().into_std();
        match answer {
            Ok(Ok(lease)) => self.candidate.on_written(lease, sent.into_std()),
            // Somebody was faster, or it is gone: look who and what.
            Ok(Err(Error::Api(status))) if status.code == 409 || status.code == 404 => {
                self.candidate.on_conflict();
            }
            Ok(Err(error)) => self.failed(what, &error, at),
            Err(_) => self.failed(what, &"no answer in time", at),
        }
    }

    fn failed(&mut self, what: &str, error: &dyn std::fmt::Display, at: std::time::Instant) {
        tracing::warn!(lease = LEASE, %error, "cannot {what} the Lease: check the API server and our Role");
        self.candidate.on_failure(at);
    }

    /// A request that outlives our leadership must not keep us from saying that it ended.
    fn deadline(&self, now: Instant) -> Instant {
        let deadline = now + REQUEST_DEADLINE;
        let leads_until = self.candidate.leads_until().map(Instant::from_std);
        leads_until.filter(|until| *until > now).map_or(deadline, |until| deadline.min(until))
    }

    fn tell(&self, leadership: Leadership) {
        let changed = self.leadership.send_if_modified(|current| {
            let is_new = *current != leadership;
            *current = leadership;
            is_new
        });
        if changed {
            gauge!("ambit_control_leader").set(f64::from(u8::from(leadership == Leadership::Leading)));
            tracing::info!(?leadership, lease = LEASE, "leadership changed");
        }
    }

    async fn release(self) {
        let Some(lease) = self.candidate.release() else { return };
        let parameters = parameters();
        let released =
            tokio::time::timeout(REQUEST_DEADLINE, self.leases.replace(LEASE, &parameters, &lease)).await;
        match released {
            Ok(Ok(_)) => tracing::info!(lease = LEASE, "gave the Lease up"),
            // It expires by itself.
            Ok(Err(error)) => tracing::debug!(lease = LEASE, %error, "the Lease was not given up"),
            Err(_) => tracing::debug!(lease = LEASE, "the Lease was not given up in time"),
        }
    }
}

fn parameters() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

#[cfg(test)]
mod tests;
