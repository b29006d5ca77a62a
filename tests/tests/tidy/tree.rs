//! The files of the workspace, and which of their lines are production code.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file, named by its path from the root of the workspace.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A line of code without its comment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) number: usize,
    pub(crate) code: &'a str,
    pub(crate) part: Part,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Production,
    Test,
}

pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().expect("the tests are a member of the workspace").to_owned()
}

/// Every file below the root whose name ends so, but for build output and hidden directories.
pub(crate) fn sources(extension: &str) -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    collect(&root, extension, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no .{extension} files below {}", root.display());
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
        path: path.strip_prefix(&root).expect("found below the root").display().to_string(),
    };
    found.into_iter().map(read).collect()
}

fn collect(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the tree") {
        let path = entry.expect("an entry of the tree").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, extension, found);
            }
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
}

impl Source {
    /// The lines that hold code. What stands under `#[cfg(test)]` is a test up to the line that ends
    /// the item, which rustfmt indents as it does the attribute.
    pub(crate) fn lines(&self) -> Vec<Line<'_>> {
        let whole = if self.is_test_file() { Part::Test } else { Part::Production };
        let mut test_item: Option<usize> = None;
        let mut lines = Vec::new();
        for (number, text) in (1..).zip(self.text.lines()) {
            let code = without_comment(text).trim_end();
            if code.is_empty() {
                continue;
            }
            let indent = code.len() - code.trim_start().len();
            if test_item.is_none() && code.trim_start().starts_with("#[cfg(test)]") {
                test_item = Some(indent);
            }
            let part = if test_item.is_some() { Part::Test } else { whole };
            lines.push(Line { number, code, part });
            if test_item == Some(indent) && code.ends_with(['}', ';']) {
                test_item = None;
            }
        }
        lines
    }

    /// Tests, the crates for tests, and the support of both.
    fn is_test_file(&self) -> bool {
        let in_tests = self.path.split('/').any(|directory| directory == "tests" || directory == "fuzz");
        in_tests || self.path.ends_with("/tests.rs")
    }
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.split_once(" // ").map_or(line, |(code, _)| code)
}

#[test]
fn comments_are_not_code_and_test_items_are_not_production() {
    let text = "//! doc\nfn a() {} // now\n#[cfg(test)]\nmod fixtures;\nmod b;\n\
                #[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\nfn c() {}\n";
    let source = Source { path: "crates/mesh/src/a.rs".into(), text: text.into() };
    let of = |part| -> Vec<usize> {
        source.lines().iter().filter(|line| line.part == part).map(|line| line.number).collect()
    };
    assert_eq!(of(Part::Production), [2, 5, 11]);
    assert_eq!(of(Part::Test), [3, 4, 6, 7, 8, 9, 10]);
}
