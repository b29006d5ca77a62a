//! House rules that hold for every source file (the style guide's 3, 20, 25, 38, 39, 47, 50).

use crate::must_be_empty;
use crate::tree::{Line, Part, Source, sources};

/// Lines, tests included: a file of this size has more than one concern.
const LONGEST: usize = 800;

/// The one place that may sleep: between two looks at what offers no event.
const MAY_SLEEP: &str = "tests/src/wait.rs";

#[test]
fn every_source_keeps_the_house_rules() {
    must_be_empty(&sources("rs").iter().flat_map(violations).collect::<Vec<_>>());
}

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let manifests = sources("toml").into_iter().filter(|source| source.path.ends_with("/Cargo.toml"));
    must_be_empty(&manifests.filter_map(|manifest| without_lints(&manifest)).collect::<Vec<_>>());
}

/// The workspace denies `unsafe_code`; who needs it says so where it is.
fn without_lints(manifest: &Source) -> Option<String> {
    // Generated code is not held to the lints, and forbids unsafe code itself; fuzz targets are a
    // workspace of their own, outside of the build.
    let exempt = manifest.path == "crates/proto/Cargo.toml" || manifest.path.contains("/fuzz/");
    let inherits = manifest.text.contains("[lints]\nworkspace = true");
    (!inherits && !exempt).then(|| format!("{} does not inherit the workspace's lints", manifest.path))
}

fn violations(source: &Source) -> Vec<String> {
    let path = &source.path;
    let mut violations = of_file(source);
    let paused = source.text.contains("start_paused");
    for line in source.lines() {
        if let Some(what) = of_line(path, &line, paused) {
            violations.push(format!("{path}:{}: {what}", line.number));
        }
    }
    violations
}

fn of_file(source: &Source) -> Vec<String> {
    let Source { path, text } = source;
    let mut violations = Vec::new();
    let length = text.lines().count();
    if length > LONGEST {
        violations.push(format!("{path} has {length} lines; split it where an invariant changes owner"));
    }
    // Cargo would build `tests/support.rs` as a test of its own.
    if path.ends_with("/mod.rs") && !path.contains("/tests/") {
        violations.push(format!("{path}: name modules `foo.rs` with `foo/` beside it"));
    }
    if !text.starts_with("//!") && !path.ends_with("/tests.rs") {
        violations.push(format!("{path} does not begin by saying what it owns (`//!`)"));
    }
    violations
}

/// Needles are put together here, so that this file does not break the rules it checks.
fn of_line(path: &str, line: &Line<'_>, paused: bool) -> Option<&'static str> {
    let has = |parts: &[&str]| line.code.contains(&parts.concat());
    let in_test = line.part == Part::Test;
    if has(&["#[", "ignore"]) {
        return Some("a test that does not run cannot fail: delete it or make it run");
    }
    if has(&["#[", "allow("]) || has(&["#![", "allow("]) {
        return Some("use #[expect(.., reason = \"..\")]");
    }
    if has(&["#[", "expect("]) && has(&["unsafe", "_code"]) && !has(&["reason"]) {
        return Some("unsafe code states why it is needed");
    }
    if has(&["to", "do!("]) || has(&["un", "implemented!("]) {
        return Some("unfinished code");
    }
    let sleeps = has(&["thread::", "sleep("]) || (!paused && has(&["time::", "sleep("]));
    if in_test && sleeps && path != MAY_SLEEP {
        return Some("wait for an event, do not sleep");
    }
    None
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let good = "//! Owns nothing.\nfn a() {}\n";
    let lib = |text: &str| Source { path: "crates/a/src/lib.rs".into(), text: text.into() };
    let test = |text: &str| Source { path: "crates/a/tests/b.rs".into(), text: text.into() };
    assert_eq!(violations(&lib(good)), [""; 0]);
    for broken in [
        lib("fn a() {}\n"),
        lib(&(good.to_owned() + &"// long\n".repeat(LONGEST))),
        lib(&(good.to_owned() + "#[cfg(test)]\nmod tests {\n#[test]\n#[" + "ignore]\nfn b() {}\n}\n")),
        lib(&(good.to_owned() + "#[" + "allow(dead_code)]\nfn b() {}\n")),
        lib(&(good.to_owned() + "fn b() { to" + "do!() }\n")),
        test(&("//! Tests.\nfn b() { thread::".to_owned() + "sleep(SECOND); }\n")),
        test(&("//! Tests.\nfn b() { tokio::time::".to_owned() + "sleep(SECOND).await; }\n")),
        Source { path: "crates/a/src/b/mod.rs".into(), text: "//! Owns nothing.\n".into() },
    ] {
        assert_eq!(violations(&broken).len(), 1, "{broken:?}");
    }
    let paused =
        "//! Tests.\n#[tokio::test(start_paused = true)]\nfn b() { time::".to_owned() + "sleep(S).await; }\n";
    assert_eq!(violations(&test(&paused)), [""; 0]);
}
