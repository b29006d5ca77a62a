//! Splits a file into YAML documents before anything is parsed, so that a broken document costs
//! only itself.

/// One document of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    /// The line of the file on which `text` begins, counted from 1.
    pub first_line: u32,
    /// The text between two document markers.
    pub text: &'a str,
}

impl Document<'_> {
    /// The line of the first content: what a person looks for, past comments and empty lines.
    pub fn content_line(&self) -> u32 {
        let skipped = self.text.lines().take_while(|line| is_filler(line)).count();
        self.first_line + u32::try_from(skipped).unwrap_or(u32::MAX - self.first_line)
    }
}

/// Splits a file at its document markers and leaves out documents without content.
///
/// YAML 1.2.2 §9.1.2: a line that begins with `---` or `...`, alone or followed by white space, is
/// a marker wherever it stands, also inside a block scalar. What follows `---` on its line belongs
/// to the document.
pub fn split(text: &str) -> Vec<Document<'_>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = Vec::new();
    let (mut start, mut first_line) = (0, 1);
    let mut offset = 0;
    for (line, number) in text.split_inclusive('\n').zip(1_u32..) {
        if let Some(marker) = marker_length(line) {
            documents.push(Document { first_line, text: &text[start..offset] });
            (start, first_line) = (offset + marker, number);
        }
        offset += line.len();
    }
    documents.push(Document { first_line, text: &text[start..] });
    documents.retain(|document| !document.text.lines().all(is_filler));
    documents
}

fn marker_length(line: &str) -> Option<usize> {
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("..."))?;
    rest.is_empty().then_some(3).or_else(|| rest.starts_with([' ', '\t', '\r', '\n']).then_some(3))
}

/// Empty lines, comments and directives hold no content.
fn is_filler(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || line.starts_with('#') || line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_split_at_markers_with_lines() {
        type Row<'a> = (&'a str, &'a str, &'a [(u32, &'a str)]);
        let rows: &[Row<'_>] = &[
            ("empty file", "", &[]),
            ("only comments", "# a\n\n--- \n# b\n", &[]),
            ("one document", "a: 1\n", &[(1, "a: 1\n")]),
            ("leading marker", "---\na: 1\n", &[(2, "\na: 1\n")]),
            ("two documents", "a: 1\n---\nb: 2\n", &[(1, "a: 1\n"), (3, "\nb: 2\n")]),
            ("comment before content", "# about\n\na: 1\n", &[(3, "# about\n\na: 1\n")]),
            ("content on the marker's line", "--- {a: 1}\n", &[(1, " {a: 1}\n")]),
            ("comment on the marker's line", "--- # x\na: 1\n", &[(2, " # x\na: 1\n")]),
            ("end marker", "a: 1\n...\nb: 2\n", &[(1, "a: 1\n"), (3, "\nb: 2\n")]),
            ("line ends of Windows", "a: 1\r\n---\r\nb: 2\r\n", &[(1, "a: 1\r\n"), (3, "\r\nb: 2\r\n")]),
            ("no line end at the end", "a: 1\n---", &[(1, "a: 1\n")]),
            ("four dashes are text", "a: |\n----\n", &[(1, "a: |\n----\n")]),
            ("indented dashes are text", "a: |\n  ---\n", &[(1, "a: |\n  ---\n")]),
            ("directive", "%YAML 1.2\n---\na: 1\n", &[(3, "\na: 1\n")]),
            ("byte order mark", "\u{feff}a: 1\n", &[(1, "a: 1\n")]),
        ];
        for (name, text, expected) in rows {
            let documents = split(text);
            let found: Vec<_> = documents.iter().map(|d| (d.content_line(), d.text)).collect();
            assert_eq!(&found[..], *expected, "{name}");
        }
    }
}
