//! A map whose copy shares all but what changed since.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// How many parts a map has. A change copies one part, a new snapshot copies this many pointers:
/// with 100,000 entries some 400 of each.
const SHARDS: usize = 256;

/// A map in parts, each shared between copies until one of them changes it.
#[derive(PartialEq, Eq)]
pub(super) struct Shards<K, V> {
    shards: Vec<Arc<BTreeMap<K, V>>>,
}

impl<K: Ord + Hash + Clone, V: Clone> Shards<K, V> {
    pub(super) fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Ord + Hash + ?Sized,
    {
        self.shards[shard_of(key)].get(key)
    }

    /// Puts `value` under `key` and returns what was there.
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.shard_mut(&key).insert(key, value)
    }

    /// Takes away what is under `key`. A key that is not there costs no copy.
    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        self.get(key)?;
        self.shard_mut(key).remove(key)
    }

    /// The value under `key`, made first if there is none.
    pub(super) fn entry(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        self.shard_mut(key).entry(key.clone()).or_default()
    }

    /// Gives back the room that maps leave free while they grow in the order of their keys: nearly half of it.
    /// `pack` does the same for a value.
    pub(super) fn pack(&mut self, mut pack: impl FnMut(&mut V)) {
        for shard in &mut self.shards {
            let entries = Arc::unwrap_or_clone(std::mem::take(shard)).into_iter();
            let packed = entries.map(|(key, mut value)| {
                pack(&mut value);
                (key, value)
            });
            *shard = Arc::new(packed.collect());
        }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    /// The values in no particular order.
    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }

    /// The values in order of their keys.
    pub(super) fn sorted(&self) -> impl Iterator<Item = &V> {
        let mut entries: Vec<_> = self.shards.iter().flat_map(|shard| shard.iter()).collect();
        entries.sort_unstable_by_key(|&(key, _)| key);
        entries.into_iter().map(|(_, value)| value)
    }

    fn shard_mut(&mut self, key: &K) -> &mut BTreeMap<K, V> {
        Arc::make_mut(&mut self.shards[shard_of(key)])
    }
}

/// The same for a key in every process: a fresh `DefaultHasher` has fixed keys.
fn shard_of(key: &(impl Hash + ?Sized)) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    // The remainder is below SHARDS, so it fits.
    (hasher.finish() % SHARDS as u64) as usize
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { shards: self.shards.clone() }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { shards: std::iter::repeat_with(Arc::default).take(SHARDS).collect() }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Shards<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.shards.iter().flat_map(|shard| shard.iter())).finish()
    }
}

#[cfg(test)]
impl<K, V> Shards<K, V> {
    /// How many parts `self` and `other` do not share.
    pub(super) fn shards_changed(&self, other: &Self) -> usize {
        self.shards.iter().zip(&other.shards).filter(|(ours, theirs)| !Arc::ptr_eq(ours, theirs)).count()
    }
}
