//! Whether the conditions of a route hold for a request.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, Method};

use super::normalize::percent_decoded;
use super::route::{HeaderMatch, HostPattern, PathMatch, QueryMatch, RouteMatch};
use super::table::Entry;

/// What routes see of a request.
pub(super) struct Request<'a> {
    pub(super) method: &'a Method,
    /// Without its port, in lower case.
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Option<&'a str>,
    pub(super) headers: &'a HeaderMap,
    pub(super) port: u16,
    pub(super) client_namespace: Option<&'a str>,
}

/// The first of `entries` that takes the request.
pub(super) fn first<'e>(entries: &'e [Entry], request: &Request<'_>) -> Option<&'e Entry> {
    entries.iter().find(|entry| takes(entry, request))
}

fn takes(entry: &Entry, request: &Request<'_>) -> bool {
    entry.host.as_ref().is_none_or(|host| host.matches(request.host))
        && entry.conditions().is_none_or(|conditions| conditions.hold(request))
}

impl HostPattern {
    pub(super) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == &**name,
            Self::Suffix(end) => host.len() > end.len() && host.ends_with(&**end),
        }
    }
}

impl RouteMatch {
    fn hold(&self, request: &Request<'_>) -> bool {
        self.path.matches(request.path)
            && self.method.as_ref().is_none_or(|method| method == request.method)
            && self.port.is_none_or(|port| port == request.port)
            && self.source_namespace.as_deref().is_none_or(|from| Some(from) == request.client_namespace)
            && self.authority.as_ref().is_none_or(|authority| authority.matches(request.host))
            && self.headers.iter().all(|header| header.holds(request.headers))
            && self.query.iter().all(|parameter| parameter.holds(request.query))
    }
}

impl PathMatch {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(whole) => path == &**whole,
            Self::Segments(prefix) => rest_after_segments(path, prefix).is_some(),
            Self::Prefix(prefix) => path.starts_with(&**prefix),
            Self::Regex(pattern) => pattern.matches(path),
            Self::ExactIgnoringCase(whole) => path.eq_ignore_ascii_case(whole),
            Self::PrefixIgnoringCase(prefix) => starts_ignoring_case(path, prefix),
        }
    }

    /// What follows the part of `path` that a prefix took; `None` where nothing but the whole was
    /// compared.
    pub(super) fn rest<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self {
            Self::Segments(prefix) => rest_after_segments(path, prefix),
            Self::Prefix(prefix) => path.strip_prefix(&**prefix),
            Self::PrefixIgnoringCase(prefix) => {
                starts_ignoring_case(path, prefix).then(|| path.get(prefix.len()..))?
            }
            Self::Any | Self::Exact(_) | Self::ExactIgnoringCase(_) | Self::Regex(_) => None,
        }
    }
}

/// Gateway API PathPrefix: "/foo" and "/foo/" both match "/foo", "/foo/" and "/foo/bar", not "/foobar".
fn rest_after_segments<'p>(path: &'p str, prefix: &str) -> Option<&'p str> {
    let rest = path.strip_prefix(prefix.strip_suffix('/').unwrap_or(prefix))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

fn starts_ignoring_case(path: &str, prefix: &str) -> bool {
    path.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

impl HeaderMatch {
    fn holds(&self, headers: &HeaderMap) -> bool {
        let value = joined(headers, &self.name);
        let matches = value.as_deref().is_some_and(|value| self.value.matches(value));
        matches != self.inverted
    }
}

impl QueryMatch {
    fn holds(&self, query: Option<&str>) -> bool {
        let pairs = query.unwrap_or_default().split('&');
        let mut pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let first = pairs.find(|(name, _)| percent_decoded(name) == *self.name);
        first.is_some_and(|(_, value)| self.value.matches(&percent_decoded(value)))
    }
}

/// A header's values joined by commas; `None` when it is absent.
///
/// What is not UTF-8 is compared with U+FFFD in its place: no condition can be written for it.
pub(super) fn joined<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<Cow<'h, str>> {
    let mut values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let first = values.next()?;
    Some(values.fold(first, |mut all, value| {
        let text = all.to_mut();
        text.push(',');
        text.push_str(&value);
        all
    }))
}
