//! What is known of a subscriber's progress, for "programmed on 2 of 3" and for dumps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::Subscriber;
use crate::ResourceType;
use crate::resources::{Collection, Difference, Resource, Viewer};

/// A subscriber at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The type.
    pub kind: ResourceType,
    /// It wants every resource of the type.
    pub wildcard: bool,
    /// How many names it wants.
    pub names: usize,
    /// How many resources of the newest generation it wants.
    pub wanted: usize,
    /// How many of those it has acknowledged in their newest version.
    pub up_to_date: usize,
    /// Names and versions that it has acknowledged.
    pub acknowledged: BTreeMap<Arc<str>, Arc<str>>,
    /// Since when its oldest unanswered response is unanswered.
    pub unanswered_since: Option<Instant>,
    /// The last response that it refused.
    pub last_refusal: Option<Refusal>,
}

/// A response that the client refused, in whole or in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The response's nonce.
    pub nonce: String,
    /// The client's words.
    pub message: String,
    /// When.
    pub at: Instant,
}

/// Where a client is with one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It does not want it.
    NotWanted,
    /// It has not answered for the newest version.
    Pending,
    /// It has acknowledged the newest version.
    Acknowledged,
    /// It has refused the response that carried the newest version.
    Refused,
}

/// Why a client does not have a resource in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It has not answered for it.
    Pending,
    /// It has refused it.
    Refused,
}

impl Subscriber {
    /// Where the client is with the resource of this name in the newest generation; with one that
    /// is not in it, whether the client has acknowledged that it is gone.
    pub fn acknowledgement(&self, name: &str) -> Acknowledgement {
        let Some(newest) = self.newest.get(name) else {
            return match self.answered.get(name) {
                Some(older) if self.interest.covers(older) => Acknowledgement::Pending,
                Some(_) | None => Acknowledgement::Acknowledged,
            };
        };
        if !self.interest.covers(newest) {
            return Acknowledgement::NotWanted;
        }
        if self.refused.get(name) == Some(newest.version()) {
            return Acknowledgement::Refused;
        }
        let has = |older: &Arc<Resource>| older.version() == newest.version() && self.interest.covers(older);
        let answered = self.answered.get(name).is_some_and(has);
        if answered { Acknowledgement::Acknowledged } else { Acknowledgement::Pending }
    }

    /// What the client is.
    pub fn viewer(&self) -> &Viewer {
        self.interest.viewer()
    }

    /// Whether the client wants every resource of the type that is for it.
    pub fn wants_everything(&self) -> bool {
        self.interest.is_everything()
    }

    /// The resources of a generation that the client wants, one by one. To one that wants everything
    /// this says more than it needs.
    pub fn wanted<'a>(&'a self, generation: &'a Collection) -> impl Iterator<Item = &'a Arc<Resource>> {
        generation.iter().filter(|resource| self.interest.covers(resource))
    }

    /// The resources of a generation that the client wants and has not acknowledged in that version,
    /// and whether it has refused them. It costs no more than the generation differs from the one that
    /// the client has answered for.
    pub fn lacking<'a>(&'a self, generation: &'a Collection) -> Vec<(&'a Arc<Resource>, Lack)> {
        let is_refused =
            |resource: &Arc<Resource>| self.refused.get(resource.name()) == Some(resource.version());
        let pending = self.answered.differences(generation).filter_map(|difference| match difference {
            // It was for others, and is not another.
            Difference::Changed { from, to }
                if from.version() == to.version() && self.interest.covers(from) =>
            {
                None
            }
            Difference::Added(resource) | Difference::Changed { to: resource, .. } => {
                let is_pending = self.interest.covers(resource) && !is_refused(resource);
                is_pending.then_some((resource, Lack::Pending))
            }
            Difference::Removed(_) => None,
        });
        let refused = self.refused.keys().filter_map(|name| generation.get(name));
        let refused = refused.filter(|resource| self.interest.covers(resource) && is_refused(resource));
        pending.chain(refused.map(|resource| (resource, Lack::Refused))).collect()
    }

    /// Since when a response is unanswered.
    pub fn unanswered_since(&self) -> Option<Instant> {
        self.outstanding.as_ref().map(|outstanding| outstanding.since)
    }

    /// The last response that the client refused.
    pub fn last_refusal(&self) -> Option<&Refusal> {
        self.last_refusal.as_ref()
    }

    /// The subscriber at this moment.
    pub fn status(&self) -> Status {
        let wanted: Vec<&Arc<str>> = self
            .newest
            .iter()
            .filter(|resource| self.interest.covers(resource))
            .map(|resource| resource.name())
            .collect();
        let is_up_to_date = |name: &&&Arc<str>| self.acknowledgement(name) == Acknowledgement::Acknowledged;
        Status {
            kind: self.kind,
            wildcard: self.interest.is_everything(),
            names: self.interest.name_count(),
            wanted: wanted.len(),
            up_to_date: wanted.iter().filter(is_up_to_date).count(),
            acknowledged: self.acknowledged(),
            unanswered_since: self.unanswered_since(),
            last_refusal: self.last_refusal.clone(),
        }
    }

    fn acknowledged(&self) -> BTreeMap<Arc<str>, Arc<str>> {
        let held = self.answered.iter().filter(|resource| self.interest.covers(resource));
        held.map(|resource| (resource.name().clone(), resource.version().clone()))
            .filter(|(name, version)| self.refused.get(name) != Some(version))
            .collect()
    }
}
