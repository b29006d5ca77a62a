//! AuthorizationPolicy as users write it -> as layer 4 can enforce it.
//!
//! Where a rule asks for more than layer 4 can know, an ALLOW rule never matches and a DENY rule
//! matches on what is left of it, on everything if nothing is left (DESIGN 6.1). Istio publishes what
//! is left as an empty match there, which never matches and so fails open.

use ambit_mesh::policy::{self as l4, PolicyName, PolicyScope};

use super::view::{Named, View};
use super::{Notes, ROOT_NAMESPACES, Reason, Settings, is_root, policy_name};
use crate::objects::AuthorizationPolicy;
use crate::objects::authorization_policy::Action;
use crate::objects::meta::StringMap;

mod rule;

pub(super) use rule::Values;

/// The annotation by which a policy is evaluated and logged, and not enforced.
pub(super) const DRY_RUN_ANNOTATION: &str = "istio.io/dry-run";

/// Translates a policy; `None` where it is not for layer 4.
pub(super) fn translate(
    policy: &Named<'_, AuthorizationPolicy>,
    settings: &Settings,
    notes: &mut Notes,
) -> Option<l4::AuthorizationPolicy> {
    let enforcement = match enforcement(policy.object) {
        Ok(enforcement) => enforcement,
        Err(elsewhere) => {
            // What is for a waypoint is reported by its own translation.
            if let Some(message) = elsewhere.message() {
                notes.add(policy.key, Reason::NoEffect, message);
            }
            return None;
        }
    };
    note_action(policy, notes);
    let is_dry_run = policy.object.metadata.annotation(DRY_RUN_ANNOTATION) == Some("true");
    Some(l4::AuthorizationPolicy {
        name: policy_name(policy.namespace(), policy.name()),
        scope: scope(policy),
        action: enforcement.action(),
        rules: rules(policy, enforcement, settings, notes),
        dry_run: is_dry_run && policy.object.spec.action != Action::Custom,
    })
}

/// The names of the policies that select a workload by its labels. Those of a root namespace select
/// in every namespace.
pub(super) fn selecting(view: &View<'_>, namespace: &str, labels: &StringMap) -> Vec<PolicyName> {
    let elsewhere = ROOT_NAMESPACES.into_iter().filter(|root| *root != namespace);
    let namespaces = elsewhere.chain([namespace]);
    namespaces
        .filter_map(|namespace| view.authorization_policies.get(namespace))
        .flatten()
        .filter(|policy| scope(policy) == PolicyScope::WorkloadSelector)
        .filter(|policy| policy.object.spec.selector.matches(labels) && enforcement(policy.object).is_ok())
        .map(|policy| policy_name(policy.namespace(), policy.name()))
        .collect()
}

/// How a policy is enforced at layer 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Enforcement {
    /// Allows what every condition of a rule is known to match.
    AllowAtMost,
    /// Denies what no condition of a rule is known to miss.
    DenyAtLeast,
}

/// Why a policy is not enforced at layer 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Elsewhere {
    /// It is attached to a Gateway or Service.
    Waypoint,
    /// It only asks for a record.
    Audit,
}

impl Enforcement {
    fn action(self) -> l4::Action {
        match self {
            Self::AllowAtMost => l4::Action::Allow,
            Self::DenyAtLeast => l4::Action::Deny,
        }
    }
}

impl Elsewhere {
    fn message(self) -> Option<&'static str> {
        match self {
            Self::Waypoint => None,
            Self::Audit => Some("action AUDIT decides nothing and is not supported at layer 4"),
        }
    }
}

fn enforcement(policy: &AuthorizationPolicy) -> Result<Enforcement, Elsewhere> {
    if !policy.spec.target_refs.is_empty() {
        return Err(Elsewhere::Waypoint);
    }
    match policy.spec.action {
        Action::Allow => Ok(Enforcement::AllowAtMost),
        // What an external authorizer would say cannot be known here: what it would be asked about
        // is denied.
        Action::Deny | Action::Custom => Ok(Enforcement::DenyAtLeast),
        Action::Audit => Err(Elsewhere::Audit),
    }
}

fn note_action(policy: &Named<'_, AuthorizationPolicy>, notes: &mut Notes) {
    let spec = &policy.object.spec;
    if spec.action == Action::Custom {
        let message = "no external authorizer can be asked at layer 4: what the rules match is denied";
        notes.add(policy.key, Reason::EnforcedStricter, message);
    }
    if spec.action != Action::Allow && spec.rules.is_empty() {
        let message = "without `rules` the policy never matches: add an empty rule `{}` to match everything";
        notes.add(policy.key, Reason::NoEffect, message);
    }
}

fn scope(policy: &Named<'_, AuthorizationPolicy>) -> PolicyScope {
    if !policy.object.spec.selector.is_empty() {
        PolicyScope::WorkloadSelector
    } else if is_root(policy.namespace()) {
        PolicyScope::Global
    } else {
        PolicyScope::Namespace
    }
}

fn rules(
    policy: &Named<'_, AuthorizationPolicy>,
    enforcement: Enforcement,
    settings: &Settings,
    notes: &mut Notes,
) -> Vec<l4::Rule> {
    let values = Values { namespace: policy.namespace(), trust_domain: &settings.trust_domain };
    let mut rules = Vec::new();
    for (index, rule) in policy.object.spec.rules.iter().enumerate() {
        let unknowable = rule::beyond_layer_4(rule);
        let clauses = values.clauses(rule);
        if !unknowable.is_empty() {
            let effect = match enforcement {
                Enforcement::AllowAtMost => "it never matches",
                Enforcement::DenyAtLeast if clauses.is_empty() => "it denies everything",
                Enforcement::DenyAtLeast => "it denies whatever its other conditions match",
            };
            let fields = unknowable.join(", ");
            let message = format!("rules[{index}] uses {fields}, which layer 4 cannot evaluate: {effect}");
            notes.add(policy.key, Reason::EnforcedStricter, message);
        }
        if unknowable.is_empty() || enforcement == Enforcement::DenyAtLeast {
            rules.push(l4::Rule { clauses });
        }
    }
    rules
}
