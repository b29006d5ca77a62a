//! `v1` Namespace.

use serde::Deserialize;

use super::meta::Meta;

/// A namespace: its labels say whether its pods are in the mesh.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Namespace {
    /// Metadata.
    pub metadata: Meta,
}
