//! Rules of a VirtualService. What cannot be carried out is answered with 500, and what cannot be compared
//! never matches.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_mesh::http::{
    BackendTarget, Cors, DirectResponse, Filters, HeaderEdits, HeaderMatch, PathMatch, PathRewrite, Pattern,
    QueryMatch, Redirect, RedirectPort, Rewrite, RouteMatch, RouteRule, RuleAction, SubsetName, Substitution,
    Timeouts, ValueMatch, WeightedBackend,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, Method};

use super::delegation::{Both, Delegates, both, completed};
use super::hosts::find;
use crate::objects::meta::StringMap;
use crate::objects::networking::virtual_service::{
    self as written, Delegate, DerivePort, Destination, HeaderOperations, Headers, HttpMatch, HttpRule,
    StringMatch,
};
use crate::translate::Reason;
use crate::translate::view::View;
use crate::translate::waypoint::cors::of_virtual_service;

/// What rules are translated by.
#[derive(Clone)]
pub(super) struct Rules<'a, 'b> {
    pub(super) view: &'b View<'a>,
    pub(super) subsets: &'b BTreeMap<SubsetName, &'a StringMap>,
    pub(super) delegates: &'b Delegates<'a>,
    /// The object's.
    pub(super) namespace: &'b str,
    /// Of the services that it is for.
    pub(super) ports: BTreeSet<u16>,
}

type Problems = Vec<(Reason, String)>;

/// What became of rules.
#[derive(Default)]
struct Translated {
    rules: Vec<RouteRule>,
    problems: Problems,
}

impl Translated {
    /// A rule that cannot be carried out: what it matches is answered with 500, so that nothing goes where it is not
    /// meant to go.
    fn fail(&mut self, at: &str, name: Option<&str>, matches: Option<Vec<RouteMatch>>, why: &str) {
        let effect = match &matches {
            Some(_) => "what it matches is answered with 500",
            None => "the rule never matches",
        };
        self.problems.push((Reason::NotTranslated, format!("{at}: {why}: {effect}")));
        self.rules.extend(matches.map(|matches| RouteRule {
            name: name.map(Arc::from),
            matches,
            action: RuleAction::Fail { status: 500, why: why.into() },
            filters: Filters::default(),
            timeouts: Timeouts::default(),
        }));
    }
}

impl Rules<'_, '_> {
    pub(super) fn translate(&self, rules: &[HttpRule]) -> (Vec<RouteRule>, Problems) {
        let mut translated = Translated::default();
        for (at, rule) in rules.iter().enumerate() {
            let at = format!("http[{at}]");
            note_unsupported(&at, rule, &mut translated.problems);
            let matches = match matches(&rule.matches) {
                Ok(Some(matches)) => matches,
                Ok(None) => continue,
                Err(why) => {
                    translated.fail(&at, None, None, &why);
                    continue;
                }
            };
            match &rule.delegate {
                None => self.add(&at, rule, matches, &mut translated),
                Some(delegate) => self.delegate(&at, rule, delegate, matches, &mut translated),
            }
        }
        (translated.rules, translated.problems)
    }

    fn add(&self, at: &str, rule: &HttpRule, matches: Vec<RouteMatch>, translated: &mut Translated) {
        match self.rule(rule, matches.clone()) {
            Ok(rules) => translated.rules.extend(rules),
            Err(why) => translated.fail(at, rule.name.as_deref(), Some(matches), &why),
        }
    }

    /// The rules of a delegate, for what `rule` matches.
    fn delegate(
        &self,
        at: &str,
        rule: &HttpRule,
        delegate: &Delegate,
        matches: Vec<RouteMatch>,
        translated: &mut Translated,
    ) {
        let name = rule.name.as_deref();
        if !rule.route.is_empty() || rule.redirect.is_some() || rule.direct_response.is_some() {
            let why = "a rule that delegates has no route, redirect or directResponse";
            return translated.fail(at, name, Some(matches), why);
        }
        let (namespace, leaves) = match self.delegates.rules(delegate, self.namespace) {
            Ok(found) => found,
            Err(why) => return translated.fail(at, name, Some(matches), &why),
        };
        let within = Rules { namespace, ..self.clone() };
        for (number, leaf) in leaves.iter().enumerate() {
            let at = format!("{at}, http[{number}] of {namespace}/{}", delegate.name);
            let leaf = completed(leaf, rule);
            note_unsupported(&at, &leaf, &mut translated.problems);
            let own = match self::matches(&leaf.matches) {
                Ok(Some(own)) => own,
                Ok(None) => continue,
                Err(why) => {
                    translated.fail(&at, None, None, &why);
                    continue;
                }
            };
            match together(&matches, &own) {
                Ok(Some(_)) if leaf.delegate.is_some() => {
                    let why = "it delegates in its turn: one level is possible";
                    let both = together(&matches, &own).ok().flatten();
                    translated.fail(&at, leaf.name.as_deref(), both, why);
                }
                Ok(Some(both)) => within.add(&at, &leaf, both, translated),
                Ok(None) => {
                    let message =
                        format!("{at}: what it matches is not what it is delegated: it never matches");
                    translated.problems.push((Reason::EnforcedStricter, message));
                }
                // Later rules must not take what may be this one's.
                Err(why) => translated.fail(&at, leaf.name.as_deref(), Some(matches.clone()), &why),
            }
        }
    }

    /// One for each port where a destination names none and has several.
    fn rule(&self, rule: &HttpRule, matches: Vec<RouteMatch>) -> Result<Vec<RouteRule>, String> {
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
            (Some(redirect), _) => RuleAction::Redirect(self::redirect(redirect)?),
            (None, Some(answer)) => RuleAction::Respond(answer_of(answer)?),
            (None, None) => RuleAction::Forward(self.backends(&rule.route, port)?),
        };
        Ok(RouteRule {
            name: rule.name.as_deref().map(Arc::from),
            matches,
            action,
            filters: Filters {
                rewrite: rewrite(rule)?,
                cors: cors(rule)?,
                ..filters(rule.headers.as_ref())?
            },
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
        let found = find(self.view, host, self.namespace);
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
        let name = service.mesh_name();
        let subset: Option<Arc<str>> = to.destination.subset.as_deref().map(Arc::from);
        if let Some(subset) = &subset
            && !self.subsets.contains_key(&SubsetName { service: name.clone(), name: subset.clone() })
        {
            return invalid(format!("{name} has no subset {subset:?}: check its DestinationRule"));
        }
        BackendTarget::Service { service: name, port, subset }
    }

    fn has_several_ports(&self, to: &Destination) -> bool {
        let found = find(self.view, &to.destination.host, self.namespace);
        to.destination.port.is_none() && found.is_some_and(|service| service.object.tcp_ports().count() > 1)
    }
}

fn note_unsupported(at: &str, rule: &HttpRule, problems: &mut Problems) {
    let fields = [
        ("retries", &rule.retries),
        ("fault", &rule.fault),
        ("mirror", &rule.mirror),
        ("mirrors", &rule.mirrors),
        ("mirrorPercent", &rule.mirror_percent),
        ("mirrorPercentage", &rule.mirror_percentage),
    ];
    let set: Vec<&str> = fields.iter().filter(|(_, value)| value.is_some()).map(|(name, _)| *name).collect();
    if !set.is_empty() {
        problems.push((Reason::NoEffect, format!("{at}: not carried out: {}", set.join(", "))));
    }
    if rule.matches.iter().any(|one| !one.source_labels.is_empty()) {
        let message = format!("{at}: a match with sourceLabels never matches at a waypoint");
        problems.push((Reason::EnforcedStricter, message));
    }
}

/// What is matched by one of `roots` and one of `leaves`; of either none is every request. `None` where nothing is.
fn together(roots: &[RouteMatch], leaves: &[RouteMatch]) -> Result<Option<Vec<RouteMatch>>, String> {
    if roots.is_empty() || leaves.is_empty() {
        return Ok(Some(roots.iter().chain(leaves).cloned().collect()));
    }
    let mut all = Vec::new();
    for (root, leaf) in roots.iter().flat_map(|root| leaves.iter().map(move |leaf| (root, leaf))) {
        match both(root, leaf) {
            Both::Match(one) => all.push(*one),
            Both::Never => {}
            Both::Unclear(why) => return Err(why),
        }
    }
    Ok((!all.is_empty()).then_some(all))
}

/// `None` where every match is one that never matches: for a gateway, or by the labels of the client, which a
/// waypoint does not know.
fn matches(written: &[HttpMatch]) -> Result<Option<Vec<RouteMatch>>, String> {
    let is_possible = |one: &&HttpMatch| {
        let for_mesh = one.gateways.is_empty() || one.gateways.iter().any(|gateway| gateway == "mesh");
        for_mesh && one.source_labels.is_empty()
    };
    let mut of_scheme = Vec::new();
    for one in written.iter().filter(is_possible) {
        // What is asked here is asked over HTTP: the client's own TLS is carried as it is.
        let scheme = one.scheme.as_ref().map(value).transpose()?;
        if scheme.is_none_or(|scheme| scheme.matches("http")) {
            of_scheme.push(one);
        }
    }
    let matches: Vec<RouteMatch> = of_scheme.into_iter().map(one_match).collect::<Result<_, _>>()?;
    Ok((written.is_empty() || !matches.is_empty()).then_some(matches))
}

fn one_match(from: &HttpMatch) -> Result<RouteMatch, String> {
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
    let Some(from) = &rule.rewrite else {
        return Ok(Rewrite::default());
    };
    let path = match (&from.uri, &from.uri_regex_rewrite) {
        (Some(_), Some(_)) => {
            return Err("rewrite has uri and uriRegexRewrite: one can be set".to_owned());
        }
        (Some(uri), None) => Some(PathRewrite::MatchedPrefix(uri.as_str().into())),
        (None, Some(from)) => {
            let substitution =
                Substitution::new(&from.pattern, &from.rewrite).map_err(|error| error.to_string())?;
            Some(PathRewrite::Substituted(substitution))
        }
        (None, None) => None,
    };
    Ok(Rewrite { host: from.authority.as_deref().map(Arc::from), path })
}

fn cors(rule: &HttpRule) -> Result<Option<Cors>, String> {
    let Some(from) = &rule.cors_policy else {
        return Ok(None);
    };
    let origins = from.allow_origins.iter().map(value).collect::<Result<_, _>>()?;
    of_virtual_service(from, origins).map(Some)
}

/// Istio's default is 301, where that of the Gateway API is 302.
fn redirect(from: &written::Redirect) -> Result<Redirect, String> {
    let status = from.redirect_code.unwrap_or(301);
    if ![301, 302, 303, 307, 308].contains(&status) {
        return Err(format!("redirectCode {status} is not supported"));
    }
    let port = match (from.port, from.derive_port) {
        (Some(_), Some(_)) => {
            return Err("redirect has port and derivePort: one can be set".to_owned());
        }
        (Some(port), None) => RedirectPort::Number(port),
        (None, Some(DerivePort::FromProtocolDefault)) => RedirectPort::OfScheme,
        (None, Some(DerivePort::FromRequestPort)) => RedirectPort::Dialled,
        (None, None) => RedirectPort::Usual,
    };
    Ok(Redirect {
        scheme: from.scheme.as_deref().map(Arc::from),
        host: from.authority.as_deref().map(Arc::from),
        port,
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
    let Some(from) = from else {
        return Ok(Filters::default());
    };
    Ok(Filters { request: edits(&from.request)?, response: edits(&from.response)?, ..Filters::default() })
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
