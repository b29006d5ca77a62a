//! Keeps a valid certificate for every identity of this node.
//!
//! It owns one task per identity, the limit on concurrent requests and the certificates at rest.
//! When to renew is `schedule`'s decision; which identities there are is the caller's.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ambit_mesh::identity::SpiffeId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use crate::certificate::WorkloadCertificate;
use crate::clock::WallClock;
use crate::store::CertificateStore;
use crate::tls::{TlsIdentity, TrustPolicy};
use gate::Gate;
use renewal::{Custody, Renewal};
pub use status::{CertificateStatus, HeldCertificate};

mod gate;
mod renewal;
mod status;

/// Requests to the CA that may be under way at once, as in Istio's agent.
const CONCURRENT_FETCHES: usize = 8;

/// Whoever issues certificates: the CA's client, or a test's own authority.
pub trait Issuer: Send + Sync + 'static {
    /// Why no certificate was issued.
    type Error: std::error::Error + Send + Sync + 'static;

    /// One attempt, with a deadline of its own.
    fn issue(&self, id: &SpiffeId) -> impl Future<Output = Result<WorkloadCertificate, Self::Error>> + Send;
}

/// What a manager is given besides its issuer.
#[derive(Debug, Default)]
pub struct ManagerConfig {
    /// Which trust domains may connect to the identities.
    pub trust: TrustPolicy,
    /// Where certificates wait for a restart; without it they live in memory alone.
    pub store: Option<CertificateStore>,
    /// What certificates' validity is measured with.
    pub clock: WallClock,
}

/// The certificates of a node's identities, kept valid until they are forgotten.
///
/// Must be used inside a tokio runtime, whose timers and tasks it uses. Dropping it ends all
/// renewals.
pub struct CertificateManager<I> {
    shared: Arc<Shared<I>>,
    tracked: Mutex<BTreeMap<SpiffeId, Tracked>>,
}

/// What the renewal tasks have in common.
struct Shared<I> {
    issuer: I,
    trust: TrustPolicy,
    store: Option<CertificateStore>,
    /// The store is another process's now.
    released: AtomicBool,
    clock: WallClock,
    gate: Arc<Gate>,
    generations: AtomicU64,
}

impl<I> Shared<I> {
    /// The store, as long as it is this process's.
    fn store(&self) -> Option<&CertificateStore> {
        self.store.as_ref().filter(|_| !self.released.load(Ordering::Acquire))
    }
}

/// One identity.
struct Tracked {
    identity: watch::Receiver<Option<Arc<TlsIdentity>>>,
    requested: watch::Sender<bool>,
    custody: Arc<Custody>,
    task: JoinHandle<()>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<I: Issuer> CertificateManager<I> {
    /// A manager without identities.
    pub fn new(issuer: I, config: ManagerConfig) -> Self {
        let ManagerConfig { trust, store, clock } = config;
        let gate = Gate::new(CONCURRENT_FETCHES);
        let (generations, released) = (AtomicU64::new(1), AtomicBool::new(false));
        let shared = Arc::new(Shared { issuer, trust, store, released, clock, gate, generations });
        Self { shared, tracked: Mutex::default() }
    }

    /// Starts to keep a certificate for `id`, ahead of its use. Does nothing for one that is kept
    /// already: identities are not counted, so [`CertificateManager::forget`] is for the caller
    /// who knows that no workload uses it any more.
    pub fn track(&self, id: &SpiffeId) {
        self.with_tracked(id, |_| ());
    }

    /// The identity's TLS configurations, now and after each renewal; starts to keep them if
    /// nobody asked before.
    ///
    /// `None` until the first certificate arrives (which is fetched before those that are only
    /// tracked) and again if one expires unrenewed. Closed when the identity is forgotten.
    pub fn subscribe(&self, id: &SpiffeId) -> watch::Receiver<Option<Arc<TlsIdentity>>> {
        self.with_tracked(id, |tracked| {
            tracked.requested.send_replace(true);
            tracked.identity.clone()
        })
    }

    /// Ends the renewal of `id` and removes its stored key.
    pub fn forget(&self, id: &SpiffeId) {
        let tracked = lock(&self.tracked).remove(id);
        if let Some(tracked) = tracked {
            tracked.custody.end(id, self.shared.store());
        }
    }

    /// Leaves the store to another process, which has taken over from this one: certificates are still
    /// renewed, and from now on live in memory alone.
    pub fn release_store(&self) {
        self.shared.released.store(true, Ordering::Release);
    }

    /// Forgets every identity but `ids`, and removes the stored keys that an earlier process left
    /// of others.
    pub fn keep_only(&self, ids: &BTreeSet<SpiffeId>) {
        let gone: Vec<SpiffeId> =
            lock(&self.tracked).keys().filter(|id| !ids.contains(id)).cloned().collect();
        for id in &gone {
            self.forget(id);
        }
        if let Some(Err(error)) = self.shared.store().map(|store| store.keep_only(ids)) {
            warn!(error = status::with_causes(&error), "stored certificates of other workloads remain");
        }
    }

    /// The state of every identity, without secrets, in order.
    pub fn statuses(&self) -> Vec<CertificateStatus> {
        lock(&self.tracked).values().map(|tracked| tracked.custody.status()).collect()
    }

    fn with_tracked<T>(&self, id: &SpiffeId, then: impl FnOnce(&Tracked) -> T) -> T {
        let mut tracked = lock(&self.tracked);
        then(tracked.entry(id.clone()).or_insert_with(|| self.start(id)))
    }

    fn start(&self, id: &SpiffeId) -> Tracked {
        let (publish, identity) = watch::channel(None);
        let (requested, request) = watch::channel(false);
        let custody = Arc::new(Custody::new(id));
        let renewal = Renewal::new(id.clone(), self.shared.clone(), publish, request, custody.clone());
        Tracked { identity, requested, custody, task: tokio::spawn(renewal.run()) }
    }
}

/// Nothing panics while it holds one of this module's locks, so a poisoned one is as good as new.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
