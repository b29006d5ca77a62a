//! Protocol definitions explain themselves: every message, enum, service and call has a comment.

use crate::must_be_empty;
use crate::tree::{Source, sources};

const EXPLAINED: [&str; 4] = ["message ", "enum ", "service ", "rpc "];

#[test]
fn every_definition_has_a_comment() {
    must_be_empty(&violations(&sources("proto")));
}

fn violations(sources: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    for source in sources {
        let mut before = "";
        for (number, line) in (1..).zip(source.text.lines().map(str::trim)) {
            let is_definition = EXPLAINED.iter().any(|keyword| line.starts_with(keyword));
            if is_definition && !before.starts_with("//") {
                violations.push(format!("{}:{number}: `{line}` has no comment", source.path));
            }
            before = line;
        }
    }
    violations
}

#[test]
fn a_message_without_a_comment_is_found() {
    let text = "// Good.\nmessage A {\n  string name = 1;\n\n  enum B {\n  }\n}\n";
    let source = Source { path: "a.proto".into(), text: text.into() };
    assert_eq!(violations(&[source]), ["a.proto:5: `enum B {` has no comment"]);
}
