//! A request, as whoever asks about it writes it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::{HeaderName, HeaderValue, Method};

/// Who sends a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The namespace.
    pub namespace: String,
    /// The name of a ServiceAccount or a pod.
    pub name: String,
    /// Which of them.
    pub kind: SenderKind,
}

/// What a sender's name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderKind {
    /// A ServiceAccount, or else a pod.
    Either,
    /// A ServiceAccount.
    ServiceAccount,
    /// A pod.
    Pod,
}

impl FromStr for Sender {
    type Err = InvalidQuestion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (kind, rest) = match text.split_once(':') {
            Some(("sa", rest)) => (SenderKind::ServiceAccount, rest),
            Some(("pod", rest)) => (SenderKind::Pod, rest),
            Some(_) | None => (SenderKind::Either, text),
        };
        let is_name = |text: &str| !text.is_empty() && !text.contains(['/', ':', ' ']);
        match rest.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), kind })
            }
            Some(_) | None => Err(InvalidQuestion::Sender { text: text.to_owned() }),
        }
    }
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Where a request is sent: what a client would write into a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// The host as it was written, without its port.
    pub host: String,
    /// The port, if it was written.
    pub port: Option<u16>,
    /// Path and query, if they were written.
    pub target: Option<String>,
}

impl Receiver {
    /// The address, where the host is one.
    pub fn ip(&self) -> Option<IpAddr> {
        let host = self.host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        host.unwrap_or(&self.host).parse().ok()
    }
}

impl FromStr for Receiver {
    type Err = InvalidQuestion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidQuestion::Receiver { text: text.to_owned() };
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some(_) => return Err(InvalidQuestion::Scheme { text: text.to_owned() }),
            None => text,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(end);
        let target = match target {
            "" => None,
            target if target.starts_with('/') => Some(target.to_owned()),
            query => Some(format!("/{query}")),
        };
        let (host, port) = match authority.rsplit_once(':') {
            // A colon inside of brackets is part of an address.
            Some((host, port)) if !port.ends_with(']') && !host.contains(':') || host.ends_with(']') => {
                (host, Some(port.parse().map_err(|_| invalid())?))
            }
            Some(_) | None => (authority, None),
        };
        let receiver = Self { host: host.to_owned(), port, target };
        let is_name = !host.is_empty() && host.bytes().all(is_host_octet);
        if (!is_name && receiver.ip().is_none()) || port == Some(0) {
            return Err(invalid());
        }
        Ok(receiver)
    }
}

fn is_host_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_')
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Who sends it.
    pub from: Sender,
    /// Where to.
    pub to: Receiver,
    /// The method.
    pub method: Method,
    /// Path and query; of the receiver, or `/`, where they are not given.
    pub target: Option<String>,
    /// `Host`; what a client makes of the receiver where it is not given.
    pub authority: Option<String>,
    /// Headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Question {
    /// `GET` of `to` by `from`, with nothing else.
    pub fn new(from: Sender, to: Receiver) -> Self {
        Self { from, to, method: Method::GET, target: None, authority: None, headers: Vec::new() }
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        self.target.as_deref().or(self.to.target.as_deref()).unwrap_or("/")
    }
}

/// Reads `<name>: <value>`.
///
/// # Errors
/// When it is no header.
pub fn header(text: &str) -> Result<(HeaderName, HeaderValue), InvalidQuestion> {
    let invalid = || InvalidQuestion::Header { text: text.to_owned() };
    let (name, value) = text.split_once(':').ok_or_else(invalid)?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| invalid())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|_| invalid())?;
    Ok((name, value))
}

/// What is no question.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuestion {
    /// No sender.
    #[error(
        "{text:?} is no sender: NAMESPACE/SERVICEACCOUNT or NAMESPACE/POD, or with sa: or pod: before it"
    )]
    Sender {
        /// What was read.
        text: String,
    },
    /// No receiver.
    #[error("{text:?} is no receiver: SERVICE.NAMESPACE[:PORT], ADDRESS[:PORT], or a URL with one of them")]
    Receiver {
        /// What was read.
        text: String,
    },
    /// Another scheme.
    #[error("{text:?} is no URL of scheme http, which is what a mesh can look into")]
    Scheme {
        /// What was read.
        text: String,
    },
    /// No header.
    #[error("{text:?} is no header: NAME:VALUE")]
    Header {
        /// What was read.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_and_receivers_are_read_as_people_write_them() {
        let sender = |text: &str| text.parse::<Sender>().map(|sender| (sender.to_string(), sender.kind));
        assert_eq!(sender("shop/cart"), Ok(("shop/cart".to_owned(), SenderKind::Either)));
        assert_eq!(sender("pod:shop/cart-0"), Ok(("shop/cart-0".to_owned(), SenderKind::Pod)));
        assert_eq!(sender("sa:shop/cart"), Ok(("shop/cart".to_owned(), SenderKind::ServiceAccount)));
        for text in ["", "cart", "/cart", "shop/", "a/b/c", "x:shop/cart"] {
            assert!(sender(text).is_err(), "{text:?}");
        }
        for (text, host, port, target) in [
            ("web.shop", "web.shop", None, None),
            ("web.shop:8080", "web.shop", Some(8080), None),
            ("web.shop:8080/a?b", "web.shop", Some(8080), Some("/a?b")),
            ("http://web/a", "web", None, Some("/a")),
            ("HTTP://web?x", "web", None, Some("/?x")),
            ("10.0.0.1:80", "10.0.0.1", Some(80), None),
            ("[fd00::1]:80", "[fd00::1]", Some(80), None),
            ("http://[fd00::1]/", "[fd00::1]", None, Some("/")),
            ("fd00::1", "fd00::1", None, None),
        ] {
            let read: Receiver = text.parse().unwrap();
            assert_eq!((&*read.host, read.port, read.target.as_deref()), (host, port, target), "{text}");
        }
        for text in ["", ":80", "web:0", "web:x", "https://web", "we b", "user@web"] {
            assert!(text.parse::<Receiver>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value() {
        assert_eq!(header("X-Team: blue").unwrap().0, "x-team");
        assert_eq!(header("x:").unwrap().1, "");
        for text in ["x", ": y", "a b: c", "x: \u{7f}"] {
            assert!(header(text).is_err(), "{text:?}");
        }
    }
}
