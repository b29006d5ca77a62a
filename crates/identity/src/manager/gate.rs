//! Lets a bounded number of requests through at once, the most urgent first.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::lock;

/// How soon an identity needs its certificate; the first is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Urgency {
    /// Somebody waits for it.
    Requested,
    /// It will probably be needed.
    WarmUp,
    /// A valid one is held.
    Renewal,
}

/// The gate. As many pass as there are free places; the others wait in order of urgency, and of
/// arrival within one.
#[derive(Debug)]
pub(super) struct Gate {
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    free: usize,
    arrivals: u64,
    waiting: BTreeMap<(Urgency, u64), oneshot::Sender<Turn>>,
}

impl Gate {
    pub(super) fn new(places: usize) -> Arc<Self> {
        let queue = Mutex::new(Queue { free: places, arrivals: 0, waiting: BTreeMap::new() });
        Arc::new(Self { queue })
    }

    /// Waits for a place. Dropping the future gives the place in the queue up.
    pub(super) async fn enter(self: &Arc<Self>, urgency: Urgency) -> Turn {
        let turn = {
            let mut queue = lock(&self.queue);
            if queue.free > 0 {
                queue.free -= 1;
                return Turn { gate: self.clone() };
            }
            let (give, turn) = oneshot::channel();
            queue.arrivals += 1;
            let arrival = queue.arrivals;
            queue.waiting.insert((urgency, arrival), give);
            turn
        };
        turn.await.expect("a sender leaves the queue only to be used")
    }

    fn leave(self: &Arc<Self>) {
        if let Some(next) = lock(&self.queue).next_or_free() {
            // If the waiter has just gone away, the turn comes back and is dropped, which passes it
            // on to the one after.
            drop(next.send(Turn { gate: self.clone() }));
        }
    }
}

impl Queue {
    fn next_or_free(&mut self) -> Option<oneshot::Sender<Turn>> {
        while let Some((_, next)) = self.waiting.pop_first() {
            if !next.is_closed() {
                return Some(next);
            }
        }
        self.free += 1;
        None
    }
}

/// A place beyond the gate, given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    gate: Arc<Gate>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.gate.leave();
    }
}
