//! The metadata that objects have in common.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::values::null_is_default;

/// Labels or annotations.
pub type StringMap = BTreeMap<String, String>;

/// `metadata`, as far as it is used. Name and namespace are in the object's key.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Meta {
    /// The object's UID; empty where nobody gave it one.
    #[serde(deserialize_with = "null_is_default")]
    pub uid: String,
    /// Labels.
    #[serde(deserialize_with = "null_is_default")]
    pub labels: StringMap,
    /// Annotations.
    #[serde(deserialize_with = "null_is_default")]
    pub annotations: StringMap,
    /// Owners; at most one is the controller.
    #[serde(deserialize_with = "null_is_default")]
    pub owner_references: Vec<OwnerReference>,
    /// When it was created (RFC 3339, which sorts as text when written in UTC).
    pub creation_timestamp: Option<String>,
    /// Set while it is being deleted.
    pub deletion_timestamp: Option<String>,
}

/// One owner of an object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct OwnerReference {
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// Whether it is the controller.
    #[serde(deserialize_with = "null_is_default")]
    pub controller: bool,
}

impl Meta {
    /// A label's value.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }

    /// An annotation's value.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str)
    }
}
