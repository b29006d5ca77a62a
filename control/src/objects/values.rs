//! Values that several kinds share, parsed where they are read so that an error names its line.

use std::fmt;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// Reads an explicit `null` as the default, as an API server does for optional fields.
///
/// # Errors
/// When the value is neither null nor a `T`.
pub fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// Reads networks, and leaves out what is none: an odd range of a node must not cost the node.
///
/// # Errors
/// When the value is neither null nor a list of texts.
pub fn lenient_networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts: Vec<String> = null_is_default(deserializer)?;
    Ok(texts.iter().filter_map(|text| parse_ip_block(text).ok()).collect())
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Protocol {
    /// TCP, the default.
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    /// UDP: outside the mesh.
    #[serde(rename = "UDP")]
    Udp,
    /// SCTP: outside the mesh.
    #[serde(rename = "SCTP")]
    Sctp,
}

/// `targetPort` of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container's port.
    Name(String),
}

impl<'de> Deserialize<'de> for TargetPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText).map(|value| match value {
            Either::Number(number) => Self::Number(number),
            Either::Text(text) => Self::Name(text),
        })
    }
}

/// A port as the key of a map: a number in YAML, text in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PortKey(pub u16);

impl<'de> Deserialize<'de> for PortKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match deserializer.deserialize_any(NumberOrText)? {
            Either::Number(number) => parse_port(&number.to_string()),
            Either::Text(text) => parse_port(&text),
        }
        .map(Self)
        .map_err(de::Error::custom)
    }
}

enum Either {
    Number(u16),
    Text(String),
}

struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = Either;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port number between 1 and 65535, inclusive, or a name")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Either, E> {
        u16::try_from(number)
            .ok()
            .filter(|port| *port > 0)
            .map(Either::Number)
            .ok_or_else(|| E::custom(format!("{number}: must be between 1 and 65535, inclusive")))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Either, E> {
        self.visit_u64(u64::try_from(number).unwrap_or(0))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Either, E> {
        Ok(Either::Text(text.to_owned()))
    }
}

/// Reads a port that a policy writes as text.
///
/// # Errors
/// When it is not a number from 1 to 65535.
pub fn parse_port(text: &str) -> Result<u16, String> {
    text.parse()
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| format!("invalid port {text:?}: must be between 1 and 65535, inclusive"))
}

/// Reads an address or a CIDR; an address stands for itself alone.
///
/// # Errors
/// When it is neither.
pub fn parse_ip_block(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<std::net::IpAddr>() {
        Ok(ip) => Ok(IpNet::from(ip)),
        Err(_) => text.parse::<IpNet>(),
    };
    network
        .map(|network| canonical(network).trunc())
        .map_err(|_| format!("invalid IP block {text:?}: expected an address or a CIDR such as 10.0.0.0/8"))
}

/// An IPv4-mapped IPv6 block is the IPv4 block it stands for: addresses are compared that way.
fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    match (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96)) {
        (Some(ip), Some(length)) => ipnet::Ipv4Net::new(ip, length).map_or(network, IpNet::V4),
        (None, _) | (_, None) => network,
    }
}
