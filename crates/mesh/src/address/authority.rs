//! The target of a CONNECT request.
//!
//! Reading the header out of HTTP/2 is `ambit-hbone`'s work; this module owns the text alone.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use super::canonical_socket;

/// The longest host name that DNS allows (RFC 1035 §2.3.4), in octets.
const HOST_NAME_MAX: usize = 253;

/// Where a CONNECT request wants to go: an address, or a host name with a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// An address. IPv4 is never written as an IPv4-mapped IPv6 address here.
    Address(SocketAddr),
    /// A host name, in lower case, and a port.
    Host {
        /// The name.
        name: Arc<str>,
        /// The port.
        port: u16,
    },
}

impl FromStr for Authority {
    type Err = InvalidAuthority;

    // RFC 9113 §8.5: ":authority" of CONNECT "contains the host and port to connect to". The
    // address comes first, so that no address can be taken for a host name.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAuthority { text: text.chars().take(HOST_NAME_MAX + 6).collect() };
        if let Ok(address) = text.parse::<SocketAddr>() {
            return usable(address).then(|| Self::Address(canonical_socket(address))).ok_or_else(invalid);
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        if !is_host_name(name) {
            return Err(invalid());
        }
        Ok(Self::Host { name: name.to_ascii_lowercase().into(), port: parse_port(port).ok_or_else(invalid)? })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

/// A text that is neither `ip:port` nor `host:port`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a CONNECT target: expected ip:port, [ipv6]:port or host:port with a port from 1")]
pub struct InvalidAuthority {
    /// What was read, cut to a length that is safe to log.
    pub text: String,
}

/// A zone (`fe80::1%2`) means an interface of the sender, so it cannot name anything here.
fn usable(address: SocketAddr) -> bool {
    let zoned = matches!(address, SocketAddr::V6(v6) if v6.scope_id() != 0);
    address.port() != 0 && !zoned
}

fn is_host_name(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let labels = name.strip_suffix('.').unwrap_or(name).split('.');
    // A name of digits and dots alone is an address that did not parse, such as 10.0.0.256.
    name.len() <= HOST_NAME_MAX
        && name.bytes().all(allowed)
        && name.bytes().any(|b| b.is_ascii_alphabetic())
        && labels.into_iter().all(|label| !label.is_empty() && label.len() <= 63)
}

/// Digits only: `u16::from_str` also reads `+80`.
fn parse_port(text: &str) -> Option<u16> {
    let port = text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())??;
    (port != 0).then_some(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_before_a_host_name() {
        for (text, address) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[fd00::1]:8080", "[fd00::1]:8080"),
            ("[::ffff:10.0.0.1]:80", "10.0.0.1:80"),
        ] {
            assert_eq!(text.parse(), Ok(Authority::Address(address.parse().unwrap())), "{text}");
        }
    }

    #[test]
    fn a_host_name_needs_its_port() {
        let host = |name: &str, port| Ok(Authority::Host { name: name.into(), port });
        assert_eq!("web.shop.svc.cluster.local:80".parse(), host("web.shop.svc.cluster.local", 80));
        assert_eq!("WEB.Shop:65535".parse(), host("web.shop", 65535));
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ":",
            ":80",
            "web",
            "web:",
            "web:0",
            "web:+80",
            "web:65536",
            "web:80:80",
            "web..shop:80",
            ".web:80",
            "we b:80",
            "user@web:80",
            "web/path:80",
            "10.0.0.1",
            "10.0.0.1:0",
            "10.0.0.256:80",
            "fd00::1:80",
            "[fd00::1]",
            "[fe80::1%2]:80",
            "wéb:80",
        ] {
            assert!(text.parse::<Authority>().is_err(), "{text:?} was accepted");
        }
        assert!(format!("{}:80", "a".repeat(64)).parse::<Authority>().is_err());
        assert!(format!("{}a:80", "a.".repeat(127)).parse::<Authority>().is_err());
    }

    #[test]
    fn an_error_does_not_repeat_an_endless_text() {
        let error = "x".repeat(100_000).parse::<Authority>().unwrap_err();
        assert!(error.to_string().len() < 400);
    }
}
