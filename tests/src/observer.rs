//! A node agent's view of the mesh, without a data path: what control sends over xDS, as snapshots that can
//! be waited on.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_mesh::snapshot::{Snapshot, State};
use ambit_xds::client::{Client, Config};
use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep_until, timeout_at};

/// What has been received.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The mesh as a node agent would know it.
    pub snapshot: Arc<Snapshot>,
    /// Whether all of it has been received once.
    pub synced: bool,
}

/// A client on a task of its own. It ends when dropped.
#[derive(Debug)]
pub struct Observer {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

impl Observer {
    /// Starts to follow a server, and comes back to it whenever it is lost. Must be called inside a tokio
    /// runtime.
    pub fn start(config: Config) -> Self {
        let (publish, seen) = watch::channel(Seen::default());
        let task = tokio::spawn(async move {
            let mut state = State::default();
            // Nothing is asked for by name.
            let (_, demand) = mpsc::channel(1);
            Client::new(config)
                .run(demand, |batch| {
                    state.apply(batch.changes);
                    publish.send_modify(|seen| {
                        seen.snapshot = state.snapshot();
                        seen.synced |= batch.synced;
                    });
                })
                .await;
        });
        Self { seen, task }
    }

    /// What has been received so far.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.seen.borrow().snapshot)
    }

    /// Waits until everything has been received once.
    ///
    /// # Errors
    /// When that takes longer than `within`.
    pub async fn synced(&mut self, within: Duration) -> Result<Duration> {
        let start = Instant::now();
        let waited = tokio::time::timeout(within, self.seen.wait_for(|seen| seen.synced)).await;
        drop(waited.map_err(|_| anyhow!("control has not sent everything within {within:?}"))??);
        Ok(start.elapsed())
    }

    /// Waits until `probe` finds what it looks for.
    ///
    /// # Errors
    /// When `within` is over: what was waited for, and what was missing last.
    pub async fn until<T>(
        &mut self,
        what: &str,
        within: Duration,
        mut probe: impl FnMut(&Snapshot) -> Result<T>,
    ) -> Result<(T, Duration)> {
        let start = Instant::now();
        loop {
            let snapshot = Arc::clone(&self.seen.borrow_and_update().snapshot);
            let missing = match probe(&snapshot) {
                Ok(found) => return Ok((found, start.elapsed())),
                Err(missing) => missing,
            };
            match timeout_at((start + within).into(), self.seen.changed()).await {
                Ok(changed) => changed.context("the client has ended")?,
                Err(_) => bail!("waited {within:?} for {what}: {missing:#}"),
            }
        }
    }

    /// Sees to it that `holds` is true of every snapshot for a whole span.
    ///
    /// # Errors
    /// As soon as it is not.
    pub async fn throughout(
        &mut self,
        what: &str,
        span: Duration,
        holds: impl Fn(&Snapshot) -> Result<()>,
    ) -> Result<()> {
        let start = Instant::now();
        loop {
            let snapshot = Arc::clone(&self.seen.borrow_and_update().snapshot);
            if let Err(reason) = holds(&snapshot) {
                bail!("{what} failed after {:?}: {reason:#}", start.elapsed());
            }
            tokio::select! {
                changed = self.seen.changed() => changed.context("the client has ended")?,
                () = sleep_until((start + span).into()) => return Ok(()),
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
