//! The policies that a workload names.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use super::PolicyName;

/// Names of policies in the order in which they are asked.
///
/// Pods of one Deployment name the same policies: a list is cheap to clone, and two that share
/// their memory are compared and looked up without a look at the names.
#[derive(Clone)]
pub struct PolicyNames {
    names: Arc<[PolicyName]>,
    /// Of the names; made once, for a list may have thousands.
    hash: u64,
}

impl PolicyNames {
    fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.names, &other.names)
    }
}

impl Deref for PolicyNames {
    type Target = [PolicyName];

    fn deref(&self) -> &[PolicyName] {
        &self.names
    }
}

impl FromIterator<PolicyName> for PolicyNames {
    fn from_iter<I: IntoIterator<Item = PolicyName>>(names: I) -> Self {
        let names: Arc<[PolicyName]> = names.into_iter().collect();
        let mut hasher = DefaultHasher::new();
        names.hash(&mut hasher);
        Self { hash: hasher.finish(), names }
    }
}

impl From<Vec<PolicyName>> for PolicyNames {
    fn from(names: Vec<PolicyName>) -> Self {
        names.into_iter().collect()
    }
}

impl Default for PolicyNames {
    fn default() -> Self {
        Self::from_iter([])
    }
}

impl PartialEq for PolicyNames {
    fn eq(&self, other: &Self) -> bool {
        self.shares_with(other) || (self.hash == other.hash && self.names == other.names)
    }
}

impl Eq for PolicyNames {}

impl Hash for PolicyNames {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

/// An order without meaning, for maps.
impl Ord for PolicyNames {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.shares_with(other) {
            return Ordering::Equal;
        }
        self.hash.cmp(&other.hash).then_with(|| self.names.cmp(&other.names))
    }
}

impl PartialOrd for PolicyNames {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Debug for PolicyNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names.fmt(f)
    }
}
