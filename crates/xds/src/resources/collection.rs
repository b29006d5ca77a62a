//! The resources of one type, by name, and the difference between two generations of them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::iter::Peekable;
use std::sync::{Arc, OnceLock};

use super::Resource;

/// Resources of one type, by name.
///
/// They are kept in parts, by a hash of the name. A generation shares with the one before it the
/// parts in which nothing changed, so that neither making it nor finding the difference costs more
/// than the change.
#[derive(Debug)]
pub struct Collection {
    parts: Vec<Arc<Part>>,
    /// Alias to names; made when a client first asks by alias.
    by_alias: OnceLock<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>>,
}

type Part = BTreeMap<Arc<str>, Arc<Resource>>;

/// How many parts there are: with 100,000 resources some 400 in each.
const PARTS: usize = 256;

impl Default for Collection {
    fn default() -> Self {
        let empty = Arc::default();
        Self { parts: vec![empty; PARTS], by_alias: OnceLock::new() }
    }
}

impl Clone for Collection {
    /// A copy is made to be changed: its aliases are others.
    fn clone(&self) -> Self {
        Self { parts: self.parts.clone(), by_alias: OnceLock::new() }
    }
}

impl PartialEq for Collection {
    fn eq(&self, other: &Self) -> bool {
        // An Arc compares its pointer first.
        self.parts == other.parts
    }
}

impl Eq for Collection {}

/// One resource that differs between two generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Only in the newer one.
    Added(&'a Arc<Resource>),
    /// In both, with another version or for others.
    Changed {
        /// In the older one.
        from: &'a Arc<Resource>,
        /// In the newer one.
        to: &'a Arc<Resource>,
    },
    /// Only in the older one.
    Removed(&'a Arc<Resource>),
}

impl Collection {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.is_empty())
    }

    /// The resource of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.parts[part_of(name)].get(name)
    }

    /// All of them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.parts.iter().flat_map(|part| part.values())
    }

    /// The resources that a client means by a name: the one of this name, or those with this alias.
    pub fn named_or_aliased<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        let aliased = self.aliases().get(name).into_iter().flatten().filter_map(|name| self.get(name));
        self.get(name).into_iter().chain(aliased)
    }

    /// What has to change to make this generation the newer one, in no particular order.
    pub fn differences<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = Difference<'a>> {
        let parts = self.parts.iter().zip(&newer.parts).filter(|(older, newer)| !Arc::ptr_eq(older, newer));
        parts.flat_map(|(older, newer)| Differences {
            older: older.values().peekable(),
            newer: newer.values().peekable(),
        })
    }

    /// Puts a resource in, before anybody has asked by alias. One that is there just so stays.
    pub(super) fn insert(&mut self, resource: Arc<Resource>) {
        let part = &mut self.parts[part_of(resource.name())];
        if part.get(resource.name()) != Some(&resource) {
            Arc::make_mut(part).insert(resource.name().clone(), resource);
        }
    }

    /// Takes a resource out, if it is there, before anybody has asked by alias.
    pub(super) fn remove(&mut self, name: &str) {
        let part = &mut self.parts[part_of(name)];
        if part.contains_key(name) {
            Arc::make_mut(part).remove(name);
        }
    }

    /// The same content, sharing what it can with `previous`.
    pub(super) fn sharing(next: Arc<Self>, previous: &Arc<Self>) -> Arc<Self> {
        if next == *previous {
            return previous.clone();
        }
        let shared = |(next, previous): (&Arc<Part>, &Arc<Part>)| {
            if next == previous {
                return previous.clone();
            }
            let shared = |(name, resource): (&Arc<str>, &Arc<Resource>)| {
                let kept = previous.get_key_value(name).filter(|(_, before)| *before == resource);
                let (name, resource) = kept.unwrap_or((name, resource));
                (name.clone(), resource.clone())
            };
            Arc::new(next.iter().map(shared).collect())
        };
        let parts = next.parts.iter().zip(&previous.parts).map(shared).collect();
        Arc::new(Self { parts, by_alias: OnceLock::new() })
    }

    fn aliases(&self) -> &BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        self.by_alias.get_or_init(|| {
            let mut by_alias: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
            for resource in self.iter() {
                for alias in resource.aliases() {
                    by_alias.entry(alias.clone()).or_default().insert(resource.name().clone());
                }
            }
            by_alias
        })
    }
}

/// The same for a name in every generation: a fresh `DefaultHasher` has fixed keys.
fn part_of(name: &str) -> usize {
    let mut hasher = DefaultHasher::new();
    hasher.write(name.as_bytes());
    // The remainder is below PARTS, so it fits.
    (hasher.finish() % PARTS as u64) as usize
}

/// Walks the same part of two generations side by side in the order of names.
struct Differences<O: Iterator, N: Iterator> {
    older: Peekable<O>,
    newer: Peekable<N>,
}

impl<'a, O, N> Iterator for Differences<O, N>
where
    O: Iterator<Item = &'a Arc<Resource>>,
    N: Iterator<Item = &'a Arc<Resource>>,
{
    type Item = Difference<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let order = match (self.older.peek(), self.newer.peek()) {
                (None, None) => return None,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(older), Some(newer)) => older.name().cmp(newer.name()),
            };
            match order {
                Ordering::Less => return self.older.next().map(Difference::Removed),
                Ordering::Greater => return self.newer.next().map(Difference::Added),
                Ordering::Equal => {}
            }
            let (from, to) = (self.older.next()?, self.newer.next()?);
            let is_same = || from.version() == to.version() && from.audience() == to.audience();
            if !Arc::ptr_eq(from, to) && !is_same() {
                return Some(Difference::Changed { from, to });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::{Resources, Update};
    use crate::{ResourceType, samples};

    fn generation(uids: &[(&str, &str)]) -> Resources {
        let workload = |&(uid, node): &(&str, &str)| Resource::workload(&samples::workload_on(uid, node));
        uids.iter().map(workload).collect()
    }

    fn names(differences: Vec<Difference<'_>>) -> Vec<String> {
        let name = |difference| match difference {
            Difference::Added(resource) => format!("+{}", resource.name()),
            Difference::Changed { to, .. } => format!("~{}", to.name()),
            Difference::Removed(resource) => format!("-{}", resource.name()),
        };
        let mut names: Vec<_> = differences.into_iter().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn differences_are_what_was_added_changed_and_removed() {
        let older = generation(&[("a", "n1"), ("b", "n1"), ("d", "n1")]);
        let newer = generation(&[("b", "n2"), ("c", "n1"), ("d", "n1"), ("e", "n1")]);
        let kind = ResourceType::Address;
        let differences = older.of_type(kind).differences(newer.of_type(kind)).collect();
        assert_eq!(names(differences), ["+c", "+e", "-a", "~b"]);
    }

    #[test]
    fn what_has_not_changed_is_shared_with_the_generation_before() {
        let kind = ResourceType::Address;
        let older = generation(&[("a", "n1"), ("b", "n1")]);
        let same = generation(&[("a", "n1"), ("b", "n1")]).sharing_with(&older);
        assert!(Arc::ptr_eq(same.of_type(kind), older.of_type(kind)));
        let newer = generation(&[("a", "n1"), ("b", "n2")]).sharing_with(&older);
        let (before, after) = (older.of_type(kind), newer.of_type(kind));
        assert!(Arc::ptr_eq(before.get("a").unwrap(), after.get("a").unwrap()));
        assert!(!Arc::ptr_eq(before.get("b").unwrap(), after.get("b").unwrap()));
    }

    #[test]
    fn a_change_leaves_everything_else_shared() {
        let kind = ResourceType::Address;
        let uids: Vec<_> = (0..2_000).map(|index| format!("w{index}")).collect();
        let older = generation(&uids.iter().map(|uid| (uid.as_str(), "n1")).collect::<Vec<_>>());
        let moved = Resource::workload(&samples::workload_on("w7", "n2"));
        let same = Resource::workload(&samples::workload_on("w8", "n1"));
        let newer = older.with([Update::Put(moved), Update::Put(same), Update::Remove(kind, "w9".into())]);
        let (before, after) = (older.of_type(kind), newer.of_type(kind));
        let differing = before.parts.iter().zip(&after.parts).filter(|(a, b)| !Arc::ptr_eq(a, b)).count();
        assert!((1..=2).contains(&differing), "{differing} parts differ");
        assert_eq!(names(before.differences(after).collect()), ["-w9", "~w7"]);
        assert_eq!((before.len(), after.len()), (2_000, 1_999), "the older one is as it was");
        assert_eq!(older.with([]), older);
    }

    #[test]
    fn a_workload_is_found_by_name_and_by_address() {
        let resources = generation(&[("a", "n1")]);
        let collection = resources.of_type(ResourceType::Address);
        let alias = collection.get("a").unwrap().aliases()[0].clone();
        assert_eq!(collection.named_or_aliased(&alias).count(), 1);
        assert_eq!(collection.named_or_aliased("a").count(), 1);
        assert_eq!(collection.named_or_aliased("b").count(), 0);
    }
}
