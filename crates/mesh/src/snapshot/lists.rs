//! An index from a key to several items, each list in a fixed order.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::shards::Shards;

/// How the items of a list are ordered. Two items of one list are never equal under it.
pub(super) type Order<T> = fn(&T, &T) -> Ordering;

/// A map from a key to an ordered list. A key without items is absent, so that equal content
/// compares equal.
#[derive(PartialEq, Eq)]
pub(super) struct Lists<K, T> {
    lists: Shards<K, Arc<Vec<Arc<T>>>>,
}

impl<K: Ord + Hash + Clone, T> Lists<K, T> {
    pub(super) fn get<Q>(&self, key: &Q) -> &[Arc<T>]
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
    {
        self.lists.get(key).map_or(&[], |list| list.as_slice())
    }

    /// Every item of every list, in no particular order.
    pub(super) fn items(&self) -> impl Iterator<Item = &Arc<T>> {
        self.lists.values().flat_map(|list| list.iter())
    }

    /// Puts `item` at its place, instead of one that has the same place.
    pub(super) fn insert(&mut self, key: &K, item: Arc<T>, order: Order<T>) {
        let list = Arc::make_mut(self.lists.entry(key));
        match list.binary_search_by(|other| order(other, &item)) {
            Ok(index) => list[index] = item,
            Err(index) => list.insert(index, item),
        }
    }

    /// Takes away the item that has the place of `item`, if there is one.
    pub(super) fn remove(&mut self, key: &K, item: &T, order: Order<T>) {
        let Ok(index) = self.get(key).binary_search_by(|other| order(other, item)) else { return };
        let list = Arc::make_mut(self.lists.entry(key));
        list.remove(index);
        if list.is_empty() {
            self.lists.remove(key);
        }
    }
}

impl<K, T> Clone for Lists<K, T> {
    fn clone(&self) -> Self {
        Self { lists: self.lists.clone() }
    }
}

impl<K, T> Default for Lists<K, T> {
    fn default() -> Self {
        Self { lists: Shards::default() }
    }
}

impl<K: fmt::Debug, T: fmt::Debug> fmt::Debug for Lists<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lists.fmt(f)
    }
}
