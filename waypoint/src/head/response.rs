//! A response's head. Applications are many and old, so it is read as strictly as safety asks for, and
//! forwarded in one form.

use http::StatusCode;

use super::{BodyLength, Refusal, ResponseHead, Version, fields, lines, version};

/// Reads a response's head: how many octets it takes, and what it says. `None` when its end has not
/// come yet.
///
/// # Errors
/// When it has no one reading; see [`Refusal`].
pub fn parse_response(octets: &[u8]) -> Result<Option<(usize, ResponseHead)>, Refusal> {
    let Some(lines) = lines(octets)? else { return Ok(None) };
    let (first, rest) = lines.lines.split_first().ok_or(Refusal::FirstLine)?;
    let (version, status) = status_line(first)?;
    let headers = fields::parse(rest)?;
    let body = match fields::body_length(&headers)? {
        _ if !has_body(status) => BodyLength::None,
        None => BodyLength::UntilClose,
        Some(BodyLength::Chunked) if version == Version::Http10 => return Err(Refusal::TransferEncoding),
        Some(length) => length,
    };
    let mut connection = fields::connection_options(&headers)?;
    if version == Version::Http10 && !connection.keep_alive {
        connection.close = true;
    }
    Ok(Some((lines.taken, ResponseHead { status, version, headers, body, connection })))
}

fn status_line(line: &[u8]) -> Result<(Version, StatusCode), Refusal> {
    let (first, rest) = line.split_at_checked(8).ok_or(Refusal::FirstLine)?;
    let version = version(first)?;
    let rest = rest.strip_prefix(b" ").ok_or(Refusal::FirstLine)?;
    let (code, reason) = rest.split_at_checked(3).ok_or(Refusal::FirstLine)?;
    if !(reason.is_empty() || reason.starts_with(b" ")) {
        return Err(Refusal::FirstLine);
    }
    StatusCode::from_bytes(code).map(|status| (version, status)).map_err(|_| Refusal::FirstLine)
}

/// RFC 9112 §6.3: 1xx, 204 and 304 never have one.
fn has_body(status: StatusCode) -> bool {
    !(status.is_informational() || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED)
}
