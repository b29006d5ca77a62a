//! What a waypoint itself changes about a request's headers. Pure.

use std::net::IpAddr;

use ambit_mesh::identity::SpiffeId;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, header};

use super::Request;

/// Removes what only a proxy of the mesh may say: a client's own word for it would be believed. Done
/// before anything is decided, so that policies and routes see what the endpoint sees.
pub(crate) fn remove_spoofed(headers: &mut HeaderMap) {
    remove_where(headers, is_spoofed);
}

/// The same of what comes behind a request's body, where some servers take it for headers that came late:
/// there, nobody but the far end has anything to say about where a request came from.
pub(crate) fn remove_spoofed_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| is_spoofed(name) || is_of_kind(name, "x-forwarded-"));
}

fn remove_where(headers: &mut HeaderMap, is_removed: impl Fn(&str) -> bool) {
    let removed: Vec<HeaderName> = headers.keys().filter(|name| is_removed(name.as_str())).cloned().collect();
    for name in removed {
        headers.remove(name);
    }
}

/// What an ingress in front of the client may have begun, or has its place in a head, is a forgery where it is
/// written in letters that only stand for it.
fn is_spoofed(name: &str) -> bool {
    let kinds = |kinds: &[&str]| kinds.iter().any(|kind| is_of_kind(name, kind));
    kinds(&SPOOFED) || (name.contains('_') && kinds(&NEVER_WITH_UNDERSCORES))
}

/// Whether a name begins like this. Gateways to CGI and its heirs read `_` as `-`.
fn is_of_kind(name: &str, kind: &str) -> bool {
    let mut octets = name.bytes().map(|octet| if octet == b'_' { b'-' } else { octet });
    kind.bytes().all(|octet| octets.next() == Some(octet))
}

/// The headers to send: those that came, with what this hop adds.
pub(crate) fn outgoing(request: &Request, client: IpAddr, identity: &SpiffeId, own: &SpiffeId) -> HeaderMap {
    let mut headers = request.headers.clone();
    append_forwarded_for(&mut headers, client);
    // Who came through a gateway says with which scheme; nothing else is a scheme.
    let is_scheme = |value: &HeaderValue| value == "http" || value == "https";
    if !headers.get(FORWARDED_PROTO).is_some_and(is_scheme)
        || headers.get_all(FORWARDED_PROTO).iter().count() > 1
    {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Ok(value) = HeaderValue::from_str(&format!("By={own};URI={identity}")) {
        headers.insert(FORWARDED_CLIENT_CERT, value);
    }
    if request.wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    headers
}

/// One field, the client last: who reads it from the right finds what this proxy saw.
fn append_forwarded_for(headers: &mut HeaderMap, client: IpAddr) {
    let before = headers.get_all(FORWARDED_FOR).iter();
    let mut value: Vec<&[u8]> = before.map(HeaderValue::as_bytes).collect();
    let client = client.to_string();
    value.push(client.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&value.join(&b", "[..])) {
        headers.insert(FORWARDED_FOR, value);
    }
}

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What begins with this is between proxies.
const SPOOFED: [&str; 3] = ["x-envoy-", "ambit-", "x-forwarded-client-cert"];

/// The names that this proxy writes or frames by.
const NEVER_WITH_UNDERSCORES: [&str; 3] = ["x-forwarded-", "transfer-encoding", "content-length"];

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::head::BodyLength;

    fn request(fields: &[(&'static str, &'static str)]) -> Request {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        remove_spoofed(&mut headers);
        Request {
            method: Method::GET,
            path: "/".into(),
            authority: "web".into(),
            headers,
            protocol: "HTTP/1.1",
            length: BodyLength::None,
            upgrade: None,
            expects_continue: false,
            wants_trailers: false,
        }
    }

    #[test]
    fn a_client_speaks_for_nobody_else() {
        let id = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
        let came = request(&[
            ("x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/admin"),
            ("x_forwarded-client_cert", "URI=spiffe://cluster.local/ns/shop/sa/admin"),
            ("x-envoy-original-path", "/admin"),
            ("x_envoy_original_path", "/admin"),
            ("ambit_original-source", "spiffe://cluster.local/ns/shop/sa/admin"),
            ("ambit-original-source", "spiffe://cluster.local/ns/shop/sa/admin"),
            ("x_forwarded_for", "9.9.9.9"),
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-for", "5.6.7.8"),
            ("x-forwarded-proto", "gopher"),
            ("x-custom", "stays"),
        ]);
        let sent = outgoing(&came, "10.0.0.9".parse().unwrap(), &id("client"), &id("waypoint"));
        let mut fields: Vec<_> =
            sent.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        fields.sort();
        assert_eq!(
            fields,
            [
                "x-custom: stays",
                "x-forwarded-client-cert: By=spiffe://cluster.local/ns/shop/sa/waypoint;URI=spiffe://cluster.local/ns/shop/sa/client",
                "x-forwarded-for: 1.2.3.4, 5.6.7.8, 10.0.0.9",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn trailers_say_nothing_of_where_a_request_came_from() {
        let mut trailers = HeaderMap::new();
        for name in ["x-forwarded-for", "x_forwarded_host", "x-envoy-internal", "ambit-x", "x-sum"] {
            trailers.insert(name, HeaderValue::from_static("1"));
        }
        remove_spoofed_trailers(&mut trailers);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum"]);
    }

    #[test]
    fn a_gateways_scheme_stays() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/a".parse().unwrap();
        let sent = outgoing(&request(&[("x-forwarded-proto", "https")]), "::1".parse().unwrap(), &id, &id);
        assert_eq!(sent.get("x-forwarded-proto").unwrap(), "https");
    }
}
