//! Policies that apply together, and which of them matches a connection first.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::index::Index;
use super::matching::{Facts, matching_rule};
use super::{Action, AuthorizationPolicy, PolicyName};

/// The policies of one scope, or those that a workload names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PolicySet {
    deny: Ranked,
    allow: Ranked,
    dry_run: Ranked,
    /// The first policy that is named and was never received.
    missing: Option<PolicyName>,
}

impl PolicySet {
    /// Policies in the order in which they were named.
    pub(crate) fn named<'a>(
        policies: impl IntoIterator<Item = Result<&'a Arc<AuthorizationPolicy>, &'a PolicyName>>,
    ) -> Self {
        let mut set = Self::default();
        for policy in policies {
            match policy {
                Ok(policy) => set.ranked_mut(policy).push(policy.clone()),
                Err(missing) => set.missing = set.missing.or_else(|| Some(missing.clone())),
            }
        }
        set
    }

    /// Puts a policy at its place in the order of names.
    pub(crate) fn put(&mut self, policy: Arc<AuthorizationPolicy>) {
        self.ranked_mut(&policy).put(policy);
    }

    /// Takes a policy away.
    pub(crate) fn remove(&mut self, policy: &AuthorizationPolicy) {
        self.ranked_mut(policy).remove(&policy.name);
    }

    /// Prepares for being asked: from here on the answer does not take longer for more policies.
    pub(crate) fn compile(&mut self) {
        self.deny.compile();
        self.allow.compile();
        // Of policies on trial every single one is reported, so there is nothing to skip.
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn ranked_mut(&mut self, policy: &AuthorizationPolicy) -> &mut Ranked {
        match (policy.dry_run, policy.action) {
            (true, Action::Deny | Action::Allow) => &mut self.dry_run,
            (false, Action::Deny) => &mut self.deny,
            (false, Action::Allow) => &mut self.allow,
        }
    }
}

/// Policies in the order in which they are asked.
#[derive(Clone, Default)]
pub(crate) struct Ranked {
    policies: Vec<Arc<AuthorizationPolicy>>,
    /// Absent where asking one after the other is as good. It follows from the policies.
    index: Option<Arc<Index>>,
    /// How many of them name clients. It follows from the policies, too.
    naming: usize,
}

impl Ranked {
    /// The first policy that matches, and the position of its rule.
    pub(super) fn first_match(&self, facts: &Facts<'_>) -> Option<(&PolicyName, usize)> {
        let Some(index) = &self.index else {
            let matching = |policy: &Arc<AuthorizationPolicy>| matching_rule(policy, facts);
            return self.policies.iter().find_map(|policy| Some((&policy.name, matching(policy)?)));
        };
        let (policy, rule) = index.first_match(&self.policies, facts)?;
        Some((&self.policies[policy].name, rule))
    }

    fn compile(&mut self) {
        if self.index.is_none() {
            self.index = Index::of(&self.policies).map(Arc::new);
        }
    }

    fn push(&mut self, policy: Arc<AuthorizationPolicy>) {
        self.naming += usize::from(policy.names_clients());
        self.policies.push(policy);
        self.index = None;
    }

    fn put(&mut self, policy: Arc<AuthorizationPolicy>) {
        self.remove(&policy.name);
        self.naming += usize::from(policy.names_clients());
        let at = self.policies.partition_point(|other| other.name < policy.name);
        self.policies.insert(at, policy);
        self.index = None;
    }

    fn remove(&mut self, name: &PolicyName) {
        if let Ok(at) = self.policies.binary_search_by(|other| other.name.cmp(name)) {
            let removed = self.policies.remove(at);
            self.naming -= usize::from(removed.names_clients());
            self.index = None;
        }
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.policies == other.policies
    }
}

impl Eq for Ranked {}

impl fmt::Debug for Ranked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policies.fmt(f)
    }
}

/// The policies that apply to one workload, by what a match of them means.
#[derive(Clone, Debug)]
pub struct PoliciesFor<'a> {
    pub(crate) mesh: &'a PolicySet,
    pub(crate) namespace: Option<&'a PolicySet>,
    pub(crate) named: Option<Cow<'a, PolicySet>>,
}

impl PoliciesFor<'_> {
    /// Enforced DENY policies.
    pub fn deny(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.sets().flat_map(|set| &set.deny.policies)
    }

    /// Enforced ALLOW policies.
    pub fn allow(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.sets().flat_map(|set| &set.allow.policies)
    }

    /// Policies of either action that are watched and not enforced.
    pub fn dry_run(&self) -> impl Iterator<Item = &Arc<AuthorizationPolicy>> {
        self.sets().flat_map(|set| &set.dry_run.policies)
    }

    /// How many enforced ALLOW policies there are.
    pub fn allow_count(&self) -> usize {
        self.sets().map(|set| set.allow.policies.len()).sum()
    }

    /// Whether any of them depends on who the peer is: whoever connects for somebody else has to say for whom.
    /// One that was never received may.
    pub fn name_clients(&self) -> bool {
        let naming = |set: &PolicySet| set.deny.naming + set.allow.naming + set.dry_run.naming;
        self.missing().is_some() || self.sets().any(|set| naming(set) > 0)
    }

    /// The first policy that the workload names and that was never received.
    pub fn missing(&self) -> Option<&PolicyName> {
        self.named.as_ref().and_then(|named| named.missing.as_ref())
    }

    pub(super) fn first_deny(&self, facts: &Facts<'_>) -> Option<(&PolicyName, usize)> {
        self.sets().find_map(|set| set.deny.first_match(facts))
    }

    pub(super) fn first_allow(&self, facts: &Facts<'_>) -> Option<(&PolicyName, usize)> {
        self.sets().find_map(|set| set.allow.first_match(facts))
    }

    /// In the order in which they are asked.
    fn sets(&self) -> impl Iterator<Item = &PolicySet> {
        [self.mesh].into_iter().chain(self.namespace).chain(self.named.as_deref())
    }
}
