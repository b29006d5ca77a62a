//! Everything that the API server is known to hold, and what of it is to be told. Pure.
//!
//! Objects come one by one, or as a list of everything of a kind; what a list leaves out is gone.
//! However often an object changes between two batches, a batch tells of it once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::objects::{Kind, KnownKind, ObjectKey};
use crate::source::{Batch, Event, Reading};

/// What a watch has seen.
#[derive(Debug)]
pub(super) enum Seen {
    /// Everything of a kind is going to be listed.
    ListBegun(KnownKind),
    /// These are new, others, or still there.
    Put(KnownKind, Vec<Arc<Reading>>),
    /// The list is complete: what it did not tell of is gone.
    ListEnded(KnownKind),
    /// An object is gone.
    Gone(KnownKind, ObjectKey),
    /// The API server does not know the kind.
    NotServed(KnownKind),
    /// Whether the mesh itself is being deleted.
    Uninstalling(bool),
}

impl Seen {
    /// The kind that it is about, if it is about one.
    pub(super) fn kind(&self) -> Option<KnownKind> {
        match self {
            Self::ListBegun(kind)
            | Self::Put(kind, _)
            | Self::ListEnded(kind)
            | Self::Gone(kind, _)
            | Self::NotServed(kind) => Some(*kind),
            Self::Uninstalling(_) => None,
        }
    }
}

/// What the API server holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    kinds: BTreeMap<KnownKind, OfKind>,
    /// What the next batch is to tell.
    changed: BTreeSet<ObjectKey>,
    uninstalling: bool,
    /// What of it was told.
    told_uninstalling: bool,
    /// Whether the first batch was taken.
    has_begun: bool,
}

/// What is held of one kind that is served, or known not to be.
#[derive(Debug, Default)]
struct OfKind {
    objects: BTreeMap<ObjectKey, Arc<Reading>>,
    /// During a list, what it has not told of yet.
    missing: Option<BTreeSet<ObjectKey>>,
    /// Whether everything that there is was told once.
    is_known: bool,
}

impl Held {
    /// Takes in what was seen.
    pub(super) fn apply(&mut self, seen: Seen) {
        match seen {
            Seen::ListBegun(kind) => {
                let of_kind = self.kinds.entry(kind).or_default();
                of_kind.missing = Some(of_kind.objects.keys().cloned().collect());
            }
            Seen::Put(kind, readings) => readings.into_iter().for_each(|reading| self.put(kind, reading)),
            Seen::ListEnded(kind) => {
                let of_kind = self.kinds.entry(kind).or_default();
                of_kind.is_known = true;
                for key in of_kind.missing.take().into_iter().flatten() {
                    of_kind.objects.remove(&key);
                    self.changed.insert(key);
                }
            }
            Seen::Gone(kind, key) => {
                if self.kinds.entry(kind).or_default().objects.remove(&key).is_some() {
                    self.changed.insert(key);
                }
            }
            Seen::NotServed(kind) => {
                let gone = self.kinds.insert(kind, OfKind { is_known: true, ..OfKind::default() });
                self.changed.extend(gone.into_iter().flat_map(|of_kind| of_kind.objects.into_keys()));
            }
            Seen::Uninstalling(uninstalling) => self.uninstalling = uninstalling,
        }
    }

    /// Whether there is something to tell. Before everything was listed once there is nothing: half
    /// of a configuration would open what the other half closes.
    pub(super) fn has_news(&self) -> bool {
        let is_known = |kind: &KnownKind| self.kinds.get(kind).is_some_and(|of_kind| of_kind.is_known);
        match self.has_begun {
            true => !self.changed.is_empty() || self.uninstalling != self.told_uninstalling,
            false => KnownKind::ALL.iter().all(is_known),
        }
    }

    /// What is to be told. Call it when [`Self::has_news`] says so.
    pub(super) fn take_news(&mut self) -> Batch {
        self.has_begun = true;
        self.told_uninstalling = self.uninstalling;
        let events = std::mem::take(&mut self.changed).into_iter().map(|key| match self.reading(&key) {
            Some(reading) => Event::Apply(reading.clone()),
            None => Event::Delete(key),
        });
        Batch { events: events.collect(), problems: Vec::new(), uninstalling: self.uninstalling }
    }

    /// How many objects there are of a kind.
    pub(super) fn count(&self, kind: KnownKind) -> usize {
        self.kinds.get(&kind).map_or(0, |of_kind| of_kind.objects.len())
    }

    fn put(&mut self, kind: KnownKind, reading: Arc<Reading>) {
        let of_kind = self.kinds.entry(kind).or_default();
        if let Some(missing) = &mut of_kind.missing {
            missing.remove(&reading.key);
        }
        // Most changes are to what is not kept, such as a node's heartbeat.
        let is_same = |known: &Arc<Reading>| known.content == reading.content;
        if !of_kind.objects.get(&reading.key).is_some_and(is_same) {
            self.changed.insert(reading.key.clone());
            of_kind.objects.insert(reading.key.clone(), reading);
        }
    }

    fn reading(&self, key: &ObjectKey) -> Option<&Arc<Reading>> {
        match &key.kind {
            Kind::Known(kind) => self.kinds.get(kind)?.objects.get(key),
            Kind::Foreign { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
