//! One node of the index: rules sorted by their keys.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, DefaultHasher};

use super::Ordinal;
use super::key::{Block, Filing, Key, Kind, Text, all_keys, filing};
use super::nested::Nested;
use crate::policy::matching::Facts;
use crate::policy::{Action, Rule};

/// So many rules are asked one after the other: looking further is no faster.
pub(super) const FEW: usize = 8;

/// A rule that is to be filed.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) ordinal: Ordinal,
    pub(super) rule: &'a Rule,
    pub(super) action: Action,
}

/// Rules by what they ask for.
#[derive(Default)]
pub(super) struct Node {
    principals: Texts,
    namespaces: Texts,
    /// By `<namespace>/sa/<service account>`, which is the end of a principal.
    accounts: Exact<Box<str>>,
    sources: Nested<Block, Bucket>,
    ports: Exact<u16>,
    destinations: Nested<Block, Bucket>,
    /// Rules that ask for nothing that can be looked up, in ascending order.
    rest: Vec<Ordinal>,
}

/// Rules of one key.
enum Bucket {
    /// In ascending order.
    Few(Vec<Ordinal>),
    /// By what else they ask for.
    Many(Box<Node>),
}

/// Never walked, so that no order comes of it.
type Exact<K> = HashMap<K, Bucket, BuildHasherDefault<DefaultHasher>>;

#[derive(Default)]
struct Texts {
    exact: Exact<Box<str>>,
    prefixes: Nested<Vec<u8>, Bucket>,
    /// The texts from their ends to their beginnings.
    suffixes: Nested<Vec<u8>, Bucket>,
    presence: Option<Bucket>,
}

impl Node {
    /// Files rules, which are in ascending order.
    pub(super) fn of(entries: &[Entry<'_>]) -> Self {
        Self::by(entries, &Kind::ALL)
    }

    fn by(entries: &[Entry<'_>], kinds: &[Kind]) -> Self {
        let mut counts: BTreeMap<Key<'_>, usize> = BTreeMap::new();
        for key in entries.iter().flat_map(|entry| all_keys(entry.rule, kinds)) {
            *counts.entry(key).or_default() += 1;
        }
        let mut node = Self::default();
        let mut by_key: BTreeMap<Key<'_>, Vec<Entry<'_>>> = BTreeMap::new();
        for entry in entries {
            match filing(entry.rule, entry.action, kinds, |key| counts.get(key).copied().unwrap_or(0)) {
                Filing::Never => {}
                Filing::Anywhere => node.rest.push(entry.ordinal),
                Filing::Under(keys) => {
                    for key in keys {
                        let under = by_key.entry(key).or_default();
                        // Two matches of a clause can ask for the same.
                        if under.last().is_none_or(|last| last.ordinal != entry.ordinal) {
                            under.push(*entry);
                        }
                    }
                }
            }
        }
        // In the order of keys, as nested lists need them.
        let mut suffixes = Vec::new();
        for (key, entries) in by_key {
            let bucket = Bucket::of(&entries, kinds, key.kind());
            node.file(key, bucket, &mut suffixes);
        }
        node.file_suffixes(suffixes);
        node
    }

    fn file<'a>(&mut self, key: Key<'a>, bucket: Bucket, suffixes: &mut Vec<(Key<'a>, Vec<u8>, Bucket)>) {
        match key {
            Key::Principal(text) | Key::Namespace(text) => {
                let texts = self.texts_mut(&key);
                match text {
                    Text::Exact(whole) => drop(texts.exact.insert(whole.into(), bucket)),
                    Text::Prefix(prefix) => texts.prefixes.push(prefix.into(), bucket, begins),
                    Text::Suffix(suffix) => suffixes.push((key, reversed(suffix), bucket)),
                    Text::Presence => texts.presence = Some(bucket),
                }
            }
            Key::Account(namespace, account) => {
                self.accounts.insert(format!("{namespace}/sa/{account}").into(), bucket);
            }
            Key::Source(block) => self.sources.push(block, bucket, Block::covers),
            Key::Port(port) => drop(self.ports.insert(port, bucket)),
            Key::Destination(block) => self.destinations.push(block, bucket, Block::covers),
        }
    }

    /// Suffixes lie in each other in the order of their reversed texts.
    fn file_suffixes(&mut self, mut suffixes: Vec<(Key<'_>, Vec<u8>, Bucket)>) {
        suffixes.sort_by(|(_, a, _), (_, b, _)| a.cmp(b));
        for (key, text, bucket) in suffixes {
            self.texts_mut(&key).suffixes.push(text, bucket, begins);
        }
    }

    fn texts_mut(&mut self, key: &Key<'_>) -> &mut Texts {
        match key.kind() {
            Kind::Namespace => &mut self.namespaces,
            Kind::Principal | Kind::Account | Kind::Source | Kind::Port | Kind::Destination => {
                &mut self.principals
            }
        }
    }

    /// Shows every list of rules that may hold one that matches.
    pub(super) fn visit(&self, facts: &Facts<'_>, see: &mut dyn FnMut(&[Ordinal])) {
        see(&self.rest);
        if let (Some(principal), Some(identity)) = (facts.principal(), facts.identity()) {
            self.principals.visit(principal, facts, see);
            self.namespaces.visit(identity.namespace(), facts, see);
            let account = principal.get(identity.trust_domain().as_str().len() + "/ns/".len()..);
            visit(account.and_then(|account| self.accounts.get(account)), facts, see);
        }
        visit(self.sources.around(&Block::at(facts.source_ip()), Block::covers), facts, see);
        visit(self.ports.get(&facts.destination().port()), facts, see);
        visit(self.destinations.around(&Block::at(facts.destination().ip()), Block::covers), facts, see);
    }

    /// Whether it tells no rules apart.
    fn is_flat(&self) -> bool {
        self.principals.is_empty()
            && self.namespaces.is_empty()
            && self.accounts.is_empty()
            && self.sources.is_empty()
            && self.ports.is_empty()
            && self.destinations.is_empty()
    }
}

impl Bucket {
    /// The rules under a key of kind `used`, by kinds that tell them further apart.
    fn of(entries: &[Entry<'_>], kinds: &[Kind], used: Kind) -> Self {
        if entries.len() > FEW {
            let left: Vec<_> = kinds.iter().copied().filter(|kind| *kind != used).collect();
            let node = Node::by(entries, &left);
            if !node.is_flat() {
                return Self::Many(Box::new(node));
            }
        }
        Self::Few(entries.iter().map(|entry| entry.ordinal).collect())
    }
}

impl Texts {
    fn visit(&self, text: &str, facts: &Facts<'_>, see: &mut dyn FnMut(&[Ordinal])) {
        visit(self.exact.get(text), facts, see);
        visit(self.presence.as_ref().filter(|_| !text.is_empty()), facts, see);
        if !self.prefixes.is_empty() {
            visit(self.prefixes.around(text.as_bytes(), begins), facts, see);
        }
        if !self.suffixes.is_empty() {
            visit(self.suffixes.around(reversed(text).as_slice(), begins), facts, see);
        }
    }

    fn is_empty(&self) -> bool {
        let nested = self.prefixes.is_empty() && self.suffixes.is_empty();
        nested && self.exact.is_empty() && self.presence.is_none()
    }
}

fn visit<'a>(
    buckets: impl IntoIterator<Item = &'a Bucket>,
    facts: &Facts<'_>,
    see: &mut dyn FnMut(&[Ordinal]),
) {
    for bucket in buckets {
        match bucket {
            Bucket::Few(ordinals) => see(ordinals),
            Bucket::Many(node) => node.visit(facts, see),
        }
    }
}

/// Whether `longer` begins with `shorter`.
fn begins(shorter: &[u8], longer: &[u8]) -> bool {
    longer.starts_with(shorter)
}

fn reversed(text: &str) -> Vec<u8> {
    text.bytes().rev().collect()
}
