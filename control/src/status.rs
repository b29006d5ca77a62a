//! What became of each object, as files: `status/<kind>/<namespace>/<name>.json` in the state
//! directory, and `status/problems.json` for what no single object's file can tell.
//!
//! The documents are a pure function of a generation and of what subscribers acknowledged; `writer`
//! writes those that changed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ambit_mesh::policy::PolicyName;
use ambit_xds::ResourceType;
use ambit_xds::server::Programmed;
use serde::Serialize;

use crate::inputs::{Entry, InForce};
use crate::objects::{Kind, KnownKind, ObjectKey};
use crate::publish::Generation;
use crate::source::{Content, Origin, SourceReason};
use crate::translate::{Condition, Reason};

mod writer;

pub use writer::keep_written;

/// The file of what no single object's status can tell.
const PROBLEMS: &str = "problems.json";

/// The status of one object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ObjectStatus<'a> {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    name: &'a str,
    /// Whether the object is in force as it is written.
    accepted: bool,
    reason: Verdict,
    message: String,
    file: &'a str,
    line: u32,
    /// Tells which text this status speaks of.
    content_hash: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<StatusNote<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    conditions: &'a [Condition],
    #[serde(skip_serializing_if = "Option::is_none")]
    programmed: Option<StatusProgrammed>,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// It is in force as written.
    Accepted,
    /// It cannot be read; the last good version is in force.
    LastGoodKept,
    /// It cannot be read and never could: the strictest it could have said is in force.
    Closed,
    /// It cannot be read, and nothing is in force.
    Invalid,
    /// Its kind is not one that control understands.
    Ignored,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Accepted, Self::LastGoodKept, Self::Closed, Self::Invalid, Self::Ignored];

    /// The verdict as statuses and metrics name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::LastGoodKept => "LastGoodKept",
            Self::Closed => "Closed",
            Self::Invalid => "Invalid",
            Self::Ignored => "Ignored",
        }
    }
}

#[derive(Debug, Serialize)]
struct StatusNote<'a> {
    reason: Reason,
    message: &'a str,
}

/// How many proxies have what the object became.
#[derive(Debug, Serialize)]
struct StatusProgrammed {
    message: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refusals: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ProblemStatus<'a> {
    file: &'a str,
    line: u32,
    reason: SourceReason,
    message: &'a str,
}

/// How far a resource has come; `None` where nobody subscribes.
pub type Progress<'a> = &'a dyn Fn(ResourceType, &str) -> Option<Programmed>;

/// The status documents of a generation, by path below the status directory.
pub fn documents(generation: &Generation, progress: Progress<'_>) -> BTreeMap<PathBuf, String> {
    let mut documents = BTreeMap::new();
    for (key, entry) in generation.inputs.entries() {
        let status = object_status(generation, key, entry, progress);
        documents.insert(key.path("json"), json(&status));
    }
    let problems = generation.inputs.problems().iter().map(|problem| ProblemStatus {
        file: &problem.origin.file,
        line: problem.origin.line,
        reason: problem.reason,
        message: &problem.message,
    });
    documents.insert(PROBLEMS.into(), json(&problems.collect::<Vec<_>>()));
    documents
}

fn object_status<'a>(
    generation: &'a Generation,
    key: &'a ObjectKey,
    entry: &'a Entry,
    progress: Progress<'_>,
) -> ObjectStatus<'a> {
    let (reason, message) = verdict(key, entry);
    let Origin { file, line } = place(entry);
    let notes = generation.translated.notes.0.get(key).into_iter().flatten();
    ObjectStatus {
        kind: key.kind.to_string(),
        namespace: key.namespace.as_deref(),
        name: &key.name,
        accepted: reason == Verdict::Accepted,
        reason,
        message,
        file,
        line: *line,
        content_hash: format!("{:016x}", entry.reading.content_hash),
        notes: notes.map(|note| StatusNote { reason: note.reason, message: &note.message }).collect(),
        conditions: generation.translated.conditions.0.get(key).map_or(&[], Vec::as_slice),
        programmed: programmed(generation, key, progress),
    }
}

/// What became of an object, and why.
pub fn verdict(key: &ObjectKey, entry: &Entry) -> (Verdict, String) {
    let error = match &entry.reading.content {
        Content::Object(_) => return (Verdict::Accepted, "in force".to_owned()),
        Content::Foreign => {
            return (Verdict::Ignored, format!("kind {} is not one that control understands", key.kind));
        }
        Content::Rejected { rejection, .. } => &rejection.message,
    };
    match &entry.in_force {
        InForce::LastGood(good) => {
            let message = format!("{error}: the version last read from {} stays in force", good.origin);
            (Verdict::LastGoodKept, message)
        }
        InForce::Closed => {
            let effect = match key.kind {
                Kind::Known(KnownKind::PeerAuthentication) => "what it selects is STRICT",
                Kind::Known(_) | Kind::Foreign { .. } => "what it selects is denied",
            };
            (Verdict::Closed, format!("{error}: {effect} until it can be read"))
        }
        InForce::AsWritten | InForce::Nothing => (Verdict::Invalid, format!("{error}: it has no effect")),
    }
}

/// Where to look: at the error, or else at the object.
pub fn place(entry: &Entry) -> &Origin {
    match &entry.reading.content {
        Content::Rejected { rejection, .. } => &rejection.origin,
        Content::Object(_) | Content::Foreign => entry.origin(),
    }
}

/// Only policies: whoever edits one wants to know when it holds everywhere.
fn programmed(generation: &Generation, key: &ObjectKey, progress: Progress<'_>) -> Option<StatusProgrammed> {
    if key.kind != Kind::Known(KnownKind::AuthorizationPolicy) {
        return None;
    }
    let name = PolicyName { namespace: key.namespace.clone()?, name: key.name.clone() };
    let translated = &generation.translated;
    let kind = if translated.policies.contains_key(&name) {
        ResourceType::Authorization
    } else if translated.for_waypoints.policies.contains_key(&name) {
        ResourceType::HttpPolicy
    } else {
        return None;
    };
    let programmed = progress(kind, &name.to_string())?;
    let refusals = programmed.refusals.iter().map(|(node, message)| format!("{node}: {message}"));
    Some(StatusProgrammed {
        message: format!("programmed on {} of {} proxies", programmed.acknowledged, programmed.wanted),
        refusals: refusals.collect(),
    })
}

fn json(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("strings, numbers and lists serialize");
    text.push('\n');
    text
}

#[cfg(test)]
mod tests;
