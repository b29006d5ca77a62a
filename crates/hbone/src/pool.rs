//! The tunnels of one worker: who shares one, when another is dialled, when one is let go.
//!
//! A key names everything that must be equal for two flows to share a tunnel (whose certificate it
//! was dialled with, who was expected, the address). Flows that ask for a key while it is being
//! dialled wait for that dial instead of starting their own. The choice itself is [`policy`].

use std::cell::RefCell;
use std::collections::HashMap;
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
        self.entries.borrow_mut().retain(|key, entry| {
            entry.tunnels.retain(|pooled| {
                let leaves = leave(key, pooled.generation);
                if leaves {
                    pooled.tunnel.shutdown();
                }
                !leaves
            });
            !entry.is_unused()
        });
    }

    /// Closes every tunnel for which `leave` holds now, with its streams.
    pub fn close(&self, leave: impl Fn(&K, u64) -> bool) {
        self.entries.borrow_mut().retain(|key, entry| {
            entry.tunnels.retain(|pooled| {
                let leaves = leave(key, pooled.generation);
                if leaves {
                    pooled.tunnel.close(Reason::NoError);
                }
                !leaves
            });
            !entry.is_unused()
        });
    }

    /// Forgets tunnels that are over or leaving, and lets go of those idle at two sweeps in a row.
    pub fn sweep(&self, was_idle: &mut HashMap<K, usize>) {
        let mut idle = HashMap::new();
        self.entries.borrow_mut().retain(|key, entry| {
            entry.tunnels.retain(|pooled| !pooled.tunnel.is_leaving());
            if entry.tunnels.iter().all(|pooled| pooled.tunnel.open_streams() == 0) {
                if was_idle.contains_key(key) {
                    entry.tunnels.drain(..).for_each(|pooled| pooled.tunnel.shutdown());
                } else {
                    idle.insert(key.clone(), entry.tunnels.len());
                }
            }
            !entry.is_unused()
        });
        *was_idle = idle;
    }

    /// Tunnels held.
    pub fn tunnels(&self) -> usize {
        self.entries.borrow().values().map(|entry| entry.tunnels.len()).sum()
    }

    fn choose(&self, key: &K, generation: u64) -> Choice<Tunnel> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.entry(key.clone()).or_default();
        entry.tunnels.retain(|pooled| !pooled.tunnel.is_leaving());
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
        Self { tunnels: Vec::new(), dials: 0, waiters: Vec::new() }
    }
}

impl<E> Entry<E> {
    fn is_unused(&self) -> bool {
        self.tunnels.is_empty() && self.dials == 0 && self.waiters.is_empty()
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
