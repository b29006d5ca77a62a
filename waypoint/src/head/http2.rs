//! A request's head of HTTP/2: what `h2` leaves open is closed here, so that it has one reading on
//! whatever connection it is sent on.

use http::request::Parts;
use http::{HeaderMap, Method, header};

use super::{BodyLength, MAX_FIELDS, Refusal, fields, is_authority};

/// What a head of HTTP/2 asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http2Head {
    /// The method; GET for a changed protocol, as in HTTP/1.
    pub method: Method,
    /// Path and query as they came.
    pub path: String,
    /// The authority.
    pub authority: String,
    /// How the body is delimited.
    pub length: BodyLength,
    /// The protocol to change to (RFC 8441).
    pub upgrade: Option<&'static str>,
}

/// Reads a request's head. `ends`: nothing follows it.
///
/// # Errors
/// When it has no one reading; see [`Refusal`].
pub fn read_http2(parts: &Parts, ends: bool) -> Result<Http2Head, Refusal> {
    check_fields(&parts.headers)?;
    let (method, upgrade) = changed_protocol(parts)?;
    let path = parts.uri.path_and_query().ok_or(Refusal::Target)?.as_str();
    check_target(path, &parts.method)?;
    let length = length(&parts.headers, ends)?;
    // What follows a change of the protocol is no body: it is the other protocol.
    let length = if upgrade.is_some() { BodyLength::None } else { length };
    Ok(Http2Head { method, path: path.to_owned(), authority: authority(parts)?, length, upgrade })
}

/// RFC 9113 §8.2.1: "A field value MUST NOT start or end with an ASCII whitespace character". A server
/// of HTTP/1 would not see it, and policies would have seen another value.
fn check_fields(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.len() > MAX_FIELDS {
        return Err(Refusal::TooManyFields);
    }
    let padded = |value: &[u8]| value.trim_ascii().len() != value.len();
    if headers.values().any(|value| padded(value.as_bytes())) {
        return Err(Refusal::FieldValue);
    }
    Ok(())
}

fn check_target(path: &str, method: &Method) -> Result<(), Refusal> {
    let is_visible = path.bytes().all(|octet| (0x21..0x7f).contains(&octet));
    let has_form = path.starts_with('/') || (path == "*" && *method == Method::OPTIONS);
    if is_visible && has_form { Ok(()) } else { Err(Refusal::Target) }
}

fn length(headers: &HeaderMap, ends: bool) -> Result<BodyLength, Refusal> {
    match fields::body_length(headers)? {
        // RFC 9113 §8.2.2: it has no place in HTTP/2.
        Some(BodyLength::Chunked | BodyLength::UntilClose) => Err(Refusal::TransferEncoding),
        Some(BodyLength::Exactly(octets)) if ends && octets > 0 => Err(Refusal::ContentLength),
        _ if ends => Ok(BodyLength::None),
        Some(length) => Ok(length),
        None => Ok(BodyLength::Chunked),
    }
}

/// RFC 9113 §8.3.1: `Host` and `:authority` must not differ where both are there.
fn authority(parts: &Parts) -> Result<String, Refusal> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().map_err(|_| Refusal::Host)).transpose()?;
    if hosts.next().is_some() {
        return Err(Refusal::Host);
    }
    let authority = parts.uri.authority().map(http::uri::Authority::as_str);
    let named = match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
            return Err(Refusal::HostMismatch);
        }
        (Some(named), _) | (None, Some(named)) => named,
        (None, None) => return Err(Refusal::Host),
    };
    if is_authority(named) { Ok(named.to_owned()) } else { Err(Refusal::Host) }
}

/// RFC 8441: a CONNECT with a protocol is what GET with `Upgrade` is in HTTP/1, and is decided as that.
/// A plain CONNECT is for nobody here.
fn changed_protocol(parts: &Parts) -> Result<(Method, Option<&'static str>), Refusal> {
    if parts.method != Method::CONNECT {
        return Ok((parts.method.clone(), None));
    }
    let protocol = parts.extensions.get::<h2::ext::Protocol>();
    let is_websocket = protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"));
    if is_websocket { Ok((Method::GET, Some("websocket"))) } else { Err(Refusal::Method) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(uri: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::post(uri).body(()).unwrap();
        for (name, value) in fields {
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(*name, value);
        }
        request.into_parts().0
    }

    #[test]
    fn what_has_two_readings_is_refused() {
        let web = "http://web/";
        for (name, uri, fields, ends, refusal) in [
            ("a space before a value", web, &[("x-user", " admin")][..], true, Refusal::FieldValue),
            ("a tab behind a value", web, &[("x-user", "admin\t")], true, Refusal::FieldValue),
            ("a signed length", web, &[("content-length", "+5")], false, Refusal::ContentLength),
            (
                "two lengths",
                web,
                &[("content-length", "5"), ("content-length", "5")],
                false,
                Refusal::ContentLength,
            ),
            ("a length and no body", web, &[("content-length", "5")], true, Refusal::ContentLength),
            ("a coding", web, &[("transfer-encoding", "chunked")], false, Refusal::TransferEncoding),
            ("two hosts", web, &[("host", "web"), ("host", "web")], true, Refusal::Host),
            ("another host", web, &[("host", "other")], true, Refusal::HostMismatch),
            ("a host beyond ASCII", "/", &[("host", "w\u{e9}b")], true, Refusal::Host),
            ("no authority", "/", &[], true, Refusal::Host),
            ("a user in the authority", "http://u@web/", &[], true, Refusal::Host),
            ("an asterisk for POST", "*", &[("host", "web")], true, Refusal::Target),
            ("octets beyond ASCII", "http://web/\u{e9}", &[], true, Refusal::Target),
        ] {
            assert_eq!(read_http2(&parts(uri, fields), ends), Err(refusal), "{name}");
        }
        let many: Vec<_> = std::iter::repeat_n(("x", "1"), MAX_FIELDS + 1).collect();
        assert_eq!(read_http2(&parts(web, &many), true), Err(Refusal::TooManyFields));
    }

    #[test]
    fn a_connect_is_a_websocket_or_refused() {
        let connect = |protocol: Option<&'static str>| {
            let mut request = http::Request::connect("http://web/ws");
            if let Some(protocol) = protocol {
                request = request.extension(h2::ext::Protocol::from_static(protocol));
            }
            read_http2(&request.body(()).unwrap().into_parts().0, false)
        };
        let head = connect(Some("websocket")).unwrap();
        assert_eq!((head.method, head.path.as_str(), head.length), (Method::GET, "/ws", BodyLength::None));
        assert_eq!(connect(Some("connect-udp")), Err(Refusal::Method));
        assert_eq!(connect(None), Err(Refusal::Method));
    }

    #[test]
    fn what_has_one_reading_is_kept_as_it_came() {
        let head = read_http2(&parts("http://Web:80/a%2Fb?c=//", &[("content-length", "3")]), false).unwrap();
        assert_eq!((head.path.as_str(), head.authority.as_str()), ("/a%2Fb?c=//", "Web:80"));
        assert_eq!(head.length, BodyLength::Exactly(3));
        assert_eq!(read_http2(&parts("http://web/", &[]), false).unwrap().length, BodyLength::Chunked);
        assert_eq!(
            read_http2(&parts("/", &[("host", "web:80"), ("content-length", "0")]), true).unwrap().length,
            BodyLength::None
        );
    }
}
