//! `gateway.networking.k8s.io` TCPRoute and TLSRoute: where connections go whose requests are not read.

use serde::Deserialize;

use super::parts::{BackendRef, ParentRef};
use crate::objects::meta::Meta;
use crate::objects::values::null_is_default;

/// A TCPRoute or a TLSRoute.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ConnectionRoute {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    #[serde(default)]
    pub spec: Spec,
}

/// `spec` of such a route.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "RawSpec")]
pub struct Spec {
    /// What it is attached to.
    pub parent_refs: Vec<ParentRef>,
    /// Names that a TLSRoute takes, in lower case; none is any.
    pub hostnames: Vec<String>,
    /// Its rules.
    pub rules: Vec<Rule>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawSpec {
    #[serde(deserialize_with = "null_is_default")]
    parent_refs: Vec<ParentRef>,
    #[serde(deserialize_with = "null_is_default")]
    hostnames: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    rules: Vec<Rule>,
}

impl TryFrom<RawSpec> for Spec {
    type Error = String;

    fn try_from(raw: RawSpec) -> Result<Self, Self::Error> {
        let RawSpec { parent_refs, hostnames, rules } = raw;
        if parent_refs.len() > 32 {
            return Err("spec.parentRefs: Too many: must have at most 32 items".to_owned());
        }
        if rules.is_empty() {
            return Err("spec.rules: Invalid value: should have at least 1 items".to_owned());
        }
        if hostnames.iter().any(|name| name.parse::<std::net::IpAddr>().is_ok()) {
            return Err("Hostnames cannot contain an IP".to_owned());
        }
        let is_name =
            |name: &String| !name.strip_prefix("*.").unwrap_or(name).contains('*') && !name.is_empty();
        if !hostnames.iter().all(is_name) {
            return Err("Wildcards on hostnames must be the first label".to_owned());
        }
        let hostnames = hostnames.iter().map(|name| name.to_ascii_lowercase()).collect();
        Ok(Self { parent_refs, hostnames, rules })
    }
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Rule {
    /// Its own name.
    pub name: Option<String>,
    /// Where connections go.
    #[serde(deserialize_with = "null_is_default")]
    pub backend_refs: Vec<BackendRef>,
}
