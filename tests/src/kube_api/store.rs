//! Objects of every kind, and what changed: one revision for each change of anything.
//!
//! What may be written is not decided here.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde_json::Value;

use super::errors::ApiError;
use super::kinds::ResourceId;

/// What tells objects of one kind apart. Ordered as lists are.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectName {
    /// Empty for objects of the cluster.
    pub(super) namespace: String,
    pub(super) name: String,
}

/// One version of an object. Written out once, however many watch it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) value: Value,
    json: OnceLock<Bytes>,
}

impl Stored {
    pub(super) fn new(value: Value) -> Self {
        Self { value, json: OnceLock::new() }
    }

    pub(super) fn json(&self) -> Bytes {
        self.json.get_or_init(|| self.value.to_string().into()).clone()
    }
}

/// A change of one object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    pub(super) name: ObjectName,
    pub(super) before: Option<Arc<Stored>>,
    pub(super) after: Option<Arc<Stored>>,
}

pub(super) type Objects = BTreeMap<ObjectName, Arc<Stored>>;

#[derive(Debug, Default)]
struct Table {
    objects: Objects,
    /// Since the last compaction, oldest first.
    history: VecDeque<Change>,
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub(super) struct Store {
    revision: u64,
    compacted: u64,
    tables: BTreeMap<ResourceId, Table>,
}

impl Store {
    /// The revision of the latest change.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn get(&self, id: &ResourceId, name: &ObjectName) -> Option<&Arc<Stored>> {
        self.tables.get(id)?.objects.get(name)
    }

    /// The objects of a kind now.
    pub(super) fn all(&self, id: &ResourceId) -> impl Iterator<Item = (&ObjectName, &Arc<Stored>)> + use<'_> {
        self.tables.get(id).into_iter().flat_map(|table| &table.objects)
    }

    /// Kinds that have objects.
    pub(super) fn kinds(&self) -> impl Iterator<Item = &ResourceId> {
        self.tables.keys()
    }

    /// Writes an object, or removes it, and returns the version that answers and events show: that of a
    /// removed object has the revision of its removal.
    pub(super) fn commit(&mut self, id: &ResourceId, name: ObjectName, value: Option<Value>) -> Arc<Stored> {
        self.revision += 1;
        let revision = self.revision;
        let table = self.tables.entry(id.clone()).or_default();
        let before = table.objects.remove(&name);
        let (after, shown) = match value {
            Some(value) => {
                let stored = Arc::new(Stored::new(at_revision(value, revision)));
                table.objects.insert(name.clone(), Arc::clone(&stored));
                (Some(Arc::clone(&stored)), stored)
            }
            None => {
                let last = before.as_ref().map(|stored| stored.value.clone()).unwrap_or_default();
                (None, Arc::new(Stored::new(at_revision(last, revision))))
            }
        };
        table.history.push_back(Change { revision, name, before, after });
        shown
    }

    /// The objects of a kind as they were.
    pub(super) fn at(&self, id: &ResourceId, revision: u64) -> Result<Objects, ApiError> {
        self.check(revision)?;
        let Some(table) = self.tables.get(id) else { return Ok(Objects::new()) };
        let mut objects = table.objects.clone();
        for change in table.history.iter().rev().take_while(|change| change.revision > revision) {
            match &change.before {
                Some(before) => objects.insert(change.name.clone(), Arc::clone(before)),
                None => objects.remove(&change.name),
            };
        }
        Ok(objects)
    }

    /// What changed after a revision, oldest first.
    pub(super) fn since(&self, id: &ResourceId, revision: u64) -> Result<Vec<Change>, ApiError> {
        self.check(revision)?;
        let Some(table) = self.tables.get(id) else { return Ok(Vec::new()) };
        let first = table.history.partition_point(|change| change.revision <= revision);
        Ok(table.history.range(first..).cloned().collect())
    }

    /// Forgets what was: only from the present revision on can anything be watched.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.tables.values_mut().for_each(|table| table.history.clear());
    }

    fn check(&self, revision: u64) -> Result<(), ApiError> {
        if revision < self.compacted {
            let message = format!("too old resource version: {revision} ({})", self.compacted);
            return Err(ApiError::expired(message));
        }
        Ok(())
    }
}

/// The value with `metadata.resourceVersion` of a revision.
pub(super) fn at_revision(mut value: Value, revision: u64) -> Value {
    value["metadata"]["resourceVersion"] = revision.to_string().into();
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_is_known_until_it_is_compacted() {
        let id = ResourceId::new("", "pods");
        let name = |name: &str| ObjectName { namespace: "shop".into(), name: name.into() };
        let pod = |name: &str| Some(json!({"metadata": {"name": name}}));
        let mut store = Store::default();
        store.commit(&id, name("a"), pod("a"));
        store.commit(&id, name("b"), pod("b"));
        let removed = store.commit(&id, name("a"), None);
        assert_eq!(removed.value["metadata"]["resourceVersion"], "3");
        let names = |revision| -> Vec<String> {
            store.at(&id, revision).unwrap().into_keys().map(|name| name.name).collect()
        };
        assert_eq!(
            (names(1), names(2), names(3)),
            (vec!["a".into()], vec!["a".into(), "b".into()], vec!["b".into()])
        );
        assert_eq!(store.since(&id, 1).unwrap().len(), 2);
        store.compact();
        assert_eq!(store.at(&id, 2).unwrap_err().code, 410);
        assert_eq!(store.since(&id, 2).unwrap_err().code, 410);
        assert!(store.since(&id, 3).unwrap().is_empty());
    }
}
