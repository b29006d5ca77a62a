//! Where objects come from.
//!
//! A source tells what changed in batches; a batch is applied as a whole, so that what is published
//! never mixes two states of the configuration. `dir` reads a directory of Kubernetes YAML, `kube`
//! an API server.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use ambit_kube::Access;

use crate::objects::{Object, ObjectKey};

pub mod catalog;
pub mod dir;
pub mod document;
mod glean;
pub mod kube;
pub mod reading;
pub mod scan;
mod settle;
pub mod yaml;

/// A place that objects come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A directory of Kubernetes YAML.
    Directory(PathBuf),
    /// An API server.
    Kubernetes {
        /// Where it is.
        access: Access,
        /// The namespace that control is in.
        namespace: String,
    },
}

/// A source that sends batches. Dropping it ends that.
#[derive(Debug)]
pub enum Running {
    /// See [`Source::Directory`].
    Directory(dir::DirSource),
    /// See [`Source::Kubernetes`].
    Kubernetes(kube::KubeSource),
}

impl Source {
    /// Begins to send what there is, and then what changes, on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(self, batches: SyncSender<Batch>) -> io::Result<Running> {
        Ok(match self {
            Self::Directory(root) => Running::Directory(dir::DirSource::start(root, batches)?),
            Self::Kubernetes { access, namespace } => {
                Running::Kubernetes(kube::KubeSource::start(access, namespace, batches)?)
            }
        })
    }
}

/// What changed since the batch before. The first batch of a source holds everything there is.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Changes, at most one per object.
    pub events: Vec<Event>,
    /// Everything wrong at this moment that no single object's status can tell.
    pub problems: Vec<SourceProblem>,
    /// Whether the mesh itself is being deleted at this moment, where its source can tell.
    pub uninstalling: bool,
}

/// A change of one object.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is new, or is written differently or elsewhere.
    Apply(Arc<Reading>),
    /// It is gone.
    Delete(ObjectKey),
}

impl Event {
    /// The object.
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Apply(reading) => &reading.key,
            Self::Delete(key) => key,
        }
    }
}

/// One object as it was read.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What identifies it.
    pub key: ObjectKey,
    /// Where it is written.
    pub origin: Origin,
    /// As it is written: by itself, not as a part of its file. `None` where nobody would want it
    /// back after a restart, because its source has it whole.
    pub text: Option<Arc<str>>,
    /// A hash of the document it stands in, by which a status tells which text it speaks of.
    pub content_hash: u64,
    /// The object, or why it could not be read.
    pub content: Content,
}

/// What an object's document held.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// The object.
    Object(Box<Object>),
    /// It cannot be read: the last good version stays in force. Where there was none, `closed`
    /// stands in for it.
    Rejected {
        /// Where and why.
        rejection: Rejection,
        /// The strictest thing it could have said.
        closed: Option<Box<Object>>,
    },
    /// Its kind is not one that control understands.
    Foreign,
}

/// Why an object was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// Where exactly.
    pub origin: Origin,
    /// What is wrong.
    pub message: String,
}

/// A place in the configuration. Ordered by file name, then line.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// The file, relative to the configuration directory.
    pub file: Arc<str>,
    /// The line, counted from 1; 0 for the file as a whole.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}", self.file),
        }
    }
}

/// Something wrong with a file or a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceProblem {
    /// Where.
    pub origin: Origin,
    /// Which kind of problem.
    pub reason: SourceReason,
    /// What is wrong and what follows from it.
    pub message: String,
}

/// Kinds of problems with files and documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub enum SourceReason {
    /// A file or directory cannot be read.
    FileUnreadable,
    /// A document is not YAML, or names no object.
    DocumentUnreadable,
    /// An object is defined again; the first definition is in force.
    Duplicate,
}
