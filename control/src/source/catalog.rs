//! Which objects a set of files holds, and what changed since it was last read. Pure.
//!
//! The rules (DESIGN 7): the first definition of an object wins; an object whose document is gone is
//! deleted; an object that may be behind an unreadable document or file stays as it was.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::reading::FileContent;
use super::{Batch, Event, Reading, SourceProblem, SourceReason};
use crate::objects::ObjectKey;

/// The objects of a set of files.
#[derive(Debug, Default)]
pub struct Catalog {
    files: BTreeMap<Arc<str>, FileContent>,
    objects: BTreeMap<ObjectKey, Arc<Reading>>,
}

/// What there is now.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// Files by path relative to the directory. One that is not listed is gone.
    pub contents: BTreeMap<Arc<str>, FileState>,
    /// Paths, with everything below them, that exist but cannot be read now.
    pub unreadable: Vec<SourceProblem>,
}

/// What is known of one file.
#[derive(Clone, Debug)]
pub enum FileState {
    /// It is as it was, or not to be judged yet.
    AsBefore,
    /// It was read.
    Read(FileContent),
}

impl Catalog {
    /// Takes over what the files hold now and says what changed.
    pub fn update(&mut self, files: Files) -> Batch {
        let Files { contents, unreadable } = files;
        self.files.retain(|path, _| contents.contains_key(path) || is_hidden(path, &unreadable));
        for (path, state) in contents {
            match state {
                FileState::AsBefore => {}
                FileState::Read(content) => {
                    self.files.insert(path, content);
                }
            }
        }
        let (mut objects, duplicates) = self.resolve();
        self.keep_hidden(&mut objects);
        let events = changes(&self.objects, &objects);
        self.objects = objects;
        Batch { events, problems: self.problems(unreadable, duplicates) }
    }

    /// The files that are known.
    pub fn paths(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.keys()
    }

    /// The content of a file as it was last taken over.
    pub fn file(&self, path: &str) -> Option<&FileContent> {
        self.files.get(path)
    }

    /// Of several definitions of one object the first by file name and position wins.
    fn resolve(&self) -> (BTreeMap<ObjectKey, Arc<Reading>>, Vec<SourceProblem>) {
        let mut objects: BTreeMap<ObjectKey, Arc<Reading>> = BTreeMap::new();
        let mut duplicates = Vec::new();
        for reading in self.files.values().flat_map(|file| &file.readings) {
            match objects.get(&reading.key) {
                Some(first) => duplicates.push(duplicate(reading, first)),
                None => {
                    objects.insert(reading.key.clone(), reading.clone());
                }
            }
        }
        (objects, duplicates)
    }

    /// An object that is missing from a file with a document that names no object may be that
    /// document: it stays.
    fn keep_hidden(&self, objects: &mut BTreeMap<ObjectKey, Arc<Reading>>) {
        for (key, reading) in &self.objects {
            let file = self.files.get(&reading.origin.file);
            if file.is_some_and(|file| file.hides_objects()) && !objects.contains_key(key) {
                objects.insert(key.clone(), reading.clone());
            }
        }
    }

    fn problems(&self, unreadable: Vec<SourceProblem>, duplicates: Vec<SourceProblem>) -> Vec<SourceProblem> {
        let documents = self.files.values().flat_map(|file| &file.problems).cloned();
        let mut problems: Vec<_> = documents.chain(unreadable).chain(duplicates).collect();
        problems.sort();
        problems
    }
}

/// Whether a file may still exist behind a path that cannot be read.
fn is_hidden(path: &str, unreadable: &[SourceProblem]) -> bool {
    unreadable.iter().any(|problem| {
        let hidden = &*problem.origin.file;
        hidden == "."
            || path.strip_prefix(hidden).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn duplicate(second: &Reading, first: &Reading) -> SourceProblem {
    SourceProblem {
        origin: second.origin.clone(),
        reason: SourceReason::Duplicate,
        message: format!("{} is already defined at {}: this definition is ignored", second.key, first.origin),
    }
}

fn changes(
    before: &BTreeMap<ObjectKey, Arc<Reading>>,
    after: &BTreeMap<ObjectKey, Arc<Reading>>,
) -> Vec<Event> {
    let gone = before.keys().filter(|key| !after.contains_key(key)).cloned().map(Event::Delete);
    let is_new = |reading: &&Arc<Reading>| before.get(&reading.key).is_none_or(|old| differs(old, reading));
    gone.chain(after.values().filter(is_new).cloned().map(Event::Apply)).collect()
}

fn differs(old: &Arc<Reading>, new: &Arc<Reading>) -> bool {
    old.content_hash != new.content_hash || old.origin != new.origin
}

#[cfg(test)]
mod tests;
