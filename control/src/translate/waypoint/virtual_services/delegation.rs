//! Rules that another VirtualService says, for what a rule matches.
//!
//! Istio: one level; a delegate has no hosts. What the delegate leaves open is as the delegating rule says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ambit_mesh::http::{PathMatch, RouteMatch, ValueMatch};

use crate::objects::VirtualService;
use crate::objects::networking::is_exported;
use crate::objects::networking::virtual_service::{Delegate, HttpRule};
use crate::translate::Reason;
use crate::translate::view::{Named, View};
use crate::translate::waypoint::routes::Report;

/// The VirtualServices by namespace and name, and which of them others delegate to.
pub(super) struct Delegates<'a> {
    by_name: BTreeMap<(String, String), (&'a str, &'a VirtualService)>,
    wanted: BTreeSet<(String, String)>,
}

impl<'a> Delegates<'a> {
    pub(super) fn of(view: &View<'a>) -> Self {
        let objects = || view.virtual_services.iter();
        let delegating = |written: &Named<'a, VirtualService>| {
            let namespace = written.place().0;
            let rules = written.object.spec.http.iter().filter_map(|rule| rule.delegate.as_ref());
            rules.map(move |delegate| {
                (delegate.namespace.as_deref().unwrap_or(namespace).to_owned(), delegate.name.clone())
            })
        };
        let named = |written: &Named<'a, VirtualService>| {
            let (namespace, name) = written.place();
            ((namespace.to_owned(), name.to_owned()), (namespace, written.object))
        };
        Self { by_name: objects().map(named).collect(), wanted: objects().flat_map(delegating).collect() }
    }

    /// The rules of a delegate, and the namespace that its hosts are of.
    pub(super) fn rules(
        &self,
        from: &Delegate,
        namespace: &str,
    ) -> Result<(&'a str, &'a [HttpRule]), String> {
        let of = from.namespace.as_deref().unwrap_or(namespace);
        let key = format!("{of}/{}", from.name);
        let found = self.by_name.get(&(of.to_owned(), from.name.clone()));
        let (of, found) =
            found.copied().ok_or_else(|| format!("there is no VirtualService {key} to delegate to"))?;
        if !found.spec.hosts.is_empty() {
            return Err(format!("VirtualService {key} has hosts: a delegate has none"));
        }
        if !is_exported(&found.spec.export_to, of, namespace) {
            return Err(format!("exportTo of VirtualService {key} leaves out namespace {namespace}"));
        }
        Ok((of, &found.spec.http))
    }

    /// What is to be said of a VirtualService without hosts.
    pub(super) fn note(&self, written: &Named<'_, VirtualService>, report: &mut Report<'_>) {
        let (namespace, name) = written.place();
        if !self.wanted.contains(&(namespace.to_owned(), name.to_owned())) {
            let message = "it has no hosts, and no VirtualService delegates to it";
            report.notes.add(written.key, Reason::NoEffect, message);
        }
        for (at, rule) in written.object.spec.http.iter().enumerate() {
            let Some(delegate) = &rule.delegate else {
                continue;
            };
            let message = format!(
                "http[{at}] delegates to {} in its turn: {}; what it matches is answered with 500",
                delegate.name,
                if self.comes_back((namespace, name), delegate) {
                    "a cycle"
                } else {
                    "one level is possible"
                }
            );
            report.notes.add(written.key, Reason::NotTranslated, message);
        }
    }

    /// Whether delegation leads from `delegate` back to `start`.
    fn comes_back(&self, start: (&str, &str), delegate: &Delegate) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![(start.0.to_owned(), delegate)];
        while let Some((from, delegate)) = open.pop() {
            let namespace = delegate.namespace.clone().unwrap_or(from);
            if (namespace.as_str(), delegate.name.as_str()) == start {
                return true;
            }
            let key = (namespace.clone(), delegate.name.clone());
            if let Some((_, next)) = self.by_name.get(&key)
                && seen.insert(key)
            {
                let rules = next.spec.http.iter().filter_map(|rule| rule.delegate.as_ref());
                open.extend(rules.map(|delegate| (namespace.clone(), delegate)));
            }
        }
        false
    }
}

/// A delegate's rule with what it leaves open as the delegating rule says. Its matches are its own.
pub(super) fn completed(leaf: &HttpRule, root: &HttpRule) -> HttpRule {
    let leaf = leaf.clone();
    HttpRule {
        rewrite: leaf.rewrite.or_else(|| root.rewrite.clone()),
        headers: leaf.headers.or_else(|| root.headers.clone()),
        timeout: leaf.timeout.or(root.timeout),
        cors_policy: leaf.cors_policy.or_else(|| root.cors_policy.clone()),
        retries: leaf.retries.or_else(|| root.retries.clone()),
        fault: leaf.fault.or_else(|| root.fault.clone()),
        mirror: leaf.mirror.or_else(|| root.mirror.clone()),
        mirrors: leaf.mirrors.or_else(|| root.mirrors.clone()),
        name: match (&root.name, leaf.name) {
            (Some(root), Some(leaf)) => Some(format!("{root}-{leaf}")),
            (root, leaf) => leaf.or_else(|| root.clone()),
        },
        ..leaf
    }
}

/// The conditions of two rules together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Both {
    /// These.
    Match(Box<RouteMatch>),
    /// They exclude each other.
    Never,
    /// They cannot be written as one.
    Unclear(String),
}

/// What both matches hold for.
pub(super) fn both(root: &RouteMatch, leaf: &RouteMatch) -> Both {
    let path = match path(&root.path, &leaf.path) {
        Ok(Some(path)) => path,
        Ok(None) => return Both::Never,
        Err(why) => return Both::Unclear(why),
    };
    let authority = match (&root.authority, &leaf.authority) {
        (Some(root), Some(leaf)) => match value(root, leaf) {
            Ok(Some(value)) => Some(value),
            Ok(None) => return Both::Never,
            Err(why) => return Both::Unclear(why),
        },
        (root, leaf) => leaf.clone().or_else(|| root.clone()),
    };
    let (Some(method), Some(port), Some(source_namespace)) = (
        same(&root.method, &leaf.method),
        same(&root.port, &leaf.port),
        same(&root.source_namespace, &leaf.source_namespace),
    ) else {
        return Both::Never;
    };
    Both::Match(Box::new(RouteMatch {
        path,
        method,
        headers: root.headers.iter().chain(&leaf.headers).cloned().collect(),
        query: root.query.iter().chain(&leaf.query).cloned().collect(),
        authority,
        port,
        source_namespace,
    }))
}

/// `None` where two values differ.
fn same<T: Clone + PartialEq>(root: &Option<T>, leaf: &Option<T>) -> Option<Option<T>> {
    match (root, leaf) {
        (Some(root), Some(leaf)) if root != leaf => None,
        (root, leaf) => Some(leaf.clone().or_else(|| root.clone())),
    }
}

/// `None` where no path is meant by both.
fn path(root: &PathMatch, leaf: &PathMatch) -> Result<Option<PathMatch>, String> {
    if root == leaf {
        return Ok(Some(leaf.clone()));
    }
    if let PathMatch::Any = root {
        return Ok(Some(leaf.clone()));
    }
    if let PathMatch::Any = leaf {
        return Ok(Some(root.clone()));
    }
    let as_value = |path: &PathMatch| match path {
        PathMatch::Exact(text) => Some(ValueMatch::Exact(text.clone())),
        PathMatch::Prefix(text) => Some(ValueMatch::Prefix(text.clone())),
        PathMatch::Regex(pattern) => Some(ValueMatch::Regex(pattern.clone())),
        PathMatch::Any
        | PathMatch::Segments(_)
        | PathMatch::ExactIgnoringCase(_)
        | PathMatch::PrefixIgnoringCase(_) => None,
    };
    let (Some(root), Some(leaf)) = (as_value(root), as_value(leaf)) else {
        return Err("with ignoreUriCase both uris must be the same".to_owned());
    };
    let as_path = |value| match value {
        ValueMatch::Exact(text) => PathMatch::Exact(text),
        ValueMatch::Prefix(text) => PathMatch::Prefix(text),
        ValueMatch::Regex(pattern) => PathMatch::Regex(pattern),
        ValueMatch::Present => PathMatch::Any,
    };
    Ok(value(&root, &leaf)?.map(as_path))
}

/// `None` where no text is meant by both.
fn value(root: &ValueMatch, leaf: &ValueMatch) -> Result<Option<ValueMatch>, String> {
    use ValueMatch::{Exact, Prefix, Present, Regex};
    let narrower = |text: &Arc<str>, other: &ValueMatch| other.matches(text).then(|| Exact(text.clone()));
    Ok(match (root, leaf) {
        (Present, other) | (other, Present) => Some(other.clone()),
        (Exact(text), other) | (other, Exact(text)) => narrower(text, other),
        (Prefix(one), Prefix(other)) => {
            let longer = if one.len() > other.len() { one } else { other };
            let covers = longer.starts_with(&**one) && longer.starts_with(&**other);
            covers.then(|| Prefix(longer.clone()))
        }
        (Regex(one), Regex(other)) if one == other => Some(leaf.clone()),
        (Regex(_), Prefix(_) | Regex(_)) | (Prefix(_), Regex(_)) => {
            return Err("a regex and another comparison cannot be written as one".to_owned());
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ambit_mesh::http::Pattern;

    #[test]
    fn what_both_paths_mean_is_the_narrower_one() {
        let exact = |text: &str| PathMatch::Exact(text.into());
        let prefix = |text: &str| PathMatch::Prefix(text.into());
        let regex = |text: &str| PathMatch::Regex(Pattern::new(text).unwrap());
        for (root, leaf, expected) in [
            (PathMatch::Any, exact("/a"), Ok(Some(exact("/a")))),
            (prefix("/a"), PathMatch::Any, Ok(Some(prefix("/a")))),
            (prefix("/a"), prefix("/a/b"), Ok(Some(prefix("/a/b")))),
            (prefix("/a/b"), prefix("/"), Ok(Some(prefix("/a/b")))),
            (prefix("/a"), prefix("/b"), Ok(None)),
            (prefix("/a"), exact("/a/x"), Ok(Some(exact("/a/x")))),
            (prefix("/a"), exact("/b"), Ok(None)),
            (exact("/a"), exact("/a"), Ok(Some(exact("/a")))),
            (regex("/[ab]"), exact("/a"), Ok(Some(exact("/a")))),
            (regex("/[ab]"), exact("/c"), Ok(None)),
            (regex("/[ab]"), regex("/[ab]"), Ok(Some(regex("/[ab]")))),
        ] {
            assert_eq!(path(&root, &leaf), expected, "{root:?} {leaf:?}");
        }
        for (root, leaf) in [
            (regex("/[ab]"), prefix("/a")),
            (regex("/a"), regex("/b")),
            (PathMatch::PrefixIgnoringCase("/a".into()), prefix("/a")),
        ] {
            assert!(path(&root, &leaf).is_err(), "{root:?} {leaf:?}");
        }
    }
}
