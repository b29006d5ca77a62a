//! Whether a connection to a workload is allowed, and by which policy.
//!
//! Where the connection goes is decided before, in `decide`; this module takes its destination as
//! given.

mod probe;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::matching::{Facts, matching_rule};
use super::{Action, AuthorizationPolicy, Connection, PoliciesFor, PolicyName};
use crate::address::canonical_socket;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

pub use probe::{NodeSocket, Probe, may_be_probe, probe};

/// How many policies an error names: a denial must stay cheap when a workload has thousands.
const NAMED_AT_MOST: usize = 8;

/// Leave to connect one peer to one address of a workload. Only [`authorize`] and [`probe()`] make
/// one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permit {
    source_ip: IpAddr,
    destination: SocketAddr,
    allowed_by: AllowedBy,
    dry_run: Vec<DryRunVerdict>,
}

impl Permit {
    /// Where the connection may go.
    pub fn destination(&self) -> SocketAddr {
        self.destination
    }

    /// The address that the connection came from.
    pub fn source_ip(&self) -> IpAddr {
        self.source_ip
    }

    /// What allowed it.
    pub fn allowed_by(&self) -> &AllowedBy {
        &self.allowed_by
    }

    /// What the policies on trial would have said, to be logged.
    pub fn dry_run(&self) -> &[DryRunVerdict] {
        &self.dry_run
    }
}

/// What allowed a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedBy {
    /// The workload has no ALLOW policy.
    NoAllowPolicy,
    /// A rule of an ALLOW policy.
    Rule {
        /// The policy.
        policy: PolicyName,
        /// The rule's position, from 0.
        rule: usize,
    },
    /// No policy: it is a probe of the node's kubelet.
    KubeletProbe,
}

impl fmt::Display for AllowedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAllowPolicy => f.write_str("no ALLOW policy applies"),
            Self::Rule { policy, rule } => write!(f, "rule {rule} of ALLOW policy {policy}"),
            Self::KubeletProbe => f.write_str("the node's kubelet probes this port"),
        }
    }
}

/// What a policy on trial would have said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRunVerdict {
    /// The policy.
    pub policy: PolicyName,
    /// What a match of it would mean.
    pub action: Action,
    /// The position of the rule that matched, from 0; `None` when none did.
    pub rule: Option<usize>,
}

/// What one policy says of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consulted {
    /// The policy.
    pub policy: PolicyName,
    /// What a match of it means.
    pub action: Action,
    /// Whether it is on trial.
    pub dry_run: bool,
    /// The position of the rule that matched, from 0; `None` when none did.
    pub rule: Option<usize>,
}

/// Why a connection is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// A DENY rule matched.
    #[error("denied by rule {rule} (counted from 0) of AuthorizationPolicy {policy}")]
    ByRule {
        /// The policy.
        policy: PolicyName,
        /// The rule's position, from 0.
        rule: usize,
    },
    /// ALLOW policies apply and none of them matched.
    #[error(
        "none of the {total} ALLOW policies of the workload matched ({}): add a rule for this peer and port",
        Listed { policies, total: *total }
    )]
    NoneAllowed {
        /// The first of them.
        policies: Vec<PolicyName>,
        /// How many there are.
        total: usize,
    },
    /// The workload names a policy that is not known here, which may be a DENY.
    #[error(
        "AuthorizationPolicy {policy} applies to the workload and was not received: \
         check that control serves it and that this proxy did not reject it"
    )]
    PolicyMissing {
        /// The policy.
        policy: PolicyName,
    },
    /// The workload takes nothing that did not pass its waypoint's policies.
    #[error(
        "it did not come through the workload's waypoint, which label ambit.dev/require-waypoint asks for: call a \
         Service of it that has a waypoint, or take the label away"
    )]
    AroundWaypoint,
}

/// Decides whether `connection` may reach `destination`.
///
/// The policies that count are the mesh-wide ones, those of the workload's namespace and those the
/// workload names. Policies on trial never decide; the permit reports them.
///
/// # Errors
/// When the connection is denied, with the policy that did it.
pub fn authorize(
    snapshot: &Snapshot,
    destination: &Workload,
    connection: &Connection,
) -> Result<Permit, Denied> {
    if destination.requires_waypoint && !connection.through_waypoint {
        return Err(Denied::AroundWaypoint);
    }
    let policies = snapshot.policies_for(destination);
    let facts = Facts::of(connection);

    // Istio AuthorizationPolicy: "If there are any DENY policies that match the request, deny the
    // request."
    if let Some((policy, rule)) = policies.first_deny(&facts) {
        return Err(Denied::ByRule { policy: policy.clone(), rule });
    }
    // Unlike Istio, where a policy that is named and unknown is skipped: it may be a DENY.
    if let Some(policy) = policies.missing() {
        return Err(Denied::PolicyMissing { policy: policy.clone() });
    }
    Ok(Permit {
        source_ip: connection.source_ip.to_canonical(),
        destination: canonical_socket(connection.destination),
        allowed_by: allowed_by(&policies, &facts)?,
        dry_run: verdicts(&policies, &facts),
    })
}

/// What the policies on trial would have said of `connection`: for connections that were denied,
/// since a [`Permit`] brings them along.
pub fn dry_run(snapshot: &Snapshot, destination: &Workload, connection: &Connection) -> Vec<DryRunVerdict> {
    verdicts(&snapshot.policies_for(destination), &Facts::of(connection))
}

/// What every policy that applies to `destination` says of `connection`, whether it decides or not: for
/// explanations. In the order in which [`authorize`] asks; those on trial come last.
pub fn consulted(snapshot: &Snapshot, destination: &Workload, connection: &Connection) -> Vec<Consulted> {
    let policies = snapshot.policies_for(destination);
    let facts = Facts::of(connection);
    let says = |policy: &Arc<AuthorizationPolicy>| Consulted {
        policy: policy.name.clone(),
        action: policy.action,
        dry_run: policy.dry_run,
        rule: matching_rule(policy, &facts),
    };
    policies.deny().chain(policies.allow()).chain(policies.dry_run()).map(says).collect()
}

fn allowed_by(policies: &PoliciesFor<'_>, facts: &Facts<'_>) -> Result<AllowedBy, Denied> {
    // Istio AuthorizationPolicy: "If there are no ALLOW policies for the workload, allow the
    // request."
    let total = policies.allow_count();
    if total == 0 {
        return Ok(AllowedBy::NoAllowPolicy);
    }
    // "If any of the ALLOW policies match the request, allow the request."
    if let Some((policy, rule)) = policies.first_allow(facts) {
        return Ok(AllowedBy::Rule { policy: policy.clone(), rule });
    }
    // "Deny the request."
    let policies_named = policies.allow().take(NAMED_AT_MOST).map(|policy| policy.name.clone()).collect();
    Err(Denied::NoneAllowed { policies: policies_named, total })
}

fn verdicts(policies: &PoliciesFor<'_>, facts: &Facts<'_>) -> Vec<DryRunVerdict> {
    let verdict = |policy: &Arc<AuthorizationPolicy>| DryRunVerdict {
        policy: policy.name.clone(),
        action: policy.action,
        rule: matching_rule(policy, facts),
    };
    policies.dry_run().map(verdict).collect()
}

/// The policies an error names, and how many it leaves out.
struct Listed<'a> {
    policies: &'a [PolicyName],
    total: usize,
}

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, policy) in self.policies.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{policy}")?;
        }
        match self.total.saturating_sub(self.policies.len()) {
            0 => Ok(()),
            left_out => write!(f, " and {left_out} more"),
        }
    }
}

#[cfg(test)]
mod tests;
