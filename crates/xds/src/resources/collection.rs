//! The resources of one type, by name, and the difference between two generations of them.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::{Arc, OnceLock};

use super::Resource;

/// Resources of one type, by name.
#[derive(Clone, Debug, Default)]
pub struct Collection {
    by_name: BTreeMap<Arc<str>, Arc<Resource>>,
    /// Alias to names; made when a client first asks by alias.
    by_alias: OnceLock<BTreeMap<Arc<str>, BTreeSet<Arc<str>>>>,
}

impl PartialEq for Collection {
    fn eq(&self, other: &Self) -> bool {
        self.by_name == other.by_name
    }
}

impl Eq for Collection {}

/// One resource that differs between two generations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference<'a> {
    /// Only in the newer one.
    Added(&'a Arc<Resource>),
    /// In both, with another version.
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
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The resource of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Resource>> {
        self.by_name.get(name)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Resource>> {
        self.by_name.values()
    }

    /// The resources that a client means by a name: the one of this name, or those with this alias.
    pub fn named_or_aliased<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Arc<Resource>> {
        let aliased =
            self.aliases().get(name).into_iter().flatten().filter_map(|name| self.by_name.get(name));
        self.by_name.get(name).into_iter().chain(aliased)
    }

    /// What has to change to make this generation the newer one.
    pub fn differences<'a>(&'a self, newer: &'a Self) -> impl Iterator<Item = Difference<'a>> {
        let same = std::ptr::eq(self, newer);
        let (older, newer) = (self.by_name.values(), newer.by_name.values());
        let take = if same { 0 } else { usize::MAX };
        Differences { older: older.take(take).peekable(), newer: newer.take(take).peekable() }
    }

    pub(super) fn insert(&mut self, resource: Arc<Resource>) {
        self.by_name.insert(resource.name().clone(), resource);
    }

    /// The same content, sharing what it can with `previous`.
    pub(super) fn sharing(next: Arc<Self>, previous: &Arc<Self>) -> Arc<Self> {
        if next == *previous {
            return previous.clone();
        }
        let shared = |(name, resource): (&Arc<str>, &Arc<Resource>)| {
            let kept = previous.by_name.get_key_value(name).filter(|(_, before)| *before == resource);
            let (name, resource) = kept.unwrap_or((name, resource));
            (name.clone(), resource.clone())
        };
        Arc::new(Self { by_name: next.by_name.iter().map(shared).collect(), by_alias: OnceLock::new() })
    }

    fn aliases(&self) -> &BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
        self.by_alias.get_or_init(|| {
            let mut by_alias: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
            for resource in self.by_name.values() {
                for alias in resource.aliases() {
                    by_alias.entry(alias.clone()).or_default().insert(resource.name().clone());
                }
            }
            by_alias
        })
    }
}

/// Walks two generations side by side in the order of names.
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
            if !Arc::ptr_eq(from, to) && from.version() != to.version() {
                return Some(Difference::Changed { from, to });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::Resources;
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
        differences.into_iter().map(name).collect()
    }

    #[test]
    fn differences_are_what_was_added_changed_and_removed() {
        let older = generation(&[("a", "n1"), ("b", "n1"), ("d", "n1")]);
        let newer = generation(&[("b", "n2"), ("c", "n1"), ("d", "n1"), ("e", "n1")]);
        let kind = ResourceType::Address;
        let differences = older.of_type(kind).differences(newer.of_type(kind)).collect();
        assert_eq!(names(differences), ["-a", "~b", "+c", "+e"]);
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
    fn a_workload_is_found_by_name_and_by_address() {
        let resources = generation(&[("a", "n1")]);
        let collection = resources.of_type(ResourceType::Address);
        let alias = collection.get("a").unwrap().aliases()[0].clone();
        assert_eq!(collection.named_or_aliased(&alias).count(), 1);
        assert_eq!(collection.named_or_aliased("a").count(), 1);
        assert_eq!(collection.named_or_aliased("b").count(), 0);
    }
}
