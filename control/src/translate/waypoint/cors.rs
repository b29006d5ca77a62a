//! CORS of HTTPRoutes and VirtualServices -> [`Cors`].

use std::sync::Arc;

use ambit_mesh::http::{Cors, Pattern, UnmatchedPreflight, ValueMatch};

use crate::objects::gateway_api::parts::Cors as OfRoute;
use crate::objects::networking::virtual_service::{CorsPolicy, UnmatchedPreflights};

/// HTTPCORSFilter: the default of `maxAge`, in seconds.
const MAX_AGE: u32 = 5;

/// That of an HTTPRoute. A preflight of another origin is answered without leave.
pub(super) fn of_route(from: &OfRoute) -> Result<Cors, String> {
    Ok(Cors {
        origins: from.allow_origins.iter().map(|text| origin(text)).collect::<Result<_, _>>()?,
        methods: tokens(&from.allow_methods)?,
        headers: tokens(&from.allow_headers)?,
        exposed: tokens(&from.expose_headers)?,
        max_age_seconds: Some(from.max_age.unwrap_or(MAX_AGE)),
        credentials: from.allow_credentials,
        unmatched: UnmatchedPreflight::Answered,
    })
}

/// That of a VirtualService, whose comparisons of origins are given.
pub(super) fn of_virtual_service(from: &CorsPolicy, mut origins: Vec<ValueMatch>) -> Result<Cors, String> {
    // Istio: the older field has whole origins, and `*` for every one.
    for text in &from.allow_origin {
        origins.push(if text == "*" { ValueMatch::Present } else { ValueMatch::Exact(text.as_str().into()) });
    }
    Ok(Cors {
        origins,
        methods: tokens(&from.allow_methods)?,
        headers: tokens(&from.allow_headers)?,
        exposed: tokens(&from.expose_headers)?,
        max_age_seconds: from.max_age.map(|age| u32::try_from(age.0.as_secs()).unwrap_or(u32::MAX)),
        credentials: from.allow_credentials.unwrap_or(false),
        unmatched: match from.unmatched_preflights {
            UnmatchedPreflights::Unspecified | UnmatchedPreflights::Forward => UnmatchedPreflight::Forwarded,
            UnmatchedPreflights::Ignore => UnmatchedPreflight::Answered,
        },
    })
}

/// HTTPCORSFilter: `<scheme>://<host>(:<port>)`; `*` in the host stands for any number of labels to its left, and
/// alone for every origin.
fn origin(text: &str) -> Result<ValueMatch, String> {
    if text == "*" {
        return Ok(ValueMatch::Present);
    }
    let invalid = || format!("allowOrigins: {text:?} is no origin, such as https://www.example.com");
    let (scheme, host) = text.split_once("://").ok_or_else(invalid)?;
    if !["http", "https"].contains(&scheme) || host.is_empty() || host.contains('/') {
        return Err(invalid());
    }
    let own_port = if scheme == "https" { ":443" } else { ":80" };
    let host = host.strip_suffix(own_port).unwrap_or(host);
    if !host.contains('*') {
        return Ok(ValueMatch::Exact(format!("{scheme}://{host}").into()));
    }
    let parts: Vec<String> = host.split('*').map(escaped).collect();
    let pattern = format!("{scheme}://{}", parts.join("[^/]+"));
    Pattern::new(&pattern).map(ValueMatch::Regex).map_err(|error| error.to_string())
}

fn escaped(text: &str) -> String {
    let escape = |c: char| {
        if c.is_alphanumeric() { String::from(c) } else { format!("\\{c}") }
    };
    text.chars().map(escape).collect()
}

/// Names of headers and methods, which are to be one header's value.
fn tokens(from: &[String]) -> Result<Vec<Arc<str>>, String> {
    let token = |text: &String| {
        let is_token = |octet: u8| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet);
        let is_one = !text.is_empty() && text.bytes().all(is_token);
        is_one
            .then(|| Arc::from(text.as_str()))
            .ok_or_else(|| format!("{text:?} is no name of a header or method"))
    };
    from.iter().map(token).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_an_origin_stands_for_labels_to_its_left() {
        for (allowed, asked, expected) in [
            ("*", "https://a.example:99", true),
            ("https://www.foo.com", "https://www.foo.com", true),
            ("https://www.foo.com:443", "https://www.foo.com", true),
            ("https://*.bar.com", "https://www.bar.com", true),
            ("https://*.bar.com", "https://xpto.www.bar.com", true),
            ("https://*.bar.com", "https://bar.com", false),
            ("https://*.bar.com", "https://wwwxbar.com", false),
            ("https://*.bar.com", "https://a.bar.com.evil.example", false),
            ("https://*", "https://anything.example:8443", true),
            ("https://*", "http://anything.example", false),
        ] {
            assert_eq!(origin(allowed).unwrap().matches(asked), expected, "{allowed} {asked}");
        }
        for text in ["", "foo.com", "ftp://foo.com", "https://", "https://foo.com/path"] {
            assert!(origin(text).is_err(), "{text}");
        }
    }
}
