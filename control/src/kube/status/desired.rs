//! What the statuses of policies should say, from a generation and from what proxies have
//! acknowledged. Pure.

use std::collections::BTreeMap;

use ambit_mesh::policy::PolicyName;
use serde::Deserialize;

use super::condition::{Condition, Desired, Truth};
use crate::inputs::Entry;
use crate::kube::reports::layers::Layer;
use crate::kube::reports::merge::Progress;
use crate::objects::{Kind, KnownKind, Object, ObjectKey};
use crate::publish::Generation;
use crate::source::{Content, Reading};
use crate::status::{Verdict, verdict};
use crate::translate::{Note, Reason};

/// The kinds whose objects have a status of ours.
pub const KINDS: [KnownKind; 2] = [KnownKind::AuthorizationPolicy, KnownKind::PeerAuthentication];

/// Every connected proxy has it in force.
pub const PROGRAMMED: &str = "Programmed";
/// Some have not answered for it yet.
pub const PENDING: &str = "Pending";
/// Some have refused it.
pub const REFUSED: &str = "Refused";
/// No proxy is connected.
pub const NO_PROXIES: &str = "NoProxies";

/// A message has so many octets at most: CRDs of the Gateway API allow 32,768, people read less.
const LONGEST_MESSAGE: usize = 1024;

/// So many of those that refuse are named.
const NAMED_REFUSALS: usize = 3;

/// How far a policy, of whichever layer, has come at all replicas; `None` where there is none of that name.
pub type HowFar<'a> = &'a dyn Fn(&PolicyName) -> Option<Progress>;

/// What every status should say.
pub fn desired(generation: &Generation, how_far: HowFar<'_>) -> BTreeMap<ObjectKey, Desired> {
    let is_ours = |key: &ObjectKey| KINDS.into_iter().any(|kind| key.kind == Kind::Known(kind));
    let entries = generation.inputs.entries().filter(|(key, _)| is_ours(key));
    entries.map(|(key, entry)| (key.clone(), of_object(generation, key, entry, how_far))).collect()
}

fn of_object(generation: &Generation, key: &ObjectKey, entry: &Entry, how_far: HowFar<'_>) -> Desired {
    let notes = generation.translated.notes.0.get(key).map_or(&[][..], Vec::as_slice);
    let head = Head::of(&entry.reading);
    let policy = policy_of(key);
    Desired {
        uid: head.uid,
        generation: head.generation,
        accepted: accepted(key, entry, notes),
        programmed: policy.and_then(|policy| how_far(&policy)).map(|progress| programmed(&progress)),
    }
}

fn accepted(key: &ObjectKey, entry: &Entry, notes: &[Note]) -> Condition {
    let (verdict, message) = verdict(key, entry);
    let said = notes.iter().map(|note| note.message.as_str()).collect::<Vec<_>>().join("; ");
    match (verdict, notes.iter().max_by_key(|note| weight(note.reason))) {
        (Verdict::Accepted, Some(gravest)) => Condition {
            truth: truth(gravest.reason),
            reason: gravest.reason.label(),
            message: shortened(said),
        },
        (Verdict::Accepted, None) => Condition { truth: Truth::True, reason: verdict.label(), message },
        (Verdict::LastGoodKept | Verdict::Closed | Verdict::Invalid | Verdict::Ignored, _) => {
            Condition { truth: Truth::False, reason: verdict.label(), message: shortened(message) }
        }
    }
}

/// Whether an object of which this is noted is in force.
fn truth(reason: Reason) -> Truth {
    match reason {
        Reason::NoEffect | Reason::EnforcedStricter => Truth::True,
        Reason::Conflict | Reason::NotTranslated => Truth::False,
    }
}

/// Which of several notes gives the condition its reason.
fn weight(reason: Reason) -> u8 {
    match reason {
        Reason::NoEffect => 0,
        Reason::EnforcedStricter => 1,
        Reason::Conflict => 2,
        Reason::NotTranslated => 3,
    }
}

fn programmed(progress: &Progress) -> Condition {
    let Progress { layer, acknowledged, wanted, refused, refusals } = progress;
    let message = format!("programmed on {acknowledged} of {wanted} proxies");
    if *wanted == 0 {
        let message = match layer {
            Layer::Four => "no proxy is connected",
            Layer::Seven => "no waypoint is connected",
        };
        let message = message.to_owned();
        return Condition { truth: Truth::Unknown, reason: NO_PROXIES, message };
    }
    if *refused > 0 {
        let named = refusals.iter().take(NAMED_REFUSALS).cloned().collect::<Vec<_>>().join("; ");
        let message = shortened(format!("{message}, refused by {refused}: {named}"));
        return Condition { truth: Truth::False, reason: REFUSED, message };
    }
    match acknowledged >= wanted {
        true => Condition { truth: Truth::True, reason: PROGRAMMED, message },
        false => Condition { truth: Truth::False, reason: PENDING, message },
    }
}

/// The policy that an object becomes, if it becomes one of its own.
fn policy_of(key: &ObjectKey) -> Option<PolicyName> {
    let namespace = key.namespace.clone()?;
    match key.kind {
        Kind::Known(KnownKind::AuthorizationPolicy) => Some(PolicyName { namespace, name: key.name.clone() }),
        Kind::Known(KnownKind::PeerAuthentication) => {
            Some(crate::translate::converted_peer_authentication(&namespace, &key.name))
        }
        Kind::Known(
            KnownKind::Namespace
            | KnownKind::Node
            | KnownKind::Pod
            | KnownKind::Service
            | KnownKind::EndpointSlice
            | KnownKind::ServiceAccount
            | KnownKind::ServiceCidr
            | KnownKind::Gateway
            | KnownKind::HttpRoute
            | KnownKind::GrpcRoute
            | KnownKind::TcpRoute
            | KnownKind::TlsRoute
            | KnownKind::VirtualService
            | KnownKind::DestinationRule
            | KnownKind::ServiceEntry,
        )
        | Kind::Foreign { .. } => None,
    }
}

/// Which object a reading is of, and in which generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Its UID.
    pub uid: Option<String>,
    /// Its generation.
    pub generation: Option<i64>,
}

impl Head {
    /// Reads the head of what was read, also where the rest could not be.
    pub fn of(reading: &Reading) -> Self {
        match &reading.content {
            Content::Object(object) => Self::of_object(object),
            Content::Rejected { .. } | Content::Foreign => {
                reading.text.as_deref().map(Self::of_text).unwrap_or_default()
            }
        }
    }

    fn of_object(object: &Object) -> Self {
        let metadata = object.metadata();
        let uid = (!metadata.uid.is_empty()).then(|| metadata.uid.clone());
        Self { uid, generation: metadata.generation }
    }

    /// What an API server gave us is JSON; what a person wrote has neither.
    fn of_text(text: &str) -> Self {
        #[derive(Deserialize)]
        struct Document {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        struct Metadata {
            uid: Option<String>,
            generation: Option<i64>,
        }
        serde_json::from_str(text).map_or_else(
            |_| Self::default(),
            |Document { metadata: Metadata { uid, generation } }| Self { uid, generation },
        )
    }
}

/// At most as long as an Event may be: cut at a character, with a sign that it was.
pub fn shortened(text: String) -> String {
    match text.len() <= LONGEST_MESSAGE {
        true => text,
        false => format!("{}...", &text[..text.floor_char_boundary(LONGEST_MESSAGE - 3)]),
    }
}

#[cfg(test)]
mod tests;
