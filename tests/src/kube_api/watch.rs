//! Watches: from a revision on, or from what there is.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::errors::ApiError;
use super::kinds::Resource;
use super::list::Scope;
use super::render::Form;
use super::request::Query;
use super::state::State;
use super::store::{Change, Store};

/// How often a watch that hears nothing is told the revision.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// And how long before its end.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch that asks for no end has one all the same.
const LONGEST: Duration = Duration::from_secs(30 * 60);

/// A watch that has been asked for.
#[derive(Debug)]
pub(super) struct Watching {
    resource: Resource,
    scope: Scope,
    form: Form,
    /// What is sent first, as ADDED.
    initial: Vec<Bytes>,
    revision: u64,
    bookmarks: bool,
    timeout: Duration,
}

impl Watching {
    pub(super) fn new(
        store: &Store,
        resource: Resource,
        scope: Scope,
        form: Form,
        query: &Query,
    ) -> Result<Self, ApiError> {
        let asked = query.number("resourceVersion")?.unwrap_or_default();
        if query.flag("sendInitialEvents") || !query.text("resourceVersionMatch").is_empty() {
            let what = "sendInitialEvents: Forbidden: the double does not stream lists";
            return Err(ApiError::invalid("ListOptions.meta.k8s.io", "", what));
        }
        let (revision, initial) = if asked == 0 {
            let objects = store.all(&resource.id);
            let chosen = objects.filter(|(name, stored)| scope.matches(name, &stored.value));
            (store.revision(), chosen.map(|(_, stored)| form.object(stored)).collect())
        } else {
            (asked, Vec::new())
        };
        let timeout = query.number("timeoutSeconds")?.map_or(LONGEST, Duration::from_secs);
        let bookmarks = query.flag("allowWatchBookmarks");
        Ok(Self { resource, scope, form, initial, revision, bookmarks, timeout })
    }

    /// Sends events until the watch ends, or nobody listens.
    pub(super) async fn run(
        mut self,
        state: Arc<Mutex<State>>,
        mut changed: watch::Receiver<u64>,
        events: mpsc::Sender<Bytes>,
    ) {
        let end = Instant::now() + self.timeout;
        let mut bookmark_at = Instant::now() + BOOKMARK_INTERVAL;
        let last_bookmark = end.checked_sub(BOOKMARK_BEFORE_END).unwrap_or(end);
        let mut before_end = self.bookmarks;
        for object in std::mem::take(&mut self.initial) {
            if events.send(event("ADDED", &object)).await.is_err() {
                return;
            }
        }
        loop {
            if self.send_changes(&state, &events).await.is_break() {
                return;
            }
            // Each arm loses nothing when another is taken: the revision says what has been sent.
            tokio::select! {
                alive = changed.changed() => if alive.is_err() { return },
                () = sleep_until(bookmark_at), if self.bookmarks => {
                    bookmark_at += BOOKMARK_INTERVAL;
                    self.send_bookmark(&state, &events).await;
                }
                () = sleep_until(last_bookmark), if before_end => {
                    before_end = false;
                    self.send_bookmark(&state, &events).await;
                }
                () = sleep_until(end) => return,
                () = events.closed() => return,
            }
        }
    }

    async fn send_changes(&mut self, state: &Mutex<State>, events: &mpsc::Sender<Bytes>) -> ControlFlow<()> {
        let found = {
            let state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if !state.serves(&self.resource.id) {
                return ControlFlow::Break(());
            }
            (state.store.since(&self.resource.id, self.revision), state.store.revision())
        };
        let (changes, current) = match found {
            (Ok(changes), current) => (changes, current),
            (Err(error), _) => {
                // The listener may be gone, which ends the watch as well.
                let _ = events.send(event("ERROR", &error.status().to_string().into())).await;
                return ControlFlow::Break(());
            }
        };
        for change in changes {
            if let Some(event) = self.event_of(&change)
                && events.send(event).await.is_err()
            {
                return ControlFlow::Break(());
            }
        }
        // Changes of other kinds count too: a watch of a quiet kind does not grow old.
        self.revision = self.revision.max(current);
        ControlFlow::Continue(())
    }

    async fn send_bookmark(&mut self, state: &Mutex<State>, events: &mpsc::Sender<Bytes>) {
        // Everything up to now first, so that the bookmark tells the truth.
        if self.send_changes(state, events).await.is_break() {
            return;
        }
        let bookmark = event("BOOKMARK", &self.form.bookmark(self.revision));
        // A listener that is gone is noticed by the loop.
        let _ = events.send(bookmark).await;
    }

    /// What the watch shows of a change: an object that no longer matches is gone.
    fn event_of(&self, change: &Change) -> Option<Bytes> {
        let matching = |stored: &Option<_>| -> bool {
            let stored: &Option<Arc<super::store::Stored>> = stored;
            stored.as_ref().is_some_and(|stored| self.scope.matches(&change.name, &stored.value))
        };
        match (&change.before, &change.after, matching(&change.before), matching(&change.after)) {
            (_, Some(after), false, true) => Some(event("ADDED", &self.form.object(after))),
            (_, Some(after), true, true) => Some(event("MODIFIED", &self.form.object(after))),
            (Some(before), _, true, false) => {
                Some(event("DELETED", &self.form.object_at(before, change.revision)))
            }
            _ => None,
        }
    }
}

fn event(kind: &str, object: &Bytes) -> Bytes {
    let mut text = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    text.extend_from_slice(object);
    text.extend_from_slice(b"}\n");
    text.into()
}
