//! Which scripts of other origins may ask, and what a browser is told about it (Fetch, "CORS protocol").
//!
//! Nothing is enforced here: a browser enforces what it is told.

use std::borrow::Cow;
use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use super::client::Head;
use super::route::HeaderEdits;
use super::text::ValueMatch;

/// Who may ask what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins that may ask: any of them.
    pub origins: Vec<ValueMatch>,
    /// Methods that may be used; `*` is every one.
    pub methods: Vec<Arc<str>>,
    /// Headers that may be sent; `*` is every one.
    pub headers: Vec<Arc<str>>,
    /// Headers of answers that may be read; `*` is every one.
    pub exposed: Vec<Arc<str>>,
    /// For how many seconds a browser may keep the answer.
    pub max_age_seconds: Option<u32>,
    /// Whether cookies and the like may be sent along.
    pub credentials: bool,
    /// What becomes of a preflight of another origin.
    pub unmatched: UnmatchedPreflight,
}

/// What becomes of a preflight of an origin that may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnmatchedPreflight {
    /// It is answered, without leave.
    Answered,
    /// It goes where other requests go.
    Forwarded,
}

impl Cors {
    /// The headers of the answer to a preflight; `None` where it is none, or is not answered here.
    pub(super) fn preflight(&self, head: &Head<'_>) -> Option<HeaderEdits> {
        let origin = head.headers.get(header::ORIGIN)?;
        let method = head.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if *head.method != Method::OPTIONS {
            return None;
        }
        if !self.allows(origin) {
            return (self.unmatched == UnmatchedPreflight::Answered).then(HeaderEdits::default);
        }
        let wanted = head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        let mut edits = self.to_allowed(origin);
        let max_age = self.max_age_seconds.map(|seconds| HeaderValue::from(u64::from(seconds)));
        for (name, value) in [
            (header::ACCESS_CONTROL_ALLOW_METHODS, listed(&self.methods, Some(method))),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, listed(&self.headers, wanted)),
            (header::ACCESS_CONTROL_MAX_AGE, max_age),
        ] {
            edits.set.extend(value.map(|value| (name, value)));
        }
        Some(edits)
    }

    /// What is changed of the answer to a request itself. What the application says of it is replaced.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Option<HeaderEdits> {
        let origin = headers.get(header::ORIGIN)?;
        if self.allows(origin) {
            return Some(self.to_allowed(origin));
        }
        match self.unmatched {
            // Another origin hears nothing, whatever the application thinks of it.
            UnmatchedPreflight::Answered => {
                Some(HeaderEdits { remove: SAID_OF_AN_ORIGIN.to_vec(), ..HeaderEdits::default() })
            }
            UnmatchedPreflight::Forwarded => None,
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(origin) = origin.to_str() else { return false };
        let origin = without_default_port(origin);
        self.origins.iter().any(|allowed| allowed.matches(&origin))
    }

    fn to_allowed(&self, origin: &HeaderValue) -> HeaderEdits {
        let mut edits = HeaderEdits::default();
        // The origin itself and never `*`, which no browser takes where credentials are sent.
        edits.set.push((header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()));
        edits.add.push((header::VARY, HeaderValue::from_static("origin")));
        if self.credentials {
            edits.set.push((header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true")));
        }
        let every = HeaderValue::from_static("*");
        let every = (!self.credentials).then_some(&every);
        let exposed = listed(&self.exposed, every);
        edits.set.extend(exposed.map(|value| (header::ACCESS_CONTROL_EXPOSE_HEADERS, value)));
        edits
    }
}

/// What an answer says to one origin alone.
const SAID_OF_AN_ORIGIN: [HeaderName; 2] =
    [header::ACCESS_CONTROL_ALLOW_ORIGIN, header::ACCESS_CONTROL_ALLOW_CREDENTIALS];

/// A list; for every one it is what was asked for.
fn listed(names: &[Arc<str>], asked: Option<&HeaderValue>) -> Option<HeaderValue> {
    if names.iter().any(|name| &**name == "*") {
        return asked.cloned();
    }
    let joined = names.join(", ");
    (!names.is_empty()).then(|| HeaderValue::from_str(&joined).ok()).flatten()
}

/// HTTPCORSFilter: without a port it is that of the scheme, so that `https://a:443` and `https://a` are one.
fn without_default_port(origin: &str) -> Cow<'_, str> {
    let ends = [("https://", ":443"), ("http://", ":80")];
    let found = ends
        .iter()
        .find_map(|(scheme, port)| origin.starts_with(scheme).then(|| origin.strip_suffix(port))?);
    found.unwrap_or(origin).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Pattern;

    fn cors() -> Cors {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        Cors {
            origins: vec![
                ValueMatch::Exact("https://www.foo.com".into()),
                ValueMatch::Regex(Pattern::new(r"https://.*\.bar\.com").unwrap()),
            ],
            methods: names(&["GET", "OPTIONS"]),
            headers: names(&["x-header-1", "x-header-2"]),
            exposed: names(&["x-header-3"]),
            max_age_seconds: Some(3600),
            credentials: true,
            unmatched: UnmatchedPreflight::Answered,
        }
    }

    fn every() -> Cors {
        let every = vec![Arc::from("*")];
        Cors {
            origins: vec![ValueMatch::Present],
            methods: every.clone(),
            headers: every.clone(),
            exposed: every,
            ..cors()
        }
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn preflight(cors: &Cors, origin: &'static str) -> Option<Vec<String>> {
        let headers = headers(&[
            ("origin", origin),
            ("access-control-request-method", "PUT"),
            ("access-control-request-headers", "x-a, x-b"),
        ]);
        let head = Head { method: &Method::OPTIONS, authority: "web", target: "/", headers: &headers };
        cors.preflight(&head).map(told)
    }

    fn told(edits: HeaderEdits) -> Vec<String> {
        let text = |(name, value): &(HeaderName, HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let removed = edits.remove.iter().map(|name| format!("-{name}"));
        edits.set.iter().map(text).chain(removed).collect()
    }

    #[test]
    fn a_preflight_of_an_allowed_origin_is_told_what_is_allowed() {
        for origin in ["https://www.foo.com", "https://www.foo.com:443", "https://a.b.bar.com"] {
            let expected = [
                &format!("access-control-allow-origin: {origin}"),
                "access-control-allow-credentials: true",
                "access-control-expose-headers: x-header-3",
                "access-control-allow-methods: GET, OPTIONS",
                "access-control-allow-headers: x-header-1, x-header-2",
                "access-control-max-age: 3600",
            ];
            assert_eq!(preflight(&cors(), origin).unwrap(), expected);
        }
        for origin in ["https://foobar.com", "http://www.foo.com", "https://www.foo.com:8443", "null"] {
            assert_eq!(preflight(&cors(), origin), Some(Vec::new()), "{origin}");
            let forwarding = Cors { unmatched: UnmatchedPreflight::Forwarded, ..cors() };
            assert_eq!(preflight(&forwarding, origin), None, "{origin}");
        }
    }

    #[test]
    fn a_star_is_what_was_asked_for_and_never_sent_with_credentials() {
        let expected = [
            "access-control-allow-origin: https://a.example:99",
            "access-control-allow-credentials: true",
            "access-control-allow-methods: PUT",
            "access-control-allow-headers: x-a, x-b",
            "access-control-max-age: 3600",
        ];
        assert_eq!(preflight(&every(), "https://a.example:99").unwrap(), expected);
        let open = Cors { credentials: false, ..every() };
        let answer = told(open.answer(&headers(&[("origin", "https://a.example")])).unwrap());
        let expected = ["access-control-allow-origin: https://a.example", "access-control-expose-headers: *"];
        assert_eq!(answer, expected);
    }

    #[test]
    fn answers_speak_of_the_origin_that_asked() {
        let of = |pairs: &[(&'static str, &'static str)]| cors().answer(&headers(pairs)).map(told);
        assert_eq!(of(&[]), None, "no browser asks");
        let allowed = of(&[("origin", "https://www.foo.com")]).unwrap();
        assert_eq!(allowed[0], "access-control-allow-origin: https://www.foo.com");
        let other = of(&[("origin", "https://foobar.com")]).unwrap();
        assert_eq!(other, ["-access-control-allow-origin", "-access-control-allow-credentials"]);
        let forwarding = Cors { unmatched: UnmatchedPreflight::Forwarded, ..cors() };
        let other = forwarding.answer(&headers(&[("origin", "https://foobar.com")]));
        assert_eq!(other, None, "where its preflights are left to the application, so are its answers");
    }

    #[test]
    fn only_a_preflight_is_answered_as_one() {
        let without_method = headers(&[("origin", "https://www.foo.com")]);
        let with_method =
            headers(&[("origin", "https://www.foo.com"), ("access-control-request-method", "GET")]);
        for (method, headers) in [(&Method::OPTIONS, &without_method), (&Method::GET, &with_method)] {
            let head = Head { method, authority: "web", target: "/", headers };
            assert_eq!(cors().preflight(&head), None, "{method}");
        }
    }
}
