//! Follows the objects of one kind: lists them, watches them from there, and lists them again when
//! the API server no longer knows what happened since.
//!
//! While it fails nothing is taken back: what was seen last stays.

use std::time::{Duration, SystemTime};

use kube::Client;
use metrics::{Gauge, counter, gauge};
use rand::Rng;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};

use super::health::Health;
use super::held::Seen;
use super::lines::Lines;
use super::reading::{self, Unidentified};
use super::request::{self, Failure};
use super::resource::Resource;
use super::retry::Retry;
use super::wire::{Line, Page};
use crate::objects::KnownKind;

/// How long a watch goes on, in seconds; by chance, so that not all end at once.
const WATCH_SECONDS: std::ops::Range<u32> = 240..300;

/// After its time an API server ends a watch by itself. If it does not, the connection is dead.
const OVERTIME: Duration = Duration::from_secs(15);

/// A watch that was open for so long worked, even if nothing happened.
const WORKS_AFTER: Duration = Duration::from_secs(5);

/// So many refusals to go on from a version, without any progress, and the list is asked for again:
/// an API server that was set back never comes to the version that it is asked for.
const REFUSALS_BEFORE_LIST: u32 = 5;

/// Nobody listens any more.
#[derive(Debug)]
pub(super) struct Deaf;

/// Why a step did not come to its end.
#[derive(Debug)]
enum Stopped {
    Failed(Failure),
    Deaf,
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Deaf> for Stopped {
    fn from(_: Deaf) -> Self {
        Self::Deaf
    }
}

/// Follows one kind.
pub(super) struct Follower {
    client: Client,
    resource: Resource,
    seen: mpsc::Sender<Seen>,
    health: Health,
    retry: Retry,
    last_list: Gauge,
    last_event: Gauge,
}

impl Follower {
    pub(super) fn new(client: Client, resource: Resource, seen: mpsc::Sender<Seen>, health: Health) -> Self {
        let kind = resource.kind.plural();
        Self {
            client,
            resource,
            seen,
            health,
            retry: Retry::default(),
            last_list: gauge!("ambit_control_watch_last_list_timestamp_seconds", "kind" => kind),
            last_event: gauge!("ambit_control_watch_last_event_timestamp_seconds", "kind" => kind),
        }
    }

    /// Follows until nobody listens.
    pub(super) async fn follow(mut self) -> Deaf {
        loop {
            let followed = match self.list().await {
                Ok(version) => self.watch(version).await,
                Err(deaf) => return deaf,
            };
            if let Err(deaf) = followed {
                return deaf;
            }
        }
    }

    /// Lists everything, however often that takes, and returns the version to watch from.
    async fn list(&mut self) -> Result<String, Deaf> {
        loop {
            match self.list_once().await {
                Ok(version) => {
                    self.health.works(self.kind());
                    self.last_list.set(now());
                    return Ok(version);
                }
                Err(Stopped::Failed(failure)) => self.pause(&failure).await,
                Err(Stopped::Deaf) => return Err(Deaf),
            }
        }
    }

    async fn list_once(&mut self) -> Result<String, Stopped> {
        self.tell(Seen::ListBegun(self.kind())).await?;
        let mut next = None;
        loop {
            let path = self.resource.list_path(next.as_deref());
            let text = request::text(&self.client, &path, "a list").await?;
            let page = Page::read(&text).map_err(|_| Failure::garbled("a list"))?;
            let read = |item| {
                let found = reading::read(self.kind(), item);
                found.inspect_err(|error| self.log_unidentified(error)).ok()
            };
            let readings = page.items().filter_map(read).map(|found| found.reading).collect();
            self.tell(Seen::Put(self.kind(), readings)).await?;
            next = page.next().map(str::to_owned);
            if next.is_none() {
                let version = page.resource_version().to_owned();
                if version.is_empty() {
                    return Err(Failure::garbled("the version of a list").into());
                }
                self.tell(Seen::ListEnded(self.kind())).await?;
                return Ok(version);
            }
        }
    }

    /// Watches from a version until a list is needed again.
    async fn watch(&mut self, mut version: String) -> Result<(), Deaf> {
        loop {
            let begun = Instant::now();
            let failure = match self.watch_once(&mut version).await {
                Ok(()) if begun.elapsed() >= WORKS_AFTER => {
                    self.retry.succeeded();
                    continue;
                }
                Ok(()) => Failure::Ended,
                Err(Stopped::Failed(failure)) => failure,
                Err(Stopped::Deaf) => return Err(Deaf),
            };
            if begun.elapsed() >= WORKS_AFTER {
                self.retry.succeeded();
            }
            self.pause(&failure).await;
            if needs_list(&failure, self.retry.failures()) {
                return Ok(());
            }
        }
    }

    /// Watches until the server ends it in time, or it fails. `version` is what was seen last.
    async fn watch_once(&mut self, version: &mut String) -> Result<(), Stopped> {
        let seconds = rand::rng().random_range(WATCH_SECONDS);
        let end = Instant::now() + Duration::from_secs(seconds.into()) + OVERTIME;
        let body = request::head(&self.client, &self.resource.watch_path(version, seconds)).await?;
        self.health.works(self.kind());
        let mut lines = Lines::new(body);
        loop {
            let Ok(line) = timeout_at(end, lines.next()).await else { return Ok(()) };
            let Some(line) = line? else { return Ok(()) };
            if let Some(seen) = self.event(&line, version)? {
                self.tell(seen).await?;
            }
            self.retry.succeeded();
            self.last_event.set(now());
        }
    }

    /// What a line tells; `version` moves on.
    fn event(&self, line: &str, version: &mut String) -> Result<Option<Seen>, Failure> {
        let kind = self.kind();
        let line = Line::read(line).map_err(|_| Failure::garbled("a line of a watch"))?;
        let seen = match line {
            Line::Put(object) => reading::read(kind, object)
                .map(|found| (Seen::Put(kind, vec![found.reading]), found.resource_version)),
            Line::Gone(object) => {
                reading::key(kind, object).map(|(key, version)| (Seen::Gone(kind, key), version))
            }
            Line::Bookmark(at) => {
                advance(version, at);
                return Ok(None);
            }
            Line::Failed(status) => return Err(status.into()),
            Line::Unknown => return Ok(None),
        };
        match seen {
            Ok((seen, at)) => {
                advance(version, at);
                Ok(Some(seen))
            }
            Err(error) => {
                self.log_unidentified(&error);
                Ok(None)
            }
        }
    }

    async fn pause(&mut self, failure: &Failure) {
        let reason = failure.label();
        counter!("ambit_control_watch_restarts_total", "kind" => self.kind().plural(), "reason" => reason)
            .increment(1);
        self.health.fails(self.kind(), failure);
        let wait = self.retry.after_failure(failure.retry_after(), &mut rand::rng());
        sleep(wait).await;
    }

    async fn tell(&self, seen: Seen) -> Result<(), Deaf> {
        self.seen.send(seen).await.map_err(|_| Deaf)
    }

    fn log_unidentified(&self, error: &Unidentified) {
        tracing::warn!(kind = self.kind().name(), %error, "an object of the API server cannot be identified");
    }

    fn kind(&self) -> KnownKind {
        self.resource.kind
    }
}

/// Whether a watch cannot go on from where it was.
fn needs_list(failure: &Failure, failures: u32) -> bool {
    match failure {
        Failure::Refused { status: 410, .. } | Failure::Garbled { .. } => true,
        Failure::Refused { status: 429, .. } => false,
        Failure::Refused { .. } | Failure::Ended => failures >= REFUSALS_BEFORE_LIST,
        Failure::Unreachable { .. } => false,
    }
}

fn advance(version: &mut String, to: String) {
    if !to.is_empty() {
        *version = to;
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
