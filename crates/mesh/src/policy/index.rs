//! Which of many rules can match a connection at all.
//!
//! A tree: each node sorts its rules by the values of one kind of condition (principals, address
//! blocks, ports), for each rule by the kind whose values are rarest among them, and a value that
//! many rules share leads to a node that sorts them by another kind. A rule is filed under every
//! value of the chosen condition, so that a connection finds each rule that could match it under
//! one of its own values. What it finds is then asked in full: the index leaves out, it never
//! decides.
//!
//! Rules with negative conditions alone have nothing to be filed under and are asked each time.

mod key;
mod nested;
mod node;

use std::sync::Arc;

use self::node::{Entry, FEW, Node};
use super::AuthorizationPolicy;
use super::matching::{Facts, rule_matches};

/// An index over the rules of a list of policies.
pub(super) struct Index {
    /// Where each rule is: the position of its policy and its own in there.
    rules: Vec<(usize, usize)>,
    root: Node,
}

/// The position of a rule among the rules of all policies of a list.
type Ordinal = u32;

impl Index {
    /// An index, if there are so many rules that it is worth one.
    pub(super) fn of(policies: &[Arc<AuthorizationPolicy>]) -> Option<Self> {
        let mut rules = Vec::new();
        let mut entries = Vec::new();
        for (position, policy) in policies.iter().enumerate() {
            for (rule_position, rule) in policy.rules.iter().enumerate() {
                let ordinal = Ordinal::try_from(rules.len()).ok()?;
                rules.push((position, rule_position));
                entries.push(Entry { ordinal, rule, action: policy.action });
            }
        }
        (entries.len() > FEW).then(|| Self { root: Node::of(&entries), rules })
    }

    /// The first rule that matches: the position of its policy, and its own in there. `policies` is
    /// what the index was made of.
    pub(super) fn first_match(
        &self,
        policies: &[Arc<AuthorizationPolicy>],
        facts: &Facts<'_>,
    ) -> Option<(usize, usize)> {
        let matches = |&(policy, rule): &(usize, usize)| {
            let policy = &policies[policy];
            rule_matches(&policy.rules[rule], policy.action, facts)
        };
        let mut first = self.rules.len();
        self.root.visit(facts, &mut |ordinals| {
            // They are in ascending order, so that the rest of a list cannot come before `first`.
            let earlier = ordinals.iter().map(|&ordinal| ordinal as usize).take_while(|&at| at < first);
            if let Some(found) = earlier.into_iter().find(|&at| matches(&self.rules[at])) {
                first = found;
            }
        });
        self.rules.get(first).copied()
    }
}
