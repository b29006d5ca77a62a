//! `gateway.networking.k8s.io` GRPCRoute.

use serde::Deserialize;

use super::parts::{BackendRef, Filter, MatchKind, NamedMatch, ParentRef};
use crate::objects::meta::Meta;
use crate::objects::values::null_is_default;

/// How gRPC requests are routed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct GrpcRoute {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Spec,
}

/// `spec` of a GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// What it is attached to.
    #[serde(deserialize_with = "null_is_default")]
    pub parent_refs: Vec<ParentRef>,
    /// Its rules.
    #[serde(deserialize_with = "null_is_default")]
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rule {
    /// Its own name.
    pub name: Option<String>,
    /// Any of them may match; none is every request.
    #[serde(deserialize_with = "null_is_default")]
    pub matches: Vec<Match>,
    /// What is changed.
    #[serde(deserialize_with = "null_is_default")]
    pub filters: Vec<Filter>,
    /// Where requests go.
    #[serde(deserialize_with = "null_is_default")]
    pub backend_refs: Vec<BackendRef>,
    /// Session persistence, which is not carried out yet.
    pub session_persistence: Option<serde_json::Value>,
}

/// Conditions; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Match {
    /// Service and method.
    pub method: Option<MethodMatch>,
    /// Metadata of the call.
    #[serde(deserialize_with = "null_is_default")]
    pub headers: Vec<NamedMatch>,
}

/// A condition on service and method.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MethodMatch {
    /// How they are compared.
    #[serde(rename = "type")]
    pub kind: MatchKind,
    /// The service; absent is any.
    pub service: Option<String>,
    /// The method; absent is any.
    pub method: Option<String>,
}
