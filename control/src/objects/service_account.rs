//! `v1` ServiceAccount.

use serde::Deserialize;

use super::meta::Meta;

/// A service account. Identities come from the pods that name it, so it has no effect by itself.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct ServiceAccount {
    /// Metadata.
    pub metadata: Meta,
}
