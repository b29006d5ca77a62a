//! AuthorizationPolicy with targetRefs -> [`HttpPolicy`], as a waypoint enforces it.

use std::sync::Arc;

use ambit_mesh::http::{
    Condition as L7Condition, GatewayName, HttpAction, HttpPolicy, HttpRule, Operation, PathCondition,
    PolicyTarget, Source, Values, is_path_template, path_template,
};
use ambit_mesh::policy::StringMatch;
use http::HeaderName;
use ipnet::IpNet;

use super::ForWaypoints;
use super::routes::Report;
use crate::objects::authorization_policy::{self as written, Action, parse_pattern};
use crate::objects::selector::TargetRef;
use crate::objects::values::parse_ip_block;
use crate::objects::{AuthorizationPolicy, Service, ServiceEntry};
use crate::translate::authorization::{self, DRY_RUN_ANNOTATION};
use crate::translate::conditions::Condition;
use crate::translate::view::{Named, View};
use crate::translate::{Reason, Settings, is_root, policy_name, service_name};

/// The condition by which Istio says whether a waypoint has a policy.
const WAYPOINT_ACCEPTED: &str = "WaypointAccepted";

/// Translates those that name what they guard.
pub(in crate::translate) fn translate(
    view: &View<'_>,
    settings: &Settings,
    report: &mut Report<'_>,
    out: &mut ForWaypoints,
) {
    let policies = view.authorization_policies.values().flatten();
    for policy in policies.filter(|policy| !policy.object.spec.target_refs.is_empty()) {
        let step = Step { policy, view, settings };
        if let Some(translated) = step.translate(report) {
            out.policies.insert(translated.name.clone(), Arc::new(translated));
        }
    }
}

/// What is guarded, and the waypoint that does it, or why none does.
type Guarded = (PolicyTarget, Result<String, String>);

struct Step<'a, 'b> {
    policy: &'b Named<'a, AuthorizationPolicy>,
    view: &'b View<'a>,
    settings: &'b Settings,
}

impl Step<'_, '_> {
    fn translate(&self, report: &mut Report<'_>) -> Option<HttpPolicy> {
        let spec = &self.policy.object.spec;
        let mut targets = Vec::new();
        for target in &spec.target_refs {
            let guarded = self.guarded(target).unwrap_or_else(|(reason, message)| {
                let condition = Condition::new(WAYPOINT_ACCEPTED, false, reason, message);
                report.conditions.add(self.policy.key, condition);
                Vec::new()
            });
            for (target, bound) in guarded {
                let condition = match bound {
                    Ok(to) => Condition::new(WAYPOINT_ACCEPTED, true, "Accepted", format!("bound to {to}")),
                    Err(why) => {
                        let message = format!("{why}: the policy has no effect there");
                        report.notes.add(self.policy.key, Reason::NoEffect, message);
                        Condition::new(WAYPOINT_ACCEPTED, false, "AncestorNotBound", why)
                    }
                };
                report.conditions.add(self.policy.key, condition);
                targets.push(target);
            }
        }
        if targets.is_empty() {
            let message =
                "none of its targetRefs leads to a Service, a ServiceEntry or a waypoint: it has no effect";
            report.notes.add(self.policy.key, Reason::NoEffect, message);
            return None;
        }
        if spec.action == Action::Custom {
            let message = "no external authorizer can be asked: what the rules match is denied";
            report.notes.add(self.policy.key, Reason::EnforcedStricter, message);
        }
        let rules: Vec<HttpRule> = spec.rules.iter().map(|rule| self.rule(rule)).collect();
        self.note_unknown(&rules, report);
        Some(HttpPolicy {
            name: policy_name(self.policy.namespace(), self.policy.name()),
            targets,
            action: match spec.action {
                Action::Allow => HttpAction::Allow,
                Action::Deny => HttpAction::Deny,
                Action::Audit => HttpAction::Audit,
                Action::Custom => HttpAction::Custom,
            },
            rules,
            dry_run: self.policy.object.metadata.annotation(DRY_RUN_ANNOTATION) == Some("true"),
        })
    }

    /// What a reference stands for, and the waypoint that enforces it: several things where it leads to a ServiceEntry
    /// of several hosts. A Service is guarded also while it does not exist yet.
    fn guarded(&self, target: &TargetRef) -> Result<Vec<Guarded>, (&'static str, String)> {
        let namespace = self.policy.namespace();
        if target.namespace.as_deref().is_some_and(|other| other != namespace) {
            return Err((
                "Invalid",
                format!("{} {}: only the policy's own namespace is allowed", target.kind, target.name),
            ));
        }
        match (target.group.as_str(), target.kind.as_str()) {
            ("" | "core", "Service") => {
                let mut services = self.services().filter(|service| service.object.entry.is_none());
                let bound = match services.find(|service| service.name() == target.name) {
                    None => Err(format!("Service {namespace}/{} does not exist", target.name)),
                    Some(service) => self.bound(service, &format!("Service {}", target.name)),
                };
                Ok(vec![(PolicyTarget::Service(service_name(namespace, &target.name)), bound)])
            }
            ("networking.istio.io", "ServiceEntry") => {
                let mut entries = self.view.service_entries.iter();
                let is_it = |entry: &&Named<'_, ServiceEntry>| {
                    entry.namespace() == namespace && entry.name() == target.name
                };
                let entry = entries.find(is_it).ok_or_else(|| {
                    ("TargetNotFound", format!("ServiceEntry {namespace}/{} does not exist", target.name))
                })?;
                let hosts = self.services().filter(|service| service.key == entry.key);
                let guarded: Vec<Guarded> = hosts
                    .map(|host| {
                        let name = host.mesh_name();
                        let bound =
                            self.bound(host, &format!("{} of ServiceEntry {}", name.hostname, target.name));
                        (PolicyTarget::Service(name), bound)
                    })
                    .collect();
                if guarded.is_empty() {
                    let message =
                        format!("ServiceEntry {namespace}/{} is left out: see its status", target.name);
                    return Err(("Invalid", message));
                }
                Ok(guarded)
            }
            ("gateway.networking.k8s.io", "Gateway") => {
                let name = GatewayName { namespace: namespace.into(), name: target.name.as_str().into() };
                let bound = match self.view.waypoint(namespace, &target.name) {
                    Some(_) => Ok(name.to_string()),
                    None => Err(format!("there is no waypoint {name}")),
                };
                Ok(vec![(PolicyTarget::Gateway(name), bound)])
            }
            ("gateway.networking.k8s.io", "GatewayClass") if is_root(namespace) => {
                let is_ours = ["ambit-waypoint", "istio-waypoint"].contains(&target.name.as_str());
                let unknown =
                    || ("TargetNotFound", format!("GatewayClass {} is not of waypoints", target.name));
                is_ours
                    .then(|| vec![(PolicyTarget::EveryWaypoint, Ok("every waypoint".to_owned()))])
                    .ok_or_else(unknown)
            }
            (group, kind) => Err((
                "Invalid",
                format!(
                    "{group}/{kind} {} cannot be guarded: use a Service, a ServiceEntry or a Gateway",
                    target.name
                ),
            )),
        }
    }

    /// The services of the policy's namespace: a ServiceEntry stands for one for each host.
    fn services(&self) -> impl Iterator<Item = &Named<'_, Service>> {
        self.view.services.get(self.policy.namespace()).into_iter().flatten()
    }

    fn bound(&self, service: &Named<'_, Service>, what: &str) -> Result<String, String> {
        let mut conditions = crate::translate::conditions::Conditions::default();
        super::of_service(service, self.view, &mut conditions)
            .map(|waypoint| waypoint.to_string())
            .ok_or_else(|| format!("{what} is not bound to a waypoint"))
    }

    fn note_unknown(&self, rules: &[HttpRule], report: &mut Report<'_>) {
        for (at, rule) in rules.iter().enumerate() {
            let from = rule.from.iter().flat_map(|source| &source.unknown);
            let to = rule.to.iter().flat_map(|operation| &operation.unknown);
            let when = rule.when.iter().filter_map(|condition| {
                let L7Condition::Unknown(key) = condition else { return None };
                Some(key)
            });
            let tokens = rule.from.iter().any(|source| !source.request_principals.is_empty());
            let mut fields: Vec<&str> = from.chain(to).chain(when).map(|field| &**field).collect();
            fields.extend(tokens.then_some("requestPrincipals"));
            if !fields.is_empty() {
                let effect = match self.policy.object.spec.action {
                    Action::Allow | Action::Audit => "the rule never matches there",
                    Action::Deny | Action::Custom => "it matches by what is left",
                };
                let message =
                    format!("rules[{at}] uses {}, which cannot be checked: {effect}", fields.join(", "));
                report.notes.add(self.policy.key, Reason::EnforcedStricter, message);
            }
        }
    }

    fn values(&self) -> authorization::Values<'_> {
        authorization::Values {
            namespace: self.policy.namespace(),
            trust_domain: &self.settings.trust_domain,
        }
    }

    fn rule(&self, rule: &written::Rule) -> HttpRule {
        HttpRule {
            from: rule.from.iter().map(|source| self.source(source)).collect(),
            to: rule.to.iter().map(operation).collect(),
            when: rule.when.iter().map(|condition| self.condition(condition)).collect(),
        }
    }

    fn source(&self, from: &written::Source) -> Source {
        let values = self.values();
        let mut unknown = Vec::new();
        let layer_7 = &from.layer_7;
        Source {
            principals: Values {
                any_of: values.principals(&from.principals),
                none_of: values.principals(&from.not_principals),
            },
            request_principals: read(
                [&layer_7.request_principals, &layer_7.not_request_principals],
                "requestPrincipals",
                parse_pattern,
                &mut unknown,
            ),
            namespaces: Values { any_of: from.namespaces.clone(), none_of: from.not_namespaces.clone() },
            service_accounts: Values {
                any_of: values.service_accounts(&from.service_accounts),
                none_of: values.service_accounts(&from.not_service_accounts),
            },
            trust_domains: read(
                [&layer_7.trust_domains, &layer_7.not_trust_domains],
                "trustDomains",
                parse_pattern,
                &mut unknown,
            ),
            ip_blocks: Values { any_of: from.ip_blocks.clone(), none_of: from.not_ip_blocks.clone() },
            remote_ip_blocks: read(
                [&layer_7.remote_ip_blocks, &layer_7.not_remote_ip_blocks],
                "remoteIpBlocks",
                parse_ip_block,
                &mut unknown,
            ),
            unknown,
        }
    }

    fn condition(&self, from: &written::Condition) -> L7Condition {
        let values = self.values();
        match from {
            written::Condition::SourceIp(of) => L7Condition::SourceIp(blocks(of)),
            written::Condition::SourceNamespace(of) => L7Condition::SourceNamespace(texts(of)),
            written::Condition::SourcePrincipal(of) => L7Condition::SourcePrincipal(Values {
                any_of: values.principals(&of.any_of),
                none_of: values.principals(&of.none_of),
            }),
            written::Condition::SourceServiceAccount(of) => L7Condition::SourceServiceAccount(Values {
                any_of: values.service_accounts(&of.any_of),
                none_of: values.service_accounts(&of.none_of),
            }),
            written::Condition::DestinationIp(of) => L7Condition::DestinationIp(blocks(of)),
            written::Condition::DestinationPort(of) => L7Condition::DestinationPort(Values {
                any_of: of.any_of.clone(),
                none_of: of.none_of.clone(),
            }),
            written::Condition::BeyondLayer4 { key, values } => {
                by_request(key, values).unwrap_or_else(|| L7Condition::Unknown(key.as_str().into()))
            }
        }
    }
}

/// A condition on the request; `None` where it cannot be checked, as with tokens, which nothing reads
/// yet.
fn by_request(key: &str, values: &written::Values<String>) -> Option<L7Condition> {
    let mut unknown = Vec::new();
    let lists = [&values.any_of, &values.none_of];
    let condition = match key {
        "remote.ip" => L7Condition::RemoteIp(read(lists, key, parse_ip_block, &mut unknown)),
        "source.trustDomain" => L7Condition::SourceTrustDomain(read(lists, key, parse_pattern, &mut unknown)),
        _ => {
            let name = key.strip_prefix("request.headers[")?.strip_suffix(']')?;
            let name: HeaderName = name.parse().ok()?;
            L7Condition::RequestHeader { name, values: read(lists, key, parse_text, &mut unknown) }
        }
    };
    unknown.is_empty().then_some(condition)
}

fn operation(from: &written::Operation) -> Operation {
    let mut unknown = Vec::new();
    let layer_7 = &from.layer_7;
    let host = |text: &str| parse_text(&text.to_ascii_lowercase());
    Operation {
        hosts: read([&layer_7.hosts, &layer_7.not_hosts], "hosts", host, &mut unknown),
        ports: Values { any_of: from.ports.clone(), none_of: from.not_ports.clone() },
        methods: read([&layer_7.methods, &layer_7.not_methods], "methods", parse_text, &mut unknown),
        paths: read([&layer_7.paths, &layer_7.not_paths], "paths", path, &mut unknown),
        unknown,
    }
}

fn path(text: &str) -> Result<PathCondition, String> {
    if is_path_template(text) {
        return path_template(text).map(PathCondition::Template).map_err(|error| error.to_string());
    }
    parse_text(text).map(PathCondition::Text)
}

/// Unlike a principal, a text that begins with `spiffe://` means itself.
fn parse_text(text: &str) -> Result<StringMatch, String> {
    match text.strip_prefix("spiffe://") {
        Some(_) => Ok(StringMatch::Exact(text.into())),
        None => parse_pattern(text),
    }
}

/// Reads both lists of a field. Where a value cannot be read the whole field cannot be checked.
fn read<T>(
    [any_of, none_of]: [&Vec<String>; 2],
    field: &str,
    parse: impl Fn(&str) -> Result<T, String>,
    unknown: &mut Vec<Arc<str>>,
) -> Values<T> {
    let all = |texts: &[String]| texts.iter().map(|text| parse(text)).collect::<Result<Vec<T>, String>>();
    match (all(any_of), all(none_of)) {
        (Ok(any_of), Ok(none_of)) => Values { any_of, none_of },
        (Err(why), _) | (_, Err(why)) => {
            unknown.push(format!("{field} ({why})").into());
            Values::default()
        }
    }
}

fn blocks(from: &written::Values<IpNet>) -> Values<IpNet> {
    Values { any_of: from.any_of.clone(), none_of: from.none_of.clone() }
}

fn texts(from: &written::Values<StringMatch>) -> Values {
    Values { any_of: from.any_of.clone(), none_of: from.none_of.clone() }
}
