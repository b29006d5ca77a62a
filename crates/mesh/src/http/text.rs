//! Comparisons of text that routes use.

use std::fmt;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

/// The most memory that one compiled expression may use, in octets: an expression with nested
/// counted repetitions would otherwise take all of it.
const PATTERN_MEMORY: usize = 1 << 20;

/// The longest expression that is read, in octets (Gateway API: 4096 for header values, 1024 for
/// paths).
const PATTERN_LENGTH: usize = 4096;

/// A regular expression that must match the whole text, in the dialect of RE2.
///
/// Its time is linear in the text. Two are equal when they are written the same.
#[derive(Clone)]
pub struct Pattern {
    source: Arc<str>,
    compiled: Regex,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// When it is not one, or is too large.
    pub fn new(source: &str) -> Result<Self, InvalidPattern> {
        let invalid = |problem: String| InvalidPattern { expression: shortened(source), problem };
        if source.len() > PATTERN_LENGTH {
            return Err(invalid(format!("it is longer than {PATTERN_LENGTH} octets")));
        }
        // By itself first: `)(` is none, and would be one between parentheses.
        let limited = |text: &str| {
            RegexBuilder::new(text).size_limit(PATTERN_MEMORY).dfa_size_limit(PATTERN_MEMORY).build()
        };
        limited(source).map_err(|error| invalid(last_line(&error)))?;
        let compiled = limited(&format!(r"\A(?:{source})\z")).map_err(|error| invalid(last_line(&error)))?;
        Ok(Self { source: source.into(), compiled })
    }

    /// The expression as it was written.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether it matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

/// A text that is no regular expression, or a too large one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{expression:?} cannot be used as a regular expression (RE2 syntax): {problem}")]
pub struct InvalidPattern {
    /// What was read, cut to a length that is safe to log.
    pub expression: String,
    /// What is wrong with it.
    pub problem: String,
}

/// The library draws a picture of the place in several lines; its last one says what is wrong.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

/// A comparison of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// The whole value.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
    /// The whole value, by an expression.
    Regex(Pattern),
    /// Any value, also the empty one.
    Present,
}

impl ValueMatch {
    /// Whether `value` is meant.
    pub fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(whole) => value == &**whole,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
            Self::Regex(pattern) => pattern.matches(value),
            Self::Present => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_the_whole_text() {
        let pattern = Pattern::new("/v[0-9]+|/beta").unwrap();
        for (text, expected) in
            [("/v1", true), ("/beta", true), ("/v1/x", false), ("x/beta", false), ("/v1\n", false)]
        {
            assert_eq!(pattern.matches(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in ["(", ")(", "a{1000000}", "(?<=x)y", r"\1", &"a".repeat(5000)] {
            let error = Pattern::new(text).unwrap_err();
            assert!(error.to_string().len() < 500, "{error}");
        }
        let nested = "((((a{100}){100}){100}){100})";
        assert!(Pattern::new(nested).is_err(), "memory is bounded");
    }
}
