//! Whether the mesh itself is being deleted: the namespace that it is in, or the definition of its own
//! kind.
//!
//! Who uninstalls deletes the accounts of control and of the agents in the same breath. A watch that is
//! open outlives them, since an API server asks for permissions when it begins: this is how control still
//! learns of it, and it tells the agents (docs/adr/007-uninstall-or-upgrade.md).

use std::time::Duration;

use kube::{Client, CustomResourceExt};
use rand::Rng;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};

use super::held::Seen;
use super::lines::Lines;
use super::request::{self, Failure};
use super::resource::one_named;
use super::retry::Retry;
use super::wire::{Line, Page};
use crate::kube::reports::report::ProxyReport;

/// How long a watch goes on, in seconds; by chance, so that not all end at once.
const WATCH_SECONDS: std::ops::Range<u32> = 240..300;

/// After its time an API server ends a watch by itself. If it does not, the connection is dead.
const OVERTIME: Duration = Duration::from_secs(15);

/// A watch that ends sooner does not work.
const WORKS_AFTER: Duration = Duration::from_secs(5);

/// What becomes of an object that the mesh cannot be without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Fate {
    /// It was never seen: that it is missing says nothing.
    #[default]
    Unseen,
    /// It is there, and stays.
    Stands,
    /// It is being deleted, or was.
    Goes,
}

impl Fate {
    /// It was seen as this.
    fn of(object: &str) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Metadata {
            deletion_timestamp: Option<String>,
        }
        let object: Object =
            serde_json::from_str(object).map_err(|_| Failure::garbled("an object of the mesh's own"))?;
        Ok(if object.metadata.deletion_timestamp.is_some() { Self::Goes } else { Self::Stands })
    }

    /// It is not there.
    fn missing(self) -> Self {
        match self {
            Self::Unseen => Self::Unseen,
            Self::Stands | Self::Goes => Self::Goes,
        }
    }
}

/// Follows both until nobody listens.
pub(super) async fn follow(client: Client, namespace: String, seen: mpsc::Sender<Seen>) {
    let namespace = one_named("/api/v1/namespaces", &namespace);
    let definition =
        one_named("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", ProxyReport::crd_name());
    let (of_namespace, of_definition) = (watch::Sender::default(), watch::Sender::default());
    let fates = (of_namespace.subscribe(), of_definition.subscribe());
    tokio::select! {
        () = follow_one(&client, &namespace, &of_namespace) => {}
        () = follow_one(&client, &definition, &of_definition) => {}
        () = tell(fates, &seen) => {}
    }
}

async fn tell(mut fates: (watch::Receiver<Fate>, watch::Receiver<Fate>), seen: &mpsc::Sender<Seen>) {
    loop {
        let uninstalling = [*fates.0.borrow_and_update(), *fates.1.borrow_and_update()].contains(&Fate::Goes);
        if seen.send(Seen::Uninstalling(uninstalling)).await.is_err() {
            return;
        }
        let changed = tokio::select! {
            changed = fates.0.changed() => changed,
            changed = fates.1.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Follows one object. While that fails, what was seen last holds.
async fn follow_one(client: &Client, path: &str, fate: &watch::Sender<Fate>) {
    let mut retry = Retry::default();
    loop {
        let begun = Instant::now();
        let failure = match follow_once(client, path, fate).await {
            Ok(()) if begun.elapsed() >= WORKS_AFTER => {
                retry.succeeded();
                continue;
            }
            Ok(()) => Failure::Ended,
            Err(failure) => failure,
        };
        if begun.elapsed() >= WORKS_AFTER {
            retry.succeeded();
        }
        if retry.failures() == 0 {
            tracing::debug!(path, error = %failure, "an object of the mesh's own cannot be followed");
        }
        let wait = retry.after_failure(failure.retry_after(), &mut rand::rng());
        sleep(wait).await;
    }
}

/// Looks for the object, and watches it until the watch ends.
async fn follow_once(client: &Client, path: &str, fate: &watch::Sender<Fate>) -> Result<(), Failure> {
    let text = request::text(client, path, "a list").await?;
    let page = Page::read(&text).map_err(|_| Failure::garbled("a list"))?;
    let found = match page.items().next() {
        Some(object) => Fate::of(object)?,
        None => fate.borrow().missing(),
    };
    set(fate, found);
    let (version, seconds) = (page.resource_version(), rand::rng().random_range(WATCH_SECONDS));
    let end = Instant::now() + Duration::from_secs(seconds.into()) + OVERTIME;
    let path = format!("{path}&watch=true&resourceVersion={version}&timeoutSeconds={seconds}");
    let mut lines = Lines::new(request::head(client, &path).await?);
    loop {
        let Ok(line) = timeout_at(end, lines.next()).await else { return Ok(()) };
        let Some(line) = line? else { return Ok(()) };
        match Line::read(&line).map_err(|_| Failure::garbled("a line of a watch"))? {
            Line::Put(object) => set(fate, Fate::of(object)?),
            Line::Gone(_) => set(fate, Fate::Goes),
            Line::Failed(status) => return Err(status.into()),
            Line::Bookmark(_) | Line::Unknown => {}
        }
    }
}

fn set(fate: &watch::Sender<Fate>, to: Fate) {
    fate.send_if_modified(|fate| std::mem::replace(fate, to) != to);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_there_can_be_deleted() {
        let [stands, goes] = [
            r#"{"metadata":{"name":"x"}}"#,
            r#"{"metadata":{"name":"x","deletionTimestamp":"2026-11-26T04:00:00Z"}}"#,
        ];
        assert_eq!(Fate::of(stands).unwrap(), Fate::Stands);
        assert_eq!(Fate::of(goes).unwrap(), Fate::Goes);
        assert!(Fate::of("17").is_err());
        assert_eq!(Fate::default().missing(), Fate::Unseen, "an installation without it");
        assert_eq!(Fate::Stands.missing(), Fate::Goes);
    }
}
