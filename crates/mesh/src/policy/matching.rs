//! Whether a rule matches a connection.
//!
//! What a match leads to is `authorize`'s part.

use std::net::{IpAddr, SocketAddr};

use ipnet::{IpNet, Ipv4Net};

use super::{Action, AuthorizationPolicy, Clause, Match, Rule, ServiceAccountMatch, StringMatch};
use crate::address::canonical_socket;
use crate::identity::SpiffeId;

/// What a policy sees of a connection to one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who opened it.
    pub peer: Peer,
    /// The address it was opened from.
    pub source_ip: IpAddr,
    /// The workload's own address and the port that the application listens on.
    pub destination: SocketAddr,
    /// Whether it came from the waypoint that the workload, or a service of it, is bound to.
    pub through_waypoint: bool,
}

/// Who opened a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// The identity that a certificate proved.
    Verified(SpiffeId),
    /// Nobody: the connection came in plain text.
    Unauthenticated,
}

impl Peer {
    /// The proven identity, if there is one.
    pub fn identity(&self) -> Option<&SpiffeId> {
        match self {
            Self::Verified(identity) => Some(identity),
            Self::Unauthenticated => None,
        }
    }
}

/// A connection in the form in which conditions read it, made once for all policies.
pub(super) struct Facts<'a> {
    identity: Option<&'a SpiffeId>,
    principal: Option<String>,
    source_ip: IpAddr,
    destination: SocketAddr,
}

impl<'a> Facts<'a> {
    pub(super) fn of(connection: &'a Connection) -> Self {
        let identity = connection.peer.identity();
        Self {
            identity,
            principal: identity.map(SpiffeId::principal),
            source_ip: connection.source_ip.to_canonical(),
            destination: canonical_socket(connection.destination),
        }
    }

    pub(super) fn identity(&self) -> Option<&SpiffeId> {
        self.identity
    }

    pub(super) fn principal(&self) -> Option<&str> {
        self.principal.as_deref()
    }

    pub(super) fn source_ip(&self) -> IpAddr {
        self.source_ip
    }

    pub(super) fn destination(&self) -> SocketAddr {
        self.destination
    }
}

/// The position of the first rule of `policy` that matches.
///
/// Istio AuthorizationPolicy: "A match occurs when at least one rule matches the request", so a
/// policy without rules never matches.
pub(super) fn matching_rule(policy: &AuthorizationPolicy, facts: &Facts<'_>) -> Option<usize> {
    policy.rules.iter().position(|rule| rule_matches(rule, policy.action, facts))
}

/// Whether `rule` matches as one of a policy with this action.
pub(super) fn rule_matches(rule: &Rule, action: Action, facts: &Facts<'_>) -> bool {
    rule.clauses.iter().all(|clause| clause_matches(clause, action, facts))
}

fn clause_matches(clause: &Clause, action: Action, facts: &Facts<'_>) -> bool {
    let unconditional = clause.any_of.is_empty();
    unconditional || clause.any_of.iter().any(|group| group_matches(group, action, facts))
}

fn group_matches(group: &Match, action: Action, facts: &Facts<'_>) -> bool {
    if group.is_empty() {
        // A group loses all its conditions when they were for layer 7. Unknown is closed: such an
        // ALLOW cannot be granted, such a DENY cannot be ruled out.
        return match action {
            Action::Allow => false,
            Action::Deny => true,
        };
    }
    peer_matches(group, facts) && addresses_match(group, facts)
}

/// A connection without identity matches no positive condition on it, and so every negative one.
fn peer_matches(group: &Match, facts: &Facts<'_>) -> bool {
    let namespace = |want: &StringMatch| facts.identity.is_some_and(|id| want.matches(id.namespace()));
    let principal = |want: &StringMatch| facts.principal.as_deref().is_some_and(|text| want.matches(text));
    let account = |want: &ServiceAccountMatch| facts.identity.is_some_and(|id| want.matches(id));

    holds(&group.namespaces, &group.not_namespaces, namespace)
        && holds(&group.principals, &group.not_principals, principal)
        && holds(&group.service_accounts, &group.not_service_accounts, account)
}

fn addresses_match(group: &Match, facts: &Facts<'_>) -> bool {
    let source = |net: &IpNet| contains(net, facts.source_ip);
    let destination = |net: &IpNet| contains(net, facts.destination.ip());
    let port = |want: &u16| *want == facts.destination.port();

    holds(&group.source_ips, &group.not_source_ips, source)
        && holds(&group.destination_ips, &group.not_destination_ips, destination)
        && holds(&group.destination_ports, &group.not_destination_ports, port)
}

/// One kind of condition: any of the wanted values, and none of the unwanted ones.
fn holds<T>(wanted: &[T], unwanted: &[T], matches: impl Fn(&T) -> bool) -> bool {
    (wanted.is_empty() || wanted.iter().any(&matches)) && !unwanted.iter().any(&matches)
}

impl StringMatch {
    pub(crate) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(whole) => text == &**whole,
            Self::Prefix(prefix) => text.starts_with(&**prefix),
            Self::Suffix(suffix) => text.ends_with(&**suffix),
            Self::Presence => !text.is_empty(),
        }
    }
}

impl ServiceAccountMatch {
    pub(crate) fn matches(&self, identity: &SpiffeId) -> bool {
        identity.namespace() == &*self.namespace && identity.service_account() == &*self.service_account
    }
}

/// Whether `ip`, which is canonical, lies in `net`. A block inside `::ffff:0:0/96` is the IPv4
/// block it stands for.
pub(crate) fn contains(net: &IpNet, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpNet::V6(v6), IpAddr::V4(ip)) => {
            let mapped = v6.addr().to_ipv4_mapped();
            let prefix = v6.prefix_len().checked_sub(96);
            let block = mapped.zip(prefix).and_then(|(ip, prefix)| Ipv4Net::new(ip, prefix).ok());
            block.is_some_and(|block| block.contains(&ip))
        }
        (net, ip) => net.contains(&ip),
    }
}
