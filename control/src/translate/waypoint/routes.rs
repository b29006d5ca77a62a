//! HTTPRoute, GRPCRoute, TLSRoute and TCPRoute -> [`Route`].

mod filters;
mod matches;
mod parents;

use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::http::{
    BackendTarget, Filters, HostPattern, Order, Parent, Route, RouteKind, RouteMatch, RouteName, RouteRule,
    RuleAction, Timeouts, WeightedBackend,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use self::filters::Filtered;
use self::parents::{Attached, Taken, attached};
use super::ForWaypoints;
use crate::objects::gateway_api::http_route::Timeouts as WrittenTimeouts;
use crate::objects::gateway_api::parts::{BackendRef, Filter, GatewayDuration, ParentRef};
use crate::objects::gateway_api::{ConnectionRoute, GrpcRoute, HttpRoute};
use crate::objects::meta::Meta;
use crate::objects::networking::is_exported;
use crate::objects::{Service, ServiceEntry};
use crate::translate::conditions::{Condition, Conditions};
use crate::translate::view::{Named, View};
use crate::translate::{Notes, Reason};

/// Where routes say what became of them.
pub(in crate::translate) struct Report<'a> {
    pub(in crate::translate) notes: &'a mut Notes,
    pub(in crate::translate) conditions: &'a mut Conditions,
}

/// Translates all of them. For one port of a Service one type of route holds: GRPCRoute before HTTPRoute before
/// TLSRoute before TCPRoute (GAMMA).
pub(in crate::translate) fn translate(view: &View<'_>, report: &mut Report<'_>, out: &mut ForWaypoints) {
    let mut taken = Taken::default();
    let by_strength: [Vec<Written<'_>>; 4] = [
        view.grpc_routes.iter().map(Written::grpc).collect(),
        view.http_routes.iter().map(Written::http).collect(),
        view.tls_routes.iter().map(|route| Written::connection(RouteKind::Tls, route)).collect(),
        view.tcp_routes.iter().map(|route| Written::connection(RouteKind::Tcp, route)).collect(),
    ];
    for written in by_strength {
        let routes: Vec<Route> =
            written.iter().filter_map(|route| route.translate(view, &taken, report)).collect();
        taken.add(&routes, view);
        out.routes.extend(routes.into_iter().map(|route| (route.name.clone(), Arc::new(route))));
    }
}

/// What both types of route have in common.
struct Written<'a> {
    key: &'a crate::objects::ObjectKey,
    kind: RouteKind,
    metadata: &'a Meta,
    parents: &'a [ParentRef],
    /// Of a TLSRoute. GAMMA: those of an HTTPRoute and a GRPCRoute are ignored in a mesh.
    hostnames: &'a [String],
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
            hostnames: &[],
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
            hostnames: &[],
            rules: route.object.spec.rules.iter().map(rule).collect(),
        }
    }

    fn connection(kind: RouteKind, route: &Named<'a, ConnectionRoute>) -> Self {
        let rule = |rule: &'a crate::objects::gateway_api::connection_route::Rule| WrittenRule {
            name: rule.name.as_deref(),
            matches: Ok(Vec::new()),
            filters: &[],
            backends: &rule.backend_refs,
            timeouts: Timeouts::default(),
            unsupported: Vec::new(),
        };
        let spec = &route.object.spec;
        Self {
            key: route.key,
            kind,
            metadata: &route.object.metadata,
            parents: &spec.parent_refs,
            hostnames: if kind == RouteKind::Tls { &spec.hostnames } else { &[] },
            rules: spec.rules.iter().map(rule).collect(),
        }
    }

    fn namespace(&self) -> &'a str {
        self.key.namespace.as_deref().unwrap_or_default()
    }

    /// `None` where no parent takes it. One whose rules are all dropped is still a route, of which no rule matches: it
    /// keeps its parents' default way shut.
    fn translate(&self, view: &View<'_>, taken: &Taken, report: &mut Report<'_>) -> Option<Route> {
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
        let mut parents: Vec<Parent> = Vec::new();
        for parent in self.parents {
            for found in self.parent(parent, view, taken, &problems, report) {
                if !parents.contains(&found) {
                    parents.push(found);
                }
            }
        }
        (!parents.is_empty() && !self.rules.is_empty()).then(|| Route {
            name: RouteName {
                kind: self.kind,
                namespace: self.namespace().into(),
                name: self.key.name.clone(),
            },
            created: created(self.metadata),
            order: Order::MostSpecific,
            parents,
            hostnames: self.hostnames.iter().map(|name| host_pattern(name)).collect(),
            rules,
        })
    }

    /// What of a parent takes the route, and the conditions of it.
    fn parent(
        &self,
        parent: &ParentRef,
        view: &View<'_>,
        taken: &Taken,
        problems: &Problems,
        report: &mut Report<'_>,
    ) -> Vec<Parent> {
        // Of a gateway of the mesh's edge, which is not ours.
        if !parent.is_service() && !parent.is_service_entry() {
            return Vec::new();
        }
        let at = parents::place(parent, self.namespace());
        let attached = attached(parent, self.namespace(), view, taken);
        let is_bound = attached.as_ref().is_ok_and(|attached| {
            let is_bound = |service| super::of_service(service, view, &mut Conditions::default()).is_some();
            attached.services.iter().any(is_bound)
        });
        for condition in conditions(attached.as_ref(), is_bound, problems) {
            report.conditions.add(self.key, condition.of_parent(&at));
        }
        let Ok(Attached { parents, .. }) = attached else { return Vec::new() };
        if !is_bound {
            let message = format!("{at} is not bound to a waypoint: the route has no effect on it");
            report.notes.add(self.key, Reason::NoEffect, message);
        }
        parents
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
        if backend.is_hostname() {
            let found = find_host(view, &backend.name, self.namespace()).ok_or_else(|| {
                let message =
                    format!("there is no ServiceEntry with host {}: check backendRefs", backend.name);
                ("BackendNotFound", message)
            })?;
            return at_port(&found, backend, &format!("host {}", backend.name));
        }
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
        at_port(&service, backend, &format!("Service {namespace}/{}", backend.name))
    }
}

fn at_port(
    service: &Named<'_, Service>,
    backend: &BackendRef,
    what: &str,
) -> Result<BackendTarget, Unresolved> {
    let port = backend.port.filter(|port| service.object.tcp_ports().any(|other| other.port == *port));
    let port = port.ok_or_else(|| match backend.port {
        Some(port) => ("BackendNotFound", format!("{what} has no port {port}")),
        None => ("BackendNotFound", format!("the reference to {what} needs a port")),
    })?;
    Ok(BackendTarget::Service { service: service.mesh_name(), port, subset: None })
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

/// What a route says of one of its parents, which may be bound to no waypoint: then nothing carries the route out, and
/// nothing else on Kubernetes says so.
fn conditions(
    attached: Result<&Attached<'_>, &Unresolved>,
    is_bound: bool,
    problems: &Problems,
) -> Vec<Condition> {
    let accepted = match (attached, &problems.unusable) {
        (Err((reason, message)), _) => Condition::new("Accepted", false, reason, message.clone()),
        (Ok(_), Some(message)) if problems.usable_rules == 0 => {
            Condition::new("Accepted", false, "UnsupportedValue", message.clone())
        }
        (Ok(_), _) if !is_bound => {
            let message =
                "it has no effect: no waypoint takes what is sent there; check istio.io/use-waypoint";
            Condition::new("Accepted", true, "Accepted", message.to_owned())
        }
        (Ok(attached), _) => {
            let held = |(port, kind): &(u16, RouteKind)| {
                format!(" but for port {port}, which a {} holds", kind.as_str())
            };
            let lost: String = attached.lost.iter().map(held).collect();
            Condition::new("Accepted", true, "Accepted", format!("the route is in force{lost}"))
        }
    };
    let resolved = match &problems.unresolved {
        None => Condition::new("ResolvedRefs", true, "ResolvedRefs", "all references exist".to_owned()),
        Some((reason, message)) => Condition::new("ResolvedRefs", false, reason, message.clone()),
    };
    let partially = problems.unusable.as_ref().filter(|_| problems.usable_rules > 0).map(|message| {
        Condition::new("PartiallyInvalid", true, "UnsupportedValue", format!("Dropped Rule: {message}"))
    });
    [Some(accepted), Some(resolved), partially].into_iter().flatten().collect()
}

pub(super) fn find_service<'a>(view: &View<'a>, namespace: &str, name: &str) -> Option<Named<'a, Service>> {
    let services = view.services.get(namespace)?;
    let found = services.iter().find(|service| service.object.entry.is_none() && service.name() == name)?;
    (found.object.spec.kind.as_deref() != Some("ExternalName")).then_some(*found)
}

fn host_pattern(name: &str) -> HostPattern {
    match name.strip_prefix('*') {
        Some(end) => HostPattern::Suffix(end.into()),
        None => HostPattern::Exact(name.into()),
    }
}

/// The service of a ServiceEntry with this host; one of `namespace` comes first.
pub(super) fn find_host<'a>(view: &View<'a>, host: &str, namespace: &str) -> Option<Named<'a, Service>> {
    let is_it = |service: &&Named<'_, Service>| {
        service.object.entry.as_ref().is_some_and(|entry| entry.host.eq_ignore_ascii_case(host))
    };
    let own = view.services.get(namespace).into_iter().flatten().find(is_it);
    let exported = view
        .service_entries
        .iter()
        .filter(|entry| is_exported(&entry.object.export_to, entry.namespace(), namespace));
    let of_entry = |entry: &Named<'_, ServiceEntry>| {
        let services = view.services.get(entry.namespace()).into_iter().flatten();
        services.filter(|service| service.key == entry.key).find(is_it)
    };
    own.or_else(|| exported.into_iter().find_map(of_entry)).copied()
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
