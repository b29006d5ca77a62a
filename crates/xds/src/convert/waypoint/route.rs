//! Routes, read.

use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::http::{
    BackendTarget, Cors, DirectResponse, Filters, HeaderEdits, HeaderMatch, HostPattern, Order, Parent,
    PathMatch, PathRewrite, Pattern, QueryMatch, Redirect, RedirectPort, Rewrite, Route, RouteKind,
    RouteMatch, RouteName, RouteRule, RuleAction, Substitution, Timeouts, UnmatchedPreflight, ValueMatch,
    WeightedBackend,
};
use ambit_proto::ambit::waypoint::v1 as proto;
use http::{HeaderName, HeaderValue, Method};

pub use super::route_to_proto::to_proto;
use super::{
    InvalidWaypointResource, Read, all, header_name, non_empty, optional, optional_port, required, service,
};
use crate::convert::ports;

/// Reads a route.
///
/// # Errors
/// When a part of it is missing, of a later version, or impossible.
pub fn from_proto(from: &proto::Route) -> Read<Route> {
    let kind = match from.kind() {
        proto::RouteKind::HttpRoute => Some(RouteKind::Http),
        proto::RouteKind::GrpcRoute => Some(RouteKind::Grpc),
        proto::RouteKind::VirtualService => Some(RouteKind::VirtualService),
        proto::RouteKind::TcpRoute => Some(RouteKind::Tcp),
        proto::RouteKind::TlsRoute => Some(RouteKind::Tls),
        proto::RouteKind::Unspecified => None,
    };
    let order = match from.order() {
        proto::Order::MostSpecific => Some(Order::MostSpecific),
        proto::Order::AsWritten => Some(Order::AsWritten),
        proto::Order::Unspecified => None,
    };
    Ok(Route {
        name: RouteName {
            kind: required(kind, "kind")?,
            namespace: non_empty(&from.namespace, "namespace")?.into(),
            name: non_empty(&from.name, "name")?.into(),
        },
        created: from.created,
        order: required(order, "order")?,
        parents: all(&from.parents, parent)?,
        hostnames: from.hostnames.iter().map(|text| hostname(text)).collect(),
        rules: all(&from.rules, rule)?,
    })
}

fn parent(from: &proto::Parent) -> Read<Parent> {
    Ok(Parent { service: service(&from.namespace, &from.hostname)?, port: optional_port(from.port)? })
}

fn hostname(text: &str) -> HostPattern {
    match text.strip_prefix('*') {
        Some(end) => HostPattern::Suffix(end.into()),
        None => HostPattern::Exact(text.into()),
    }
}

fn rule(from: &proto::RouteRule) -> Read<RouteRule> {
    let timeout = |milliseconds: Option<u64>| milliseconds.map(Duration::from_millis);
    Ok(RouteRule {
        name: optional(&from.name).map(Arc::from),
        matches: all(&from.matches, route_match)?,
        action: action(required(from.action.as_ref(), "action")?)?,
        filters: filters(from.filters.as_ref())?,
        timeouts: Timeouts {
            request: timeout(from.request_timeout_ms),
            backend_request: timeout(from.backend_request_timeout_ms),
        },
    })
}

fn route_match(from: &proto::RouteMatch) -> Read<RouteMatch> {
    Ok(RouteMatch {
        path: from.path.as_ref().map_or(Ok(PathMatch::Any), path)?,
        method: optional(&from.method).map(method).transpose()?,
        headers: all(&from.headers, header)?,
        query: all(&from.query, query)?,
        authority: from.authority.as_ref().map(|value_of| value(Some(value_of))).transpose()?,
        port: optional_port(from.port)?,
        source_namespace: optional(&from.source_namespace).map(Arc::from),
    })
}

fn path(from: &proto::PathMatch) -> Read<PathMatch> {
    use proto::path_match::Kind;
    Ok(match required(from.kind.as_ref(), "path")? {
        Kind::Exact(text) => PathMatch::Exact(text.as_str().into()),
        Kind::Segments(text) => PathMatch::Segments(text.as_str().into()),
        Kind::Prefix(text) => PathMatch::Prefix(text.as_str().into()),
        Kind::Regex(text) => PathMatch::Regex(Pattern::new(text)?),
        Kind::ExactIgnoringCase(text) => PathMatch::ExactIgnoringCase(text.as_str().into()),
        Kind::PrefixIgnoringCase(text) => PathMatch::PrefixIgnoringCase(text.as_str().into()),
    })
}

fn value(from: Option<&proto::ValueMatch>) -> Read<ValueMatch> {
    use proto::value_match::Kind;
    Ok(match required(from.and_then(|from| from.kind.as_ref()), "value")? {
        Kind::Exact(text) => ValueMatch::Exact(text.as_str().into()),
        Kind::Prefix(text) => ValueMatch::Prefix(text.as_str().into()),
        Kind::Regex(text) => ValueMatch::Regex(Pattern::new(text)?),
        Kind::Present(_) => ValueMatch::Present,
    })
}

fn method(text: &str) -> Read<Method> {
    text.parse().map_err(|_| InvalidWaypointResource::Method { method: text.into() })
}

fn header(from: &proto::HeaderMatch) -> Read<HeaderMatch> {
    Ok(HeaderMatch {
        name: header_name(&from.name)?,
        value: value(from.value.as_ref())?,
        inverted: from.inverted,
    })
}

fn query(from: &proto::QueryMatch) -> Read<QueryMatch> {
    Ok(QueryMatch { name: non_empty(&from.name, "query.name")?.into(), value: value(from.value.as_ref())? })
}

fn action(from: &proto::route_rule::Action) -> Read<RuleAction> {
    use proto::route_rule::Action;
    Ok(match from {
        Action::Forward(forward) => RuleAction::Forward(all(&forward.backends, backend)?),
        Action::Redirect(from) => RuleAction::Redirect(Redirect {
            scheme: optional(&from.scheme).map(Arc::from),
            host: optional(&from.host).map(Arc::from),
            port: redirect_port(from)?,
            path: from.path.as_ref().map(path_rewrite).transpose()?,
            status: status(from.status)?,
        }),
        Action::Respond(from) => RuleAction::Respond(DirectResponse {
            status: status(from.status)?,
            body: from.body.as_slice().into(),
        }),
        Action::Fail(from) => {
            RuleAction::Fail { status: status(from.status)?, why: from.why.as_str().into() }
        }
    })
}

fn redirect_port(from: &proto::Redirect) -> Read<RedirectPort> {
    Ok(match (optional_port(from.port)?, from.derived_port()) {
        (Some(port), _) => RedirectPort::Number(port),
        (None, proto::DerivedPort::Unspecified) => RedirectPort::Usual,
        (None, proto::DerivedPort::OfScheme) => RedirectPort::OfScheme,
        (None, proto::DerivedPort::Dialled) => RedirectPort::Dialled,
    })
}

fn backend(from: &proto::WeightedBackend) -> Read<WeightedBackend> {
    use proto::weighted_backend::Target;
    let target = match required(from.target.as_ref(), "target")? {
        Target::Service(of) => BackendTarget::Service {
            service: service(&of.namespace, &of.hostname)?,
            port: ports::port(of.port)?,
            subset: optional(&of.subset).map(Arc::from),
        },
        Target::Invalid(of) => {
            BackendTarget::Invalid { status: status(of.status)?, why: of.why.as_str().into() }
        }
    };
    Ok(WeightedBackend { weight: from.weight, target, filters: filters(from.filters.as_ref())? })
}

fn status(status: u32) -> Read<u16> {
    let known = u16::try_from(status).ok().filter(|status| (200..=599).contains(status));
    known.ok_or(InvalidWaypointResource::Status { status })
}

fn filters(from: Option<&proto::Filters>) -> Read<Filters> {
    let Some(from) = from else {
        return Ok(Filters::default());
    };
    Ok(Filters {
        request: edits(from.request.as_ref())?,
        response: edits(from.response.as_ref())?,
        rewrite: Rewrite {
            host: optional(&from.host).map(Arc::from),
            path: from.path.as_ref().map(path_rewrite).transpose()?,
        },
        cors: from.cors.as_ref().map(cors).transpose()?,
    })
}

fn cors(from: &proto::Cors) -> Read<Cors> {
    let names = |names: &[String]| names.iter().map(|name| Arc::from(name.as_str())).collect();
    Ok(Cors {
        origins: all(&from.origins, |origin| value(Some(origin)))?,
        methods: names(&from.methods),
        headers: names(&from.headers),
        exposed: names(&from.exposed),
        max_age_seconds: from.max_age_seconds,
        credentials: from.credentials,
        unmatched: match from.forwards_unmatched {
            true => UnmatchedPreflight::Forwarded,
            false => UnmatchedPreflight::Answered,
        },
    })
}

fn edits(from: Option<&proto::HeaderEdits>) -> Read<HeaderEdits> {
    let Some(from) = from else {
        return Ok(HeaderEdits::default());
    };
    Ok(HeaderEdits {
        set: all(&from.set, header_pair)?,
        add: all(&from.add, header_pair)?,
        remove: all(&from.remove, |name| header_name(name))?,
    })
}

fn header_pair(from: &proto::Header) -> Read<(HeaderName, HeaderValue)> {
    let invalid = |_| InvalidWaypointResource::HeaderValue { name: from.name.clone() };
    Ok((header_name(&from.name)?, HeaderValue::from_bytes(&from.value).map_err(invalid)?))
}

fn path_rewrite(from: &proto::PathRewrite) -> Read<PathRewrite> {
    use proto::path_rewrite::Kind;
    Ok(match required(from.kind.as_ref(), "path rewrite")? {
        Kind::Full(text) => PathRewrite::Full(text.as_str().into()),
        Kind::MatchedPrefix(text) => PathRewrite::MatchedPrefix(text.as_str().into()),
        Kind::Substitution(of) => PathRewrite::Substituted(Substitution::new(&of.pattern, &of.rewrite)?),
    })
}
