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
use tokio::time::{Instant, timeout_at};

use crate::state::SnapshotReader;

/// How long.
pub const PARTING: Duration = Duration::from_secs(5);

/// What a connection or a request is served by.
#[derive(Debug)]
pub struct Serving {
    /// The configuration.
    pub snapshot: Arc<WaypointSnapshot>,
    /// What it is for.
    pub destination: Destination,
    /// The configuration in force does not have it any more.
    pub is_parting: bool,
}

impl SnapshotReader {
    /// What serves `authority` now; `None` without any configuration.
    pub fn serving(&self, authority: &Authority) -> Option<Result<Serving, NotServed>> {
        let snapshot = self.load()?;
        let not_served = match snapshot.destination(authority) {
            Ok(destination) => return Some(Ok(Serving { snapshot, destination, is_parting: false })),
            Err(not_served) => not_served,
        };
        match not_served {
            NotServed::Unknown { .. } | NotServed::NotBound { .. } => {}
            NotServed::Unplaced | NotServed::NoSuchPort { .. } => return Some(Err(not_served)),
        }
        let before = self.replaced_within(PARTING).into_iter().find_map(|snapshot| {
            let destination = snapshot.destination(authority).ok()?;
            Some(Serving { snapshot, destination, is_parting: true })
        });
        Some(before.ok_or(not_served))
    }
}

/// The destinations of a worker's open connections, and since when they are parted from.
#[derive(Clone, Default)]
pub struct Destinations {
    open: Rc<RefCell<HashMap<Authority, Weak<Since>>>>,
}

type Since = watch::Sender<Option<Instant>>;

impl Destinations {
    /// Whether a connection to `authority` is to go, from now on until the answer is dropped.
    pub fn hold(&self, authority: &Authority, is_parting: bool) -> Parting {
        let mut open = self.open.borrow_mut();
        if let Some(since) = open.get(authority).and_then(Weak::upgrade) {
            return Parting { since };
        }
        let since = Rc::new(watch::Sender::new(is_parting.then(Instant::now)));
        open.retain(|_, other| other.strong_count() > 0);
        open.insert(authority.clone(), Rc::downgrade(&since));
        Parting { since }
    }

    /// Keeps them up to date until the future is dropped.
    pub async fn follow(self, mut snapshots: SnapshotReader) {
        while snapshots.changed().await {
            let Some(snapshot) = snapshots.load() else { continue };
            self.look(&snapshot);
        }
        std::future::pending().await
    }

    fn look(&self, snapshot: &WaypointSnapshot) {
        self.open.borrow_mut().retain(|authority, since| {
            let Some(since) = since.upgrade() else { return false };
            let is_served = snapshot.destination(authority).is_ok();
            since.send_if_modified(|since| {
                let is_changed = since.is_none() != is_served;
                if is_changed {
                    *since = (!is_served).then(Instant::now);
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
    since: Rc<Since>,
}

impl Parting {
    /// By when those that are idle are closed, if they are to go.
    pub fn end(&self) -> Option<Instant> {
        self.since.borrow().map(|since| since + PARTING)
    }

    /// Waits until they are to go.
    pub async fn begins(&self) -> Instant {
        let mut since = self.since.subscribe();
        let found = since.wait_for(Option::is_some).await.ok().and_then(|since| *since);
        match found {
            Some(since) => since + PARTING,
            None => std::future::pending().await,
        }
    }
}

impl fmt::Debug for Parting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parting").field("since", &*self.since.borrow()).finish()
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
    /// Of something that begins now, and is served like this. `snapshots` are those after it.
    pub fn new(snapshots: SnapshotReader, is_parting: bool) -> Self {
        Self { snapshots, end: is_parting.then(|| Instant::now() + PARTING) }
    }

    /// Waits for the next question about what is for `authority`.
    pub async fn next(&mut self, authority: &Authority) -> Question {
        loop {
            let changed = match self.end {
                Some(end) => timeout_at(end, self.snapshots.changed()).await,
                None => Ok(self.snapshots.changed().await),
            };
            if let Ok(false) = changed {
                return std::future::pending().await;
            }
            let Some(snapshot) = self.snapshots.load() else { continue };
            match snapshot.destination(authority) {
                Ok(destination) => {
                    self.end = None;
                    return Question::Allowed(snapshot, destination);
                }
                Err(not_served) if changed.is_err() => return Question::Over(not_served),
                Err(_) => {
                    self.end.get_or_insert_with(|| Instant::now() + PARTING);
                }
            }
        }
    }
}
