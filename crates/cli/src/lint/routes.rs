//! Rules that no request reaches, prefixes that match more than they seem to, and subsets of nothing.

use std::sync::Arc;

use ambit_mesh::http::{BackendTarget, Order, PathMatch, Route, RouteKind, RouteMatch, RuleAction};
use control::objects::{Kind, KnownKind, Object, ObjectKey};

use super::{Findings, Severity};

pub(super) fn look(findings: &mut Findings<'_>) {
    let routes: Vec<Arc<Route>> =
        findings.model.generation().translated.for_waypoints.routes.values().cloned().collect();
    for route in &routes {
        let key = key(route);
        backends(findings, &key, route);
        match route.order {
            Order::AsWritten => as_written(findings, &key, route),
            Order::MostSpecific => most_specific(findings, &key, route, &routes),
        }
    }
    subsets(findings);
}

fn key(route: &Route) -> ObjectKey {
    let kind = Kind::of(group(route.name.kind), route.name.kind.as_str());
    ObjectKey { kind, namespace: Some(route.name.namespace.clone()), name: route.name.name.clone() }
}

fn group(kind: RouteKind) -> &'static str {
    match kind {
        RouteKind::Http | RouteKind::Grpc | RouteKind::Tcp | RouteKind::Tls => KnownKind::HttpRoute.group(),
        RouteKind::VirtualService => KnownKind::VirtualService.group(),
    }
}

/// Backends that lead nowhere, where the route's own conditions do not say so: a VirtualService has none.
fn backends(findings: &mut Findings<'_>, key: &ObjectKey, route: &Route) {
    if route.order == Order::MostSpecific {
        return;
    }
    for (at, rule) in route.rules.iter().enumerate() {
        let RuleAction::Forward(backends) = &rule.action else { continue };
        for backend in backends {
            let BackendTarget::Invalid { status, why } = &backend.target else { continue };
            let what = format!("{why}: its share is answered with {status}");
            let advice = "make what is named, or name what there is";
            findings.of(key, (Severity::Error, "backend"), format!("http[{at}]: {what}"), advice);
        }
    }
}

/// The first rule that matches counts: what is behind one that takes everything is never asked.
fn as_written(findings: &mut Findings<'_>, key: &ObjectKey, route: &Route) {
    let takes_all = |matches: &[RouteMatch]| {
        matches.is_empty() || matches.iter().any(|one| *one == RouteMatch::default())
    };
    let first = route.rules.iter().position(|rule| takes_all(&rule.matches));
    if let Some(first) = first
        && first + 1 < route.rules.len()
    {
        let what = format!(
            "http[{first}] matches every request: http[{}] and what follows it is never reached",
            first + 1
        );
        findings.of(
            key,
            (Severity::Warning, "rule-never-reached"),
            what,
            "write it last, or give it a match",
        );
    }
    for (at, rule) in route.rules.iter().enumerate() {
        for path in rule.matches.iter().map(|one| &one.path) {
            let (PathMatch::Prefix(prefix) | PathMatch::PrefixIgnoringCase(prefix)) = path else { continue };
            if !prefix.ends_with('/') {
                let what = format!(
                    "http[{at}]: prefix {prefix} also matches {prefix}x, a longer name of the same segment"
                );
                let advice =
                    format!("write an exact {prefix} and a prefix {prefix}/ if only what is below is meant");
                findings.of(key, (Severity::Note, "path-prefix"), what, advice);
            }
        }
    }
}

/// Of equal matches one holds: the older route's, the first by name, the first rule's.
fn most_specific(findings: &mut Findings<'_>, key: &ObjectKey, route: &Route, all: &[Arc<Route>]) {
    for (at, rule) in route.rules.iter().enumerate() {
        for one in matches_of(&rule.matches) {
            let earlier = route.rules[..at].iter().position(|rule| matches_of(&rule.matches).contains(&one));
            if let Some(earlier) = earlier {
                let what = format!("rules[{at}] matches what rules[{earlier}] takes: it is never reached");
                findings.of(
                    key,
                    (Severity::Warning, "rule-never-reached"),
                    what,
                    "merge the rules, or tell their matches apart",
                );
            }
            let other = all.iter().find(|other| {
                let goes_before = (other.created, &other.name.namespace, &other.name.name)
                    < (route.created, &route.name.namespace, &route.name.name);
                goes_before
                    && other.order == Order::MostSpecific
                    && other.name.kind == route.name.kind
                    && other.name.namespace == route.name.namespace
                    && other.hostnames == route.hostnames
                    && other.parents.iter().any(|parent| route.parents.contains(parent))
                    && other.rules.iter().any(|rule| matches_of(&rule.matches).contains(&one))
            });
            if let Some(other) = other {
                let what = format!("rules[{at}] matches what {} takes, which goes before it", other.name);
                findings.of(key, (Severity::Warning, "rule-never-reached"), what, "tell their matches apart");
            }
        }
    }
}

fn matches_of(written: &[RouteMatch]) -> Vec<RouteMatch> {
    if written.is_empty() { vec![RouteMatch::default()] } else { written.to_vec() }
}

/// Subsets that no pod is in.
fn subsets(findings: &mut Findings<'_>) {
    let inputs = &findings.model.generation().inputs;
    for (key, entry) in inputs.entries() {
        let Some(Object::DestinationRule(rule)) = entry.object() else { continue };
        for subset in &rule.spec.subsets {
            let mut known = findings.model.generation().translated.for_waypoints.subsets.values();
            let is_empty = known.any(|of| {
                *of.name.name == *subset.name
                    && Some(&*of.name.service.namespace) == key.namespace.as_deref()
                    && of.name.service.hostname.split('.').next() == rule.spec.host.split('.').next()
                    && of.members.is_empty()
            });
            if is_empty {
                let what =
                    format!("no pod is in subset {}: requests to it are answered with 503", subset.name);
                findings.of(
                    key,
                    (Severity::Warning, "selects-nothing"),
                    what,
                    "select labels that pods have",
                );
            }
        }
    }
}
