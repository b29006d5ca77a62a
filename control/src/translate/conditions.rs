//! Conditions of objects as Kubernetes' APIs define them, with exact reasons.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use crate::objects::ObjectKey;

/// Conditions by object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions(pub BTreeMap<ObjectKey, Vec<Condition>>);

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Condition {
    /// The parent that it is about, `<kind>/<namespace>/<name>[:<port>][#<section>]`,
    /// of a route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether it is so.
    #[serde(serialize_with = "as_word")]
    pub status: bool,
    /// Why, in one word of the API.
    pub reason: &'static str,
    /// Why, and what to check.
    pub message: String,
}

impl Condition {
    pub(super) fn new(kind: &'static str, status: bool, reason: &'static str, message: String) -> Self {
        Self { parent: None, kind, status, reason, message }
    }

    pub(super) fn of_parent(self, parent: &str) -> Self {
        Self { parent: Some(parent.to_owned()), ..self }
    }
}

impl Conditions {
    pub(super) fn add(&mut self, key: &ObjectKey, condition: Condition) {
        self.0.entry(key.clone()).or_default().push(condition);
    }

    pub(super) fn join(&mut self, other: &Self) {
        for (key, conditions) in &other.0 {
            self.0.entry(key.clone()).or_default().extend(conditions.iter().cloned());
        }
    }
}

/// `True` or `False`.
fn as_word<S: Serializer>(status: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if *status { "True" } else { "False" })
}
