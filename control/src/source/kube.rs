//! Watches an API server and sends what changed, in batches.
//!
//! `served` finds out what is there, a `follow` for each kind lists and watches, `held` knows what it
//! comes to. It runs on a thread of its own: reading ten thousand pods must not keep subscribers
//! waiting.

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use ::kube::Client;
use ambit_kube::Access;
use metrics::gauge;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, sleep_until};

use super::Batch;
use crate::objects::KnownKind;
use health::Health;
use held::{Held, Seen};
use retry::Retry;

mod follow;
mod health;
mod held;
mod lines;
mod reading;
mod request;
mod resource;
mod retry;
mod served;
mod uninstalling;
mod wire;

/// Changes that follow each other more closely are told together.
const QUIET: Duration = Duration::from_millis(20);

/// A stream of changes is told after this long even if it goes on.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// What was seen and not taken in yet, in pages or single objects.
const SEEN_QUEUE: usize = 64;

/// A running watch. Dropping it stops the thread and waits for it.
#[derive(Debug)]
pub struct KubeSource {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl KubeSource {
    /// Starts to watch. The first batch holds everything and is sent as soon as all of it was read.
    ///
    /// # Errors
    /// When the thread or its runtime cannot be started.
    pub fn start(access: Access, namespace: String, batches: SyncSender<Batch>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            runtime.block_on(async {
                tokio::select! {
                    () = connect_and_watch(access, namespace, batches) => {}
                    // Ends when the owner drops its end.
                    _ = stopped => {}
                }
            });
            // A batch that nobody takes must not keep the owner.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("config-kube".to_owned()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for KubeSource {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that watches the API server panicked");
        }
    }
}

async fn connect_and_watch(access: Access, namespace: String, batches: SyncSender<Batch>) {
    let mut retry = Retry::default();
    loop {
        match ambit_kube::connect(&access).await {
            Ok(client) => return watch(client, &namespace, batches).await,
            Err(error) => {
                tracing::error!(%error, "the credentials for the API server cannot be used");
                let wait = retry.after_failure(None, &mut rand::rng());
                sleep(wait).await;
            }
        }
    }
}

/// Watches until nobody takes the batches.
async fn watch(client: Client, namespace: &str, batches: SyncSender<Batch>) {
    let (seen, to_take_in) = mpsc::channel(SEEN_QUEUE);
    // The tasks are dropped with this function.
    let mut tasks = follow(&client, &seen);
    tasks.spawn(uninstalling::follow(client, namespace.to_owned(), seen));
    collect(to_take_in, batches).await;
}

/// Follows every kind.
fn follow(client: &Client, seen: &mpsc::Sender<Seen>) -> JoinSet<()> {
    let health = Health::default();
    let mut tasks = JoinSet::new();
    for kind in KnownKind::ALL {
        tasks.spawn(served::follow(client.clone(), kind, seen.clone(), health.clone()));
    }
    tasks
}

/// Takes in what is seen, and sends batches: one at a time, so that whatever happens while the
/// pipeline is busy costs one batch more.
async fn collect(mut seen: mpsc::Receiver<Seen>, batches: SyncSender<Batch>) {
    let mut held = Held::default();
    let mut window = Window::default();
    loop {
        tokio::select! {
            next = seen.recv() => match next {
                Some(next) => take_in(&mut held, &mut window, next),
                None => return,
            },
            () = window.passed() => {
                window = Window::default();
                let (batch, to) = (held.take_news(), batches.clone());
                let mut sending = spawn_blocking(move || to.send(batch));
                // The channel is full while the pipeline is busy.
                let sent = loop {
                    tokio::select! {
                        sent = &mut sending => break sent,
                        Some(next) = seen.recv() => take_in(&mut held, &mut window, next),
                    }
                };
                if !matches!(sent, Ok(Ok(()))) {
                    return;
                }
            }
        }
    }
}

fn take_in(held: &mut Held, window: &mut Window, seen: Seen) {
    let kind = seen.kind();
    held.apply(seen);
    if let Some(kind) = kind {
        let count = u32::try_from(held.count(kind)).unwrap_or(u32::MAX);
        gauge!("ambit_control_watched_objects", "kind" => kind.plural()).set(count);
    }
    if held.has_news() {
        window.note(Instant::now());
    }
}

/// When to tell what changed.
#[derive(Debug, Default)]
struct Window(Option<(Instant, Instant)>);

impl Window {
    fn note(&mut self, now: Instant) {
        let first = self.0.map_or(now, |(first, _)| first);
        self.0 = Some((first, now));
    }

    /// When changes pause, or have gone on for long; never while nothing changed.
    async fn passed(&self) {
        match self.0 {
            Some((first, last)) => sleep_until((last + QUIET).min(first + LONGEST_WAIT)).await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
