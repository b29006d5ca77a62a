//! Which objects a set of files holds, and what changed since it was last read. Pure.
//!
//! The rules (DESIGN 7): the first definition of an object wins; an object whose document is gone is
//! deleted; an object that may be behind an unreadable document or file stays as it was.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::reading::FileContent;
use super::{Batch, Event, Reading, SourceProblem, SourceReason};
use crate::objects::ObjectKey;

/// The objects of a set of files.
#[derive(Debug, Default)]
pub struct Catalog {
    files: BTreeMap<Arc<str>, FileContent>,
    /// Every definition of every object, by file name and position.
    definitions: BTreeMap<ObjectKey, Vec<Definition>>,
    /// Objects that are defined more than once.
    duplicated: BTreeSet<ObjectKey>,
    objects: BTreeMap<ObjectKey, Arc<Reading>>,
    /// Those of `objects` that are not defined and may be behind an unreadable document.
    hidden: BTreeSet<ObjectKey>,
}

/// One place where an object is written.
#[derive(Debug)]
struct Definition {
    file: Arc<str>,
    /// Among the objects of its file.
    position: usize,
    reading: Arc<Reading>,
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
        let is_gone = |path: &&Arc<str>| !contents.contains_key(*path) && !is_hidden(path, &unreadable);
        let gone: Vec<_> = self.files.keys().filter(is_gone).cloned().collect();
        // What is hidden may come to light, or go, with any change.
        let mut touched = std::mem::take(&mut self.hidden);
        for path in gone {
            self.forget(&path, &mut touched);
        }
        for (path, state) in contents {
            match state {
                FileState::AsBefore => {}
                FileState::Read(content) => {
                    self.forget(&path, &mut touched);
                    self.take_in(path, content, &mut touched);
                }
            }
        }
        let events = self.settle(touched);
        Batch { events, problems: self.problems(unreadable), uninstalling: false }
    }

    /// The files that are known.
    pub fn paths(&self) -> impl Iterator<Item = &Arc<str>> {
        self.files.keys()
    }

    /// The content of a file as it was last taken over.
    pub fn file(&self, path: &str) -> Option<&FileContent> {
        self.files.get(path)
    }

    fn forget(&mut self, path: &Arc<str>, touched: &mut BTreeSet<ObjectKey>) {
        for reading in self.files.remove(path).into_iter().flat_map(|content| content.readings) {
            if let Some(definitions) = self.definitions.get_mut(&reading.key) {
                definitions.retain(|definition| definition.file != *path);
            }
            touched.insert(reading.key.clone());
        }
    }

    fn take_in(&mut self, path: Arc<str>, content: FileContent, touched: &mut BTreeSet<ObjectKey>) {
        for (position, reading) in content.readings.iter().enumerate() {
            let definitions = self.definitions.entry(reading.key.clone()).or_default();
            let place = |definition: &Definition| (definition.file.clone(), definition.position);
            let at = definitions.partition_point(|other| place(other) < (path.clone(), position));
            definitions.insert(at, Definition { file: path.clone(), position, reading: reading.clone() });
            touched.insert(reading.key.clone());
        }
        self.files.insert(path, content);
    }

    /// Of several definitions of one object the first by file name and position wins.
    fn settle(&mut self, touched: BTreeSet<ObjectKey>) -> Vec<Event> {
        let (mut gone, mut new) = (Vec::new(), Vec::new());
        for key in touched {
            let definitions = self.definitions.get(&key).map_or(&[][..], Vec::as_slice);
            if definitions.len() > 1 {
                self.duplicated.insert(key.clone());
            } else {
                self.duplicated.remove(&key);
            }
            let Some(first) = definitions.first() else {
                self.definitions.remove(&key);
                if self.may_be_hidden(&key) {
                    self.hidden.insert(key);
                } else if self.objects.remove(&key).is_some() {
                    gone.push(Event::Delete(key));
                }
                continue;
            };
            let reading = first.reading.clone();
            let old = self.objects.insert(key, reading.clone());
            if old.is_none_or(|old| differs(&old, &reading)) {
                new.push(Event::Apply(reading));
            }
        }
        gone.append(&mut new);
        gone
    }

    /// An object that is missing from a file with a document that names no object may be that
    /// document: it stays.
    fn may_be_hidden(&self, key: &ObjectKey) -> bool {
        let file = self.objects.get(key).and_then(|reading| self.files.get(&reading.origin.file));
        file.is_some_and(FileContent::hides_objects)
    }

    fn problems(&self, unreadable: Vec<SourceProblem>) -> Vec<SourceProblem> {
        let documents = self.files.values().flat_map(|file| &file.problems).cloned();
        let several = self.duplicated.iter().filter_map(|key| self.definitions.get(key)?.split_first());
        let duplicates = several
            .flat_map(|(first, others)| others.iter().map(|other| duplicate(&other.reading, &first.reading)));
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

fn differs(old: &Arc<Reading>, new: &Arc<Reading>) -> bool {
    old.content_hash != new.content_hash || old.origin != new.origin
}

#[cfg(test)]
mod tests;
