//! Whether policy allows a request, and by which policy and rule.
//!
//! Where the request goes is decided after, in `decide`.

mod consulted;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::HeaderName;
use ipnet::IpNet;

use super::client::{Client, Head};
use super::destination::Destination;
use super::matching::joined;
use super::normalize::{Ambiguity, Path, percent_decoded};
use super::policy::{
    Condition, HttpAction, HttpPolicy, HttpRule, Operation, PathCondition, Source, TemplatePart, Values,
};
use super::snapshot::WaypointSnapshot;
use crate::identity::SpiffeId;
use crate::policy::{PolicyName, ServiceAccountMatch, StringMatch, contains};

pub use consulted::{HttpConsulted, consulted};

/// How many policies an error names: a denial must stay cheap when there are thousands.
const NAMED_AT_MOST: usize = 8;

/// Leave to send one request to what it asks for. Only [`authorize`] and [`authorize_connection`]
/// make one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPermit {
    allowed_by: HttpAllowedBy,
}

impl HttpPermit {
    /// What allowed it.
    pub fn allowed_by(&self) -> &HttpAllowedBy {
        &self.allowed_by
    }
}

/// What allowed a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpAllowedBy {
    /// No ALLOW policy guards the destination.
    NoAllowPolicy,
    /// A rule of an ALLOW policy.
    Rule {
        /// The policy.
        policy: PolicyName,
        /// The rule's position, from 0.
        rule: usize,
    },
}

impl fmt::Display for HttpAllowedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAllowPolicy => f.write_str("no ALLOW policy applies"),
            Self::Rule { policy, rule } => write!(f, "rule {rule} of ALLOW policy {policy}"),
        }
    }
}

/// What a policy that does not decide says: one on trial, or an AUDIT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpVerdict {
    /// The policy.
    pub policy: PolicyName,
    /// What a match of it would mean.
    pub action: HttpAction,
    /// Whether it is on trial.
    pub dry_run: bool,
    /// The position of the rule that matched, from 0; `None` when none did.
    pub rule: Option<usize>,
}

/// Why a request is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpDenied {
    /// A DENY rule matched.
    #[error("denied by rule {rule} (counted from 0) of AuthorizationPolicy {policy}")]
    ByRule {
        /// The policy.
        policy: PolicyName,
        /// The rule's position, from 0.
        rule: usize,
    },
    /// A CUSTOM rule matched, and no external authorizer can be asked.
    #[error(
        "rule {rule} (counted from 0) of AuthorizationPolicy {policy} asks an external authorizer, \
         which this waypoint cannot do: it denies"
    )]
    NoAuthorizer {
        /// The policy.
        policy: PolicyName,
        /// The rule's position, from 0.
        rule: usize,
    },
    /// ALLOW policies apply and none of them matched.
    #[error(
        "none of the {total} ALLOW policies of the destination matched ({}): add a rule for this request",
        named(policies, *total)
    )]
    NoneAllowed {
        /// The first of them.
        policies: Vec<PolicyName>,
        /// How many there are.
        total: usize,
    },
    /// Policies look at paths, and this one can be read in several ways.
    #[error(
        "the path holds {ambiguity}, which servers read in different ways, and AuthorizationPolicy {policy} \
         decides by paths: send it without"
    )]
    AmbiguousPath {
        /// What is ambiguous.
        ambiguity: Ambiguity,
        /// The first policy that looks at paths.
        policy: PolicyName,
    },
}

impl HttpDenied {
    /// What Istio's access log has as `response_code_details`.
    pub fn details(&self) -> String {
        match self {
            Self::ByRule { policy, rule } | Self::NoAuthorizer { policy, rule } => format!(
                "rbac_access_denied_matched_policy[ns[{}]-policy[{}]-rule[{rule}]]",
                policy.namespace, policy.name
            ),
            Self::NoneAllowed { .. } => "rbac_access_denied_matched_policy[none]".to_owned(),
            Self::AmbiguousPath { .. } => "ambiguous_path".to_owned(),
        }
    }
}

/// Decides whether a request may reach `destination`. Policies on trial and AUDIT policies never
/// decide: [`super::Decision`] reports them.
///
/// # Errors
/// When it is denied, with the policy that did it.
pub fn authorize(
    snapshot: &WaypointSnapshot,
    destination: &Destination,
    client: &Client,
    head: &Head<'_>,
    path: &Path,
) -> Result<HttpPermit, HttpDenied> {
    let policies = Policies::of(snapshot, destination);
    if let Some((ambiguity, policy)) = path.ambiguity().zip(policies.first_with_paths()) {
        return Err(HttpDenied::AmbiguousPath { ambiguity, policy: policy.name.clone() });
    }
    let mut facts = Facts::of(destination, client);
    let permit = policies.ask(facts.asking(head, path.path(), Reading::AsSent))?;
    // A server that decodes every escape must be allowed to read what it then reads.
    match percent_decoded(path.path()) {
        Cow::Borrowed(_) => Ok(permit),
        Cow::Owned(decoded) => policies.ask(facts.asking(head, &decoded, Reading::Decoded)),
    }
}

/// Decides whether a connection that is no HTTP may be made to `destination`: of rules that ask
/// something of a request, ALLOW never matches and DENY matches by what is left of it.
///
/// # Errors
/// When it is denied, with the policy that did it.
pub fn authorize_connection(
    snapshot: &WaypointSnapshot,
    destination: &Destination,
    client: &Client,
) -> Result<HttpPermit, HttpDenied> {
    Policies::of(snapshot, destination).ask(&Facts::of(destination, client))
}

/// What the policies say that do not decide.
pub(super) fn verdicts(
    snapshot: &WaypointSnapshot,
    destination: &Destination,
    client: &Client,
    head: &Head<'_>,
    path: &Path,
) -> Vec<HttpVerdict> {
    let policies = Policies::of(snapshot, destination);
    let mut facts = Facts::of(destination, client);
    let facts = facts.asking(head, path.path(), Reading::AsSent);
    let watched = policies.0.iter().filter(|policy| policy.dry_run || policy.action == HttpAction::Audit);
    let verdict = |policy: &&Arc<HttpPolicy>| HttpVerdict {
        policy: policy.name.clone(),
        action: policy.action,
        dry_run: policy.dry_run,
        rule: matching_rule(policy, facts),
    };
    watched.map(verdict).collect()
}

/// The policies that guard one destination.
struct Policies<'a>(Vec<&'a Arc<HttpPolicy>>);

impl<'a> Policies<'a> {
    fn of(snapshot: &'a WaypointSnapshot, destination: &Destination) -> Self {
        Self(snapshot.policies_for(destination.service().map(|service| &service.name)))
    }

    fn enforced(&self, action: HttpAction) -> impl Iterator<Item = &'a Arc<HttpPolicy>> {
        self.0.iter().copied().filter(move |policy| !policy.dry_run && policy.action == action)
    }

    /// Whether a policy that decides looks at paths.
    fn first_with_paths(&self) -> Option<&'a Arc<HttpPolicy>> {
        let decides = |policy: &&&Arc<HttpPolicy>| !policy.dry_run && policy.action != HttpAction::Audit;
        let with_paths = |policy: &&Arc<HttpPolicy>| {
            policy.rules.iter().flat_map(|rule| &rule.to).any(|operation| !operation.paths.is_empty())
        };
        self.0.iter().filter(decides).copied().find(with_paths)
    }

    fn ask(&self, facts: &Facts<'_>) -> Result<HttpPermit, HttpDenied> {
        // Istio's order: CUSTOM, then DENY, then ALLOW.
        if let Some((policy, rule)) = self.first_match(HttpAction::Custom, facts) {
            return Err(HttpDenied::NoAuthorizer { policy, rule });
        }
        // "If there are any DENY policies that match the request, deny the request."
        if let Some((policy, rule)) = self.first_match(HttpAction::Deny, facts) {
            return Err(HttpDenied::ByRule { policy, rule });
        }
        // "If there are no ALLOW policies for the workload, allow the request."
        let total = self.enforced(HttpAction::Allow).count();
        if total == 0 {
            return Ok(HttpPermit { allowed_by: HttpAllowedBy::NoAllowPolicy });
        }
        // "If any of the ALLOW policies match the request, allow the request. Deny the request."
        let Some((policy, rule)) = self.first_match(HttpAction::Allow, facts) else {
            let allow = self.enforced(HttpAction::Allow).take(NAMED_AT_MOST);
            return Err(HttpDenied::NoneAllowed { policies: allow.map(|p| p.name.clone()).collect(), total });
        };
        Ok(HttpPermit { allowed_by: HttpAllowedBy::Rule { policy, rule } })
    }

    fn first_match(&self, action: HttpAction, facts: &Facts<'_>) -> Option<(PolicyName, usize)> {
        self.enforced(action).find_map(|policy| Some((policy.name.clone(), matching_rule(policy, facts)?)))
    }
}

/// In which form a path is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    AsSent,
    /// Every escape decoded, also those of the policy.
    Decoded,
}

/// A request in the form in which conditions read it.
struct Facts<'a> {
    identity: Option<&'a SpiffeId>,
    principal: Option<String>,
    client: &'a Client,
    destination: &'a Destination,
    /// Absent for a connection that is no HTTP.
    asked: Option<Asked<'a>>,
}

struct Asked<'a> {
    head: Head<'a>,
    /// In lower case.
    authority: String,
    path: &'a str,
    reading: Reading,
}

impl<'a> Facts<'a> {
    fn of(destination: &'a Destination, client: &'a Client) -> Self {
        let identity = client.peer.identity();
        let principal = identity.map(SpiffeId::principal);
        Self { identity, principal, client, destination, asked: None }
    }

    fn asking(&mut self, head: &Head<'a>, path: &'a str, reading: Reading) -> &Self {
        let authority = head.authority.to_ascii_lowercase();
        self.asked = Some(Asked { head: *head, authority, path, reading });
        self
    }
}

/// The position of the first rule of `policy` that matches.
fn matching_rule(policy: &HttpPolicy, facts: &Facts<'_>) -> Option<usize> {
    let judge = Judge { facts, unknown: policy.action.takes_unknown_as_met() };
    policy.rules.iter().position(|rule| judge.rule(rule))
}

/// One policy's look at one request.
#[derive(Clone, Copy)]
struct Judge<'a> {
    facts: &'a Facts<'a>,
    /// What stands for a condition that cannot be checked.
    unknown: bool,
}

impl Judge<'_> {
    fn rule(self, rule: &HttpRule) -> bool {
        (rule.from.is_empty() || rule.from.iter().any(|source| self.source(source)))
            && (rule.to.is_empty() || rule.to.iter().any(|operation| self.operation(operation)))
            && rule.when.iter().all(|condition| self.condition(condition))
    }

    /// A peer without identity matches no positive condition on it, and so every negative one.
    fn source(self, source: &Source) -> bool {
        let is_known = source.unknown.is_empty() && source.request_principals.is_empty();
        (is_known || self.unknown)
            && self.principal(&source.principals)
            && self.namespace(&source.namespaces)
            && self.service_account(&source.service_accounts)
            && self.trust_domain(&source.trust_domains)
            && self.client_ip(&source.ip_blocks)
            && self.client_ip(&source.remote_ip_blocks)
    }

    fn operation(self, operation: &Operation) -> bool {
        (operation.unknown.is_empty() || self.unknown)
            && self.destination_port(&operation.ports)
            && self.of_request(&operation.hosts, |asked, host: &StringMatch| asked.has_host(host))
            && self.of_request(&operation.methods, |asked, method: &StringMatch| {
                method.matches(asked.head.method.as_str())
            })
            && self.of_request(&operation.paths, |asked, path| asked.has_path(path))
    }

    fn condition(self, condition: &Condition) -> bool {
        match condition {
            Condition::RequestHeader { name, values } => self.header(name, values),
            Condition::SourceIp(values) | Condition::RemoteIp(values) => self.client_ip(values),
            Condition::SourceNamespace(values) => self.namespace(values),
            Condition::SourceServiceAccount(values) => self.service_account(values),
            Condition::SourceTrustDomain(values) => self.trust_domain(values),
            Condition::SourcePrincipal(values) => self.principal(values),
            Condition::DestinationIp(values) => self.destination_ip(values),
            Condition::DestinationPort(values) => self.destination_port(values),
            Condition::Unknown(_) => self.unknown,
        }
    }

    /// A header that came several times has its values joined, as Istio has it. A server may take any one of
    /// them instead, so that what denies looks at each, and what allows is not met by leaving one out.
    fn header(self, name: &HeaderName, values: &Values) -> bool {
        if values.is_empty() {
            return true;
        }
        let Some(asked) = &self.facts.asked else { return self.unknown };
        let forms = asked.forms_of(name);
        // Istio: `*` asks that the header is there, also an empty one.
        let is = |wanted: &StringMatch, form: &str| *wanted == StringMatch::Presence || wanted.matches(form);
        let some = |wanted: &StringMatch| forms.iter().any(|form| is(wanted, form));
        let every = |wanted: &StringMatch| !forms.is_empty() && forms.iter().all(|form| is(wanted, form));
        let joined = |wanted: &StringMatch| forms.first().is_some_and(|form| is(wanted, form));
        let is_wanted = match self.unknown {
            true => values.any_of.iter().any(some),
            false => values.any_of.iter().any(joined),
        };
        let is_unwanted = match self.unknown {
            true => values.none_of.iter().any(every),
            false => values.none_of.iter().any(some),
        };
        (values.any_of.is_empty() || is_wanted) && !is_unwanted
    }

    fn of_request<T>(self, values: &Values<T>, matches: impl Fn(&Asked<'_>, &T) -> bool) -> bool {
        if values.is_empty() {
            return true;
        }
        self.facts.asked.as_ref().map_or(self.unknown, |asked| values.hold(|value| matches(asked, value)))
    }

    fn principal(self, values: &Values) -> bool {
        values.hold(|want| self.facts.principal.as_deref().is_some_and(|text| want.matches(text)))
    }

    fn namespace(self, values: &Values) -> bool {
        values.hold(|want| self.facts.identity.is_some_and(|id| want.matches(id.namespace())))
    }

    fn trust_domain(self, values: &Values) -> bool {
        values.hold(|want| self.facts.identity.is_some_and(|id| want.matches(id.trust_domain().as_str())))
    }

    fn service_account(self, values: &Values<ServiceAccountMatch>) -> bool {
        values.hold(|want| self.facts.identity.is_some_and(|id| want.matches(id)))
    }

    fn client_ip(self, values: &Values<IpNet>) -> bool {
        values.hold(|net| contains(net, self.facts.client.ip.to_canonical()))
    }

    /// A destination that was named and not dialled has no address: unknown is closed.
    fn destination_ip(self, values: &Values<IpNet>) -> bool {
        match self.facts.destination.address {
            Some(address) => values.hold(|net| contains(net, address.ip())),
            None => values.is_empty() || self.unknown,
        }
    }

    fn destination_port(self, values: &Values<u16>) -> bool {
        values.hold(|port| *port == self.facts.destination.port)
    }
}

impl Asked<'_> {
    /// What a header may be read as: its values joined, and where there are several each by itself.
    fn forms_of(&self, name: &HeaderName) -> Vec<Cow<'_, str>> {
        // HTTP/2 has no header Host, and a server may take either for the other.
        if *name == http::header::HOST {
            return vec![Cow::Borrowed(self.authority.as_str())];
        }
        let headers = self.head.headers;
        let mut forms: Vec<_> = joined(headers, name).into_iter().collect();
        let values = headers.get_all(name);
        if values.iter().nth(1).is_some() {
            forms.extend(values.iter().map(|value| String::from_utf8_lossy(value.as_bytes())));
        }
        forms
    }

    /// With and without its port, and without the dot at the end of a full name.
    fn has_host(&self, want: &StringMatch) -> bool {
        let host = host_of(&self.authority);
        let undotted = host.strip_suffix('.').unwrap_or(host);
        *want == StringMatch::Presence
            || [self.authority.as_str(), host, undotted].iter().any(|form| want.matches(form))
    }

    fn has_path(&self, want: &PathCondition) -> bool {
        match want {
            PathCondition::Text(text) => match self.reading {
                Reading::AsSent => text.matches(self.path),
                Reading::Decoded => decoded(text).matches(self.path),
            },
            PathCondition::Template(parts) => template_matches(parts, self.path),
            PathCondition::Regex(pattern) => pattern.matches(self.path),
        }
    }
}

/// The host of an authority: without its port.
pub(super) fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // What follows a colon inside of `[::1]` is no port.
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

fn decoded(text: &StringMatch) -> Cow<'_, StringMatch> {
    let (StringMatch::Exact(value) | StringMatch::Prefix(value) | StringMatch::Suffix(value)) = text else {
        return Cow::Borrowed(text);
    };
    let Cow::Owned(plain) = percent_decoded(value) else { return Cow::Borrowed(text) };
    Cow::Owned(match text {
        StringMatch::Exact(_) | StringMatch::Presence => StringMatch::Exact(plain.into()),
        StringMatch::Prefix(_) => StringMatch::Prefix(plain.into()),
        StringMatch::Suffix(_) => StringMatch::Suffix(plain.into()),
    })
}

fn template_matches(parts: &[TemplatePart], path: &str) -> bool {
    let Some(mut rest) = path.strip_prefix('/') else { return false };
    let mut parts = parts.iter().peekable();
    while let Some(part) = parts.next() {
        let (segment, after) = match rest.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (rest, None),
        };
        match part {
            TemplatePart::Rest => return true,
            TemplatePart::Literal(text) if segment != &**text => return false,
            TemplatePart::OneSegment if segment.is_empty() => return false,
            TemplatePart::Literal(_) | TemplatePart::OneSegment => {}
        }
        match (after, parts.peek()) {
            (None, None) => return true,
            (Some(after), Some(_)) => rest = after,
            (None, Some(_)) | (Some(_), None) => return false,
        }
    }
    rest.is_empty()
}

/// Names of policies for a text, and how many are left out.
fn named(policies: &[PolicyName], total: usize) -> String {
    let names: Vec<String> = policies.iter().map(PolicyName::to_string).collect();
    match total.saturating_sub(policies.len()) {
        0 => names.join(", "),
        left_out => format!("{} and {left_out} more", names.join(", ")),
    }
}

#[cfg(test)]
mod tests;
