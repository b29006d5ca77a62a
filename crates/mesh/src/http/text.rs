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

/// An expression whose every match is replaced by a text in which `\1` is what its first group matched (RE2).
#[derive(Clone)]
pub struct Substitution {
    pattern: Arc<str>,
    rewrite: Arc<str>,
    compiled: Regex,
    /// The same in the dialect of the library.
    replacement: Arc<str>,
}

impl Substitution {
    /// Compiles one.
    ///
    /// # Errors
    /// When `pattern` is no expression or too large, or `rewrite` names a group that it has not.
    pub fn new(pattern: &str, rewrite: &str) -> Result<Self, InvalidPattern> {
        // The same limits hold.
        Pattern::new(pattern)?;
        let invalid = |problem: String| InvalidPattern { expression: shortened(pattern), problem };
        let compiled = limited(pattern).map_err(|error| invalid(last_line(&error)))?;
        let replacement = replacement(rewrite, compiled.captures_len()).map_err(invalid)?;
        Ok(Self {
            pattern: pattern.into(),
            rewrite: rewrite.into(),
            compiled,
            replacement: replacement.into(),
        })
    }

    /// The expression as it was written.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// What its matches are replaced by, as it was written.
    pub fn rewrite(&self) -> &str {
        &self.rewrite
    }

    /// The text with every match replaced.
    pub fn apply(&self, text: &str) -> String {
        self.compiled.replace_all(text, &*self.replacement).into_owned()
    }
}

/// RE2: `\0` is the whole match, `\1` to `\9` are groups, `\\` is a backslash.
fn replacement(rewrite: &str, groups: usize) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = rewrite.chars();
    while let Some(c) = rest.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match rest.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.to_digit(10).is_some_and(|group| (group as usize) < groups) => {
                    out.push_str(&format!("${{{digit}}}"));
                }
                other => {
                    let escaped = other.map(String::from).unwrap_or_default();
                    return Err(format!("\\{escaped} in the rewrite is no group of it"));
                }
            },
            c => out.push(c),
        }
    }
    Ok(out)
}

impl PartialEq for Substitution {
    fn eq(&self, other: &Self) -> bool {
        self.pattern == other.pattern && self.rewrite == other.rewrite
    }
}

impl Eq for Substitution {}

impl fmt::Debug for Substitution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/ -> {:?}", self.pattern, self.rewrite)
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

fn limited(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(PATTERN_MEMORY).dfa_size_limit(PATTERN_MEMORY).build()
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
    fn every_match_is_replaced_with_its_groups() {
        for (pattern, rewrite, text, expected) in [
            ("/service/([^/]+)(/.*)", r"\2/instance/\1", "/service/foo/v1/api", "/v1/api/instance/foo"),
            ("one", "two", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/two/zzz"),
            ("^(.*?)one(.*)$", r"\1two\2", "/xxx/one/yyy/one/zzz", "/xxx/two/yyy/one/zzz"),
            ("(?i)/xxx/", "/yyy/", "/aaa/XxX/bbb", "/aaa/yyy/bbb"),
            ("a", r"$1\\\0", "/a", r"/$1\a"),
            ("none", "x", "/a", "/a"),
        ] {
            let substitution = Substitution::new(pattern, rewrite).unwrap();
            assert_eq!(substitution.apply(text), expected, "{pattern} {rewrite}");
        }
        for (pattern, rewrite) in [("(", ""), ("a", r"\1"), ("a", r"\x"), ("a", "\\")] {
            assert!(Substitution::new(pattern, rewrite).is_err(), "{pattern} {rewrite}");
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
