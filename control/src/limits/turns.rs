//! Turns at something that few can do at a time. Those who wait are served key by key in rotation,
//! so that one with a long queue delays another by one turn, not by its queue.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The turns. Clones give out the same.
#[derive(Debug)]
pub struct Turns<K: Key>(Arc<Mutex<Queues<K>>>);

impl<K: Key> Clone for Turns<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// What those who wait are told apart by.
pub trait Key: Eq + Hash + Clone + Send + 'static {}

impl<K: Eq + Hash + Clone + Send + 'static> Key for K {}

#[derive(Debug)]
struct Queues<K: Key> {
    free: usize,
    longest: usize,
    waiting: HashMap<K, VecDeque<oneshot::Sender<Turn<K>>>>,
    /// The keys that have somebody waiting, each once.
    rotation: VecDeque<K>,
}

/// The permission to go on. The next one has it when it is dropped.
#[derive(Debug)]
pub struct Turn<K: Key>(Turns<K>);

/// As many of one key wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueIsFull;

impl<K: Key> Turns<K> {
    /// Lets `at_a_time` go on at a time, and `longest` of each key wait.
    pub fn new(at_a_time: usize, longest: usize) -> Self {
        let (waiting, rotation) = (HashMap::new(), VecDeque::new());
        Self(Arc::new(Mutex::new(Queues { free: at_a_time, longest, waiting, rotation })))
    }

    /// Waits for a turn. Giving up loses nothing but the place in the queue.
    ///
    /// # Errors
    /// When too many of this key wait already.
    pub async fn next(&self, key: &K) -> Result<Turn<K>, QueueIsFull> {
        let coming = {
            let mut queues = lock(&self.0);
            if queues.free > 0 {
                queues.free -= 1;
                return Ok(Turn(self.clone()));
            }
            queues.join(key)?
        };
        // The sender is dropped only with the turns themselves, which `self` holds.
        coming.await.map_err(|_| QueueIsFull)
    }
}

impl<K: Key> Queues<K> {
    fn join(&mut self, key: &K) -> Result<oneshot::Receiver<Turn<K>>, QueueIsFull> {
        let queue = self.waiting.entry(key.clone()).or_default();
        if queue.len() >= self.longest {
            // Some may have given up.
            queue.retain(|waiting| !waiting.is_closed());
        }
        if queue.len() >= self.longest {
            return Err(QueueIsFull);
        }
        if queue.is_empty() && !self.rotation.contains(key) {
            self.rotation.push_back(key.clone());
        }
        let (give, coming) = oneshot::channel();
        queue.push_back(give);
        Ok(coming)
    }

    /// The one whose turn it is.
    fn leave(&mut self) -> Option<oneshot::Sender<Turn<K>>> {
        while let Some(key) = self.rotation.pop_front() {
            let Some(queue) = self.waiting.get_mut(&key) else { continue };
            let next = std::iter::from_fn(|| queue.pop_front()).find(|waiting| !waiting.is_closed());
            if queue.is_empty() {
                self.waiting.remove(&key);
            } else {
                self.rotation.push_back(key);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }
}

impl<K: Key> Drop for Turn<K> {
    fn drop(&mut self) {
        let next = {
            let mut queues = lock(&self.0.0);
            let next = queues.leave();
            queues.free += usize::from(next.is_none());
            next
        };
        if let Some(next) = next {
            // One that has given up since returns the turn, which is dropped here and goes on.
            let _ = next.send(Self(self.0.clone()));
        }
    }
}

/// A panic elsewhere leaves whole values behind: every step ends before the next begins.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Waiting = Pin<Box<dyn Future<Output = Result<Turn<&'static str>, QueueIsFull>>>>;

    fn ask(turns: &Turns<&'static str>, key: &'static str) -> Waiting {
        let turns = turns.clone();
        let mut waiting: Waiting = Box::pin(async move { turns.next(&key).await });
        assert!(poll(&mut waiting).is_none(), "a turn was free");
        waiting
    }

    fn poll(waiting: &mut Waiting) -> Option<Result<Turn<&'static str>, QueueIsFull>> {
        match waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    fn now(turns: &Turns<&'static str>, key: &'static str) -> Result<Turn<&'static str>, QueueIsFull> {
        match pin!(turns.next(&key)).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => panic!("{key} waits"),
        }
    }

    #[test]
    fn one_with_a_long_queue_delays_another_by_one_turn() {
        let turns = Turns::new(1, 10);
        let mut turn = now(&turns, "flood").unwrap();
        let mut waiting: Vec<_> = ["flood", "flood", "flood", "flood", "quiet", "third", "flood"]
            .into_iter()
            .map(|key| (key, ask(&turns, key)))
            .collect();
        let mut served = Vec::new();
        while !waiting.is_empty() {
            drop(turn);
            let mut ready = waiting
                .iter_mut()
                .enumerate()
                .filter_map(|(index, (_, waiting))| poll(waiting).map(|result| (index, result.unwrap())));
            let (index, next) = ready.next().unwrap();
            assert!(ready.next().is_none(), "two at a time");
            drop(ready);
            turn = next;
            served.push(waiting.remove(index).0);
        }
        assert_eq!(served, ["flood", "quiet", "third", "flood", "flood", "flood", "flood"]);
    }

    #[test]
    fn a_queue_has_an_end_and_only_its_own() {
        let turns = Turns::new(2, 2);
        let _held = [now(&turns, "a").unwrap(), now(&turns, "b").unwrap()];
        let mut waiting = [ask(&turns, "a"), ask(&turns, "a")];
        assert!(matches!(now(&turns, "a"), Err(QueueIsFull)));
        let _other = ask(&turns, "b");
        waiting[0] = ask(&turns, "c");
        let _again = ask(&turns, "a");
    }

    #[test]
    fn who_gives_up_costs_no_turn() {
        let turns = Turns::new(1, 10);
        let held = now(&turns, "a").unwrap();
        let (first, second, mut third) = (ask(&turns, "a"), ask(&turns, "b"), ask(&turns, "b"));
        drop(first);
        drop(held);
        // The turn has been given to the second, who leaves without looking.
        drop(second);
        let turn = poll(&mut third).unwrap().unwrap();
        drop(turn);
        assert!(now(&turns, "a").is_ok(), "it is free again");
    }
}
