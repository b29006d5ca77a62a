//! Turns the text of one file into readings of objects and problems with documents. Pure.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde::Deserialize;

use super::document::{Document, split};
use super::yaml::{self, Unreadable};
use super::{Content, Origin, Reading, Rejection, SourceProblem, SourceReason, glean};
use crate::objects::values::null_is_default;
use crate::objects::{Body, Kind, KnownKind, Object, ObjectKey};

/// What one file holds.
#[derive(Clone, Debug, Default)]
pub struct FileContent {
    /// A hash of the whole text.
    pub text_hash: u64,
    /// Its objects, in the order of the file.
    pub readings: Vec<Arc<Reading>>,
    /// Documents that name no object.
    pub problems: Vec<SourceProblem>,
}

impl FileContent {
    /// Whether a document of the file may be any object.
    pub fn hides_objects(&self) -> bool {
        !self.problems.is_empty()
    }

    /// Whether anything in the file could not be read.
    pub fn is_broken(&self) -> bool {
        let rejected = |reading: &Arc<Reading>| matches!(reading.content, Content::Rejected { .. });
        self.hides_objects() || self.readings.iter().any(rejected)
    }
}

/// Reads a file.
pub fn read(file: &Arc<str>, text: &str) -> FileContent {
    let mut content = FileContent { text_hash: hash(text), ..FileContent::default() };
    for document in &split(text) {
        for object in read_document(Place { file, document }) {
            match object {
                Ok(reading) => content.readings.push(Arc::new(reading)),
                Err(problem) => content.problems.push(problem),
            }
        }
    }
    content
}

/// The head of every object, read leniently.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Head {
    #[serde(deserialize_with = "null_is_default")]
    api_version: String,
    #[serde(deserialize_with = "null_is_default")]
    kind: String,
    #[serde(deserialize_with = "null_is_default")]
    metadata: HeadMeta,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HeadMeta {
    #[serde(deserialize_with = "null_is_default")]
    name: String,
    namespace: Option<String>,
}

impl Head {
    /// `kubectl get -o yaml` writes several objects as one `List`.
    fn is_list(&self) -> bool {
        self.kind.ends_with("List") && self.metadata.name.is_empty()
    }
}

#[derive(Deserialize)]
struct List {
    #[serde(default, deserialize_with = "null_is_default")]
    items: Vec<serde_json::Value>,
}

fn read_document(place: Place<'_>) -> Vec<Result<Reading, SourceProblem>> {
    let text = place.document.text;
    match yaml::read::<Head>(text) {
        Ok(head) if head.is_list() => place.read_list(),
        Ok(head) => vec![place.read_object(&head, Body::Yaml(text))],
        Err(error) => vec![place.unreadable(&error)],
    }
}

/// A document and where it stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    file: &'a Arc<str>,
    document: &'a Document<'a>,
}

impl Place<'_> {
    /// One broken item costs only itself, as far as it can be told apart.
    fn read_list(self) -> Vec<Result<Reading, SourceProblem>> {
        let list = match yaml::read::<List>(self.document.text) {
            Ok(list) => list,
            Err(error) => return vec![Err(self.problem(&error))],
        };
        let read_item = |item: &serde_json::Value| {
            let head = Head::deserialize(item).map_err(|e| self.problem(&Unreadable::new(e.to_string())))?;
            self.read_object(&head, Body::Value(item))
        };
        list.items.iter().map(read_item).collect()
    }

    fn read_object(self, head: &Head, body: Body<'_>) -> Result<Reading, SourceProblem> {
        let Head { api_version, kind, metadata } = head;
        let key = ObjectKey::new(api_version, kind, metadata.namespace.as_deref(), &metadata.name)
            .map_err(|error| self.problem(&Unreadable::new(error.to_string())))?;
        let content = match &key.kind {
            Kind::Foreign { .. } => Content::Foreign,
            Kind::Known(known) => self.read_known(*known, api_version, body),
        };
        Ok(self.reading(key, content, body))
    }

    fn read_known(self, kind: KnownKind, api_version: &str, body: Body<'_>) -> Content {
        let object = check_version(kind, api_version).and_then(|()| Object::read(kind, body));
        match object {
            Ok(object) => Content::Object(Box::new(object)),
            Err(error) => self.rejected(kind, &error, Some(body)),
        }
    }

    /// A document that is not YAML: it still belongs to the object that its lines name.
    fn unreadable(self, error: &Unreadable) -> Result<Reading, SourceProblem> {
        let key = glean::key(self.document.text).ok_or_else(|| self.problem(error))?;
        let content = match &key.kind {
            Kind::Foreign { .. } => return Err(self.problem(error)),
            Kind::Known(known) => self.rejected(*known, error, None),
        };
        Ok(self.reading(key, content, Body::Yaml(self.document.text)))
    }

    fn rejected(self, kind: KnownKind, error: &Unreadable, body: Option<Body<'_>>) -> Content {
        let rejection = Rejection { origin: self.origin(error), message: error.message.clone() };
        Content::Rejected { rejection, closed: Object::closed(kind, body).map(Box::new) }
    }

    fn reading(self, key: ObjectKey, content: Content, body: Body<'_>) -> Reading {
        let origin = Origin { file: self.file.clone(), line: self.document.content_line() };
        Reading { key, origin, text: Some(body.text()), content_hash: hash(self.document.text), content }
    }

    fn problem(self, error: &Unreadable) -> SourceProblem {
        SourceProblem {
            origin: self.origin(error),
            reason: SourceReason::DocumentUnreadable,
            message: error.message.clone(),
        }
    }

    fn origin(self, error: &Unreadable) -> Origin {
        let line = match error.line {
            Some(line) => self.document.first_line + line - 1,
            None => self.document.content_line(),
        };
        Origin { file: self.file.clone(), line }
    }
}

fn check_version(kind: KnownKind, api_version: &str) -> Result<(), Unreadable> {
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    if kind.versions().contains(&version) {
        return Ok(());
    }
    let served = kind.versions().join(", ");
    Err(Unreadable::new(format!("apiVersion {api_version} of {} is not served: use {served}", kind.name())))
}

/// A hash that is the same in every run of the same program: it tells texts apart, nothing more.
pub fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
