//! The connections of one worker to endpoints, kept for the next request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use ambit_hbone::tunnel::Tunnel;
use metrics::counter;
use pingora_core::connectors::http::v2::{ConnectionRef, H2HandshakeSettings, handshake};
use pingora_core::protocols::http::v2::client::Http2Session;
use tokio::sync::Mutex;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::dial::{DialError, OnBehalf, connect};
use super::{Key, Lease, Protocol, Session};
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

/// An HTTP/2 connection.
struct Multiplexed {
    connection: ConnectionRef,
    tunnel: Option<Tunnel>,
    used: Instant,
}

impl Idle {
    /// Whether a request may go out on it: nothing has come, and who is at the other end stays. An agent that
    /// is replaced says GOAWAY, and waits until it is left.
    fn is_usable(&mut self) -> bool {
        !is_leaving(self.wire.tunnel().as_ref()) && self.wire.is_quiet()
    }
}

impl Multiplexed {
    fn is_usable(&self) -> bool {
        let connection = &self.connection;
        !is_leaving(self.tunnel.as_ref())
            && !connection.is_closed()
            && !connection.is_shutting_down()
            && !connection.ping_timedout()
    }
}

fn is_leaving(tunnel: Option<&Tunnel>) -> bool {
    tunnel.is_some_and(Tunnel::is_leaving)
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
                    return Ok(Lease { session: Session::Http1(Shared::new(wire)), reused: true });
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
        let wire = connect(worker, key, caller).await?;
        Ok(Lease { session: Session::Http1(Shared::new(wire)), reused: false })
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
            entry.connections.retain(|one| {
                one.is_usable() && !(one.connection.is_idle() && now.duration_since(one.used) >= limit)
            });
            !entry.connections.is_empty()
        });
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
        let mut entry = entry.lock().await;
        entry.connections.retain(Multiplexed::is_usable);
        for one in entry.connections.iter_mut().filter(|one| one.connection.more_streams_allowed()) {
            if let Ok(Some(stream)) = one.connection.spawn_stream().await {
                one.used = Instant::now();
                counter!("ambit_upstream_reuses_total").increment(1);
                return Ok(Lease { session: Session::Http2(Box::new(stream)), reused: true });
            }
        }
        if let Some((_, error)) = entry.failed.as_ref().filter(|(when, _)| *when > came) {
            return Err(DialError::Shared(Rc::clone(error)));
        }
        match dial(worker, key, caller).await {
            Ok((connection, tunnel, stream)) => {
                entry.failed = None;
                entry.connections.push(Multiplexed { connection, tunnel, used: Instant::now() });
                Ok(Lease { session: Session::Http2(Box::new(stream)), reused: false })
            }
            Err(error) => {
                let error = Rc::new(error);
                entry.failed = Some((Instant::now(), Rc::clone(&error)));
                Err(DialError::Shared(error))
            }
        }
    }
}

async fn dial(
    worker: &Rc<Worker>,
    key: &Key,
    caller: &OnBehalf<'_>,
) -> Result<(ConnectionRef, Option<Tunnel>, Http2Session), DialError> {
    let wire = connect(worker, key, caller).await?;
    let tunnel = wire.tunnel();
    let connection = handshake(Box::new(wire), settings()).await;
    let connection = connection.map_err(|error| DialError::Http2(error.to_string()))?;
    let stream = connection.spawn_stream().await;
    let stream = stream.map_err(|error| DialError::Http2(error.to_string()))?;
    let stream = stream.ok_or_else(|| DialError::Http2("it takes no streams".to_owned()))?;
    Ok((connection, tunnel, stream))
}

fn settings() -> H2HandshakeSettings {
    let mut settings = H2HandshakeSettings::new();
    settings.max_streams = MAX_STREAMS;
    settings.stream_window_size = Some(STREAM_WINDOW);
    settings.connection_window_size = Some(CONNECTION_WINDOW);
    settings.ping_interval = Some(PING_INTERVAL);
    settings
}

/// Idle connections kept for one key.
const MAX_IDLE: usize = 256;

/// Requests at once on one HTTP/2 connection, at most; the endpoint may allow fewer.
const MAX_STREAMS: usize = 100;

/// What an endpoint may send ahead of a client that does not read, for one stream; octets.
const STREAM_WINDOW: u32 = 256 * 1024;

/// The same for all streams of a connection: one that stalls must not stall the others.
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// How a silent endpoint is found out.
const PING_INTERVAL: Duration = Duration::from_secs(30);
