//! `networking.istio.io` VirtualService, as far as it routes HTTP.
//!
//! Matches are read strictly: a condition that is not understood would widen what a rule takes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::duration::IstioDuration;
use crate::objects::meta::{Meta, StringMap};
use crate::objects::values::null_is_default;

/// How requests to hosts are routed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct VirtualService {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Spec,
}

/// `spec` of a VirtualService.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// The hosts.
    #[serde(deserialize_with = "null_is_default")]
    pub hosts: Vec<String>,
    /// Gateways; none is the mesh, and so is `mesh`.
    #[serde(deserialize_with = "null_is_default")]
    pub gateways: Vec<String>,
    /// Where it counts.
    #[serde(deserialize_with = "null_is_default")]
    pub export_to: Vec<String>,
    /// Rules, asked in their order.
    #[serde(deserialize_with = "null_is_default")]
    pub http: Vec<HttpRule>,
    /// Rules for connections, which are not carried out.
    pub tcp: Option<serde_json::Value>,
    /// Rules for connections of TLS, which are not carried out.
    pub tls: Option<serde_json::Value>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields carry the names that VirtualService gives them")]
pub struct HttpRule {
    pub name: Option<String>,
    #[serde(rename = "match", deserialize_with = "null_is_default")]
    pub matches: Vec<HttpMatch>,
    #[serde(deserialize_with = "null_is_default")]
    pub route: Vec<Destination>,
    pub redirect: Option<Redirect>,
    pub rewrite: Option<Rewrite>,
    pub direct_response: Option<DirectResponse>,
    pub headers: Option<Headers>,
    pub timeout: Option<IstioDuration>,
    pub delegate: Option<Delegate>,
    pub retries: Option<serde_json::Value>,
    pub fault: Option<serde_json::Value>,
    pub mirror: Option<serde_json::Value>,
    pub mirrors: Option<serde_json::Value>,
    pub mirror_percent: Option<serde_json::Value>,
    pub mirror_percentage: Option<serde_json::Value>,
    pub cors_policy: Option<CorsPolicy>,
}

/// Another VirtualService, whose rules take the place of this one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Its namespace; the object's own by default.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// Which scripts of other origins may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields carry the names that VirtualService gives them")]
pub struct CorsPolicy {
    #[serde(deserialize_with = "null_is_default")]
    pub allow_origin: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub allow_origins: Vec<StringMatch>,
    #[serde(deserialize_with = "null_is_default")]
    pub allow_methods: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub allow_headers: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub expose_headers: Vec<String>,
    pub max_age: Option<IstioDuration>,
    pub allow_credentials: Option<bool>,
    #[serde(deserialize_with = "null_is_default")]
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What becomes of a preflight of an origin that may not ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[expect(missing_docs, reason = "the variants are VirtualService's values")]
pub enum UnmatchedPreflights {
    Unspecified,
    #[default]
    Forward,
    Ignore,
}

/// Conditions; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields carry the names that VirtualService gives them")]
pub struct HttpMatch {
    pub name: Option<String>,
    pub uri: Option<StringMatch>,
    pub scheme: Option<StringMatch>,
    pub method: Option<StringMatch>,
    pub authority: Option<StringMatch>,
    #[serde(deserialize_with = "null_is_default")]
    pub headers: BTreeMap<String, StringMatch>,
    #[serde(deserialize_with = "null_is_default")]
    pub without_headers: BTreeMap<String, StringMatch>,
    #[serde(deserialize_with = "null_is_default")]
    pub query_params: BTreeMap<String, StringMatch>,
    #[serde(deserialize_with = "null_is_default")]
    pub ignore_uri_case: bool,
    pub port: Option<u16>,
    #[serde(deserialize_with = "null_is_default")]
    pub source_labels: StringMap,
    pub source_namespace: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub gateways: Vec<String>,
    pub stat_prefix: Option<String>,
}

/// A comparison; none is that there is a value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields carry the names that VirtualService gives them")]
pub struct StringMatch {
    pub exact: Option<String>,
    pub prefix: Option<String>,
    pub regex: Option<String>,
}

/// Where requests go, and which share of them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Where.
    pub destination: Host,
    /// The share; one destination alone needs none.
    #[serde(default, deserialize_with = "null_is_default")]
    pub weight: u32,
    /// Changes of headers.
    #[serde(default)]
    pub headers: Option<Headers>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Its host name, or its short one.
    pub host: String,
    /// A part of its endpoints.
    #[serde(default)]
    pub subset: Option<String>,
    /// Its port.
    #[serde(default)]
    pub port: Option<PortSelector>,
}

/// A port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSelector {
    /// Its number.
    pub number: u16,
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Headers {
    /// Of the request.
    #[serde(deserialize_with = "null_is_default")]
    pub request: HeaderOperations,
    /// Of the response.
    #[serde(deserialize_with = "null_is_default")]
    pub response: HeaderOperations,
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderOperations {
    /// Replaced.
    #[serde(deserialize_with = "null_is_default")]
    pub set: StringMap,
    /// Appended.
    #[serde(deserialize_with = "null_is_default")]
    pub add: StringMap,
    /// Taken away.
    #[serde(deserialize_with = "null_is_default")]
    pub remove: Vec<String>,
}

/// A redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields carry the names that VirtualService gives them")]
pub struct Redirect {
    pub uri: Option<String>,
    pub authority: Option<String>,
    pub port: Option<u16>,
    pub derive_port: Option<DerivePort>,
    pub scheme: Option<String>,
    pub redirect_code: Option<u16>,
}

/// Which port a redirect has that names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the variants are VirtualService's values")]
pub enum DerivePort {
    FromProtocolDefault,
    FromRequestPort,
}

/// A rewrite of every part of a path that an expression matches.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegexRewrite {
    /// The expression.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What takes its place; `\1` is the first group.
    pub rewrite: String,
}

/// A rewrite.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields carry the names that VirtualService gives them")]
pub struct Rewrite {
    pub uri: Option<String>,
    pub authority: Option<String>,
    pub uri_regex_rewrite: Option<RegexRewrite>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectResponse {
    /// The status.
    pub status: u16,
    /// The body.
    #[serde(default)]
    pub body: Option<Body>,
}

/// A body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Body {
    /// As text.
    pub string: Option<String>,
    /// As octets in base64.
    pub bytes: Option<String>,
}
