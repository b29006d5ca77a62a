//! When the last good configuration is written: soon after it changes, not more often than the
//! disk and the processor should notice, and always in its final state.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{Configuration, LastGood, SaveError};

/// The handle by which configurations are handed over to be written. Of several the last one
/// counts. Once it is dropped, that one is written and the writing ends.
#[derive(Debug)]
pub struct Keeper<C> {
    latest: watch::Sender<Option<Arc<C>>>,
}

impl<C> Keeper<C> {
    /// Has this configuration written. Does not wait.
    pub fn keep(&self, configuration: Arc<C>) {
        self.latest.send_replace(Some(configuration));
    }
}

/// A handle, and what writes as long as it is run. Once `stop` is done nothing more is written, also not
/// the last configuration: the file is another process's then.
pub fn keeper<C: Configuration>(
    file: LastGood,
    stop: impl Future<Output = ()> + Send,
) -> (Keeper<C>, impl Future<Output = ()> + Send) {
    let (latest, receiver) = watch::channel(None);
    (Keeper { latest }, keep_written(receiver, stop, move |kept| save(file.clone(), kept)))
}

/// Converting and writing a large mesh takes long: not on a thread that serves.
async fn save<C: Configuration>(file: LastGood, configuration: Arc<C>) -> Result<(), SaveError> {
    let path = file.path.clone();
    let saved = spawn_blocking(move || file.save(&*configuration, SystemTime::now())).await;
    saved.unwrap_or_else(|ended| Err(SaveError { path, source: ended.into() }))
}

async fn keep_written<C, S>(
    mut latest: watch::Receiver<Option<Arc<C>>>,
    stop: impl Future<Output = ()>,
    mut save: impl FnMut(Arc<C>) -> S,
) where
    S: Future<Output = Result<(), SaveError>>,
{
    let mut stop = pin!(stop);
    let mut settled = None;
    loop {
        // A writing under way is never stopped.
        let next = tokio::select! {
            biased;
            () = &mut stop => return,
            next = other_than(settled.as_ref(), &mut latest) => next,
        };
        let Some(configuration) = next else { return };
        let start = Instant::now();
        let saved = save(Arc::clone(&configuration)).await;
        let took = start.elapsed();
        let (written, rest) = match saved {
            Ok(()) => {
                debug!(?took, "last good configuration written");
                (true, INTERVAL.max(took * REST_PER_WRITING))
            }
            Err(error) => {
                warn!(%error, "the last good configuration was not written: trying again");
                (false, RETRY)
            }
        };
        let ended = tokio::select! {
            biased;
            () = &mut stop => return,
            ended = timeout(rest, end(&mut latest)) => ended.is_ok(),
        };
        // What could not be written is tried again, but not by a program that ends.
        settled = (written || ended).then_some(configuration);
    }
}

/// The latest configuration, once there is one that is not `settled`; `None` if there will be none.
async fn other_than<C>(
    settled: Option<&Arc<C>>,
    latest: &mut watch::Receiver<Option<Arc<C>>>,
) -> Option<Arc<C>> {
    let is_settled = |latest: &Arc<C>| settled.is_some_and(|settled| Arc::ptr_eq(settled, latest));
    let is_new = |latest: &Option<_>| latest.as_ref().is_some_and(|latest| !is_settled(latest));
    // The value is looked at before whether the sender is gone: the last one is never lost.
    latest.wait_for(is_new).await.ok()?.clone()
}

/// Waits until the handle is dropped.
async fn end<C>(latest: &mut watch::Receiver<Option<Arc<C>>>) {
    // No value satisfies it, so it returns only with the error that says that the sender is gone.
    let _gone = latest.wait_for(|_| false).await;
}

/// The least time between two writings.
const INTERVAL: Duration = Duration::from_secs(1);

/// Writing takes at most a tenth of one processor, however large the mesh.
const REST_PER_WRITING: u32 = 9;

/// How long after a failure it is tried again. A full disk should not fill the log.
const RETRY: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::io;

    use ambit_mesh::snapshot::Snapshot;

    use super::*;

    /// Runs `actions` beside the writer; returns when it wrote what, and drops the handle at the end.
    async fn written_during<A: Future<Output = ()>>(
        actions: impl FnOnce(Keeper<Snapshot>) -> A,
        mut outcome: impl FnMut() -> Result<(), SaveError>,
    ) -> Vec<(Duration, Arc<Snapshot>)> {
        let start = Instant::now();
        let written = RefCell::new(Vec::new());
        let (latest, receiver) = watch::channel(None);
        let save = |snapshot| {
            written.borrow_mut().push((start.elapsed(), snapshot));
            std::future::ready(outcome())
        };
        tokio::join!(keep_written(receiver, std::future::pending(), save), actions(Keeper { latest }));
        written.into_inner()
    }

    /// Another one each time, as after every batch.
    fn snapshot() -> Arc<Snapshot> {
        Arc::new(Snapshot::default())
    }

    fn full() -> Result<(), SaveError> {
        Err(SaveError { path: "last-good".into(), source: io::ErrorKind::StorageFull.into() })
    }

    const MOMENT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_written_once_a_second_and_its_last_state_always() {
        let last = snapshot();
        let burst = async |keeper: Keeper<Snapshot>| {
            for _ in 0..249 {
                keeper.keep(snapshot());
                tokio::time::sleep(MOMENT).await;
            }
            keeper.keep(Arc::clone(&last));
            tokio::time::sleep(100 * INTERVAL).await;
        };
        let written = written_during(burst, || Ok(())).await;
        let times: Vec<u64> = written.iter().map(|(at, _)| at.as_secs()).collect();
        assert_eq!(times, [0, 1, 2, 3], "and nothing more once nothing changes");
        assert!(Arc::ptr_eq(&written[3].1, &last));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_kept_last_is_written_at_the_end_without_waiting() {
        let last = snapshot();
        let ending = async |keeper: Keeper<Snapshot>| {
            keeper.keep(snapshot());
            tokio::time::sleep(MOMENT).await;
            keeper.keep(Arc::clone(&last));
        };
        let written = written_during(ending, || Ok(())).await;
        assert_eq!(written.len(), 2);
        assert_eq!(written[1].0, MOMENT);
        assert!(Arc::ptr_eq(&written[1].1, &last));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_configuration_nothing_is_written() {
        let written = written_during(async |keeper: Keeper<Snapshot>| drop(keeper), || Ok(())).await;
        assert!(written.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_written_is_tried_again_until_the_agent_ends() {
        let only = snapshot();
        let waiting = async |keeper: Keeper<Snapshot>| {
            keeper.keep(Arc::clone(&only));
            tokio::time::sleep(2 * RETRY + INTERVAL).await;
        };
        let written = written_during(waiting, full).await;
        let times: Vec<Duration> = written.iter().map(|(at, _)| *at).collect();
        assert_eq!(times, [Duration::ZERO, RETRY, 2 * RETRY]);
    }

    /// The successor of an agent writes the file, and may know more.
    #[tokio::test(start_paused = true)]
    async fn an_agent_that_was_succeeded_writes_nothing_more() {
        let (latest, receiver) = watch::channel(None);
        let keeper = Keeper { latest };
        let written = RefCell::new(0);
        let save = |_| {
            *written.borrow_mut() += 1;
            std::future::ready(Ok(()))
        };
        let (succeeded, stop) = tokio::sync::oneshot::channel::<()>();
        let changing = async {
            keeper.keep(snapshot());
            tokio::time::sleep(MOMENT).await;
            keeper.keep(snapshot());
            drop(succeeded);
            tokio::time::sleep(2 * INTERVAL).await;
            keeper.keep(snapshot());
        };
        tokio::join!(keep_written(receiver, async { drop(stop.await) }, save), changing);
        drop(keeper);
        assert_eq!(written.into_inner(), 1);
    }
}
