//! Which statuses are to be written now, later or not at all. Pure.
//!
//! A status is written only where it differs from what is there. What somebody may be waiting for is
//! written at once; how many proxies have a policy changes for all policies with each proxy that comes
//! or goes, and is written when it has stayed for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::condition::{Condition, Desired, Difference};
use crate::objects::ObjectKey;

/// How long counts have to stay the same before they are written.
const COUNTS_SETTLE: Duration = Duration::from_secs(15);

/// After this time counts are written although they still change.
const COUNTS_WAIT: Duration = Duration::from_secs(300);

/// The pause after a first failure; it doubles with each that follows.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest pause.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(60);

/// What should be, what is, and what is under way.
#[derive(Debug, Default)]
pub struct Ledger {
    rows: BTreeMap<ObjectKey, Row>,
    /// To be looked at now.
    changed: BTreeSet<ObjectKey>,
    /// To be looked at then.
    later: BTreeSet<(Instant, ObjectKey)>,
    urgent: BTreeSet<ObjectKey>,
    patient: BTreeSet<ObjectKey>,
}

/// One object.
#[derive(Debug, Default)]
struct Row {
    desired: Option<Desired>,
    there: Option<There>,
    in_flight: bool,
    failures: u32,
    not_before: Option<Instant>,
    settling: Option<Settling>,
}

/// Counts that differ from those written.
#[derive(Debug)]
struct Settling {
    condition: Option<Condition>,
    stable_since: Instant,
    differs_since: Instant,
}

/// An object as the API server has it.
#[derive(Clone, Debug, PartialEq)]
pub struct There {
    /// Its UID.
    pub uid: String,
    /// Its version: a write is conditional on it.
    pub resource_version: String,
    /// Its generation.
    pub generation: i64,
    /// Its status.
    pub status: Value,
}

/// A status to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Of which object.
    pub key: ObjectKey,
    /// What it should say.
    pub desired: Desired,
    /// The object as it was read.
    pub there: There,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The object as it is now.
    Written(There),
    /// It is not the object any more that was read.
    Conflict,
    /// It was deleted.
    Gone,
    /// It was not written, or nobody knows.
    Failed,
}

/// What a row asks for.
enum Call {
    Nothing,
    Write(Difference),
    LookAgain(Instant),
}

impl Ledger {
    /// This is what all statuses should say.
    pub fn want(&mut self, all: BTreeMap<ObjectKey, Desired>) {
        for (key, row) in &mut self.rows {
            if row.desired.is_some() && !all.contains_key(key) {
                row.desired = None;
            }
        }
        for (key, desired) in all {
            let row = self.rows.entry(key.clone()).or_default();
            if row.desired.as_ref() != Some(&desired) {
                row.desired = Some(desired);
                self.changed.insert(key);
            }
        }
        self.forget();
    }

    /// An object was read.
    pub fn see(&mut self, key: &ObjectKey, there: There) {
        let row = self.rows.entry(key.clone()).or_default();
        if row.there.as_ref().is_some_and(|known| is_older(&there, known)) {
            return;
        }
        row.there = Some(there);
        // What failed may have failed because we did not know this version.
        row.not_before = None;
        self.changed.insert(key.clone());
    }

    /// An object is gone.
    pub fn unsee(&mut self, key: &ObjectKey) {
        if let Some(row) = self.rows.get_mut(key) {
            row.there = None;
        }
        self.forget();
    }

    /// Only these objects are there, of those for which `concerns` holds.
    pub fn retain(&mut self, concerns: impl Fn(&ObjectKey) -> bool, is_there: impl Fn(&ObjectKey) -> bool) {
        for (key, row) in &mut self.rows {
            if concerns(key) && !is_there(key) {
                row.there = None;
            }
        }
        self.forget();
    }

    /// Whether there is a status to be written at this moment.
    pub fn is_due(&mut self, now: Instant) -> bool {
        self.look(now);
        self.waiting() > 0
    }

    /// The next status to be written at this moment, which is then under way.
    pub fn next(&mut self, now: Instant) -> Option<Write> {
        self.look(now);
        while let Some(key) = self.urgent.pop_first().or_else(|| self.patient.pop_first()) {
            let Some(row) = self.rows.get_mut(&key) else { continue };
            // It may have changed since it was found to be due.
            match row.call(now) {
                Call::Nothing => {}
                Call::LookAgain(at) => drop(self.later.insert((at, key))),
                Call::Write(_) => {
                    let (Some(desired), Some(there)) = (row.desired.clone(), row.there.clone()) else {
                        continue;
                    };
                    row.in_flight = true;
                    return Some(Write { key, desired, there });
                }
            }
        }
        None
    }

    /// When to ask for the next one, if nothing happens before.
    pub fn next_look(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// How many statuses are due and not yet under way.
    pub fn waiting(&self) -> usize {
        self.urgent.len() + self.patient.len()
    }

    /// A write has ended.
    pub fn on_outcome(&mut self, key: &ObjectKey, outcome: Outcome, now: Instant) {
        let Some(row) = self.rows.get_mut(key) else { return };
        row.in_flight = false;
        match outcome {
            Outcome::Written(there) => {
                row.failures = 0;
                row.settling = None;
                if row.there.as_ref().is_none_or(|known| !is_older(&there, known)) {
                    row.there = Some(there);
                }
            }
            // The watch tells of the newer version, or that the object is gone.
            Outcome::Conflict | Outcome::Failed => {
                let pause = RETRY_AFTER * 2u32.pow(row.failures.min(6));
                row.failures += 1;
                row.not_before = Some(now + pause.min(RETRY_AFTER_MOST));
            }
            Outcome::Gone => row.there = None,
        }
        self.changed.insert(key.clone());
        self.forget();
    }

    fn look(&mut self, now: Instant) {
        while self.later.first().is_some_and(|(at, _)| *at <= now) {
            self.changed.extend(self.later.pop_first().map(|(_, key)| key));
        }
        for key in std::mem::take(&mut self.changed) {
            let Some(row) = self.rows.get_mut(&key) else { continue };
            match row.call(now) {
                Call::Nothing => {}
                Call::LookAgain(at) => drop(self.later.insert((at, key))),
                Call::Write(Difference::Counts) => drop(self.patient.insert(key)),
                Call::Write(Difference::Matters | Difference::None) => drop(self.urgent.insert(key)),
            }
        }
    }

    /// Drops rows of which nothing is known any more.
    fn forget(&mut self) {
        self.rows.retain(|_, row| row.desired.is_some() || row.there.is_some() || row.in_flight);
    }
}

impl Row {
    fn call(&mut self, now: Instant) -> Call {
        let (Some(desired), Some(there)) = (&self.desired, &self.there) else { return Call::Nothing };
        // What was read is of another object, or older than what is there: it is read again soon.
        let is_of_another = desired.uid.as_ref().is_some_and(|uid| *uid != there.uid);
        let is_outdated = desired.generation.is_some_and(|generation| generation < there.generation);
        if self.in_flight || is_of_another || is_outdated {
            return Call::Nothing;
        }
        let difference = desired.difference(&there.status);
        match difference {
            Difference::None => {
                self.settling = None;
                return Call::Nothing;
            }
            Difference::Counts => {
                let due = Settling::due(&mut self.settling, desired.programmed.as_ref(), now);
                if due > now {
                    return Call::LookAgain(due);
                }
            }
            Difference::Matters => {}
        }
        match self.not_before.filter(|not_before| *not_before > now) {
            Some(not_before) => Call::LookAgain(not_before),
            None => Call::Write(difference),
        }
    }
}

impl Settling {
    fn due(settling: &mut Option<Self>, condition: Option<&Condition>, now: Instant) -> Instant {
        let settling = settling.get_or_insert_with(|| Self {
            condition: condition.cloned(),
            stable_since: now,
            differs_since: now,
        });
        if settling.condition.as_ref() != condition {
            settling.condition = condition.cloned();
            settling.stable_since = now;
        }
        (settling.stable_since + COUNTS_SETTLE).min(settling.differs_since + COUNTS_WAIT)
    }
}

/// Versions are numbers that grow. Should they not be, whatever was read last counts: a write on
/// condition of an older version fails, and nothing worse.
fn is_older(one: &There, than: &There) -> bool {
    let version = |there: &There| there.resource_version.parse::<u64>().ok();
    one.uid == than.uid && matches!((version(one), version(than)), (Some(one), Some(than)) if one < than)
}

#[cfg(test)]
mod tests;
