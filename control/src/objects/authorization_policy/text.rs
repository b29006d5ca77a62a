//! Values of AuthorizationPolicy, each parsed where it is read so that an error names its line.

use ambit_mesh::policy::StringMatch;
use ipnet::IpNet;
use serde::Deserialize;

use crate::objects::values::{parse_ip_block, parse_port};

/// A comparison of text: `abc`, `abc*`, `*abc` or `*`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern(pub(super) StringMatch);

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        parse_pattern(&text).map(Self)
    }
}

/// Reads a comparison of text. `spiffe://` before a principal is not part of it.
pub(crate) fn parse_pattern(text: &str) -> Result<StringMatch, String> {
    let pattern = text.strip_prefix("spiffe://").unwrap_or(text);
    let (parsed, literal) = if pattern == "*" {
        (StringMatch::Presence, "")
    } else if let Some(suffix) = pattern.strip_prefix('*') {
        (StringMatch::Suffix(suffix.into()), suffix)
    } else if let Some(prefix) = pattern.strip_suffix('*') {
        (StringMatch::Prefix(prefix.into()), prefix)
    } else if pattern.is_empty() {
        return Err("must not be empty: use \"*\" for any value".to_owned());
    } else {
        (StringMatch::Exact(pattern.into()), pattern)
    };
    if literal.contains('*') {
        return Err(format!("{text:?}: '*' may stand at the beginning or at the end, and only once"));
    }
    Ok(parsed)
}

/// An address or a CIDR.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct IpBlock(pub(super) IpNet);

impl TryFrom<String> for IpBlock {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        parse_ip_block(&text).map(Self)
    }
}

/// A port, which this API writes as text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Port(pub(super) u16);

impl TryFrom<String> for Port {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        parse_port(&text).map(Self)
    }
}

/// `<service account>` in the policy's own namespace, or `<namespace>/<service account>`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ServiceAccountName {
    /// The namespace, where it is not the policy's own.
    pub namespace: Option<String>,
    /// The service account.
    pub name: String,
}

impl TryFrom<String> for ServiceAccountName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text.as_str()),
        };
        let is_plain = |part: &str| !part.is_empty() && !part.contains(['*', '/']);
        if !is_plain(name) || !namespace.is_none_or(is_plain) {
            return Err(format!("invalid service account {text:?}: expected <name> or <namespace>/<name>"));
        }
        Ok(Self { namespace: namespace.map(str::to_owned), name: name.to_owned() })
    }
}
