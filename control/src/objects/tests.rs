//! The admission check and control read policies alike: the samples are also what the check was tried with
//! on an API server (`deploy/manifests/15-admission.yaml`).

use std::fs;
use std::path::Path;

use crate::source::Content;
use crate::source::reading::read;

fn each(file: &str, check: impl Fn(&str, &Content)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/objects/admission").join(file);
    let content = read(&file.into(), &fs::read_to_string(path).expect("the samples are there"));
    assert!(content.problems.is_empty(), "{:?}", content.problems);
    assert!(content.readings.len() > 5, "{file} has samples");
    for reading in &content.readings {
        check(&reading.key.name, &reading.content);
    }
}

#[test]
fn what_the_check_accepts_is_read() {
    each("accepted.yaml", |name, content| {
        assert!(matches!(content, Content::Object(_)), "{name}: {content:?}")
    });
}

#[test]
fn what_the_check_refuses_is_rejected_also_without_it() {
    each("refused.yaml", |name, content| {
        assert!(matches!(content, Content::Rejected { closed: Some(_), .. }), "{name}: {content:?}");
    });
}
