//! `gateway.networking.k8s.io` HTTPRoute.

use serde::Deserialize;

use super::parts::{BackendRef, Cors, Filter, GatewayDuration, NamedMatch, ParentRef};
use crate::objects::meta::Meta;
use crate::objects::values::null_is_default;

/// How HTTP requests are routed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct HttpRoute {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Spec,
}

/// `spec` of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "RawSpec")]
pub struct Spec {
    /// What it is attached to.
    pub parent_refs: Vec<ParentRef>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    #[serde(deserialize_with = "null_is_default")]
    parent_refs: Vec<ParentRef>,
    rules: Option<Vec<Rule>>,
}

impl TryFrom<RawSpec> for Spec {
    type Error = String;

    fn try_from(raw: RawSpec) -> Result<Self, Self::Error> {
        // HTTPRoute: "If no rules are specified, every request matches": the API server's default.
        let rules = raw.rules.unwrap_or_else(|| vec![Rule::default()]);
        if raw.parent_refs.len() > 32 {
            return Err("spec.parentRefs: Too many: must have at most 32 items".to_owned());
        }
        if rules.len() > 16 {
            return Err("spec.rules: Too many: must have at most 16 items".to_owned());
        }
        rules.iter().try_for_each(Rule::check)?;
        Ok(Self { parent_refs: raw.parent_refs, rules })
    }
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
    /// What is changed, or answered.
    #[serde(deserialize_with = "null_is_default")]
    pub filters: Vec<Filter>,
    /// Where requests go.
    #[serde(deserialize_with = "null_is_default")]
    pub backend_refs: Vec<BackendRef>,
    /// How long it may take.
    #[serde(deserialize_with = "null_is_default")]
    pub timeouts: Timeouts,
    /// Retries, which are not carried out yet.
    pub retry: Option<serde_json::Value>,
    /// Session persistence, which is not carried out yet.
    pub session_persistence: Option<serde_json::Value>,
}

impl Rule {
    /// The rules that the CRD would hold it to.
    fn check(&self) -> Result<(), String> {
        let count = |kind: &str| self.filters.iter().filter(|filter| filter.kind == kind).count();
        for kind in
            ["RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite", "CORS"]
        {
            if count(kind) > 1 {
                return Err(format!("{kind} filter cannot be repeated"));
            }
        }
        if count("RequestRedirect") > 0 && count("URLRewrite") > 0 {
            return Err("May specify either requestRedirect or urlRewrite, but not both".to_owned());
        }
        if count("RequestRedirect") > 0 && !self.backend_refs.is_empty() {
            return Err("RequestRedirect filter must not be used together with backendRefs".to_owned());
        }
        if let (Some(request), Some(backend)) = (self.timeouts.request, self.timeouts.backend_request)
            && !request.0.is_zero()
            && backend.0 > request.0
        {
            return Err("backendRequest timeout cannot be longer than request timeout".to_owned());
        }
        self.filters.iter().filter_map(|filter| filter.cors.as_ref()).try_for_each(Cors::check)?;
        let mut paths = self.matches.iter().map(|one| &one.path);
        paths.try_for_each(PathMatch::check)
    }
}

/// Conditions; all must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Match {
    /// The path.
    #[serde(deserialize_with = "null_is_default")]
    pub path: PathMatch,
    /// Headers.
    #[serde(deserialize_with = "null_is_default")]
    pub headers: Vec<NamedMatch>,
    /// Query parameters.
    #[serde(deserialize_with = "null_is_default")]
    pub query_params: Vec<NamedMatch>,
    /// The method.
    pub method: Option<String>,
}

/// A condition on the path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathMatch {
    /// How it is compared.
    #[serde(rename = "type")]
    pub kind: PathKind,
    /// With what.
    pub value: String,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum PathKind {
    /// As a whole.
    Exact,
    /// By whole segments from the beginning.
    PathPrefix,
    /// By an expression, as a whole.
    RegularExpression,
}

impl Default for PathMatch {
    /// Every path.
    fn default() -> Self {
        Self { kind: PathKind::PathPrefix, value: "/".to_owned() }
    }
}

impl PathMatch {
    fn check(&self) -> Result<(), String> {
        if self.kind == PathKind::RegularExpression {
            return Ok(());
        }
        if !self.value.starts_with('/') {
            return Err(
                "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']"
                    .to_owned(),
            );
        }
        for part in ["//", "/./", "/../", "%2f", "%2F", "#"] {
            if self.value.contains(part) {
                return Err(format!("must not contain '{part}' when type one of ['Exact', 'PathPrefix']"));
            }
        }
        for end in ["/..", "/."] {
            if self.value.ends_with(end) {
                return Err(format!("must not end with '{end}' when type one of ['Exact', 'PathPrefix']"));
            }
        }
        Ok(())
    }
}

/// How long a request may take; `0s` is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Timeouts {
    /// All tries together.
    pub request: Option<GatewayDuration>,
    /// Each try.
    pub backend_request: Option<GatewayDuration>,
}
