//! `v1` Node.

use serde::Deserialize;

use super::meta::Meta;

/// A node: it may subscribe, and its labels say where it stands.
#[derive(Clone, Debug, Deserialize)]
pub struct Node {
    /// Metadata.
    pub metadata: Meta,
}
