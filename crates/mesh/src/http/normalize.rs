//! The path of a request in the one form in which it is authorized, routed and sent.
//!
//! A path that two servers could read differently has no such form: it stays as it is, and says what
//! about it is ambiguous. What that leads to is decided in `authorize`.

use std::borrow::Cow;
use std::fmt;

/// The target of a request, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    path: String,
    query: Option<String>,
    ambiguity: Option<Ambiguity>,
}

impl Path {
    /// The path, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What follows the question mark.
    pub fn query(&self) -> Option<&str> {
        self.query.as_deref()
    }

    /// What about it servers may read differently.
    pub fn ambiguity(&self) -> Option<Ambiguity> {
        self.ambiguity
    }

    /// This path with another text in its place, and its query.
    pub(super) fn target(&self, path: &str) -> String {
        match &self.query {
            // A rewrite may bring a query of its own (VirtualService).
            Some(query) if !path.contains('?') => [path, "?", query].concat(),
            Some(_) | None => path.to_owned(),
        }
    }
}

/// What servers read differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ambiguity {
    /// `%2F`: a slash to some, part of a segment to others.
    EncodedSlash,
    /// `\` or `%5C`: a slash to some.
    Backslash,
    /// `.` or `..` as a segment, also written in escapes.
    DotSegment,
    /// `//`: merged by some.
    EmptySegment,
    /// `;` or `%3B`: what follows is cut off by some.
    Parameter,
    /// `%25` before two digits: decoded twice by some.
    TwiceEncoded,
    /// `%` without two digits after it.
    InvalidEscape,
    /// A control character in escapes.
    EncodedControl,
    /// Something that a path may not hold unescaped.
    Unescaped,
}

impl fmt::Display for Ambiguity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EncodedSlash => "an encoded slash (%2F)",
            Self::Backslash => "a backslash",
            Self::DotSegment => "a segment . or ..",
            Self::EmptySegment => "an empty segment (//)",
            Self::Parameter => "a semicolon",
            Self::TwiceEncoded => "an escape inside an escape (%25..)",
            Self::InvalidEscape => "a % without two hexadecimal digits after it",
            Self::EncodedControl => "an encoded control character",
            Self::Unescaped => "a character that must be escaped",
        })
    }
}

/// A target that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target of a request begins with a slash and holds no fragment")]
pub struct InvalidTarget;

/// Reads the target of a request: a path with an optional query, or `*`.
///
/// Escapes of letters, digits, `-`, `.`, `_` and `~` are decoded and the digits of others are in
/// upper case, which changes the meaning for nobody (RFC 3986 §6.2.2).
///
/// # Errors
/// When it is neither.
pub fn normalize(target: &str) -> Result<Path, InvalidTarget> {
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    if target.contains('#') || !(path.starts_with('/') || target == "*") {
        return Err(InvalidTarget);
    }
    let (path, ambiguity) = match plain(path) {
        Ok(plain) => match structure(&plain) {
            None => (plain, None),
            Some(ambiguity) => (path.to_owned(), Some(ambiguity)),
        },
        Err(ambiguity) => (path.to_owned(), Some(ambiguity)),
    };
    Ok(Path { path, query, ambiguity })
}

/// Decodes what is the same to everybody.
fn plain(path: &str) -> Result<String, Ambiguity> {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path.chars();
    while let Some(c) = rest.next() {
        match c {
            '%' => {
                let digits = rest.as_str();
                let octet = escaped(digits).ok_or(Ambiguity::InvalidEscape)?;
                // Both digits are ASCII.
                rest = digits[2..].chars();
                match octet {
                    b'/' => return Err(Ambiguity::EncodedSlash),
                    b'\\' => return Err(Ambiguity::Backslash),
                    b';' => return Err(Ambiguity::Parameter),
                    0..=0x1f | 0x7f => return Err(Ambiguity::EncodedControl),
                    octet if is_unreserved(octet) => plain.push(char::from(octet)),
                    octet => {
                        plain.push('%');
                        plain.push(digit(octet >> 4));
                        plain.push(digit(octet & 0x0f));
                    }
                }
            }
            '\\' => return Err(Ambiguity::Backslash),
            ';' => return Err(Ambiguity::Parameter),
            c if !c.is_ascii() || c.is_ascii_control() || c == ' ' => return Err(Ambiguity::Unescaped),
            c => plain.push(c),
        }
    }
    Ok(plain)
}

fn structure(plain: &str) -> Option<Ambiguity> {
    // In what was decoded: the digits may have been written in escapes themselves.
    let mut percents = plain.match_indices("%25").map(|(at, percent)| &plain[at + percent.len()..]);
    if percents.any(|after| escaped(after).is_some()) {
        return Some(Ambiguity::TwiceEncoded);
    }
    let mut segments = plain.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        if segment == "." || segment == ".." {
            return Some(Ambiguity::DotSegment);
        }
        // The last one is empty after a slash at the end.
        if segment.is_empty() && segments.peek().is_some() {
            return Some(Ambiguity::EmptySegment);
        }
    }
    None
}

/// RFC 3986 §2.3.
fn is_unreserved(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~')
}

fn escaped(digits: &str) -> Option<u8> {
    let digits = digits.as_bytes();
    let value = |at: usize| char::from(*digits.get(at)?).to_digit(16);
    u8::try_from(value(0)? * 16 + value(1)?).ok()
}

/// Of a value below 16.
fn digit(value: u8) -> char {
    char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase()
}

/// The text with every escape decoded; one that is none stays as it is.
pub(super) fn percent_decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let decoded = (first == b'%').then(|| std::str::from_utf8(after.get(..2)?).ok().and_then(escaped));
        match decoded.flatten() {
            Some(octet) => {
                octets.push(octet);
                rest = &after[2..];
            }
            None => {
                octets.push(first);
                rest = after;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&octets).into_owned())
}

#[cfg(test)]
mod tests;
