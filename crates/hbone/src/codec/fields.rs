//! Header fields: which requests and responses are well-formed (RFC 9113 §8), and what they say.

use std::fmt;

use crate::hpack::ENTRY_OVERHEAD;

/// The fields of a request or response that are not pseudo-header fields, in their order.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Names and values, one behind the other.
    octets: Vec<u8>,
    /// Where each name and each value ends.
    ends: Vec<(usize, usize)>,
}

/// A valid request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    method: String,
    authority: String,
    headers: Headers,
}

impl Headers {
    /// Names, in lower case, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, value)| *value));
        starts.zip(&self.ends).filter_map(|(start, (name, value))| {
            let name_text = std::str::from_utf8(&self.octets[start..*name]).ok()?;
            Some((name_text, &self.octets[*name..*value]))
        })
    }

    /// The values of all fields of this name (in lower case), in their order.
    pub fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        self.iter().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// The value of the first field of this name (in lower case), if it is ASCII.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let value = self.iter().find(|(known, _)| *known == name)?.1;
        std::str::from_utf8(value).ok().filter(|text| text.is_ascii())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.octets.extend_from_slice(name);
        let name_end = self.octets.len();
        self.octets.extend_from_slice(value);
        self.ends.push((name_end, self.octets.len()));
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.iter().map(|(name, value)| (name, value.escape_ascii().to_string())))
            .finish()
    }
}

impl RequestHead {
    /// Whether it is a CONNECT: a method and an authority, no scheme and no path (RFC 9113 §8.5).
    /// Anything else is a request that no tunnel can answer.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.method == "CONNECT"
    }

    /// The method.
    #[must_use]
    pub fn method(&self) -> &str {
        &self.method
    }

    /// `:authority`, visible ASCII; of a CONNECT never empty, of another request perhaps absent and
    /// then empty.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The other fields.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }
}

/// Collects the fields of one header block and checks each.
#[derive(Debug)]
pub(super) struct Fields {
    pseudo: Pseudo,
    headers: Headers,
    size: usize,
    max_size: usize,
    malformed: Option<Malformed>,
}

/// Pseudo-header fields (RFC 9113 §8.3).
#[derive(Debug, Default)]
struct Pseudo {
    method: Option<String>,
    scheme: Option<String>,
    authority: Option<String>,
    path: Option<String>,
    status: Option<String>,
}

/// RFC 9113 §8.1.1: what a malformed message broke. It is an error of its stream only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl Fields {
    pub(super) fn new(max_size: u32) -> Self {
        Self {
            pseudo: Pseudo::default(),
            headers: Headers::default(),
            size: 0,
            max_size: max_size as usize,
            malformed: None,
        }
    }

    /// Takes the next field. What exceeds the list's limit is counted and dropped.
    pub(super) fn push(&mut self, name: &[u8], value: &[u8]) {
        // RFC 9113 §6.5.2: a list counts "the uncompressed size of fields, including the length of
        // the name and value in units of octets plus an overhead of 32 octets for each field".
        self.size += name.len() + value.len() + ENTRY_OVERHEAD;
        if self.size > self.max_size || self.malformed.is_some() {
            return;
        }
        if let Err(malformed) = self.add(name, value) {
            self.malformed = Some(malformed);
        }
    }

    /// The size of the whole list; octets.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn request(self) -> Result<RequestHead, Malformed> {
        if let Some(malformed) = self.malformed {
            return Err(malformed);
        }
        let Pseudo { method, scheme, authority, path, status } = self.pseudo;
        let method =
            method.filter(|method| !method.is_empty()).ok_or(Malformed("a request has no :method"))?;
        if status.is_some() {
            return Err(Malformed("a request has a :status"));
        }
        // RFC 9113 §8.5: ":scheme" and ":path" "MUST be omitted"; ":authority" says where to.
        let connect = method == "CONNECT";
        if connect
            && (scheme.is_some() || path.is_some() || authority.as_deref().unwrap_or_default().is_empty())
        {
            return Err(Malformed("a CONNECT has a scheme or a path, or no authority"));
        }
        // RFC 9113 §8.3.1: other requests have exactly one of each, and the path is not empty.
        if !connect && (scheme.is_none() || path.unwrap_or_default().is_empty()) {
            return Err(Malformed("a request has no scheme or no path"));
        }
        Ok(RequestHead { method, authority: authority.unwrap_or_default(), headers: self.headers })
    }

    pub(super) fn response(self) -> Result<(u16, Headers), Malformed> {
        if let Some(malformed) = self.malformed {
            return Err(malformed);
        }
        let Pseudo { method, scheme, authority, path, status } = self.pseudo;
        if method.is_some() || scheme.is_some() || authority.is_some() || path.is_some() {
            return Err(Malformed("a response has a pseudo-header field of a request"));
        }
        let digits =
            status.filter(|text| text.len() == 3 && text.bytes().all(|octet| octet.is_ascii_digit()));
        match digits.and_then(|text| text.parse().ok()) {
            // RFC 9113 §8.6: there is no 101 in HTTP/2.
            Some(status @ (100 | 102..=999)) => Ok((status, self.headers)),
            Some(_) | None => Err(Malformed("a response has no valid :status")),
        }
    }

    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if !is_value(value) {
            return Err(Malformed("a field value has forbidden characters"));
        }
        if name.first() == Some(&b':') {
            return self.add_pseudo(name, value);
        }
        if !is_name(name) {
            return Err(Malformed("a field name has forbidden characters"));
        }
        if is_connection_specific(name, value) {
            return Err(Malformed("a field is specific to the connection of HTTP/1.1"));
        }
        self.headers.push(name, value);
        Ok(())
    }

    /// RFC 9113 §8.3: only those defined, each once, and before all other fields. (`:protocol` is
    /// defined only where SETTINGS_ENABLE_CONNECT_PROTOCOL was sent, RFC 8441 §3.)
    fn add_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), Malformed> {
        if !self.headers.is_empty() {
            return Err(Malformed("a pseudo-header field stands behind another field"));
        }
        let slot = match name {
            b":method" => &mut self.pseudo.method,
            b":scheme" => &mut self.pseudo.scheme,
            b":authority" => &mut self.pseudo.authority,
            b":path" => &mut self.pseudo.path,
            b":status" => &mut self.pseudo.status,
            _ => return Err(Malformed("a pseudo-header field is unknown")),
        };
        if slot.is_some() {
            return Err(Malformed("a pseudo-header field is repeated"));
        }
        let text = visible_ascii(value).ok_or(Malformed("a pseudo-header field is not visible ASCII"))?;
        *slot = Some(text.to_owned());
        Ok(())
    }
}

/// The size of a list that we send, as the peer counts it.
pub(super) fn list_size<'h>(fields: impl IntoIterator<Item = (&'h str, &'h str)>) -> usize {
    fields.into_iter().map(|(name, value)| name.len() + value.len() + ENTRY_OVERHEAD).sum()
}

/// Whether a field of ours may be sent.
pub(super) fn is_sendable(name: &str, value: &str) -> bool {
    is_name(name.as_bytes())
        && is_value(value.as_bytes())
        && !is_connection_specific(name.as_bytes(), value.as_bytes())
}

/// Whether an authority of ours may be sent.
pub(super) fn is_authority(text: &str) -> bool {
    !text.is_empty() && visible_ascii(text.as_bytes()).is_some()
}

/// RFC 9113 §8.2.1: no control characters, blanks, upper case, colons or octets beyond ASCII.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.iter().all(|octet| !matches!(octet, 0x00..=0x20 | b'A'..=b'Z' | b':' | 0x7f..=0xff))
}

/// RFC 9113 §8.2.1: no NUL, line feed or carriage return, and no blank at either end.
fn is_value(value: &[u8]) -> bool {
    let blank = |octet: Option<&u8>| matches!(octet, Some(b' ' | b'\t'));
    !blank(value.first())
        && !blank(value.last())
        && !value.iter().any(|octet| matches!(octet, 0 | b'\n' | b'\r'))
}

/// RFC 9113 §8.2.2.
fn is_connection_specific(name: &[u8], value: &[u8]) -> bool {
    match name {
        b"connection" | b"proxy-connection" | b"keep-alive" | b"transfer-encoding" | b"upgrade" => true,
        b"te" => value != b"trailers",
        _ => false,
    }
}

fn visible_ascii(value: &[u8]) -> Option<&str> {
    std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|octet| octet.is_ascii_graphic()))
}

#[cfg(test)]
mod tests;
