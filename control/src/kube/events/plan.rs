//! Which Events are to be told, and of what. Pure.
//!
//! An Event's name depends on what it says and of which object, so that the same is not told twice,
//! neither by this replica nor by the next one that leads.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;

use crate::inputs::{Entry, Inputs};
use crate::kube::status::desired::{Head, shortened};
use crate::objects::{Kind, KnownKind, ObjectKey};
use crate::publish::Generation;
use crate::status::{Verdict, verdict};
use crate::translate::Reason;

/// Who tells.
pub const CONTROLLER: &str = "ambit.dev/control";

/// The namespace of Events about objects that are in none.
const NAMESPACE_OF_CLUSTER_OBJECTS: &str = "default";

/// Octets of a name; the API server takes no more.
const LONGEST_NAME: usize = 253;

/// Octets of a reporting instance.
const LONGEST_INSTANCE: usize = 128;

/// What is to be told of one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Telling {
    /// Of which object.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: Arc<str>,
    /// How grave.
    pub weight: Weight,
    /// In one word for machines.
    pub reason: &'static str,
    /// What control did.
    pub action: &'static str,
    /// What, and what to do about it.
    pub note: String,
}

/// Whether somebody should do something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// Good to know.
    Normal,
    /// It is not as its author meant it.
    Warning,
}

/// What has been told and what is still to be.
#[derive(Debug, Default)]
pub struct Plan {
    told: BTreeSet<Telling>,
    waiting: BTreeSet<Telling>,
}

impl Plan {
    /// This is all that users must see now. What was told and is still so is not told again; what
    /// ceases to be so may be told anew when it returns.
    pub fn want(&mut self, all: BTreeSet<Telling>) {
        self.told.retain(|telling| all.contains(telling));
        self.waiting = all.into_iter().filter(|telling| !self.told.contains(telling)).collect();
    }

    /// The next to be told, which then counts as told.
    pub fn take(&mut self) -> Option<Telling> {
        // What somebody should act on does not wait behind what is good to know.
        let warning = self.waiting.iter().find(|telling| telling.weight == Weight::Warning);
        let next = warning.or_else(|| self.waiting.first())?.clone();
        self.waiting.remove(&next);
        self.told.insert(next.clone());
        Some(next)
    }

    /// How many are waiting.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// It could not be told: it is tried again, if it is still so.
    pub fn on_failure(&mut self, telling: Telling) {
        if self.told.remove(&telling) {
            self.waiting.insert(telling);
        }
    }
}

/// All that users must see of a generation.
pub fn tellings(generation: &Generation) -> BTreeSet<Telling> {
    let noted = generation.translated.notes.0.iter().flat_map(|(key, notes)| {
        let entry = generation.inputs.entry(key);
        notes.iter().filter_map(move |note| {
            let (weight, action) = weight(key, note.reason)?;
            telling(key, entry?, weight, note.reason.label(), action, &note.message)
        })
    });
    let judged = generation.inputs.entries().filter_map(|(key, entry)| {
        let (verdict, message) = match &entry.reading.content {
            crate::source::Content::Object(_) => return None,
            crate::source::Content::Rejected { .. } | crate::source::Content::Foreign => verdict(key, entry),
        };
        let action = match verdict {
            Verdict::Accepted | Verdict::Ignored => return None,
            Verdict::LastGoodKept => "KeepLastGood",
            Verdict::Closed => "EnforceStrictest",
            Verdict::Invalid => "Ignore",
        };
        telling(key, entry, Weight::Warning, verdict.label(), action, &message)
    });
    noted.chain(judged).collect()
}

/// What users must see of what agents say of themselves, by their nodes.
pub fn tellings_of_agents(inputs: &Inputs, problems: &[(Arc<str>, Vec<Arc<str>>)]) -> BTreeSet<Telling> {
    let of_node = |(node, problems): &(Arc<str>, Vec<Arc<str>>)| -> Vec<Telling> {
        let key = ObjectKey { kind: Kind::Known(KnownKind::Node), namespace: None, name: Arc::clone(node) };
        let Some(entry) = inputs.entry(&key) else { return Vec::new() };
        let told = problems.iter().filter_map(|problem| {
            telling(&key, entry, Weight::Warning, "NodeAgentProblem", "Report", problem)
        });
        told.collect()
    };
    problems.iter().flat_map(of_node).collect()
}

/// How grave a note is, and what control does; `None` for what a status tells well enough: policies
/// have one, other objects have none.
fn weight(key: &ObjectKey, reason: Reason) -> Option<(Weight, &'static str)> {
    let has_status =
        crate::kube::status::desired::KINDS.into_iter().any(|kind| key.kind == Kind::Known(kind));
    match reason {
        Reason::NoEffect if has_status => None,
        Reason::NoEffect => Some((Weight::Normal, "Ignore")),
        Reason::EnforcedStricter => Some((Weight::Warning, "EnforceStricter")),
        Reason::Conflict => Some((Weight::Warning, "Ignore")),
        Reason::NotTranslated => Some((Weight::Warning, "Ignore")),
    }
}

/// `None` for an object without UID: there is no API server that it came from.
fn telling(
    key: &ObjectKey,
    entry: &Entry,
    weight: Weight,
    reason: &'static str,
    action: &'static str,
    note: &str,
) -> Option<Telling> {
    let uid = Head::of(&entry.reading).uid?.into();
    let note = shortened(note.to_owned());
    Some(Telling { key: key.clone(), uid, weight, reason, action, note })
}

impl Telling {
    /// The namespace that its Event is in.
    pub fn namespace(&self) -> &str {
        self.key.namespace.as_deref().unwrap_or(NAMESPACE_OF_CLUSTER_OBJECTS)
    }

    /// Its Event. `instance` is the replica that tells.
    pub fn event(&self, instance: &str, now: Timestamp) -> Event {
        let weight = match self.weight {
            Weight::Normal => "Normal",
            Weight::Warning => "Warning",
        };
        Event {
            metadata: ObjectMeta {
                name: Some(self.name()),
                namespace: Some(self.namespace().to_owned()),
                labels: Some([("app.kubernetes.io/part-of".to_owned(), "ambit".to_owned())].into()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(weight.to_owned()),
            reason: Some(self.reason.to_owned()),
            action: Some(self.action.to_owned()),
            note: Some(self.note.clone()),
            regarding: Some(self.regarding()),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(instance[..instance.floor_char_boundary(LONGEST_INSTANCE)].to_owned()),
            ..Event::default()
        }
    }

    fn regarding(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(api_version(&self.key.kind)),
            kind: Some(kind_name(&self.key.kind)),
            namespace: self.key.namespace.as_deref().map(str::to_owned),
            name: Some(self.key.name.to_string()),
            uid: Some(self.uid.to_string()),
            ..ObjectReference::default()
        }
    }

    /// The same for the same words about the same object.
    fn name(&self) -> String {
        let said = [&*self.uid, self.reason, &self.note].join("\0");
        let hash: String = digest(&SHA256, said.as_bytes()).as_ref()[..8]
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        // Names of objects are ASCII.
        let longest = LONGEST_NAME - hash.len() - 1;
        let name = &self.key.name[..self.key.name.floor_char_boundary(longest)];
        format!("{}.{hash}", name.trim_end_matches(['.', '-']))
    }
}

fn api_version(kind: &Kind) -> String {
    match kind {
        Kind::Known(known) => match (known.group(), known.versions()[0]) {
            ("", version) => version.to_owned(),
            (group, version) => format!("{group}/{version}"),
        },
        Kind::Foreign { group, .. } => group.to_string(),
    }
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Known(known) => known.name().to_owned(),
        Kind::Foreign { kind, .. } => kind.to_string(),
    }
}

#[cfg(test)]
mod tests;
