//! What becomes of a destination that is bound to this waypoint no more.
//!
//! Agents and waypoints hear of a binding each at its own time, and clients keep connections. For [`PARTING`] what
//! still comes is served by the last configuration that had the destination, connections are asked to go as those of a
//! waypoint that stops, and what is in progress may finish. Then nothing of it is left here: its policies are not known
//! to this waypoint any more.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::address::Authority;
use ambit_mesh::http::{Destination, NotServed, WaypointSnapshot};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::state::SnapshotReader;
use crate::worker::Worker;

/// How long.
pub const PARTING: Duration = Duration::from_secs(5);

/// What a connection or a request is served by.
#[derive(Debug)]
pub struct Serving {
    /// The configuration.
    pub snapshot: Arc<WaypointSnapshot>,
    /// What it is for.
    pub destination: Destination,
    /// The configuration in force does not have it any more: until when it is served all the same.
    pub until: Option<Instant>,
}

impl SnapshotReader {
    /// What serves `authority` now; `None` without any configuration.
    pub fn serving(&self, authority: &Authority) -> Option<Result<Serving, NotServed>> {
        let snapshot = self.load()?;
        Some(match snapshot.destination(authority) {
            Ok(destination) => Ok(Serving { snapshot, destination, until: None }),
            Err(not_served) => self.served_before(authority).ok_or(not_served),
        })
    }

    /// What served `authority` a moment ago.
    fn served_before(&self, authority: &Authority) -> Option<Serving> {
        self.replaced_within(PARTING).into_iter().find_map(|(at, snapshot)| {
            let destination = snapshot.destination(authority).ok()?;
            Some(Serving { snapshot, destination, until: Some(at + PARTING) })
        })
    }
}

/// The destinations of a worker's open connections, and until when those are served that are parted from.
#[derive(Clone, Default)]
pub struct Destinations {
    open: Rc<RefCell<HashMap<Authority, Weak<Until>>>>,
}

type Until = watch::Sender<Option<Instant>>;

impl Destinations {
    /// Whether a connection to `authority` is to go, from now on until the answer is dropped.
    pub fn hold(&self, authority: &Authority, until: Option<Instant>) -> Parting {
        let mut open = self.open.borrow_mut();
        if let Some(until) = open.get(authority).and_then(Weak::upgrade) {
            return Parting { until };
        }
        let until = Rc::new(watch::Sender::new(until));
        open.retain(|_, other| other.strong_count() > 0);
        open.insert(authority.clone(), Rc::downgrade(&until));
        Parting { until }
    }

    /// Keeps them up to date, and forgets configurations that nobody asks for any more, until the future is dropped.
    pub async fn follow(self, mut snapshots: SnapshotReader) {
        while snapshots.changed().await {
            let Some(snapshot) = snapshots.load() else { continue };
            self.look(&snapshot);
            while timeout(PARTING, snapshots.changed()).await == Ok(true) {
                let Some(snapshot) = snapshots.load() else { continue };
                self.look(&snapshot);
            }
            snapshots.forget_replaced(PARTING);
        }
        std::future::pending().await
    }

    fn look(&self, snapshot: &WaypointSnapshot) {
        self.open.borrow_mut().retain(|authority, until| {
            let Some(until) = until.upgrade() else { return false };
            let is_served = snapshot.destination(authority).is_ok();
            until.send_if_modified(|until| {
                let is_changed = until.is_none() != is_served;
                if is_changed {
                    *until = (!is_served).then(|| Instant::now() + PARTING);
                }
                is_changed
            });
            true
        });
    }
}

/// Whether connections to one destination are to go.
#[derive(Clone)]
pub struct Parting {
    until: Rc<Until>,
}

impl Parting {
    /// By when those that are idle are closed, if they are to go.
    pub fn end(&self) -> Option<Instant> {
        *self.until.borrow()
    }

    /// Waits until they are to go.
    pub async fn begins(&self) -> Instant {
        let mut until = self.until.subscribe();
        let found = until.wait_for(Option::is_some).await.ok().and_then(|until| *until);
        match found {
            Some(until) => until,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parting").field("until", &*self.until.borrow()).finish()
    }
}

/// Asks again about what is in progress, whenever the configuration changes.
#[derive(Debug)]
pub struct Watched {
    snapshots: SnapshotReader,
    /// By when it is over, if it is served no more.
    end: Option<Instant>,
}

/// What there is to ask.
#[derive(Debug)]
pub enum Question {
    /// Whether it is allowed by this.
    Allowed(Arc<WaypointSnapshot>, Destination),
    /// Nothing: it is over.
    Over(NotServed),
}

impl Watched {
    /// Of something that begins now and is served until then, if it is parted from. `snapshots` are those after what
    /// serves it.
    pub fn new(snapshots: SnapshotReader, until: Option<Instant>) -> Self {
        Self { snapshots, end: until }
    }

    /// Waits for the next question about what is for `authority`.
    ///
    /// A waypoint that goes is soon no instance any more, for which everything is bound elsewhere. Its drain has an end
    /// of its own.
    pub async fn next(&mut self, authority: &Authority, worker: &Worker) -> Question {
        loop {
            let changed = match self.end {
                Some(end) => timeout_at(end, self.snapshots.changed()).await,
                None => Ok(self.snapshots.changed().await),
            };
            if let Ok(false) = changed {
                let Some(end) = self.end else { return std::future::pending().await };
                sleep_until(end).await;
            }
            let Some(snapshot) = self.snapshots.load() else { continue };
            let not_served = match snapshot.destination(authority) {
                Ok(destination) => {
                    self.end = None;
                    return Question::Allowed(snapshot, destination);
                }
                Err(not_served) => not_served,
            };
            if worker.leaving().is_some() {
                self.end = None;
            } else if self.end.is_some_and(|end| end <= Instant::now()) {
                return Question::Over(not_served);
            } else if self.end.is_none() {
                let before = self.snapshots.served_before(authority);
                self.end = before.map_or_else(|| Some(Instant::now()), |before| before.until);
            }
        }
    }
}
