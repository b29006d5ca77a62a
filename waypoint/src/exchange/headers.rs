//! What a waypoint itself changes about a request's headers. Pure.

use std::net::IpAddr;

use ambit_mesh::identity::SpiffeId;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, header};

use super::Request;

/// Removes what only a proxy of the mesh may say: a client's own word for it would be believed. Done
/// before anything is decided, so that policies and routes see what the endpoint sees.
pub(crate) fn remove_spoofed(headers: &mut HeaderMap) {
    let spoofed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            name == FORWARDED_CLIENT_CERT.as_str() || SPOOFED.iter().any(|prefix| name.starts_with(prefix))
        })
        .cloned()
        .collect();
    for name in spoofed {
        headers.remove(name);
    }
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
const SPOOFED: [&str; 2] = ["x-envoy-", "ambit-"];

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
            ("x-envoy-original-path", "/admin"),
            ("ambit-original-source", "spiffe://cluster.local/ns/shop/sa/admin"),
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
    fn a_gateways_scheme_stays() {
        let id: SpiffeId = "spiffe://cluster.local/ns/shop/sa/a".parse().unwrap();
        let sent = outgoing(&request(&[("x-forwarded-proto", "https")]), "::1".parse().unwrap(), &id, &id);
        assert_eq!(sent.get("x-forwarded-proto").unwrap(), "https");
    }
}
