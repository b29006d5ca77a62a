//! What is written and what is in force of it. Pure.
//!
//! They differ for an object that cannot be read: its last good version stays in force, and where
//! there never was one, the strictest reading of it (DESIGN 6.1, 6.5).

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::objects::{Object, ObjectKey};
use crate::source::{Batch, Content, Event, Origin, Reading, SourceProblem};

/// All objects, and what is wrong with the places they come from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// By namespace, empty for objects of the cluster. A copy shares those that do not change.
    entries: BTreeMap<Arc<str>, Arc<BTreeMap<ObjectKey, Entry>>>,
    problems: Vec<SourceProblem>,
    uninstalling: bool,
    /// Last good versions of an earlier run, for the first batch.
    remembered: BTreeMap<ObjectKey, Arc<Reading>>,
}

/// One object.
#[derive(Clone, Debug)]
pub struct Entry {
    /// As it is written now.
    pub reading: Arc<Reading>,
    /// What holds.
    pub in_force: InForce,
}

/// What holds of an object.
#[derive(Clone, Debug)]
pub enum InForce {
    /// What is written.
    AsWritten,
    /// What was written before, because what is written now cannot be read.
    LastGood(Arc<Reading>),
    /// The strictest it could have said: it could never be read.
    Closed,
    /// Nothing.
    Nothing,
}

impl Inputs {
    /// Nothing is in force; what the first batch cannot read is in force as it is remembered.
    pub fn remembering(readings: impl IntoIterator<Item = Reading>) -> Self {
        let remembered = readings.into_iter().map(|reading| (reading.key.clone(), Arc::new(reading)));
        Self { remembered: remembered.collect(), ..Self::default() }
    }

    /// Applies a batch as a whole.
    pub fn apply(&mut self, batch: Batch) {
        for event in batch.events {
            match event {
                Event::Apply(reading) => self.put(reading),
                Event::Delete(key) => self.remove(&key),
            }
        }
        self.problems = batch.problems;
        self.uninstalling = batch.uninstalling;
        // The first batch holds everything there is: what is not in it is gone.
        self.remembered.clear();
    }

    /// Every object, ordered by namespace, kind and name.
    pub fn entries(&self) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        self.entries.values().flat_map(|entries| entries.iter())
    }

    /// One object.
    pub fn entry(&self, key: &ObjectKey) -> Option<&Entry> {
        self.entries.get(namespace(key))?.get(key)
    }

    /// The objects of the cluster, ordered by kind and name.
    pub fn of_cluster(&self) -> impl Iterator<Item = (&ObjectKey, &Entry)> {
        self.entries.get("").into_iter().flat_map(|entries| entries.iter())
    }

    /// What is wrong beyond single objects.
    pub fn problems(&self) -> &[SourceProblem] {
        &self.problems
    }

    /// Whether the mesh itself is being deleted.
    pub fn uninstalling(&self) -> bool {
        self.uninstalling
    }

    fn put(&mut self, reading: Arc<Reading>) {
        let in_force = match &reading.content {
            Content::Object(_) => InForce::AsWritten,
            Content::Foreign => InForce::Nothing,
            Content::Rejected { closed, .. } => match self.last_good(&reading.key) {
                Some(good) => InForce::LastGood(good),
                None if closed.is_some() => InForce::Closed,
                None => InForce::Nothing,
            },
        };
        let entries = self.entries.entry(namespace(&reading.key).into()).or_default();
        Arc::make_mut(entries).insert(reading.key.clone(), Entry { reading, in_force });
    }

    fn remove(&mut self, key: &ObjectKey) {
        let Some(entries) = self.entries.get_mut(namespace(key)) else { return };
        Arc::make_mut(entries).remove(key);
        if entries.is_empty() {
            self.entries.remove(namespace(key));
        }
    }

    fn last_good(&self, key: &ObjectKey) -> Option<Arc<Reading>> {
        let Some(entry) = self.entry(key) else { return self.remembered.get(key).cloned() };
        entry.good().cloned()
    }
}

impl Entry {
    /// The reading that is in force, unless something stricter stands in for it.
    pub fn good(&self) -> Option<&Arc<Reading>> {
        match &self.in_force {
            InForce::AsWritten => Some(&self.reading),
            InForce::LastGood(good) => Some(good),
            InForce::Closed | InForce::Nothing => None,
        }
    }

    /// The object that is in force.
    pub fn object(&self) -> Option<&Object> {
        match &self.in_force {
            InForce::AsWritten => object_of(&self.reading),
            InForce::LastGood(good) => object_of(good),
            InForce::Closed => match &self.reading.content {
                Content::Rejected { closed, .. } => closed.as_deref(),
                Content::Object(_) | Content::Foreign => None,
            },
            InForce::Nothing => None,
        }
    }

    /// Where it is written now.
    pub fn origin(&self) -> &Origin {
        &self.reading.origin
    }
}

fn namespace(key: &ObjectKey) -> &str {
    key.namespace.as_deref().unwrap_or("")
}

fn object_of(reading: &Reading) -> Option<&Object> {
    match &reading.content {
        Content::Object(object) => Some(object),
        Content::Rejected { .. } | Content::Foreign => None,
    }
}
