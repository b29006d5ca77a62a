//! How long a peer may be silent before others are looked for, without a timer for each connection.
//!
//! A timer that ends before all others wakes its worker's driver when it is set, which each connection would
//! pay with two system calls. One task keeps the time for all that wait, while somebody does.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::tunnel::Tunnel;

/// The patience of one worker. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Patience(Rc<Clock>);

#[derive(Debug, Default)]
struct Clock {
    ticks: Cell<u64>,
    waiting: Cell<usize>,
    is_running: Cell<bool>,
    ticked: Notify,
}

/// Nothing has come for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence;

/// Whether a connection failed because nothing came from there: so does the system say it that waited for itself.
pub fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
    )
}

/// What came of waiting for what a peer of a tunnel has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard<T> {
    /// It.
    Answer(T),
    /// Not yet, but the peer is there.
    SignOfLife,
    /// Nothing at all, although the peer was asked for a sign of life.
    Silence,
}

impl Patience {
    /// Waits for something to happen, for a while: at least [`TICK`] times two, less than three times. What waited can
    /// go on waiting.
    ///
    /// # Errors
    /// When it has not happened.
    pub async fn wait<T>(&self, future: impl Future<Output = T>) -> Result<T, Silence> {
        let mut future = pin!(future);
        tokio::select! {
            biased;
            outcome = &mut future => Ok(outcome),
            () = self.a_while() => Err(Silence),
        }
    }

    /// Waits for something that the peer of a tunnel has to say, for a while; then asks for a sign of life, and waits for
    /// as long again. What waited can go on waiting; but a tunnel whose peer is silent takes no new streams any more.
    pub async fn listen<T>(
        &self,
        tunnel: &Tunnel,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Heard<T> {
        let before = tunnel.heard();
        for is_asked in [false, true] {
            if let Ok(outcome) = self.wait(future.as_mut()).await {
                return Heard::Answer(outcome);
            }
            if tunnel.heard() != before {
                return Heard::SignOfLife;
            }
            if !is_asked {
                tunnel.ping();
            }
        }
        tunnel.shutdown();
        Heard::Silence
    }

    async fn a_while(&self) {
        let clock = &self.0;
        let _counted = Waiting::of(clock);
        if !clock.is_running.replace(true) {
            spawn_local(run(Rc::clone(clock)));
        }
        let end = clock.ticks.get() + TICKS;
        while clock.ticks.get() < end {
            clock.ticked.notified().await;
        }
    }
}

async fn run(clock: Rc<Clock>) {
    while clock.waiting.get() > 0 {
        sleep(TICK).await;
        clock.ticks.set(clock.ticks.get() + 1);
        clock.ticked.notify_waiters();
    }
    clock.is_running.set(false);
}

/// Somebody who waits.
struct Waiting<'a>(&'a Clock);

impl<'a> Waiting<'a> {
    fn of(clock: &'a Clock) -> Self {
        clock.waiting.set(clock.waiting.get() + 1);
        Self(clock)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

/// TCP has sent its SYN again after three of these at the latest, and clients give up after few seconds.
const TICK: Duration = Duration::from_millis(500);

/// The first of them has begun already.
const TICKS: u64 = 3;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::task::LocalSet;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn silence_takes_a_while_and_whoever_waits_can_go_on() {
        let test = async {
            let patience = Patience::default();
            let start = Instant::now();
            assert_eq!(patience.wait(ready(7)).await, Ok(7));
            assert!(!patience.0.is_running.get(), "what is there needs no clock");
            let mut slow = pin!(sleep(TICK * 4));
            assert_eq!(patience.wait(&mut slow).await, Err(Silence));
            let waited = start.elapsed();
            assert!((TICK * 2..=TICK * 3).contains(&waited), "{waited:?}");
            assert_eq!(patience.wait(slow).await, Ok(()));
            let (a, b) = tokio::join!(patience.wait(pending::<()>()), patience.wait(pending::<()>()));
            assert_eq!((a, b), (Err(Silence), Err(Silence)));
            sleep(TICK * 2).await;
            assert!(!patience.0.is_running.get(), "nobody waits");
        };
        LocalSet::new().run_until(test).await;
    }
}
