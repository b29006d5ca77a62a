//! HTTPRoute and GRPCRoute -> [`Route`].

mod filters;
mod matches;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::address::ServiceName;
use ambit_mesh::http::{
    BackendTarget, Filters, Order, Parent, Route, RouteKind, RouteMatch, RouteName, RouteRule, RuleAction,
    Timeouts, WeightedBackend,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::filters::Filtered;
use super::ForWaypoints;
use crate::objects::Service;
use crate::objects::gateway_api::http_route::Timeouts as WrittenTimeouts;
use crate::objects::gateway_api::parts::{BackendRef, Filter, GatewayDuration, ParentRef};
use crate::objects::gateway_api::{GrpcRoute, HttpRoute};
use crate::objects::meta::Meta;
use crate::translate::conditions::{Condition, Conditions};
use crate::translate::view::{Named, View};
use crate::translate::{Notes, Reason, service_name};

/// Where routes say what became of them.
pub(in crate::translate) struct Report<'a> {
    pub(in crate::translate) notes: &'a mut Notes,
    pub(in crate::translate) conditions: &'a mut Conditions,
}

/// Translates all of them. For one port of a Service one type of route holds: GRPCRoute before
/// HTTPRoute (GAMMA).
pub(in crate::translate) fn translate(view: &View<'_>, report: &mut Report<'_>, out: &mut ForWaypoints) {
    let mut taken = BTreeSet::new();
    for route in &view.grpc_routes {
        let written = Written::grpc(route);
        if let Some(route) = written.translate(view, &BTreeSet::new(), report) {
            taken.extend(route.parents.iter().cloned());
            out.routes.insert(route.name.clone(), Arc::new(route));
        }
    }
    for route in &view.http_routes {
        if let Some(route) = Written::http(route).translate(view, &taken, report) {
            out.routes.insert(route.name.clone(), Arc::new(route));
        }
    }
}

/// What both types of route have in common.
struct Written<'a> {
    key: &'a crate::objects::ObjectKey,
    kind: RouteKind,
    metadata: &'a Meta,
    parents: &'a [ParentRef],
    rules: Vec<WrittenRule<'a>>,
}

struct WrittenRule<'a> {
    name: Option<&'a str>,
    matches: Result<Vec<RouteMatch>, String>,
    filters: &'a [Filter],
    backends: &'a [BackendRef],
    timeouts: Timeouts,
    /// Fields that are not carried out yet.
    unsupported: Vec<&'static str>,
}

impl<'a> Written<'a> {
    fn http(route: &Named<'a, HttpRoute>) -> Self {
        let rule = |rule: &'a crate::objects::gateway_api::http_route::Rule| WrittenRule {
            name: rule.name.as_deref(),
            matches: rule.matches.iter().map(matches::http).collect(),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: timeouts(rule.timeouts),
            unsupported: [
                rule.retry.as_ref().map(|_| "retry"),
                rule.session_persistence.as_ref().map(|_| "sessionPersistence"),
            ]
            .into_iter()
            .flatten()
            .collect(),
        };
        Self {
            key: route.key,
            kind: RouteKind::Http,
            metadata: &route.object.metadata,
            parents: &route.object.spec.parent_refs,
            rules: route.object.spec.rules.iter().map(rule).collect(),
        }
    }

    fn grpc(route: &Named<'a, GrpcRoute>) -> Self {
        let rule = |rule: &'a crate::objects::gateway_api::grpc_route::Rule| WrittenRule {
            name: rule.name.as_deref(),
            matches: rule.matches.iter().map(matches::grpc).collect(),
            filters: &rule.filters,
            backends: &rule.backend_refs,
            timeouts: Timeouts::default(),
            unsupported: rule.session_persistence.iter().map(|_| "sessionPersistence").collect(),
        };
        Self {
            key: route.key,
            kind: RouteKind::Grpc,
            metadata: &route.object.metadata,
            parents: &route.object.spec.parent_refs,
            rules: route.object.spec.rules.iter().map(rule).collect(),
        }
    }

    fn namespace(&self) -> &'a str {
        self.key.namespace.as_deref().unwrap_or_default()
    }

    /// `None` where no parent takes it.
    fn translate(&self, view: &View<'_>, taken: &BTreeSet<Parent>, report: &mut Report<'_>) -> Option<Route> {
        let mut problems = Problems::default();
        let rules: Vec<RouteRule> =
            self.rules.iter().filter_map(|rule| self.rule(rule, view, &mut problems)).collect();
        let unsupported: Vec<String> = self
            .rules
            .iter()
            .enumerate()
            .flat_map(|(at, rule)| rule.unsupported.iter().map(move |field| format!("rules[{at}].{field}")))
            .collect();
        if !unsupported.is_empty() {
            let message = format!("not carried out: {}", unsupported.join(", "));
            report.notes.add(self.key, Reason::NoEffect, message);
        }
        let mut parents = Vec::new();
        for parent in self.parents {
            if let Some(found) = self.parent(parent, view, taken, &problems, report) {
                parents.push(found);
            }
        }
        parents.dedup();
        (!parents.is_empty() && !rules.is_empty()).then(|| Route {
            name: RouteName {
                kind: self.kind,
                namespace: self.namespace().into(),
                name: self.key.name.clone(),
            },
            created: created(self.metadata),
            order: Order::MostSpecific,
            parents,
            // GAMMA: "hostnames" are ignored in a mesh.
            hostnames: Vec::new(),
            rules,
        })
    }

    /// The parent, if it takes the route, and the conditions of it.
    fn parent(
        &self,
        parent: &ParentRef,
        view: &View<'_>,
        taken: &BTreeSet<Parent>,
        problems: &Problems,
        report: &mut Report<'_>,
    ) -> Option<Parent> {
        // Of a gateway of the mesh's edge, which is not ours.
        if !parent.is_service() {
            return None;
        }
        let namespace = parent.namespace.as_deref().unwrap_or(self.namespace());
        let at = match parent.port {
            Some(port) => format!("Service/{namespace}/{}:{port}", parent.name),
            None => format!("Service/{namespace}/{}", parent.name),
        };
        let attached = attached(parent, namespace, view).and_then(|(service, attached)| {
            let is_taken = |other: &&Parent| {
                other.service == attached.service
                    && (other.port.is_none() || attached.port.is_none() || other.port == attached.port)
            };
            match taken.iter().find(is_taken) {
                Some(_) => {
                    Err(("Conflicted", "a GRPCRoute holds for the same port of this Service".to_owned()))
                }
                None => Ok((service, attached)),
            }
        });
        let accepted = match (&attached, &problems.unusable) {
            (Err((reason, message)), _) => Condition::new("Accepted", false, reason, message.clone()),
            (Ok(_), Some(message)) if problems.usable_rules == 0 => {
                Condition::new("Accepted", false, "UnsupportedValue", message.clone())
            }
            (Ok(_), _) => Condition::new("Accepted", true, "Accepted", "the route is in force".to_owned()),
        };
        let resolved = match &problems.unresolved {
            None => Condition::new("ResolvedRefs", true, "ResolvedRefs", "all references exist".to_owned()),
            Some((reason, message)) => Condition::new("ResolvedRefs", false, reason, message.clone()),
        };
        let mut conditions = vec![accepted, resolved];
        if let Some(message) = problems.unusable.as_ref().filter(|_| problems.usable_rules > 0) {
            let message = format!("Dropped Rule: {message}");
            conditions.push(Condition::new("PartiallyInvalid", true, "UnsupportedValue", message));
        }
        for condition in conditions {
            report.conditions.add(self.key, condition.of_parent(&at));
        }
        let (service, attached) = attached.ok()?;
        if super::of_service(&service, view, &mut Conditions::default()).is_none() {
            let message = format!("{at} is not bound to a waypoint: the route has no effect on it");
            report.notes.add(self.key, Reason::NoEffect, message);
        }
        Some(attached)
    }

    fn rule(&self, rule: &WrittenRule<'_>, view: &View<'_>, problems: &mut Problems) -> Option<RouteRule> {
        let name = rule.name.map(Arc::from);
        let filtered = filters::translate(rule.filters);
        let (matches, filtered) = match (&rule.matches, filtered) {
            (Ok(matches), Ok(filtered)) => (matches.clone(), filtered),
            // What cannot be compared never matches, so that other rules keep what is theirs.
            (Err(why), _) => {
                problems.unusable.get_or_insert_with(|| format!("{why}; the rule never matches"));
                return None;
            }
            (Ok(matches), Err(why)) => return Some(self.unusable(name, matches.clone(), &why, problems)),
        };
        let Filtered { filters, redirect } = filtered;
        let action = match redirect {
            Some(redirect) => RuleAction::Redirect(redirect),
            None => {
                let backends = rule.backends.iter().map(|backend| self.backend(backend, view, problems));
                RuleAction::Forward(backends.collect())
            }
        };
        problems.usable_rules += 1;
        Some(RouteRule { name, matches, action, filters, timeouts: rule.timeouts })
    }

    /// A rule that answers with 500, for it is not to be done by half.
    fn unusable(
        &self,
        name: Option<Arc<str>>,
        matches: Vec<RouteMatch>,
        why: &str,
        problems: &mut Problems,
    ) -> RouteRule {
        problems.unusable.get_or_insert_with(|| format!("{why}; what the rule matches is answered with 500"));
        RouteRule {
            name,
            matches,
            action: RuleAction::Fail { status: 500, why: why.into() },
            filters: Filters::default(),
            timeouts: Timeouts::default(),
        }
    }

    fn backend(&self, backend: &BackendRef, view: &View<'_>, problems: &mut Problems) -> WeightedBackend {
        let weight = backend.weight.unwrap_or(1);
        let (target, filters) = match (self.target(backend, view), filters::of_backend(&backend.filters)) {
            (Ok(target), Ok(filters)) => (target, filters),
            (Err((reason, message)), _) => {
                problems.unresolved.get_or_insert_with(|| (reason, message.clone()));
                (BackendTarget::Invalid { status: 500, why: message.into() }, Filters::default())
            }
            (Ok(_), Err(why)) => {
                let answer = || format!("{why}; the backend's share is answered with 500");
                problems.unusable.get_or_insert_with(answer);
                (BackendTarget::Invalid { status: 500, why: why.into() }, Filters::default())
            }
        };
        WeightedBackend { weight, target, filters }
    }

    /// A reference needs no ReferenceGrant in a mesh: whoever may send to a Service may route to it.
    fn target(&self, backend: &BackendRef, view: &View<'_>) -> Result<BackendTarget, Unresolved> {
        if !backend.is_service() {
            let kind = backend.kind.as_deref().unwrap_or_default();
            return Err((
                "InvalidKind",
                format!("backend {}: kind {kind:?} cannot be routed to", backend.name),
            ));
        }
        let namespace = backend.namespace.as_deref().unwrap_or(self.namespace());
        let Some(service) = find_service(view, namespace, &backend.name) else {
            let message = format!("there is no Service {namespace}/{}: check backendRefs", backend.name);
            return Err(("BackendNotFound", message));
        };
        let port = backend.port.filter(|port| service.object.tcp_ports().any(|other| other.port == *port));
        let Some(port) = port else {
            let message = match backend.port {
                Some(port) => format!("Service {namespace}/{} has no port {port}", backend.name),
                None => format!("the reference to Service {namespace}/{} needs a port", backend.name),
            };
            return Err(("BackendNotFound", message));
        };
        Ok(BackendTarget::Service { service: service_name(namespace, &backend.name), port, subset: None })
    }
}

/// A reason of the API, and what to check.
type Unresolved = (&'static str, String);

/// What is wrong with the rules of a route.
#[derive(Default)]
struct Problems {
    usable_rules: usize,
    /// The first thing that cannot be done.
    unusable: Option<String>,
    /// The first reference that leads nowhere.
    unresolved: Option<Unresolved>,
}

fn attached<'a>(
    parent: &ParentRef,
    namespace: &str,
    view: &View<'a>,
) -> Result<(Named<'a, Service>, Parent), Unresolved> {
    let Some(service) = find_service(view, namespace, &parent.name) else {
        return Err(("NoMatchingParent", format!("there is no Service {namespace}/{}", parent.name)));
    };
    let named = parent.section_name.as_deref();
    let port = service.object.tcp_ports().find(|port| {
        named.is_none_or(|name| port.name == name) && parent.port.is_none_or(|number| port.port == number)
    });
    let asks_for_port = named.is_some() || parent.port.is_some();
    let port = match (asks_for_port, port) {
        (false, _) => None,
        (true, Some(port)) => Some(port.port),
        (true, None) => {
            let message =
                format!("Service {namespace}/{} has no such port: check port and sectionName", parent.name);
            return Err(("NoMatchingParent", message));
        }
    };
    let name: ServiceName = service_name(namespace, &parent.name);
    Ok((service, Parent { service: name, port }))
}

pub(super) fn find_service<'a>(view: &View<'a>, namespace: &str, name: &str) -> Option<Named<'a, Service>> {
    let services = view.services.get(namespace)?;
    let found = services.iter().find(|service| service.name() == name)?;
    (found.object.spec.kind.as_deref() != Some("ExternalName")).then_some(*found)
}

/// Gateway API: a duration of zero is no limit.
fn timeouts(written: WrittenTimeouts) -> Timeouts {
    let limit = |duration: Option<GatewayDuration>| {
        duration.map(|duration| duration.0).filter(|duration| *duration > Duration::ZERO)
    };
    Timeouts { request: limit(written.request), backend_request: limit(written.backend_request) }
}

/// Files have no such time: there the names decide.
pub(super) fn created(metadata: &Meta) -> i64 {
    let parsed = metadata.creation_timestamp.as_deref().map(|text| OffsetDateTime::parse(text, &Rfc3339));
    parsed.and_then(Result::ok).map_or(0, OffsetDateTime::unix_timestamp)
}
