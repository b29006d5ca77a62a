//! A request's head.

use http::uri::PathAndQuery;
use http::{HeaderMap, Method, header};

use super::{BodyLength, Refusal, RequestHead, Version, fields, is_authority, lines, version};

/// Reads a request's head: how many octets it takes, and what it says. `None` when its end has not
/// come yet.
///
/// # Errors
/// When it has no one reading; see [`Refusal`].
pub fn parse_request(octets: &[u8]) -> Result<Option<(usize, RequestHead)>, Refusal> {
    // RFC 9112 §2.2: "a server [...] SHOULD ignore at least one empty line (CRLF) received prior to
    // the request-line."
    let skipped = if octets.starts_with(b"\r\n") { 2 } else { 0 };
    let Some(lines) = lines(&octets[skipped..])? else { return Ok(None) };
    let (first, rest) = lines.lines.split_first().ok_or(Refusal::FirstLine)?;
    let (method, target, version) = first_line(first)?;
    let headers = fields::parse(rest)?;
    let (path, absolute) = target_form(&method, target)?;
    let authority = authority(&headers, absolute, version)?;
    let body = body(&headers, version)?;
    let connection = fields::connection_options(&headers)?;
    let expects_continue = expects_continue(&headers, version)?;
    let head = RequestHead { method, path, authority, version, headers, body, connection, expects_continue };
    if head.connection.upgrade && head.body != BodyLength::None {
        return Err(Refusal::UpgradeBody);
    }
    Ok(Some((skipped + lines.taken, head)))
}

fn first_line(line: &[u8]) -> Result<(Method, &str, Version), Refusal> {
    let mut parts = line.split(|octet| *octet == b' ');
    let (Some(method), Some(target), Some(last), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::FirstLine);
    };
    let version = version(last)?;
    let method = Method::from_bytes(method).map_err(|_| Refusal::Method)?;
    if method == Method::CONNECT {
        return Err(Refusal::Method);
    }
    // Visible ASCII alone, and no fragment, which is never sent (RFC 9112 §3.2).
    if target.is_empty() || !target.iter().all(|octet| (0x21..0x7f).contains(octet) && *octet != b'#') {
        return Err(Refusal::Target);
    }
    let target = std::str::from_utf8(target).map_err(|_| Refusal::Target)?;
    Ok((method, target, version))
}

/// Path and query, and the authority of an absolute target.
fn target_form<'a>(method: &Method, target: &'a str) -> Result<(String, Option<&'a str>), Refusal> {
    if target == "*" && *method == Method::OPTIONS {
        return Ok(("*".to_owned(), None));
    }
    let (path, authority) = if target.starts_with('/') {
        (target.to_owned(), None)
    } else {
        let scheme = "http://";
        let rest = target
            .get(..scheme.len())
            .filter(|start| start.eq_ignore_ascii_case(scheme))
            .map(|_| &target[scheme.len()..])
            .ok_or(Refusal::Target)?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        (path, Some(authority))
    };
    if PathAndQuery::try_from(path.as_str()).map_err(|_| Refusal::Target)?.as_str() != path {
        return Err(Refusal::Target);
    }
    Ok((path, authority))
}

fn authority(
    headers: &HeaderMap,
    absolute: Option<&str>,
    version: Version,
) -> Result<Option<String>, Refusal> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(Refusal::Host);
    }
    let Some(host) = host else {
        return match (version, absolute) {
            (Version::Http11, _) => Err(Refusal::Host),
            (Version::Http10, None) => Ok(None),
            (Version::Http10, Some(absolute)) => named(absolute).map(Some),
        };
    };
    let host = named(host.to_str().map_err(|_| Refusal::Host)?)?;
    if absolute.is_some_and(|absolute| !absolute.eq_ignore_ascii_case(&host)) {
        return Err(Refusal::HostMismatch);
    }
    Ok(Some(host))
}

fn named(text: &str) -> Result<String, Refusal> {
    if is_authority(text) { Ok(text.to_owned()) } else { Err(Refusal::Host) }
}

/// RFC 9112 §6.1: "A server MAY reject a request that contains both", and a client of HTTP/1.0 cannot
/// have meant chunks.
fn body(headers: &HeaderMap, version: Version) -> Result<BodyLength, Refusal> {
    match fields::body_length(headers)? {
        None | Some(BodyLength::Exactly(0)) => Ok(BodyLength::None),
        Some(BodyLength::Chunked) if version == Version::Http10 => Err(Refusal::TransferEncoding),
        Some(length) => Ok(length),
    }
}

fn expects_continue(headers: &HeaderMap, version: Version) -> Result<bool, Refusal> {
    let mut values = headers.get_all(header::EXPECT).iter();
    let Some(value) = values.next() else { return Ok(false) };
    if values.next().is_some() || !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
        return Err(Refusal::Expect);
    }
    // RFC 9110 §10.1.1: in a request of HTTP/1.0 it is to be ignored.
    Ok(version == Version::Http11)
}
