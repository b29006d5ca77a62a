//! Conditions of routes.

use ambit_mesh::http::{HeaderMatch, PathMatch, Pattern, QueryMatch, RouteMatch, ValueMatch};
use http::{HeaderName, Method};

use crate::objects::gateway_api::grpc_route::{self, MethodMatch};
use crate::objects::gateway_api::http_route::{self, PathKind};
use crate::objects::gateway_api::parts::{MatchKind, NamedMatch};

/// Conditions of an HTTPRoute.
pub(super) fn http(from: &http_route::Match) -> Result<RouteMatch, String> {
    let value = from.path.value.as_str();
    let path = match from.path.kind {
        PathKind::Exact => PathMatch::Exact(value.into()),
        PathKind::PathPrefix => PathMatch::Segments(value.into()),
        PathKind::RegularExpression => PathMatch::Regex(Pattern::new(value).map_err(|e| e.to_string())?),
    };
    let method = from.method.as_deref().map(|text| text.parse::<Method>());
    Ok(RouteMatch {
        path,
        method: method.transpose().map_err(|_| "the method of a match is none".to_owned())?,
        headers: headers(&from.headers)?,
        query: query(&from.query_params)?,
        ..RouteMatch::default()
    })
}

/// Conditions of a GRPCRoute: a call is a request for `/<service>/<method>`.
pub(super) fn grpc(from: &grpc_route::Match) -> Result<RouteMatch, String> {
    let path = from.method.as_ref().map_or(Ok(PathMatch::Any), call)?;
    Ok(RouteMatch { path, headers: headers(&from.headers)?, ..RouteMatch::default() })
}

fn call(from: &MethodMatch) -> Result<PathMatch, String> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let regex = |service: &str, method: &str| {
        Pattern::new(&format!("/(?:{service})/(?:{method})")).map(PathMatch::Regex).map_err(|e| e.to_string())
    };
    match (from.kind, given(&from.service), given(&from.method)) {
        (_, None, None) => Err("a method match needs a service or a method".to_owned()),
        (MatchKind::Exact, Some(service), Some(method)) => {
            Ok(PathMatch::Exact(format!("/{service}/{method}").into()))
        }
        (MatchKind::Exact, Some(service), None) => Ok(PathMatch::Segments(format!("/{service}").into())),
        (MatchKind::Exact, None, Some(method)) => regex("[^/]+", &escaped(&method)),
        (MatchKind::RegularExpression, service, method) => {
            let any = || "[^/]+".to_owned();
            regex(&service.unwrap_or_else(any), &method.unwrap_or_else(any))
        }
    }
}

/// A name as an expression that means itself.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if !(c.is_alphanumeric() || c == '_') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

/// Of several for one header the first counts (Gateway API).
fn headers(from: &[NamedMatch]) -> Result<Vec<HeaderMatch>, String> {
    let mut headers: Vec<HeaderMatch> = Vec::new();
    for one in from {
        let name: HeaderName =
            one.name.parse().map_err(|_| format!("{:?} cannot be the name of a header", one.name))?;
        if headers.iter().all(|other| other.name != name) {
            headers.push(HeaderMatch { name, value: value(one)?, inverted: false });
        }
    }
    Ok(headers)
}

fn query(from: &[NamedMatch]) -> Result<Vec<QueryMatch>, String> {
    let mut query: Vec<QueryMatch> = Vec::new();
    for one in from {
        if query.iter().all(|other| *other.name != *one.name) {
            query.push(QueryMatch { name: one.name.as_str().into(), value: value(one)? });
        }
    }
    Ok(query)
}

fn value(from: &NamedMatch) -> Result<ValueMatch, String> {
    match from.kind {
        MatchKind::Exact => Ok(ValueMatch::Exact(from.value.as_str().into())),
        MatchKind::RegularExpression => {
            Pattern::new(&from.value).map(ValueMatch::Regex).map_err(|error| error.to_string())
        }
    }
}
