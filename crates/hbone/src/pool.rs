//! The tunnels of one worker: who shares one, when another is dialled, when one is let go.
//!
//! A key names everything that must be equal for two flows to share a tunnel (whose certificate it
//! was dialled with, who was expected, the address). Flows that ask for a key while it is being
//! dialled wait for that dial instead of starting their own. The choice itself is [`policy`].

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::hash::Hash;
use std::rc::Rc;

use tokio::sync::oneshot;

use crate::codec::{ConnectRequest, OpenError, Reason};
use crate::tunnel::{Tunnel, TunnelStream};

pub mod policy;

use policy::{Choice, Limits, TunnelView};

/// Tunnels by key. Clones share them; never leaves its worker.
pub struct Pool<K, E> {
    entries: Rc<RefCell<HashMap<K, Entry<E>>>>,
    limits: Limits,
}

struct Entry<E> {
    tunnels: Vec<Pooled>,
    /// Tunnels that finish their streams and take no new ones.
    leaving: Vec<Pooled>,
    dials: usize,
    waiters: Vec<oneshot::Sender<Result<(), Rc<E>>>>,
}

struct Pooled {
    tunnel: Tunnel,
    generation: u64,
}

/// Why no stream came about.
#[derive(Debug)]
pub enum AcquireError<E> {
    /// Dialling failed, here or in the flow that dialled for both.
    Dial(Rc<E>),
    /// The tunnel cannot carry this request.
    Refused(OpenError),
    /// The tunnels of this key stay full although dials succeed.
    Full,
}

impl<K, E> Clone for Pool<K, E> {
    fn clone(&self) -> Self {
        Self { entries: Rc::clone(&self.entries), limits: self.limits }
    }
}

impl<K: Clone + Eq + Hash, E> Pool<K, E> {
    /// An empty pool.
    pub fn new(limits: Limits) -> Self {
        Self { entries: Rc::new(RefCell::new(HashMap::new())), limits }
    }

    /// Opens a stream on a tunnel of this key and `generation` (of the certificate), dialling one
    /// when there is none with room.
    ///
    /// Dropping the future gives up: a dial that others wait for is then taken over by one of them.
    ///
    /// # Errors
    /// See [`AcquireError`].
    pub async fn open<D, F>(
        &self,
        key: &K,
        generation: u64,
        request: &ConnectRequest<'_>,
        dial: D,
    ) -> Result<TunnelStream, AcquireError<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<Tunnel, E>>,
    {
        for _ in 0..MAX_ROUNDS {
            match self.choose(key, generation) {
                Choice::Use(tunnel) => match tunnel.open(request) {
                    Ok(stream) => return Ok(stream),
                    // It filled up or went away since it was looked at: look again.
                    Err(OpenError::GoingAway | OpenError::NoStreams { .. } | OpenError::Exhausted) => {}
                    Err(error) => return Err(AcquireError::Refused(error)),
                },
                Choice::Wait => {
                    let outcome = self.wait(key).await;
                    if let Some(Err(error)) = outcome {
                        return Err(AcquireError::Dial(error));
                    }
                }
                Choice::Dial => {
                    let tunnel = self.dial(key, generation, &dial).await.map_err(AcquireError::Dial)?;
                    if let Ok(stream) = tunnel.open(request) {
                        return Ok(stream);
                    }
                }
            }
        }
        Err(AcquireError::Full)
    }

    /// Lets every tunnel for which `leave` holds finish its streams and close.
    pub fn retire(&self, leave: impl Fn(&K, u64) -> bool) {
        self.each(|key, entry| {
            entry.let_go(|pooled| {
                let leaves = leave(key, pooled.generation);
                if leaves {
                    pooled.tunnel.shutdown();
                }
                leaves
            });
        });
    }

    /// Closes every tunnel for which `leave` holds now, with its streams, also those that are
    /// finishing.
    pub fn close(&self, leave: impl Fn(&K, u64) -> bool) {
        self.each(|key, entry| {
            let old =
                entry.tunnels.iter().chain(&entry.leaving).filter(|pooled| leave(key, pooled.generation));
            old.for_each(|pooled| pooled.tunnel.close(Reason::NoError));
            entry.let_go(|_| false);
        });
    }

    /// Forgets tunnels that are over, and lets go of those idle at two sweeps in a row.
    pub fn sweep(&self, was_idle: &mut HashSet<K>) {
        let mut idle = HashSet::new();
        self.each(|key, entry| {
            entry.let_go(|_| false);
            if entry.tunnels.iter().any(|pooled| pooled.tunnel.open_streams() > 0) {
                return;
            }
            if was_idle.contains(key) {
                entry.let_go(|pooled| {
                    pooled.tunnel.shutdown();
                    true
                });
            } else {
                idle.insert(key.clone());
            }
        });
        *was_idle = idle;
    }

    /// Tunnels held.
    pub fn tunnels(&self) -> usize {
        self.entries.borrow().values().map(|entry| entry.tunnels.len() + entry.leaving.len()).sum()
    }

    fn each(&self, mut change: impl FnMut(&K, &mut Entry<E>)) {
        self.entries.borrow_mut().retain(|key, entry| {
            change(key, entry);
            !entry.is_unused()
        });
    }

    fn choose(&self, key: &K, generation: u64) -> Choice<Tunnel> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.clone()).or_default();
        entry.let_go(|_| false);
        let views = entry.tunnels.iter().map(|pooled| TunnelView {
            tunnel: &pooled.tunnel,
            available: pooled.tunnel.streams_available(),
            open: pooled.tunnel.open_streams(),
            current: pooled.generation == generation,
        });
        policy::choose(views, entry.dials, entry.waiters.len(), &self.limits).cloned()
    }

    /// `None` when the flow that dialled gave up: look again.
    async fn wait(&self, key: &K) -> Option<Result<(), Rc<E>>> {
        let (sender, receiver) = oneshot::channel();
        if let Some(entry) = self.entries.borrow_mut().get_mut(key) {
            entry.waiters.retain(|waiter| !waiter.is_closed());
            entry.waiters.push(sender);
        }
        receiver.await.ok()
    }

    async fn dial<D, F>(&self, key: &K, generation: u64, dial: &D) -> Result<Tunnel, Rc<E>>
    where
        D: Fn() -> F,
        F: Future<Output = Result<Tunnel, E>>,
    {
        let attempt = Dialling::start(self, key);
        let outcome = dial().await.map_err(Rc::new);
        if let Some(entry) = self.entries.borrow_mut().get_mut(key) {
            let news = match &outcome {
                Ok(tunnel) => {
                    entry.tunnels.push(Pooled { tunnel: tunnel.clone(), generation });
                    Ok(())
                }
                Err(error) => Err(Rc::clone(error)),
            };
            for waiter in entry.waiters.drain(..) {
                // A waiter that gave up has dropped its receiver.
                let _ = waiter.send(news.clone());
            }
        }
        drop(attempt);
        outcome
    }
}

impl<E> Default for Entry<E> {
    fn default() -> Self {
        Self { tunnels: Vec::new(), leaving: Vec::new(), dials: 0, waiters: Vec::new() }
    }
}

impl<E> Entry<E> {
    fn is_unused(&self) -> bool {
        self.tunnels.is_empty() && self.leaving.is_empty() && self.dials == 0 && self.waiters.is_empty()
    }

    /// Takes tunnels for which `leave` holds, and those that leave by themselves, out of use; forgets
    /// those that are over.
    fn let_go(&mut self, mut leave: impl FnMut(&Pooled) -> bool) {
        let gone = self.tunnels.extract_if(.., |pooled| pooled.tunnel.is_leaving() || leave(pooled));
        self.leaving.extend(gone);
        self.leaving.retain(|pooled| !pooled.tunnel.is_over());
    }
}

/// Counts a dial while it runs. Dropped early, it sends those who wait to look again.
struct Dialling<'a, K: Clone + Eq + Hash, E> {
    pool: &'a Pool<K, E>,
    key: K,
}

impl<'a, K: Clone + Eq + Hash, E> Dialling<'a, K, E> {
    fn start(pool: &'a Pool<K, E>, key: &K) -> Self {
        pool.entries.borrow_mut().entry(key.clone()).or_default().dials += 1;
        Self { pool, key: key.clone() }
    }
}

impl<K: Clone + Eq + Hash, E> Drop for Dialling<'_, K, E> {
    fn drop(&mut self) {
        let mut entries = self.pool.entries.borrow_mut();
        let Some(entry) = entries.get_mut(&self.key) else { return };
        entry.dials -= 1;
        // After a finished dial nobody waits any more; dropping a sender wakes its receiver.
        entry.waiters.clear();
        if entry.is_unused() {
            entries.remove(&self.key);
        }
    }
}

/// Rounds of looking, waiting and dialling before a flow is told that there is no room.
const MAX_ROUNDS: usize = 8;
