//! Finds out which object a document means when it is not YAML: by its lines.
//!
//! What is gleaned is only used to keep the object's last good version, and to name it in a status.

use crate::objects::ObjectKey;

/// The object that a broken document most likely means; `None` when it names none, or several.
pub(super) fn key(text: &str) -> Option<ObjectKey> {
    let api_version = the_only(text, |line| value(line, "apiVersion"))?;
    let kind = the_only(text, |line| value(line, "kind"))?;
    let metadata = metadata(text)?;
    let indent = metadata.first().map(|line| line.len() - line.trim_start().len())?;
    let field = |name| {
        metadata
            .iter()
            .filter(|line| line.len() - line.trim_start().len() == indent)
            .find_map(|line| value(line.trim_start(), name))
    };
    ObjectKey::new(api_version, kind, field("namespace"), field("name")?).ok()
}

/// The lines below `metadata:`.
fn metadata(text: &str) -> Option<Vec<&str>> {
    let mut lines = text.lines().skip_while(|line| !is_metadata(line));
    lines.next()?;
    let nested = |line: &&str| line.starts_with(' ') || line.trim().is_empty() || line.starts_with('#');
    let is_content = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    Some(lines.take_while(nested).filter(is_content).collect())
}

fn is_metadata(line: &str) -> bool {
    line.strip_prefix("metadata:").is_some_and(|rest| rest.trim().is_empty() || rest.trim().starts_with('#'))
}

fn the_only<'a>(text: &'a str, find: impl Fn(&'a str) -> Option<&'a str>) -> Option<&'a str> {
    let mut found = text.lines().filter_map(find);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

/// The plain value of `field: value` at the beginning of a line.
fn value<'a>(line: &'a str, field: &str) -> Option<&'a str> {
    let rest = line.strip_prefix(field)?.strip_prefix(':')?;
    let rest = rest.split(" #").next().unwrap_or(rest).trim();
    let unquoted = rest
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
        .or_else(|| rest.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')));
    Some(unquoted.unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_document_still_names_its_object() {
        let rows = [
            (
                "unfinished flow sequence",
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  namespace: shop\nspec: [\n",
                Some("Pod shop/web"),
            ),
            (
                "quotes and comments",
                "apiVersion: \"v1\" # core\nkind: 'Pod'\nmetadata: # head\n\n  # the name\n  name: \"web\"\nspec: [\n",
                Some("Pod default/web"),
            ),
            (
                "names of other things do not count",
                "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    name: other\n  name: web\nspec:\n  name: x\n",
                Some("Pod default/web"),
            ),
            ("cut off before its name", "apiVersion: v1\nkind: Pod\nmetadata:\n", None),
            (
                "two documents in one",
                "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\nkind: Pod\nmetadata:\n  name: b\n",
                None,
            ),
            ("no name that could be one", "apiVersion: v1\nkind: Pod\nmetadata:\n  name: ../web\n", None),
            ("not YAML at all", "hello\n\tworld {", None),
        ];
        for (name, text, expected) in rows {
            assert_eq!(key(text).map(|key| key.to_string()).as_deref(), expected, "{name}");
        }
    }
}
