//! What control does at a Kubernetes API server besides reading its configuration there.

use std::collections::BTreeMap;

pub mod bundle;
pub mod root;
pub mod token_review;

/// Whom the API server records as the author of what control writes.
const FIELD_MANAGER: &str = "ambit-control";

/// What all objects of ours carry.
fn labels() -> BTreeMap<String, String> {
    [("app.kubernetes.io/part-of".to_owned(), "ambit".to_owned())].into()
}

#[cfg(test)]
pub(crate) mod fake;
