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
    lists: Shards<K, List<T>>,
}

/// One ordered list. Most have one item, which takes no memory of its own.
#[derive(Debug, PartialEq, Eq)]
enum List<T> {
    /// At most one.
    Few(Option<T>),
    /// Two or more.
    Many(Arc<Vec<T>>),
}

impl<K: Ord + Hash + Clone, T: Clone> Lists<K, T> {
    pub(super) fn get<Q>(&self, key: &Q) -> &[T]
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
    {
        self.lists.get(key).map_or(&[], List::as_slice)
    }

    /// Every item of every list, in no particular order.
    pub(super) fn items(&self) -> impl Iterator<Item = &T> {
        self.lists.values().flat_map(List::as_slice)
    }

    /// Gives back the room that is left free for more.
    pub(super) fn pack(&mut self) {
        self.lists.pack(List::pack);
    }

    /// Puts `item` at its place, instead of one that has the same place.
    pub(super) fn insert(&mut self, key: &K, item: T, order: Order<T>) {
        let list = self.lists.entry(key);
        let place = list.as_slice().binary_search_by(|other| order(other, &item));
        match (list, place) {
            (List::Few(one), Ok(_)) => *one = Some(item),
            (List::Many(many), Ok(at)) => Arc::make_mut(many)[at] = item,
            (List::Many(many), Err(at)) => Arc::make_mut(many).insert(at, item),
            (list @ List::Few(_), Err(at)) => {
                let mut items = list.as_slice().to_vec();
                items.insert(at, item);
                *list = List::of(items);
            }
        }
    }

    /// Takes away the item that has the place of `item`, if there is one.
    pub(super) fn remove(&mut self, key: &K, item: &T, order: Order<T>) {
        let Ok(at) = self.get(key).binary_search_by(|other| order(other, item)) else { return };
        match self.lists.entry(key) {
            List::Many(many) if many.len() > 2 => drop(Arc::make_mut(many).remove(at)),
            list @ (List::Few(_) | List::Many(_)) => {
                let mut items = list.as_slice().to_vec();
                items.remove(at);
                *list = List::of(items);
            }
        }
        if self.get(key).is_empty() {
            self.lists.remove(key);
        }
    }
}

impl<T: Clone> List<T> {
    fn of(mut items: Vec<T>) -> Self {
        if items.len() < 2 { Self::Few(items.pop()) } else { Self::Many(Arc::new(items)) }
    }

    fn pack(&mut self) {
        match self {
            Self::Many(many) => Arc::make_mut(many).shrink_to_fit(),
            Self::Few(_) => {}
        }
    }

    fn as_slice(&self) -> &[T] {
        match self {
            Self::Few(one) => one.as_slice(),
            Self::Many(many) => many,
        }
    }
}

impl<T: Clone> Clone for List<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Few(one) => Self::Few(one.clone()),
            Self::Many(many) => Self::Many(many.clone()),
        }
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self::Few(None)
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
