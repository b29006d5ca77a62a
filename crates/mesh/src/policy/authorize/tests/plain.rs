//! Authorization as it is defined: every policy is asked, one after the other.

use std::sync::Arc;

use crate::policy::authorize::NAMED_AT_MOST;
use crate::policy::matching::{Facts, matching_rule};
use crate::policy::{
    Action, AllowedBy, AuthorizationPolicy, Connection, Denied, DryRunVerdict, PolicyName, PolicyScope,
};
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// What [`super::super::authorize`] answers, without the addresses: what allowed the connection and
/// what the policies on trial say, or why it is denied.
pub(super) fn authorize(
    snapshot: &Snapshot,
    destination: &Workload,
    connection: &Connection,
) -> Result<(AllowedBy, Vec<DryRunVerdict>), Denied> {
    if destination.requires_waypoint && !connection.through_waypoint {
        return Err(Denied::AroundWaypoint);
    }
    let facts = Facts::of(connection);
    let policies = applicable(snapshot, destination);
    let of = |action| {
        let mut of = policies.clone();
        of.retain(|policy| !policy.dry_run && policy.action == action);
        of
    };
    let first_match = |policies: &[Arc<AuthorizationPolicy>]| -> Option<(PolicyName, usize)> {
        policies.iter().find_map(|policy| Some((policy.name.clone(), matching_rule(policy, &facts)?)))
    };
    if let Some((policy, rule)) = first_match(&of(Action::Deny)) {
        return Err(Denied::ByRule { policy, rule });
    }
    let unknown = |name: &&PolicyName| snapshot.policy(name).is_none();
    if let Some(policy) = destination.authorization_policies.iter().find(unknown) {
        return Err(Denied::PolicyMissing { policy: policy.clone() });
    }
    let allow = of(Action::Allow);
    let allowed_by = match first_match(&allow) {
        _ if allow.is_empty() => AllowedBy::NoAllowPolicy,
        Some((policy, rule)) => AllowedBy::Rule { policy, rule },
        None => {
            let policies = allow.iter().take(NAMED_AT_MOST).map(|policy| policy.name.clone()).collect();
            return Err(Denied::NoneAllowed { policies, total: allow.len() });
        }
    };
    let verdict = |policy: &Arc<AuthorizationPolicy>| DryRunVerdict {
        policy: policy.name.clone(),
        action: policy.action,
        rule: matching_rule(policy, &facts),
    };
    Ok((allowed_by, policies.iter().filter(|policy| policy.dry_run).map(verdict).collect()))
}

/// Mesh-wide policies and those of the namespace, by name; then those that the workload names and
/// that are not among them, in the order in which it names them.
fn applicable(snapshot: &Snapshot, destination: &Workload) -> Vec<Arc<AuthorizationPolicy>> {
    let is_global = |policy: &AuthorizationPolicy| policy.scope == PolicyScope::Global;
    let is_in_namespace = |policy: &AuthorizationPolicy| {
        policy.scope == PolicyScope::Namespace && policy.name.namespace == destination.namespace
    };
    let named = destination.authorization_policies.iter().filter_map(|name| snapshot.policy(name));
    let mesh = snapshot.policies().filter(|policy| is_global(policy));
    let namespace = snapshot.policies().filter(|policy| is_in_namespace(policy));
    let rest = named.filter(|policy| !is_global(policy) && !is_in_namespace(policy));
    mesh.chain(namespace).chain(rest).cloned().collect()
}
