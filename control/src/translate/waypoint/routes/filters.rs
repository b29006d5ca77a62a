//! Filters of routes. One that is not carried out must not be skipped: it changes what is sent.

use ambit_mesh::http::{Filters, HeaderEdits, PathRewrite, Redirect, RedirectPort};
use http::{HeaderName, HeaderValue};

use crate::objects::gateway_api::parts::{Filter, Header, HeaderModifier, PathModifier, RequestRedirect};
use crate::translate::waypoint::cors;

/// What the filters of a rule say.
pub(super) struct Filtered {
    pub(super) filters: Filters,
    pub(super) redirect: Option<Redirect>,
}

/// Filters of a rule.
pub(super) fn translate(from: &[Filter]) -> Result<Filtered, String> {
    let mut filtered = Filtered { filters: Filters::default(), redirect: None };
    for filter in from {
        let missing = || format!("filter {} has no configuration", filter.kind);
        match filter.kind.as_str() {
            "RequestHeaderModifier" => {
                let edits = filter.request_header_modifier.as_ref().ok_or_else(missing)?;
                filtered.filters.request = header_edits(edits)?;
            }
            "ResponseHeaderModifier" => {
                let edits = filter.response_header_modifier.as_ref().ok_or_else(missing)?;
                filtered.filters.response = header_edits(edits)?;
            }
            "URLRewrite" => {
                let rewrite = filter.url_rewrite.as_ref().ok_or_else(missing)?;
                filtered.filters.rewrite.host = rewrite.hostname.as_deref().map(Into::into);
                filtered.filters.rewrite.path = rewrite.path.as_ref().map(path);
            }
            "RequestRedirect" => {
                let redirect = filter.request_redirect.as_ref().ok_or_else(missing)?;
                filtered.redirect = Some(self::redirect(redirect)?);
            }
            "CORS" => {
                let cors = filter.cors.as_ref().ok_or_else(missing)?;
                filtered.filters.cors = Some(cors::of_route(cors)?);
            }
            other => return Err(format!("filter {other} is not supported")),
        }
    }
    Ok(filtered)
}

/// Filters of a backend.
pub(super) fn of_backend(from: &[Filter]) -> Result<Filters, String> {
    let Filtered { filters, redirect } = translate(from)?;
    match redirect {
        None if filters.cors.is_some() => Err("filter CORS is not supported on a backend".to_owned()),
        None => Ok(filters),
        Some(_) => Err("filter RequestRedirect is not supported on a backend".to_owned()),
    }
}

fn redirect(from: &RequestRedirect) -> Result<Redirect, String> {
    let status = from.status_code.unwrap_or(302);
    if ![301, 302, 303, 307, 308].contains(&status) {
        return Err(format!("status {status} of RequestRedirect is not supported"));
    }
    if let Some(scheme) = from.scheme.as_deref().filter(|scheme| !["http", "https"].contains(scheme)) {
        return Err(format!("scheme {scheme:?} of RequestRedirect is not supported"));
    }
    Ok(Redirect {
        scheme: from.scheme.as_deref().map(Into::into),
        host: from.hostname.as_deref().map(Into::into),
        port: from.port.map_or(RedirectPort::Usual, RedirectPort::Number),
        path: from.path.as_ref().map(path),
        status,
    })
}

fn path(from: &PathModifier) -> PathRewrite {
    match from {
        PathModifier::ReplaceFullPath { replace_full_path } => {
            PathRewrite::Full(replace_full_path.as_str().into())
        }
        PathModifier::ReplacePrefixMatch { replace_prefix_match } => {
            PathRewrite::MatchedPrefix(replace_prefix_match.as_str().into())
        }
    }
}

fn header_edits(from: &HeaderModifier) -> Result<HeaderEdits, String> {
    let pairs = |headers: &[Header]| headers.iter().map(pair).collect::<Result<Vec<_>, _>>();
    let remove = from.remove.iter().map(|text| name(text)).collect::<Result<Vec<_>, _>>()?;
    Ok(HeaderEdits { set: pairs(&from.set)?, add: pairs(&from.add)?, remove })
}

fn pair(header: &Header) -> Result<(HeaderName, HeaderValue), String> {
    let value = header.value.parse();
    let value = value.map_err(|_| format!("the value of header {} cannot be one", header.name))?;
    Ok((name(&header.name)?, value))
}

/// `Host` is not a header like others: it is the authority, which URLRewrite changes.
fn name(text: &str) -> Result<HeaderName, String> {
    let name: HeaderName = text.parse().map_err(|_| format!("{text:?} cannot be the name of a header"))?;
    if name == http::header::HOST {
        return Err("header Host cannot be changed by a header filter: use URLRewrite".to_owned());
    }
    Ok(name)
}
