//! The conditions that we write into an object's status, and how they come to stand beside those of
//! others. Pure.
//!
//! In Istio's CRDs `status.conditions` is one atomic list: whoever writes it writes all of it. So the
//! list is taken as it was read, only our own entries in it are changed, and it is written on condition
//! that the object is still the one that was read.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::desired::{PROGRAMMED, REFUSED};

/// The types of our conditions. They are named so that no type of Istio's is among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionType {
    /// Whether the object is in force as it is written.
    Accepted,
    /// Whether every connected proxy has it in force.
    Programmed,
}

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not.
    False,
    /// There is nobody who could tell.
    Unknown,
}

/// A condition as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether.
    pub truth: Truth,
    /// Why, in one word for machines.
    pub reason: &'static str,
    /// Why, for people.
    pub message: String,
}

/// What an object's status should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The object's UID, where it is known: another object of the same name is another matter.
    pub uid: Option<String>,
    /// The generation of the object that this is said of; `None` where it cannot be known.
    pub generation: Option<i64>,
    /// Whether it is in force.
    pub accepted: Condition,
    /// Whether proxies have it; `None` for an object that gives them nothing.
    pub programmed: Option<Condition>,
}

/// How much a status that is there differs from what it should say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// Not at all.
    None,
    /// Only in how many proxies have it. While proxies come and go, that changes for every object at
    /// once, and nobody waits for it.
    Counts,
    /// In something that somebody may be waiting for.
    Matters,
}

impl ConditionType {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Accepted, Self::Programmed];

    /// The type as statuses name it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Accepted => "AmbitAccepted",
            Self::Programmed => "AmbitProgrammed",
        }
    }
}

impl Truth {
    /// `True`, `False` or `Unknown`.
    pub fn label(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl Desired {
    fn condition(&self, of: ConditionType) -> Option<&Condition> {
        match of {
            ConditionType::Accepted => Some(&self.accepted),
            ConditionType::Programmed => self.programmed.as_ref(),
        }
    }

    /// How much `status`, as the API server has it, differs from this.
    pub fn difference(&self, status: &Value) -> Difference {
        let differences =
            ConditionType::ALL.into_iter().map(|of| match (self.condition(of), find(status, of)) {
                (None, None) => Difference::None,
                (Some(desired), Some(there)) => self.condition_difference(of, desired, there),
                (Some(_), None) | (None, Some(_)) => Difference::Matters,
            });
        let is_observed = match self.observed_generation(status) {
            Observed::Ours(generation) => same_number(&status["observedGeneration"], generation),
            Observed::Others => true,
        };
        let generation = if is_observed { Difference::None } else { Difference::Matters };
        differences.max().unwrap_or(Difference::None).max(generation)
    }

    fn condition_difference(&self, of: ConditionType, desired: &Condition, there: &Value) -> Difference {
        // Older CRDs of Istio drop the field: what is not there cannot be compared.
        let observed = &there["observedGeneration"];
        if self.generation.is_some_and(|generation| !observed.is_null() && !same_number(observed, generation))
        {
            return Difference::Matters;
        }
        let same = |field: &str, value: &str| there[field].as_str() == Some(value);
        let has_same_reason = same("status", desired.truth.label()) && same("reason", desired.reason);
        if has_same_reason && same("message", &desired.message) {
            return Difference::None;
        }
        match of {
            ConditionType::Accepted => Difference::Matters,
            ConditionType::Programmed if has_same_reason => Difference::Counts,
            // A proxy that comes back lacks everything for a moment, and while control starts none is
            // there.
            ConditionType::Programmed if same("reason", PROGRAMMED) && desired.reason != REFUSED => {
                Difference::Counts
            }
            ConditionType::Programmed => Difference::Matters,
        }
    }

    /// The fields of `status` that we write, with everything that others have written into them.
    pub fn merged_into(&self, status: &Value, now: Timestamp) -> Value {
        let mut conditions: Vec<Value> = status["conditions"].as_array().cloned().unwrap_or_default();
        for of in ConditionType::ALL {
            let place = conditions.iter().position(|there| is_of(there, of));
            let before = place.map(|place| conditions[place].clone());
            match (self.condition(of), place) {
                (Some(desired), Some(place)) => {
                    conditions[place] = self.written(of, desired, before.as_ref(), now);
                }
                (Some(desired), None) => conditions.push(self.written(of, desired, None, now)),
                (None, Some(place)) => drop(conditions.remove(place)),
                (None, None) => {}
            }
        }
        let mut fields = Map::new();
        fields.insert("conditions".to_owned(), Value::Array(conditions));
        match self.observed_generation(status) {
            Observed::Ours(generation) => {
                fields.insert("observedGeneration".to_owned(), generation.into());
            }
            // What we once applied and leave out is removed: so it is said again.
            Observed::Others => {
                if let Some(there) = status.get("observedGeneration") {
                    fields.insert("observedGeneration".to_owned(), there.clone());
                }
            }
        }
        Value::Object(fields)
    }

    fn written(
        &self,
        of: ConditionType,
        desired: &Condition,
        before: Option<&Value>,
        now: Timestamp,
    ) -> Value {
        let since = before
            .filter(|before| before["status"].as_str() == Some(desired.truth.label()))
            .and_then(|before| before["lastTransitionTime"].as_str());
        let mut written = json!({
            "type": of.label(),
            "status": desired.truth.label(),
            "reason": desired.reason,
            "message": desired.message,
            "lastTransitionTime": since.map_or_else(|| seconds(now), str::to_owned),
        });
        if let Some(generation) = self.generation {
            written["observedGeneration"] = generation.into();
        }
        written
    }

    /// The status has one `observedGeneration` for all who write conditions. It is ours only while
    /// nobody else does.
    fn observed_generation(&self, status: &Value) -> Observed {
        let is_ours = |there: &Value| ConditionType::ALL.into_iter().any(|of| is_of(there, of));
        let others = status["conditions"].as_array().is_some_and(|all| !all.iter().all(is_ours));
        match self.generation {
            Some(generation) if !others => Observed::Ours(generation),
            Some(_) | None => Observed::Others,
        }
    }
}

/// Whose `status.observedGeneration` is.
enum Observed {
    Ours(i64),
    Others,
}

fn find(status: &Value, of: ConditionType) -> Option<&Value> {
    status["conditions"].as_array()?.iter().find(|there| is_of(there, of))
}

fn is_of(condition: &Value, of: ConditionType) -> bool {
    condition["type"].as_str() == Some(of.label())
}

/// Istio writes numbers of 64 bits as text.
fn same_number(value: &Value, number: i64) -> bool {
    value.as_i64() == Some(number) || value.as_str().is_some_and(|text| text == number.to_string())
}

/// RFC 3339 in whole seconds, as Kubernetes writes `Time`.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests;
