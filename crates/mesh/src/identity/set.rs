//! The identities that may answer at the far end of a tunnel.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use super::SpiffeId;

/// One identity or more, in order and without doubles, so that equal sets compare and hash equal.
///
/// It is never empty: a tunnel whose far end may be anybody cannot be asked for. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentitySet(Arc<[SpiffeId]>);

impl IdentitySet {
    /// The set of `identity` and `others`.
    pub fn new(identity: SpiffeId, others: impl IntoIterator<Item = SpiffeId>) -> Self {
        let mut identities = BTreeSet::from([identity]);
        identities.extend(others);
        Self(identities.into_iter().collect())
    }

    /// Whether `identity` is one of them.
    pub fn contains(&self, identity: &SpiffeId) -> bool {
        self.0.binary_search(identity).is_ok()
    }

    /// The identities in order.
    pub fn iter(&self) -> impl Iterator<Item = &SpiffeId> {
        self.0.iter()
    }
}

impl fmt::Debug for IdentitySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter()).finish()
    }
}

impl fmt::Display for IdentitySet {
    /// The identities, joined by `, `.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, identity) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{identity}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_doubles_do_not_matter() {
        let id = |account: &str| format!("spiffe://cluster.local/ns/shop/sa/{account}").parse().unwrap();
        let set = IdentitySet::new(id("web"), [id("cart"), id("web")]);
        assert_eq!(set, IdentitySet::new(id("cart"), [id("web")]));
        assert_eq!(set.iter().count(), 2);
        assert!(set.contains(&id("cart")) && !set.contains(&id("db")));
        assert_eq!(
            set.to_string(),
            "spiffe://cluster.local/ns/shop/sa/cart, spiffe://cluster.local/ns/shop/sa/web"
        );
    }
}
