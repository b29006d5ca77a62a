//! Checks of the tree itself: what a reviewer would otherwise have to look for every time.
//!
//! Each check is a function from what was read to the list of what is wrong, so that it is itself
//! tested on a tree that breaks the rule.

mod dependencies;
mod protobuf;
mod purity;
mod sources;
mod tree;

/// Fails with every violation at once, one line each.
fn must_be_empty(violations: &[String]) {
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}
