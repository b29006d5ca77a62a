//! What routes of the Gateway API have in common.

use std::time::Duration;

use serde::Deserialize;

use crate::objects::values::null_is_default;

/// The group of the Gateway API's own kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// What a route is attached to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The API group; the Gateway API's own by default.
    #[serde(default)]
    pub group: Option<String>,
    /// The kind; Gateway by default.
    #[serde(default)]
    pub kind: Option<String>,
    /// The namespace; the route's own by default.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The name of a port.
    #[serde(default)]
    pub section_name: Option<String>,
    /// A port.
    #[serde(default)]
    pub port: Option<u16>,
}

impl ParentRef {
    /// Whether it is a service.
    pub fn is_service(&self) -> bool {
        self.group.as_deref() == Some("") && self.kind.as_deref() == Some("Service")
    }
}

impl ParentRef {
    /// Whether it is a ServiceEntry.
    pub fn is_service_entry(&self) -> bool {
        self.group.as_deref() == Some("networking.istio.io") && self.kind.as_deref() == Some("ServiceEntry")
    }
}

/// Where requests go.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackendRef {
    /// The API group; the core one by default.
    #[serde(default)]
    pub group: Option<String>,
    /// The kind; Service by default.
    #[serde(default)]
    pub kind: Option<String>,
    /// The namespace; the route's own by default.
    #[serde(default)]
    pub namespace: Option<String>,
    /// The name.
    pub name: String,
    /// The port, which a service needs.
    #[serde(default)]
    pub port: Option<u16>,
    /// Its share.
    #[serde(default)]
    pub weight: Option<u32>,
    /// What is changed on the way.
    #[serde(default, deserialize_with = "null_is_default")]
    pub filters: Vec<Filter>,
}

impl BackendRef {
    /// Whether it is the host of a ServiceEntry, as Istio has it.
    pub fn is_hostname(&self) -> bool {
        self.group.as_deref() == Some("networking.istio.io") && self.kind.as_deref() == Some("Hostname")
    }

    /// Whether it is a service.
    pub fn is_service(&self) -> bool {
        self.group.as_deref().unwrap_or_default().is_empty()
            && self.kind.as_deref().unwrap_or("Service") == "Service"
    }
}

/// A change of a request or a response, or an answer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filter {
    /// Which of the following.
    #[serde(rename = "type")]
    pub kind: String,
    /// `RequestHeaderModifier`.
    #[serde(default)]
    pub request_header_modifier: Option<HeaderModifier>,
    /// `ResponseHeaderModifier`.
    #[serde(default)]
    pub response_header_modifier: Option<HeaderModifier>,
    /// `RequestRedirect`.
    #[serde(default)]
    pub request_redirect: Option<RequestRedirect>,
    /// `URLRewrite`.
    #[serde(default)]
    pub url_rewrite: Option<UrlRewrite>,
    /// `CORS`.
    #[serde(default)]
    pub cors: Option<Cors>,
}

/// Which scripts of other origins may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[expect(missing_docs, reason = "fields carry the names that the Gateway API gives them")]
pub struct Cors {
    #[serde(deserialize_with = "null_is_default")]
    pub allow_origins: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub allow_credentials: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub allow_methods: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub allow_headers: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub expose_headers: Vec<String>,
    pub max_age: Option<u32>,
}

impl Cors {
    /// The rules that the CRD would hold it to.
    ///
    /// # Errors
    /// With its message.
    pub fn check(&self) -> Result<(), String> {
        for (field, values, others) in [
            ("AllowOrigins", &self.allow_origins, "origins"),
            ("AllowMethods", &self.allow_methods, "methods"),
            ("AllowHeaders", &self.allow_headers, "methods"),
        ] {
            if values.len() > 1 && values.iter().any(|value| value == "*") {
                return Err(format!("{field} cannot contain '*' alongside other {others}"));
            }
        }
        match self.max_age {
            Some(0) => Err("maxAge: Invalid value: 0: should be greater than or equal to 1".to_owned()),
            Some(_) | None => Ok(()),
        }
    }
}

/// Changes of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HeaderModifier {
    /// Replaced.
    #[serde(deserialize_with = "null_is_default")]
    pub set: Vec<Header>,
    /// Appended.
    #[serde(deserialize_with = "null_is_default")]
    pub add: Vec<Header>,
    /// Taken away.
    #[serde(deserialize_with = "null_is_default")]
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RequestRedirect {
    /// `http` or `https`.
    pub scheme: Option<String>,
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u16>,
    /// The status; 302 by default.
    pub status_code: Option<u16>,
}

/// A rewrite.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// How a path changes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", deny_unknown_fields)]
pub enum PathModifier {
    /// The whole path.
    ReplaceFullPath {
        /// By this.
        #[serde(rename = "replaceFullPath")]
        replace_full_path: String,
    },
    /// The part that was matched as a prefix.
    ReplacePrefixMatch {
        /// By this.
        #[serde(rename = "replacePrefixMatch")]
        replace_prefix_match: String,
    },
}

/// A condition on a header.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedMatch {
    /// `Exact`, the default, or `RegularExpression`.
    #[serde(rename = "type", default)]
    pub kind: MatchKind,
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum MatchKind {
    /// As a whole.
    #[default]
    Exact,
    /// By an expression, as a whole.
    RegularExpression,
}

/// A duration of GEP-2257: `1h30m`, `10s`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct GatewayDuration(pub Duration);

impl TryFrom<String> for GatewayDuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        parse_duration(&text).map(Self).ok_or_else(|| {
            format!("Invalid value: {text:?}: should match '^([0-9]{{1,5}}(h|m|s|ms)){{1,4}}$'")
        })
    }
}

fn parse_duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits).filter(|text| (1..=5).contains(&text.len()))?.parse().ok()?;
        rest = &rest[digits..];
        let units = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let (unit, milliseconds) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        total += Duration::from_millis(number * milliseconds);
    }
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in
            [("0s", Some(0)), ("10s", Some(10_000)), ("1h30m", Some(5_400_000)), ("500ms", Some(500))]
        {
            assert_eq!(parse_duration(text), milliseconds.map(Duration::from_millis), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "1d", "123456s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
