//! What a match of a route asks for, in words.

use ambit_mesh::http::{HeaderMatch, PathMatch, RouteMatch, ValueMatch};

/// A match in words.
pub(crate) fn text(conditions: &RouteMatch) -> String {
    let mut parts = Vec::new();
    parts.extend(path(&conditions.path));
    parts.extend(conditions.method.as_ref().map(|method| format!("method {method}")));
    parts.extend(conditions.headers.iter().map(header));
    parts
        .extend(conditions.query.iter().map(|query| format!("query {} {}", query.name, value(&query.value))));
    parts.extend(conditions.authority.as_ref().map(|host| format!("host {}", value(host))));
    parts.extend(conditions.port.map(|port| format!("port {port}")));
    parts.extend(conditions.source_namespace.as_ref().map(|from| format!("client's namespace {from}")));
    if parts.is_empty() { "every request".to_owned() } else { parts.join(", ") }
}

fn path(path: &PathMatch) -> Option<String> {
    Some(match path {
        PathMatch::Any => return None,
        PathMatch::Exact(whole) => format!("path is {whole}"),
        PathMatch::Segments(prefix) => format!("path begins with the segments {prefix}"),
        PathMatch::Prefix(prefix) => format!("path begins with {prefix}"),
        PathMatch::Regex(pattern) => format!("path matches /{}/", pattern.source()),
        PathMatch::ExactIgnoringCase(whole) => format!("path is {whole} in any case"),
        PathMatch::PrefixIgnoringCase(prefix) => format!("path begins with {prefix} in any case"),
    })
}

fn header(header: &HeaderMatch) -> String {
    let not = if header.inverted { "not: " } else { "" };
    format!("{not}header {} {}", header.name, value(&header.value))
}

fn value(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(whole) => format!("is {whole:?}"),
        ValueMatch::Prefix(prefix) => format!("begins with {prefix:?}"),
        ValueMatch::Regex(pattern) => format!("matches /{}/", pattern.source()),
        ValueMatch::Present => "is present".to_owned(),
    }
}
