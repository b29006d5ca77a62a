//! Layer-4 authorization: Istio's AuthorizationPolicy as `istio.security.Authorization` carries it.
//!
//! This module owns the data and its meaning for a connection. What a rule means at layer 7 is not
//! known here: `control` translates it away first.

mod authorize;
mod index;
mod matching;
mod names;
mod set;

use std::fmt;
use std::sync::Arc;

use ipnet::IpNet;

pub use authorize::{
    AllowedBy, Consulted, Denied, DryRunVerdict, NodeSocket, Permit, Probe, authorize, consulted, dry_run,
    may_be_probe, probe,
};
pub(crate) use matching::contains;
pub use matching::{Connection, Peer};
pub use names::PolicyNames;
pub use set::PoliciesFor;
pub(crate) use set::PolicySet;

/// `<namespace>/<name>` of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyName {
    /// The namespace it was written in.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizationPolicy {
    /// Its name.
    pub name: PolicyName,
    /// Which workloads it applies to.
    pub scope: PolicyScope,
    /// What a match means.
    pub action: Action,
    /// A policy without rules never matches. Any rule may match.
    pub rules: Vec<Rule>,
    /// Evaluated and logged, never enforced.
    pub dry_run: bool,
}

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyScope {
    /// Every workload of the mesh.
    Global,
    /// Every workload of the policy's namespace.
    Namespace,
    /// Workloads that name it.
    WorkloadSelector,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Allow, if no DENY matches.
    Allow,
    /// Deny.
    Deny,
}

/// Matches when every clause does; without clauses it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// All of them must match.
    pub clauses: Vec<Clause>,
}

/// Matches when any of its matches does; without matches it is true. What a match without
/// conditions means depends on the action: see [`Match`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause {
    /// Any of them may match.
    pub any_of: Vec<Match>,
}

/// One group of conditions. Kinds are joined by AND, the values of one kind by OR; no value of a
/// `not_` kind may match.
///
/// A match with no conditions at all stands for conditions that layer 4 cannot check. In an ALLOW
/// policy it never matches and in a DENY policy it always does: both are the closed side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// Namespaces of the peer.
    pub namespaces: Vec<StringMatch>,
    /// Namespaces the peer must not be in.
    pub not_namespaces: Vec<StringMatch>,
    /// Principals of the peer, without `spiffe://`.
    pub principals: Vec<StringMatch>,
    /// Principals the peer must not have.
    pub not_principals: Vec<StringMatch>,
    /// ServiceAccounts of the peer.
    pub service_accounts: Vec<ServiceAccountMatch>,
    /// ServiceAccounts the peer must not have.
    pub not_service_accounts: Vec<ServiceAccountMatch>,
    /// Addresses of the peer.
    pub source_ips: Vec<IpNet>,
    /// Addresses the peer must not have.
    pub not_source_ips: Vec<IpNet>,
    /// Destination addresses.
    pub destination_ips: Vec<IpNet>,
    /// Destination addresses that must not match.
    pub not_destination_ips: Vec<IpNet>,
    /// Destination ports.
    pub destination_ports: Vec<u16>,
    /// Destination ports that must not match.
    pub not_destination_ports: Vec<u16>,
}

/// A comparison of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StringMatch {
    /// The whole text.
    Exact(Arc<str>),
    /// Its beginning.
    Prefix(Arc<str>),
    /// Its end.
    Suffix(Arc<str>),
    /// Any text but the empty one.
    Presence,
}

/// A ServiceAccount in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountMatch {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The ServiceAccount.
    pub service_account: Arc<str>,
}

impl AuthorizationPolicy {
    /// Whether what it says depends on who the peer is, and not only on whether it has proved to be anybody.
    pub fn names_clients(&self) -> bool {
        let clauses = self.rules.iter().flat_map(|rule| &rule.clauses);
        clauses.flat_map(|clause| &clause.any_of).any(Match::names_clients)
    }
}

impl Match {
    fn names_clients(&self) -> bool {
        let texts = [&self.namespaces, &self.not_namespaces, &self.principals, &self.not_principals];
        texts.into_iter().flatten().any(|text| *text != StringMatch::Presence)
            || !self.service_accounts.is_empty()
            || !self.not_service_accounts.is_empty()
    }

    /// Whether no condition is given.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }
}
