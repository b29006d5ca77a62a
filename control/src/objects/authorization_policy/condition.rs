//! One `when` condition of an AuthorizationPolicy.

use ambit_mesh::policy::StringMatch;
use ipnet::IpNet;
use serde::Deserialize;

use super::text::{ServiceAccountName, parse_pattern};
use crate::objects::values::{null_is_default, parse_ip_block, parse_port};

/// One condition: any of `values` and none of `not_values`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub enum Condition {
    /// `source.ip`
    SourceIp(Values<IpNet>),
    /// `source.namespace`
    SourceNamespace(Values<StringMatch>),
    /// `source.principal`
    SourcePrincipal(Values<StringMatch>),
    /// `source.serviceAccount`
    SourceServiceAccount(Values<ServiceAccountName>),
    /// `destination.ip`
    DestinationIp(Values<IpNet>),
    /// `destination.port`
    DestinationPort(Values<u16>),
    /// A key that layer 4 cannot evaluate.
    BeyondLayer4 {
        /// The key.
        key: String,
        /// The values, as they are written.
        values: Values<String>,
    },
}

/// The values of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values<T> {
    /// Any of them; empty means any value.
    pub any_of: Vec<T>,
    /// None of them.
    pub none_of: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Raw {
    key: String,
    #[serde(default, deserialize_with = "null_is_default")]
    values: Vec<String>,
    #[serde(default, deserialize_with = "null_is_default")]
    not_values: Vec<String>,
}

impl TryFrom<Raw> for Condition {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, Self::Error> {
        if raw.values.is_empty() && raw.not_values.is_empty() {
            return Err(format!("at least one of `values` or `notValues` must be set for key {}", raw.key));
        }
        match raw.key.as_str() {
            "source.ip" => raw.parse(parse_ip_block).map(Self::SourceIp),
            "source.namespace" => raw.parse(parse_pattern).map(Self::SourceNamespace),
            "source.principal" => raw.parse(parse_pattern).map(Self::SourcePrincipal),
            "source.serviceAccount" => raw
                .parse(|text| ServiceAccountName::try_from(text.to_owned()))
                .map(Self::SourceServiceAccount),
            "destination.ip" => raw.parse(parse_ip_block).map(Self::DestinationIp),
            "destination.port" => raw.parse(parse_port).map(Self::DestinationPort),
            key if is_beyond_layer_4(key) => {
                Ok(Self::BeyondLayer4 { values: raw.parse(|text| Ok(text.to_owned()))?, key: raw.key })
            }
            key => Err(format!("unknown attribute: {key}")),
        }
    }
}

impl Raw {
    fn parse<T>(&self, read: impl Fn(&str) -> Result<T, String>) -> Result<Values<T>, String> {
        let read_all = |texts: &[String]| texts.iter().map(|text| read(text)).collect::<Result<Vec<_>, _>>();
        Ok(Values { any_of: read_all(&self.values)?, none_of: read_all(&self.not_values)? })
    }
}

/// The keys of Istio's "Authorization Policy Conditions" that need a request, a trust domain list
/// or the first bytes of the client.
fn is_beyond_layer_4(key: &str) -> bool {
    const KEYS: [&str; 6] = [
        "remote.ip",
        "source.trustDomain",
        "request.auth.principal",
        "request.auth.audiences",
        "request.auth.presenter",
        "connection.sni",
    ];
    let is_indexed = |prefix: &str| key.starts_with(prefix) && key.ends_with(']');
    KEYS.contains(&key)
        || is_indexed("request.headers[")
        || is_indexed("request.auth.claims[")
        || key.starts_with("experimental.envoy.filters.")
}
