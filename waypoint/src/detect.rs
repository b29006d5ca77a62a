//! Which protocol a connection speaks, by its first octets. Pure.

/// What the first octets say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detected {
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// Something else.
    Opaque,
    /// More octets must come first.
    Undecided,
}

/// Tells protocols apart. Nothing is waited for that is not needed: a request line is told by its
/// method and the first octet of its target.
pub fn detect(octets: &[u8]) -> Detected {
    if octets.starts_with(PREFACE) {
        return Detected::Http2;
    }
    if PREFACE.starts_with(octets) {
        return Detected::Undecided;
    }
    // RFC 9112 §2.2: one empty line may precede a request.
    let octets = octets.strip_prefix(b"\r\n").unwrap_or(octets);
    let method = octets.iter().take_while(|octet| is_method_octet(**octet)).count();
    if method > MAX_METHOD {
        return Detected::Opaque;
    }
    match &octets[method..] {
        [] | [b' '] => Detected::Undecided,
        [b' ', b'/' | b'*' | b'h' | b'H', ..] if method > 0 => Detected::Http1,
        _ => Detected::Opaque,
    }
}

/// Methods are tokens; those that anybody uses are of these letters, which keeps other protocols' first
/// lines apart.
fn is_method_octet(octet: u8) -> bool {
    octet.is_ascii_uppercase() || matches!(octet, b'-' | b'_')
}

/// RFC 9113 §3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest registered method has 16 letters.
const MAX_METHOD: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_told_by_what_they_begin_with() {
        for (octets, expected) in [
            (&b""[..], Detected::Undecided),
            (b"PRI", Detected::Undecided),
            (PREFACE, Detected::Http2),
            (b"PRI * HTTP/1.1\r\n", Detected::Http1),
            (b"P", Detected::Undecided),
            (b"POST", Detected::Undecided),
            (b"POST ", Detected::Undecided),
            (b"POST /", Detected::Http1),
            (b"GET http://a/", Detected::Http1),
            (b"OPTIONS *", Detected::Http1),
            (b"\r\nGET /", Detected::Http1),
            (b"M-SEARCH * HTTP/1.1", Detected::Http1),
            (b"\x16\x03\x01", Detected::Opaque),
            (b"PING\r\n", Detected::Opaque),
            (b"*1\r\n$4\r\nPING\r\n", Detected::Opaque),
            (b"SSH-2.0-client\r\n", Detected::Opaque),
            (b"get key\r\n", Detected::Opaque),
            (b"EHLO mail\r\n", Detected::Opaque),
            (b"\0\0\0\x08", Detected::Opaque),
            (&[b'A'; 40], Detected::Opaque),
        ] {
            assert_eq!(detect(octets), expected, "{}", octets.escape_ascii());
        }
    }
}
