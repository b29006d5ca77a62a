//! Reads one YAML document into a value, with limits and with the line of whatever is wrong.
//!
//! It does not split files and knows no kinds.

use serde::de::DeserializeOwned;
use serde_saphyr::{Error, Options};

/// Why a document could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    /// The line within the document, counted from 1, where it is known.
    pub line: Option<u32>,
    /// What is wrong, for the person who wrote the document.
    pub message: String,
}

impl Unreadable {
    /// A message that belongs to no line in particular.
    pub fn new(message: impl Into<String>) -> Self {
        Self { line: None, message: message.into() }
    }
}

/// Reads one document.
///
/// # Errors
/// When the text is not YAML, exceeds a limit, or does not have the shape of `T`.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Unreadable> {
    serde_saphyr::from_str_with_options(text, options(text.len())).map_err(unreadable)
}

/// Nesting of the deepest document; a Pod, the deepest kind read here, stays below 20.
const MAX_DEPTH: usize = 64;

/// What aliases may add to one document. Without them a document cannot hold more nodes than it
/// has octets, so its size bounds everything else.
const MAX_ALIASED_NODES: usize = 10_000;

fn options(text_bytes: usize) -> Options {
    let nodes = text_bytes + MAX_ALIASED_NODES;
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_events: 2 * nodes,
            max_nodes: nodes,
            max_documents: 1,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED_NODES,
        },
        // An API server refuses `version: 1` where a string belongs; so does this.
        no_schema: true,
        with_snippet: false,
    }
}

fn unreadable(error: Error) -> Unreadable {
    let error = error.without_snippet();
    let line = error.location().and_then(|at| u32::try_from(at.line()).ok()).filter(|line| *line > 0);
    Unreadable { line, message: message(error) }
}

/// The library ends its messages with the position inside the document, which is not the position
/// in the file and would mislead beside it.
fn message(error: &Error) -> String {
    let text = error.to_string();
    let head = text.split(" at line ").next().unwrap_or(&text);
    head.strip_prefix("error: ").unwrap_or(head).trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    type Map = BTreeMap<String, serde_json::Value>;

    #[test]
    fn errors_name_their_line() {
        let rows: &[(&str, &str, Option<u32>)] = &[
            ("flow never closed", "a: 1\nb: [1, 2\n", None),
            ("tab", "a: 1\nb:\n\t- c\n", Some(3)),
            ("key twice", "a: 1\nb: 2\na: 3\n", Some(3)),
            ("unknown alias", "a: 1\nb: *gone\n", Some(2)),
        ];
        for (name, text, line) in rows {
            let error = read::<Map>(text).expect_err(name);
            if line.is_some() {
                assert_eq!(error.line, *line, "{name}: {}", error.message);
            }
            assert!(!error.message.contains('\n'), "{name}: {:?}", error.message);
        }
    }

    #[test]
    fn a_number_is_not_taken_for_text() {
        assert!(read::<BTreeMap<String, String>>("version: 1\n").is_err());
        assert!(read::<BTreeMap<String, String>>("version: \"1\"\n").is_ok());
    }

    #[test]
    fn aliases_cannot_multiply_a_document() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..9 {
            let previous = level - 1;
            let list = vec![format!("*a{previous}"); 10].join(", ");
            text += &format!("a{level}: &a{level} [{list}]\n");
        }
        assert!(read::<Map>(&text).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let text = format!("a: {}{}", "[".repeat(5_000), "]".repeat(5_000));
        assert!(read::<Map>(&text).is_err());
    }
}
