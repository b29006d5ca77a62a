//! What ends a program: SIGTERM, SIGINT, or a request to the admin server.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::drain::{DrainTrigger, Drained};

/// Listens for SIGTERM and SIGINT from now on: neither ends the process by itself any more.
///
/// Call it inside a tokio runtime, once per process.
///
/// # Errors
/// When the process may not install signal handlers.
pub fn signals() -> io::Result<Shutdown> {
    Ok(Shutdown {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
        request: ShutdownHandle::default(),
    })
}

/// Waits for the end of the program.
#[derive(Debug)]
pub struct Shutdown {
    terminate: Signal,
    interrupt: Signal,
    request: ShutdownHandle,
}

/// Why a program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// SIGTERM.
    Terminate,
    /// SIGINT, as from Ctrl-C.
    Interrupt,
    /// [`ShutdownHandle::request`].
    Request,
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was cut off.
    Drained,
    /// The drain's deadline passed, and connections were cut off.
    DeadlinePassed,
    /// A SIGINT came while draining: whoever sent it does not want to wait.
    Interrupted,
}

impl Shutdown {
    /// A handle for others to ask for the end.
    pub fn handle(&self) -> ShutdownHandle {
        self.request.clone()
    }

    /// Waits until the program is told to end.
    pub async fn requested(&mut self) -> Reason {
        tokio::select! {
            _ = self.terminate.recv() => Reason::Terminate,
            _ = self.interrupt.recv() => Reason::Interrupt,
            () = self.request.notify.notified() => Reason::Request,
        }
    }

    /// Drains, unless a SIGINT cuts the wait short. Call it after [`requested`](Self::requested).
    pub async fn drain(mut self, trigger: DrainTrigger, within: Duration) -> Ended {
        tokio::select! {
            drained = trigger.drain(within) => match drained {
                Drained::Complete => Ended::Drained,
                Drained::Forced => Ended::DeadlinePassed,
            },
            _ = self.interrupt.recv() => Ended::Interrupted,
        }
    }
}

/// Asks the program to end, as SIGTERM does.
#[derive(Clone, Debug, Default)]
pub struct ShutdownHandle {
    notify: Arc<Notify>,
}

impl ShutdownHandle {
    /// Asks for the end. Asking again changes nothing.
    pub fn request(&self) {
        self.notify.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain;

    #[tokio::test]
    async fn a_request_that_came_before_the_wait_is_seen() {
        let mut shutdown = signals().unwrap();
        shutdown.handle().request();
        assert_eq!(shutdown.requested().await, Reason::Request);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_says_whether_anything_was_cut_off() {
        for (held, expected) in [(false, Ended::Drained), (true, Ended::DeadlinePassed)] {
            let (trigger, watch) = drain::channel();
            let held = held.then_some(watch);
            let ended = signals().unwrap().drain(trigger, Duration::from_secs(5)).await;
            assert_eq!(ended, expected);
            drop(held);
        }
    }
}
