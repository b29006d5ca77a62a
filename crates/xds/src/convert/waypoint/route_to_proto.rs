//! Routes, written.

use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::http::{
    BackendTarget, Cors, Filters, HeaderEdits, HeaderMatch, HostPattern, Order, Parent, PathMatch,
    PathRewrite, QueryMatch, Redirect, RedirectPort, Route, RouteKind, RouteMatch, RouteRule, RuleAction,
    UnmatchedPreflight, ValueMatch, WeightedBackend,
};
use ambit_proto::ambit::waypoint::v1 as proto;
use http::{HeaderName, HeaderValue, Method};

/// Writes a route.
pub fn to_proto(from: &Route) -> proto::Route {
    let kind = match from.name.kind {
        RouteKind::Http => proto::RouteKind::HttpRoute,
        RouteKind::Grpc => proto::RouteKind::GrpcRoute,
        RouteKind::VirtualService => proto::RouteKind::VirtualService,
        RouteKind::Tcp => proto::RouteKind::TcpRoute,
        RouteKind::Tls => proto::RouteKind::TlsRoute,
    };
    let order = match from.order {
        Order::MostSpecific => proto::Order::MostSpecific,
        Order::AsWritten => proto::Order::AsWritten,
    };
    proto::Route {
        kind: kind.into(),
        namespace: from.name.namespace.to_string(),
        name: from.name.name.to_string(),
        created: from.created,
        order: order.into(),
        parents: from.parents.iter().map(parent).collect(),
        hostnames: from.hostnames.iter().map(hostname).collect(),
        rules: from.rules.iter().map(rule).collect(),
    }
}

fn parent(from: &Parent) -> proto::Parent {
    proto::Parent {
        namespace: from.service.namespace.to_string(),
        hostname: from.service.hostname.to_string(),
        port: port(from.port),
    }
}

fn port(port: Option<u16>) -> u32 {
    port.map_or(0, u32::from)
}

fn hostname(from: &HostPattern) -> String {
    match from {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Suffix(end) => format!("*{end}"),
    }
}

fn rule(from: &RouteRule) -> proto::RouteRule {
    proto::RouteRule {
        name: text(from.name.as_deref()),
        matches: from.matches.iter().map(route_match).collect(),
        action: Some(action(&from.action)),
        filters: filters(&from.filters),
        request_timeout_ms: from.timeouts.request.map(milliseconds),
        backend_request_timeout_ms: from.timeouts.backend_request.map(milliseconds),
    }
}

fn text(text: Option<&str>) -> String {
    text.unwrap_or_default().to_owned()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn route_match(from: &RouteMatch) -> proto::RouteMatch {
    proto::RouteMatch {
        path: path(&from.path),
        method: text(from.method.as_ref().map(Method::as_str)),
        headers: from.headers.iter().map(header).collect(),
        query: from.query.iter().map(query).collect(),
        authority: from.authority.as_ref().map(value),
        port: port(from.port),
        source_namespace: text(from.source_namespace.as_deref()),
    }
}

fn path(from: &PathMatch) -> Option<proto::PathMatch> {
    use proto::path_match::Kind;
    let kind = match from {
        PathMatch::Any => return None,
        PathMatch::Exact(text) => Kind::Exact(text.to_string()),
        PathMatch::Segments(text) => Kind::Segments(text.to_string()),
        PathMatch::Prefix(text) => Kind::Prefix(text.to_string()),
        PathMatch::Regex(pattern) => Kind::Regex(pattern.source().to_owned()),
        PathMatch::ExactIgnoringCase(text) => Kind::ExactIgnoringCase(text.to_string()),
        PathMatch::PrefixIgnoringCase(text) => Kind::PrefixIgnoringCase(text.to_string()),
    };
    Some(proto::PathMatch { kind: Some(kind) })
}

fn value(from: &ValueMatch) -> proto::ValueMatch {
    use proto::value_match::Kind;
    let kind = match from {
        ValueMatch::Exact(text) => Kind::Exact(text.to_string()),
        ValueMatch::Prefix(text) => Kind::Prefix(text.to_string()),
        ValueMatch::Regex(pattern) => Kind::Regex(pattern.source().to_owned()),
        ValueMatch::Present => Kind::Present(true),
    };
    proto::ValueMatch { kind: Some(kind) }
}

fn header(from: &HeaderMatch) -> proto::HeaderMatch {
    proto::HeaderMatch {
        name: from.name.to_string(),
        value: Some(value(&from.value)),
        inverted: from.inverted,
    }
}

fn query(from: &QueryMatch) -> proto::QueryMatch {
    proto::QueryMatch { name: from.name.to_string(), value: Some(value(&from.value)) }
}

fn action(from: &RuleAction) -> proto::route_rule::Action {
    use proto::route_rule::Action;
    match from {
        RuleAction::Forward(backends) => {
            Action::Forward(proto::Forward { backends: backends.iter().map(backend).collect() })
        }
        RuleAction::Redirect(from) => Action::Redirect(redirect(from)),
        RuleAction::Respond(from) => Action::Respond(proto::DirectResponse {
            status: u32::from(from.status),
            body: from.body.to_vec(),
        }),
        RuleAction::Fail { status, why } => Action::Fail(failure(*status, why)),
    }
}

fn redirect(from: &Redirect) -> proto::Redirect {
    let (number, derived) = match from.port {
        RedirectPort::Number(port) => (Some(port), proto::DerivedPort::Unspecified),
        RedirectPort::Usual => (None, proto::DerivedPort::Unspecified),
        RedirectPort::OfScheme => (None, proto::DerivedPort::OfScheme),
        RedirectPort::Dialled => (None, proto::DerivedPort::Dialled),
    };
    proto::Redirect {
        scheme: text(from.scheme.as_deref()),
        host: text(from.host.as_deref()),
        port: port(number),
        path: from.path.as_ref().map(path_rewrite),
        status: u32::from(from.status),
        derived_port: derived.into(),
    }
}

fn failure(status: u16, why: &str) -> proto::Failure {
    proto::Failure { status: u32::from(status), why: why.to_owned() }
}

fn backend(from: &WeightedBackend) -> proto::WeightedBackend {
    use proto::weighted_backend::Target;
    let target = match &from.target {
        BackendTarget::Service { service, port, subset } => Target::Service(proto::ServiceBackend {
            namespace: service.namespace.to_string(),
            hostname: service.hostname.to_string(),
            port: u32::from(*port),
            subset: text(subset.as_deref()),
        }),
        BackendTarget::Invalid { status, why } => Target::Invalid(failure(*status, why)),
    };
    proto::WeightedBackend { weight: from.weight, target: Some(target), filters: filters(&from.filters) }
}

/// Absent where nothing is changed: most rules change nothing.
fn filters(from: &Filters) -> Option<proto::Filters> {
    (*from != Filters::default()).then(|| proto::Filters {
        request: edits(&from.request),
        response: edits(&from.response),
        host: text(from.rewrite.host.as_deref()),
        path: from.rewrite.path.as_ref().map(path_rewrite),
        cors: from.cors.as_ref().map(cors),
    })
}

fn cors(from: &Cors) -> proto::Cors {
    let names = |names: &[Arc<str>]| names.iter().map(ToString::to_string).collect();
    proto::Cors {
        origins: from.origins.iter().map(value).collect(),
        methods: names(&from.methods),
        headers: names(&from.headers),
        exposed: names(&from.exposed),
        max_age_seconds: from.max_age_seconds,
        credentials: from.credentials,
        forwards_unmatched: from.unmatched == UnmatchedPreflight::Forwarded,
    }
}

fn edits(from: &HeaderEdits) -> Option<proto::HeaderEdits> {
    let pair = |(name, value): &(HeaderName, HeaderValue)| proto::Header {
        name: name.to_string(),
        value: value.as_bytes().to_vec(),
    };
    (*from != HeaderEdits::default()).then(|| proto::HeaderEdits {
        set: from.set.iter().map(pair).collect(),
        add: from.add.iter().map(pair).collect(),
        remove: from.remove.iter().map(ToString::to_string).collect(),
    })
}

fn path_rewrite(from: &PathRewrite) -> proto::PathRewrite {
    use proto::path_rewrite::Kind;
    let kind = match from {
        PathRewrite::Full(text) => Kind::Full(text.to_string()),
        PathRewrite::MatchedPrefix(text) => Kind::MatchedPrefix(text.to_string()),
        PathRewrite::Substituted(from) => Kind::Substitution(proto::Substitution {
            pattern: from.pattern().to_owned(),
            rewrite: from.rewrite().to_owned(),
        }),
    };
    proto::PathRewrite { kind: Some(kind) }
}
