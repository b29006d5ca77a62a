//! The outer shape of a policy, read strictly: a misspelt `spec` must not pass for an empty one.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::meta::Meta;
use super::values::null_is_default;

/// A policy document around its `spec`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[serde(bound = "S: Default + Deserialize<'de>")]
pub struct Envelope<S> {
    #[serde(rename = "apiVersion", default)]
    _api_version: IgnoredAny,
    #[serde(rename = "kind", default)]
    _kind: IgnoredAny,
    #[serde(rename = "status", default)]
    _status: IgnoredAny,
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default, deserialize_with = "null_is_default")]
    pub spec: S,
}
