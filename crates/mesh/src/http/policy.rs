//! AuthorizationPolicy for requests, as a waypoint enforces it.
//!
//! Whether one matches is `authorize`'s part.

use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;

use super::snapshot::GatewayName;
use super::text::Pattern;
use crate::address::ServiceName;
use crate::policy::{PolicyName, ServiceAccountMatch, StringMatch};

/// One policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPolicy {
    /// Its name.
    pub name: PolicyName,
    /// What it guards. Any of them.
    pub targets: Vec<PolicyTarget>,
    /// What a match means.
    pub action: HttpAction,
    /// A policy without rules never matches. Any rule may match.
    pub rules: Vec<HttpRule>,
    /// Evaluated and logged, never enforced.
    pub dry_run: bool,
}

/// What a policy guards.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PolicyTarget {
    /// Everything that passes a waypoint.
    Gateway(GatewayName),
    /// A service.
    Service(ServiceName),
    /// Everything that passes any waypoint: also what stands for a policy whose target is unknown.
    EveryWaypoint,
}

/// What a match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpAction {
    /// Allow, if no DENY matches.
    Allow,
    /// Deny.
    Deny,
    /// Report.
    Audit,
    /// Ask an external authorizer. Until one can be asked, deny.
    Custom,
}

impl HttpAction {
    /// The action as users write it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "ALLOW",
            Self::Deny => "DENY",
            Self::Audit => "AUDIT",
            Self::Custom => "CUSTOM",
        }
    }

    /// Whether a condition that cannot be checked counts as met: it does where that refuses more.
    pub(super) fn takes_unknown_as_met(self) -> bool {
        match self {
            Self::Allow | Self::Audit => false,
            Self::Deny | Self::Custom => true,
        }
    }
}

/// Matches when one of `from`, one of `to` and all of `when` do; an empty list is true.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRule {
    /// Who sends it.
    pub from: Vec<Source>,
    /// What it asks.
    pub to: Vec<Operation>,
    /// Further conditions.
    pub when: Vec<Condition>,
}

/// Conditions of one kind: any of the wanted values, and none of the unwanted ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Values<T = StringMatch> {
    /// One of them must match; an empty list is no condition.
    pub any_of: Vec<T>,
    /// None of them may match.
    pub none_of: Vec<T>,
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self { any_of: Vec::new(), none_of: Vec::new() }
    }
}

impl<T> Values<T> {
    /// Whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        self.any_of.is_empty() && self.none_of.is_empty()
    }

    /// Whether they hold for something that `matches` compares them with.
    pub(super) fn hold(&self, matches: impl Fn(&T) -> bool) -> bool {
        (self.any_of.is_empty() || self.any_of.iter().any(&matches)) && !self.none_of.iter().any(&matches)
    }
}

/// Who sends a request. Kinds are joined by AND.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// Principals, without `spiffe://`.
    pub principals: Values,
    /// Principals of a token, `<iss>/<sub>`. No token is read yet: unknown is closed.
    pub request_principals: Values,
    /// Namespaces.
    pub namespaces: Values,
    /// ServiceAccounts.
    pub service_accounts: Values<ServiceAccountMatch>,
    /// Trust domains.
    pub trust_domains: Values,
    /// Addresses of the peer.
    pub ip_blocks: Values<IpNet>,
    /// Addresses of the client, before any proxy that is trusted. None is: the peer's.
    pub remote_ip_blocks: Values<IpNet>,
    /// What is written and cannot be checked.
    pub unknown: Vec<Arc<str>>,
}

/// What a request asks. Kinds are joined by AND.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Hosts, in lower case; compared with the authority with and without its port.
    pub hosts: Values,
    /// Ports of the service.
    pub ports: Values<u16>,
    /// Methods.
    pub methods: Values,
    /// Paths.
    pub paths: Values<PathCondition>,
    /// What is written and cannot be checked.
    pub unknown: Vec<Arc<str>>,
}

/// A comparison of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathCondition {
    /// As text.
    Text(StringMatch),
    /// By segments.
    Template(Arc<[TemplatePart]>),
    /// By an expression.
    Regex(Pattern),
}

/// One segment of a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplatePart {
    /// This text.
    Literal(Arc<str>),
    /// `{*}`: one segment, not empty.
    OneSegment,
    /// `{**}`: what is left, with its slashes; it may be empty.
    Rest,
}

/// A further condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// A header of the request.
    RequestHeader {
        /// Its name.
        name: HeaderName,
        /// Its values.
        values: Values,
    },
    /// The address of the peer.
    SourceIp(Values<IpNet>),
    /// The address of the client, before any proxy that is trusted. None is: the peer's.
    RemoteIp(Values<IpNet>),
    /// The namespace of the peer.
    SourceNamespace(Values),
    /// The ServiceAccount of the peer.
    SourceServiceAccount(Values<ServiceAccountMatch>),
    /// The trust domain of the peer.
    SourceTrustDomain(Values),
    /// The principal of the peer.
    SourcePrincipal(Values),
    /// The address that the client asked for.
    DestinationIp(Values<IpNet>),
    /// The port that the client asked for.
    DestinationPort(Values<u16>),
    /// Anything else, which cannot be checked here.
    Unknown(Arc<str>),
}
