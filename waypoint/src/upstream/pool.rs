//! The connections of one worker to endpoints, kept for the next request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use ambit_hbone::tunnel::Tunnel;
use ambit_mesh::address::NetworkAddress;
use ambit_mesh::http::WaypointSnapshot;
use metrics::counter;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::dial::{DialError, OnBehalf, connect, unless_silent};
use super::http2::{Http2Stream, Multiplexed};
use super::{Carrier, Key, Lease, Protocol, Session};
use crate::h1::Shared;
use crate::wire::Wire;
use crate::worker::Worker;

/// Connections by key. Never leaves its worker.
#[derive(Default)]
pub struct Connections {
    idle: RefCell<HashMap<Key, Vec<Idle>>>,
    multiplexed: RefCell<HashMap<Key, Rc<Mutex<Entry>>>>,
}

/// An HTTP/1 connection between two requests.
struct Idle {
    wire: Wire,
    since: Instant,
}

/// The HTTP/2 connections of one key.
#[derive(Default)]
struct Entry {
    connections: Vec<Multiplexed>,
    /// The last dial, if it failed: who waited for it does not try the same again.
    failed: Option<(Instant, Rc<DialError>)>,
}

impl Idle {
    /// Whether a request may go out on it: nothing has come, and who is at the other end stays. An agent that
    /// is replaced says GOAWAY, and waits until it is left.
    fn is_usable(&mut self) -> bool {
        !self.wire.tunnel().as_ref().is_some_and(Tunnel::is_leaving) && self.wire.is_quiet()
    }
}

impl Connections {
    /// A session on a connection of this key: one that is open, or a new one.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn acquire(
        &self,
        worker: &Rc<Worker>,
        key: &Key,
        caller: &OnBehalf<'_>,
    ) -> Result<Lease, DialError> {
        match key.protocol {
            Protocol::Http1 | Protocol::Opaque => {
                if let Some(wire) = self.take_idle(key) {
                    counter!("ambit_upstream_reuses_total").increment(1);
                    return Ok(http1(wire, true));
                }
                self.fresh(worker, key, caller).await
            }
            Protocol::Http2 => self.stream(worker, key, caller).await,
        }
    }

    /// An HTTP/1 session on a connection that nobody has used.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn fresh(
        &self,
        worker: &Rc<Worker>,
        key: &Key,
        caller: &OnBehalf<'_>,
    ) -> Result<Lease, DialError> {
        // What it takes to connect is large, and not for each request to carry along.
        Ok(http1(Box::pin(connect(worker, key, caller)).await?, false))
    }

    /// Keeps a connection whose last response was read to its end.
    pub fn give_back(&self, key: Key, connection: Shared) {
        let Some(wire) = connection.into_wire() else { return };
        let mut kept = Idle { wire, since: Instant::now() };
        let mut idle = self.idle.borrow_mut();
        let entry = idle.entry(key).or_default();
        // What comes after a response and before a request is nobody's answer.
        if entry.len() < MAX_IDLE && kept.is_usable() {
            entry.push(kept);
        } else {
            spawn_local(kept.wire.close());
        }
    }

    /// Lets go of connections that were not used for so long, and of those that are over.
    pub fn sweep(&self, limit: Duration) {
        let now = Instant::now();
        self.idle.borrow_mut().retain(|_, entry| {
            let ends = |idle: &mut Idle| now.duration_since(idle.since) >= limit || !idle.is_usable();
            for ended in entry.extract_if(.., ends) {
                spawn_local(ended.wire.close());
            }
            !entry.is_empty()
        });
        self.multiplexed.borrow_mut().retain(|_, entry| {
            // Somebody who holds the lock is about to use it.
            let Ok(mut entry) = entry.try_lock() else { return true };
            entry.connections.retain(|one| one.is_usable() && !one.is_idle(limit));
            !entry.connections.is_empty()
        });
    }

    /// Lets go of connections that are for everybody, where policies of the endpoint now name clients. What
    /// they carry still is the far end's to cut.
    pub fn leave_shared(&self, snapshot: &WaypointSnapshot) {
        let Some(own) = snapshot.own() else { return };
        let stays = |key: &Key| match (&key.client, &key.carrier) {
            (Some(_), _) | (None, Carrier::Plain { .. }) => true,
            (None, Carrier::Hbone { authority, .. }) => {
                let address = NetworkAddress { network: own.network.clone(), ip: authority.ip() };
                let mesh = snapshot.mesh();
                let endpoint = mesh.workload_by_address(&address);
                endpoint.is_some_and(|endpoint| !mesh.policies_for(endpoint).name_clients())
            }
        };
        for (_, entry) in self.idle.borrow_mut().extract_if(|key, _| !stays(key)) {
            for idle in entry {
                spawn_local(idle.wire.close());
            }
        }
        self.multiplexed.borrow_mut().retain(|key, _| stays(key));
    }

    /// Connections held.
    pub fn len(&self) -> usize {
        let idle: usize = self.idle.borrow().values().map(Vec::len).sum();
        let shared = self.multiplexed.borrow();
        idle + shared
            .values()
            .filter_map(|entry| entry.try_lock().ok())
            .map(|entry| entry.connections.len())
            .sum::<usize>()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take_idle(&self, key: &Key) -> Option<Wire> {
        let mut idle = self.idle.borrow_mut();
        let entry = idle.get_mut(key)?;
        // The one that was used last: the others may end.
        let mut found = None;
        while let Some(mut last) = entry.pop() {
            if last.is_usable() {
                found = Some(last.wire);
                break;
            }
            spawn_local(last.wire.close());
        }
        if entry.is_empty() {
            idle.remove(key);
        }
        found
    }

    async fn stream(
        &self,
        worker: &Rc<Worker>,
        key: &Key,
        caller: &OnBehalf<'_>,
    ) -> Result<Lease, DialError> {
        let came = Instant::now();
        let entry = Rc::clone(self.multiplexed.borrow_mut().entry(key.clone()).or_default());
        // Held across the dial: who comes meanwhile waits for it instead of dialling too.
        let mut entry = unless_silent(worker, key.carrier.next_hop(), caller, entry.lock()).await?;
        entry.connections.retain(Multiplexed::is_usable);
        for one in &entry.connections {
            if let Some(stream) = one.open().await {
                counter!("ambit_upstream_reuses_total").increment(1);
                return Ok(one.lease(stream, true));
            }
        }
        if let Some((_, error)) = entry.failed.as_ref().filter(|(when, _)| *when > came) {
            return Err(DialError::Shared(Rc::clone(error)));
        }
        match dial(worker, key, caller).await {
            Ok((connection, stream)) => {
                entry.failed = None;
                let lease = connection.lease(stream, false);
                entry.connections.push(connection);
                Ok(lease)
            }
            // Who gave up had others: who waits for the same may have none.
            Err(error @ DialError::Silent { .. }) => Err(error),
            Err(error) => {
                let error = Rc::new(error);
                entry.failed = Some((Instant::now(), Rc::clone(&error)));
                Err(DialError::Shared(error))
            }
        }
    }
}

fn http1(wire: Wire, reused: bool) -> Lease {
    let (tunnel, local) = (wire.tunnel(), wire.local_addr());
    Lease { session: Session::Http1(Shared::new(wire)), reused, tunnel, local }
}

async fn dial(
    worker: &Rc<Worker>,
    key: &Key,
    caller: &OnBehalf<'_>,
) -> Result<(Multiplexed, Http2Stream), DialError> {
    let connection = Multiplexed::begin(Box::pin(connect(worker, key, caller)).await?).await?;
    let stream = connection.open().await;
    let stream = stream.ok_or_else(|| DialError::Http2("it takes no streams".to_owned()))?;
    Ok((connection, stream))
}

/// Idle connections kept for one key.
const MAX_IDLE: usize = 256;
