//! Rules of a VirtualService. What cannot be carried out is answered with 500, and what cannot be compared
//! never matches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_mesh::http::{
    BackendTarget, DirectResponse, Filters, HeaderEdits, HeaderMatch, PathMatch, PathRewrite, Pattern,
    QueryMatch, Redirect, Rewrite, RouteMatch, RouteRule, RuleAction, SubsetName, Timeouts, ValueMatch,
    WeightedBackend,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, Method};

use super::resolved;
use crate::objects::meta::StringMap;
use crate::objects::networking::virtual_service::{
    self as written, Destination, HeaderOperations, Headers, HttpMatch, HttpRule, StringMatch,
};
use crate::translate::view::View;
use crate::translate::waypoint::routes::find_service;
use crate::translate::{Reason, service_name};

/// What rules are translated by.
pub(super) struct Rules<'a, 'b> {
    pub(super) view: &'b View<'a>,
    pub(super) subsets: &'b BTreeMap<SubsetName, &'a StringMap>,
    /// The object's.
    pub(super) namespace: &'b str,
    /// Of the services that it is for.
    pub(super) ports: BTreeSet<u16>,
}

type Problems = Vec<(Reason, String)>;

impl Rules<'_, '_> {
    pub(super) fn translate(&self, rules: &[HttpRule]) -> (Vec<RouteRule>, Problems) {
        let mut problems = Problems::new();
        let mut translated = Vec::new();
        for (at, rule) in rules.iter().enumerate() {
            note_unsupported(at, rule, &mut problems);
            match self.rule(rule) {
                Ok(rules) => translated.extend(rules),
                Err(why) => {
                    let compared = matches(&rule.matches);
                    let effect = match &compared {
                        Ok(_) => "what it matches is answered with 500",
                        Err(_) => "the rule never matches",
                    };
                    problems.push((Reason::NotTranslated, format!("http[{at}]: {why}: {effect}")));
                    translated.extend(compared.ok().and_then(|matches| failing(rule, matches, &why)));
                }
            }
        }
        (translated, problems)
    }

    /// One for each port where a destination names none and has several.
    fn rule(&self, rule: &HttpRule) -> Result<Vec<RouteRule>, String> {
        let Some(matches) = matches(&rule.matches)? else { return Ok(Vec::new()) };
        let by_port = rule.route.iter().any(|to| self.has_several_ports(to));
        if !by_port {
            return Ok(vec![self.of_port(rule, matches, None)?]);
        }
        let of_port = |port: &u16| {
            let mut narrowed = if matches.is_empty() { vec![RouteMatch::default()] } else { matches.clone() };
            narrowed.retain(|one| one.port.is_none_or(|other| other == *port));
            narrowed.iter_mut().for_each(|one| one.port = Some(*port));
            (!narrowed.is_empty()).then(|| self.of_port(rule, narrowed, Some(*port)))
        };
        self.ports.iter().filter_map(of_port).collect()
    }

    fn of_port(
        &self,
        rule: &HttpRule,
        matches: Vec<RouteMatch>,
        port: Option<u16>,
    ) -> Result<RouteRule, String> {
        let action = match (&rule.redirect, &rule.direct_response) {
            _ if rule.delegate.is_some() => return Err("delegate is not supported".to_owned()),
            (Some(redirect), _) => RuleAction::Redirect(self::redirect(redirect)?),
            (None, Some(answer)) => RuleAction::Respond(answer_of(answer)?),
            (None, None) => RuleAction::Forward(self.backends(&rule.route, port)?),
        };
        Ok(RouteRule {
            name: rule.name.as_deref().map(Arc::from),
            matches,
            action,
            filters: Filters { rewrite: rewrite(rule)?, ..filters(rule.headers.as_ref())? },
            // Istio: a timeout of zero is none.
            timeouts: Timeouts {
                request: rule.timeout.map(|timeout| timeout.0).filter(|timeout| !timeout.is_zero()),
                backend_request: None,
            },
        })
    }

    /// Istio: one destination alone takes everything; those of weight 0 are left out.
    fn backends(&self, route: &[Destination], port: Option<u16>) -> Result<Vec<WeightedBackend>, String> {
        let weight = |to: &Destination| if route.len() == 1 { 1 } else { to.weight };
        let backend = |to: &Destination| {
            Ok::<_, String>(WeightedBackend {
                weight: weight(to),
                target: self.target(to, port),
                filters: filters(to.headers.as_ref())?,
            })
        };
        route.iter().filter(|to| weight(to) > 0).map(backend).collect()
    }

    /// An unknown host or subset answers for its share, with Istio's status.
    fn target(&self, to: &Destination, dialled: Option<u16>) -> BackendTarget {
        let invalid = |why: String| BackendTarget::Invalid { status: 503, why: why.into() };
        let host = &to.destination.host;
        let found = resolved(host, self.namespace);
        let found = found.and_then(|(namespace, name)| find_service(self.view, &namespace, &name));
        let Some(service) = found else {
            return invalid(format!("host {host:?} is no Service of this mesh"));
        };
        let mut ports = service.object.tcp_ports().map(|port| port.port);
        let only = (service.object.tcp_ports().count() == 1).then(|| ports.next()).flatten();
        let wanted = to.destination.port.map(|port| port.number).or(only).or(dialled);
        let Some(port) = wanted.filter(|port| service.object.tcp_ports().any(|other| other.port == *port))
        else {
            return invalid(format!("host {host:?} has no port {wanted:?}: check destination.port"));
        };
        let name = service_name(service.namespace(), service.name());
        let subset: Option<Arc<str>> = to.destination.subset.as_deref().map(Arc::from);
        if let Some(subset) = &subset
            && !self.subsets.contains_key(&SubsetName { service: name.clone(), name: subset.clone() })
        {
            return invalid(format!("{name} has no subset {subset:?}: check its DestinationRule"));
        }
        BackendTarget::Service { service: name, port, subset }
    }

    fn has_several_ports(&self, to: &Destination) -> bool {
        let found = resolved(&to.destination.host, self.namespace);
        let found = found.and_then(|(namespace, name)| find_service(self.view, &namespace, &name));
        to.destination.port.is_none() && found.is_some_and(|service| service.object.tcp_ports().count() > 1)
    }
}

fn note_unsupported(at: usize, rule: &HttpRule, problems: &mut Problems) {
    let fields = [
        ("retries", &rule.retries),
        ("fault", &rule.fault),
        ("mirror", &rule.mirror),
        ("mirrors", &rule.mirrors),
        ("mirrorPercent", &rule.mirror_percent),
        ("mirrorPercentage", &rule.mirror_percentage),
        ("corsPolicy", &rule.cors_policy),
    ];
    let set: Vec<&str> = fields.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    if !set.is_empty() {
        problems.push((Reason::NoEffect, format!("http[{at}]: not carried out: {}", set.join(", "))));
    }
    if rule.matches.iter().any(|one| !one.source_labels.is_empty()) {
        let message = format!("http[{at}]: a match with sourceLabels never matches at a waypoint");
        problems.push((Reason::EnforcedStricter, message));
    }
}

fn failing(rule: &HttpRule, matches: Option<Vec<RouteMatch>>, why: &str) -> Option<RouteRule> {
    Some(RouteRule {
        name: rule.name.as_deref().map(Arc::from),
        matches: matches?,
        action: RuleAction::Fail { status: 500, why: why.into() },
        filters: Filters::default(),
        timeouts: Timeouts::default(),
    })
}

/// `None` where every match is one that never matches: for a gateway, or by the labels of the client, which a
/// waypoint does not know.
fn matches(written: &[HttpMatch]) -> Result<Option<Vec<RouteMatch>>, String> {
    let is_possible = |one: &&HttpMatch| {
        let for_mesh = one.gateways.is_empty() || one.gateways.iter().any(|gateway| gateway == "mesh");
        for_mesh && one.source_labels.is_empty()
    };
    let matches: Vec<RouteMatch> =
        written.iter().filter(is_possible).map(one_match).collect::<Result<_, _>>()?;
    Ok((written.is_empty() || !matches.is_empty()).then_some(matches))
}

fn one_match(from: &HttpMatch) -> Result<RouteMatch, String> {
    if from.scheme.is_some() {
        return Err("a match by scheme is not supported".to_owned());
    }
    let header = |(name, value): (&String, &StringMatch), inverted| {
        Ok::<_, String>(HeaderMatch { name: header_name(name)?, value: self::value(value)?, inverted })
    };
    let with = from.headers.iter().map(|pair| header(pair, false));
    let without = from.without_headers.iter().map(|pair| header(pair, true));
    let query = from.query_params.iter().map(|(name, value)| {
        Ok::<_, String>(QueryMatch { name: name.as_str().into(), value: self::value(value)? })
    });
    Ok(RouteMatch {
        path: from.uri.as_ref().map_or(Ok(PathMatch::Any), |uri| path(uri, from.ignore_uri_case))?,
        method: from.method.as_ref().map(method).transpose()?,
        headers: with.chain(without).collect::<Result<_, _>>()?,
        query: query.collect::<Result<_, _>>()?,
        authority: from.authority.as_ref().map(value).transpose()?,
        port: from.port,
        source_namespace: from.source_namespace.as_deref().map(Arc::from),
    })
}

fn path(from: &StringMatch, ignoring_case: bool) -> Result<PathMatch, String> {
    let lower = |text: &str| Arc::from(text.to_ascii_lowercase());
    Ok(match (value(from)?, ignoring_case) {
        (ValueMatch::Exact(text), false) => PathMatch::Exact(text),
        (ValueMatch::Exact(text), true) => PathMatch::ExactIgnoringCase(lower(&text)),
        (ValueMatch::Prefix(text), false) => PathMatch::Prefix(text),
        (ValueMatch::Prefix(text), true) => PathMatch::PrefixIgnoringCase(lower(&text)),
        // Istio: ignoreUriCase holds for exact and prefix alone.
        (ValueMatch::Regex(pattern), _) => PathMatch::Regex(pattern),
        (ValueMatch::Present, _) => PathMatch::Any,
    })
}

fn method(from: &StringMatch) -> Result<Method, String> {
    match (&from.exact, &from.prefix, &from.regex) {
        (Some(exact), None, None) => exact.parse().map_err(|_| format!("method {exact:?} is none")),
        _ => Err("a method is matched by `exact` alone".to_owned()),
    }
}

fn value(from: &StringMatch) -> Result<ValueMatch, String> {
    match (&from.exact, &from.prefix, &from.regex) {
        (None, None, None) => Ok(ValueMatch::Present),
        (Some(text), None, None) => Ok(ValueMatch::Exact(text.as_str().into())),
        (None, Some(text), None) => Ok(ValueMatch::Prefix(text.as_str().into())),
        (None, None, Some(text)) => {
            Pattern::new(text).map(ValueMatch::Regex).map_err(|error| error.to_string())
        }
        _ => Err("only one of exact, prefix and regex can be set".to_owned()),
    }
}

fn rewrite(rule: &HttpRule) -> Result<Rewrite, String> {
    let Some(from) = &rule.rewrite else { return Ok(Rewrite::default()) };
    if from.uri_regex_rewrite.is_some() {
        return Err("rewrite.uriRegexRewrite is not supported".to_owned());
    }
    Ok(Rewrite {
        host: from.authority.as_deref().map(Arc::from),
        path: from.uri.as_deref().map(|uri| PathRewrite::MatchedPrefix(uri.into())),
    })
}

/// Istio's default is 301, where that of the Gateway API is 302.
fn redirect(from: &written::Redirect) -> Result<Redirect, String> {
    let status = from.redirect_code.unwrap_or(301);
    if ![301, 302, 303, 307, 308].contains(&status) {
        return Err(format!("redirectCode {status} is not supported"));
    }
    if from.derive_port.is_some() {
        return Err("redirect.derivePort is not supported".to_owned());
    }
    Ok(Redirect {
        scheme: from.scheme.as_deref().map(Arc::from),
        host: from.authority.as_deref().map(Arc::from),
        port: from.port,
        path: from.uri.as_deref().map(|uri| PathRewrite::Full(uri.into())),
        status,
    })
}

fn answer_of(from: &written::DirectResponse) -> Result<DirectResponse, String> {
    if !(200..=599).contains(&from.status) {
        return Err(format!("directResponse.status {} is not supported", from.status));
    }
    let body = from.body.as_ref();
    let body = match body.map(|body| (&body.string, &body.bytes)) {
        None | Some((None, None)) => Vec::new(),
        Some((Some(text), _)) => text.clone().into_bytes(),
        Some((None, Some(octets))) => {
            STANDARD.decode(octets).map_err(|_| "directResponse.body.bytes is not base64".to_owned())?
        }
    };
    Ok(DirectResponse { status: from.status, body: body.into() })
}

fn filters(from: Option<&Headers>) -> Result<Filters, String> {
    let Some(from) = from else { return Ok(Filters::default()) };
    Ok(Filters {
        request: edits(&from.request)?,
        response: edits(&from.response)?,
        rewrite: Rewrite::default(),
    })
}

fn edits(from: &HeaderOperations) -> Result<HeaderEdits, String> {
    let pairs = |headers: &StringMap| {
        let pair = |(name, value): (&String, &String)| {
            let value = value.parse().map_err(|_| format!("the value of header {name} cannot be one"))?;
            Ok::<_, String>((changed_header(name)?, value))
        };
        headers.iter().map(pair).collect::<Result<Vec<_>, _>>()
    };
    let remove = from.remove.iter().map(|name| changed_header(name)).collect::<Result<_, _>>()?;
    Ok(HeaderEdits { set: pairs(&from.set)?, add: pairs(&from.add)?, remove })
}

fn changed_header(name: &str) -> Result<HeaderName, String> {
    let parsed = header_name(name)?;
    if parsed == http::header::HOST {
        return Err("header Host is changed by rewrite.authority".to_owned());
    }
    Ok(parsed)
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("{name:?} cannot be the name of a header"))
}
