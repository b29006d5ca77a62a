//! Writes statuses whenever the configuration changes or a proxy answers.

use std::sync::Arc;
use std::time::Duration;

use ambit_xds::server::Subscribers;
use tokio::sync::watch;

use super::documents;
use crate::publish::Generation;
use crate::state::FileSet;

/// Answers of many proxies are written together.
const ANSWERS_TOGETHER: Duration = Duration::from_millis(200);

/// Keeps the status files written until the publisher is gone.
pub async fn keep_written(
    mut files: FileSet,
    mut generations: watch::Receiver<Arc<Generation>>,
    subscribers: Subscribers,
) {
    let mut progress = subscribers.progress();
    generations.mark_changed();
    loop {
        tokio::select! {
            changed = generations.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            // The registry lives as long as `subscribers`, so this never ends.
            _ = progress.changed() => tokio::time::sleep(ANSWERS_TOGETHER).await,
        }
        progress.mark_unchanged();
        let generation = generations.borrow_and_update().clone();
        let subscribers = subscribers.clone();
        let write = move || {
            let counted = |kind, name: &str| {
                let programmed = subscribers.programmed(kind, name);
                (programmed.wanted > 0).then_some(programmed)
            };
            if generation.number > 0 {
                files.write(&documents(&generation, &counted));
            }
            files
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(returned) => files = returned,
            Err(error) => {
                tracing::error!(%error, "statuses are not written any more");
                return;
            }
        }
    }
}
