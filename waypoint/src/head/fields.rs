//! Header fields, and those among them that are for one connection alone.

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

use super::{BodyLength, Refusal, lines};

/// What `Connection` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// `close`.
    pub close: bool,
    /// `keep-alive`.
    pub keep_alive: bool,
    /// `upgrade`.
    pub upgrade: bool,
    /// `te`, with `TE: trailers`.
    pub trailers: bool,
    /// Other fields that end at this hop.
    pub fields: Vec<HeaderName>,
}

/// Reads fields, one a line.
pub(super) fn parse(lines: &[&[u8]]) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::with_capacity(lines.len());
    for line in lines {
        // RFC 9112 §5.2: a line that begins with white space continues the one before (obs-fold).
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::FieldValue);
        }
        let colon = line.iter().position(|octet| *octet == b':').ok_or(Refusal::FieldName)?;
        // No white space before the colon: a name with it is no token.
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Refusal::FieldName)?;
        let value = without_padding(&line[colon + 1..]);
        let value = HeaderValue::from_bytes(value).map_err(|_| Refusal::FieldValue)?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// Without the white space that may surround a value: spaces and tabs (RFC 9110 §5.6.3), unlike in ASCII, where form
/// feeds are white space, too.
fn without_padding(mut octets: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = octets {
        octets = rest;
    }
    octets
}

/// Reads trailers: the octets that they take with their end, and those that may be passed on. `None`
/// when their end has not come yet.
///
/// # Errors
/// When they are malformed.
pub fn parse_trailers(octets: &[u8]) -> Result<Option<(usize, HeaderMap)>, Refusal> {
    let Some(lines) = lines(octets)? else { return Ok(None) };
    let mut trailers = parse(&lines.lines)?;
    strip_trailers(&mut trailers);
    Ok(Some((lines.taken, trailers)))
}

/// Removes what may not be said behind a body (RFC 9110 §6.5.1): framing, routing, authentication.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    for name in NOT_IN_TRAILERS {
        trailers.remove(name);
    }
}

/// Reads `Connection`.
///
/// # Errors
/// When it names a field that is for the far end. Stripped, it would be missing there; kept, other
/// proxies would strip it. Either way authorization would have seen what the application does not.
pub fn connection_options(headers: &HeaderMap) -> Result<ConnectionOptions, Refusal> {
    let mut options = ConnectionOptions::default();
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|octet| *octet == b',').map(without_padding) {
            match option.to_ascii_lowercase().as_slice() {
                b"" => {}
                b"close" => options.close = true,
                b"keep-alive" => options.keep_alive = true,
                b"upgrade" => options.upgrade = true,
                b"te" => options.trailers = wants_trailers(headers),
                other => {
                    let name = HeaderName::from_bytes(other).map_err(|_| Refusal::Connection)?;
                    if is_end_to_end(&name) {
                        return Err(Refusal::Connection);
                    }
                    options.fields.push(name);
                }
            }
        }
    }
    Ok(options)
}

/// Removes what is for one connection alone (RFC 9110 §7.6.1), before anything is decided: what is
/// decided by is what the next hop gets.
pub fn strip_hop_by_hop(headers: &mut HeaderMap, options: &ConnectionOptions) {
    for name in &options.fields {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.get_all(header::TE).iter().any(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"))
}

/// How a body is delimited by its fields (RFC 9112 §6.3); `None` when they do not say.
///
/// # Errors
/// When they say two things, or nothing that can be read in one way.
pub fn body_length(headers: &HeaderMap) -> Result<Option<BodyLength>, Refusal> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (encodings.next(), lengths.next()) {
        (Some(_), Some(_)) => Err(Refusal::AmbiguousLength),
        (Some(encoding), None) => {
            let chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
            if !chunked || encodings.next().is_some() {
                return Err(Refusal::TransferEncoding);
            }
            Ok(Some(BodyLength::Chunked))
        }
        (None, Some(length)) => {
            let digits = length.as_bytes();
            if lengths.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(Refusal::ContentLength);
            }
            let text = length.to_str().map_err(|_| Refusal::ContentLength)?;
            text.parse().map(|octets| Some(BodyLength::Exactly(octets))).map_err(|_| Refusal::ContentLength)
        }
        (None, None) => Ok(None),
    }
}

fn is_end_to_end(name: &HeaderName) -> bool {
    END_TO_END.contains(name) || END_TO_END_PREFIXES.iter().any(|prefix| name.as_str().starts_with(prefix))
}

const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("http2-settings"),
];

const END_TO_END: [HeaderName; 9] = [
    header::HOST,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
    header::CONTENT_TYPE,
    header::AUTHORIZATION,
    header::COOKIE,
    header::CACHE_CONTROL,
    header::ORIGIN,
    header::EXPECT,
];

/// What applications and policies tell clients apart by.
const END_TO_END_PREFIXES: [&str; 4] = ["x-", "ambit-", "sec-", "forwarded"];

const NOT_IN_TRAILERS: [HeaderName; 14] = [
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::HOST,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::CONNECTION,
    header::TRAILER,
    header::TE,
    header::UPGRADE,
    header::EXPECT,
];
