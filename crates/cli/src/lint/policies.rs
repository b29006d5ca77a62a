//! Policies that select nothing, and texts of paths that match more or less than they seem to.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_mesh::http::{HttpAction, HttpPolicy, HttpRule, PathCondition, normalize};
use ambit_mesh::policy::StringMatch;
use control::objects::selector::Selector;
use control::objects::{Kind, KnownKind, Object, ObjectKey};
use control::translate::ROOT_NAMESPACES;

use super::{Findings, Severity};

pub(super) fn look(findings: &mut Findings<'_>) {
    selectors(findings);
    let policies: Vec<Arc<HttpPolicy>> =
        findings.model.generation().translated.for_waypoints.policies.values().cloned().collect();
    for policy in &policies {
        let key = ObjectKey {
            kind: Kind::Known(KnownKind::AuthorizationPolicy),
            namespace: Some(policy.name.namespace.clone()),
            name: policy.name.name.clone(),
        };
        look_at(findings, &key, policy);
    }
}

/// A policy that selects by labels that no pod has.
fn selectors(findings: &mut Findings<'_>) {
    let inputs = &findings.model.generation().inputs;
    // Where nothing is known of a namespace's pods, nothing can be said of what selects them.
    let known: BTreeSet<Arc<str>> = findings.model.namespaces_with_known_pods();
    for (key, entry) in inputs.entries() {
        let selector = match entry.object() {
            Some(Object::AuthorizationPolicy(policy)) => &policy.spec.selector,
            Some(Object::PeerAuthentication(policy)) => &policy.spec.selector,
            Some(_) | None => continue,
        };
        let namespace = key.namespace.as_deref().unwrap_or_default();
        let is_root = ROOT_NAMESPACES.contains(&namespace);
        let may_be_judged =
            if is_root { !known.is_empty() } else { known.iter().any(|of| &**of == namespace) };
        if !selector.is_empty()
            && may_be_judged
            && !selects(findings, selector, (!is_root).then_some(namespace))
        {
            let labels: Vec<String> =
                selector.match_labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let what = format!("no pod has the labels {}: it is enforced nowhere", labels.join(", "));
            findings.of(key, (Severity::Warning, "selects-nothing"), what, "select labels that pods have");
        }
    }
}

fn selects(findings: &Findings<'_>, selector: &Selector, namespace: Option<&str>) -> bool {
    findings.model.generation().inputs.entries().any(|(key, entry)| {
        let is_there = namespace.is_none_or(|namespace| key.namespace.as_deref() == Some(namespace));
        is_there && matches!(entry.object(), Some(Object::Pod(pod)) if selector.matches(&pod.metadata.labels))
    })
}

fn look_at(findings: &mut Findings<'_>, key: &ObjectKey, policy: &HttpPolicy) {
    if policy.rules.len() > 1 && policy.rules.iter().any(|rule| *rule == HttpRule::default()) {
        let what = "one of its rules matches every request: the others mean nothing";
        findings.of(
            key,
            (Severity::Warning, "rule-never-matters"),
            what,
            "take the empty rule away, or the others",
        );
    }
    for (at, rule) in policy.rules.iter().enumerate() {
        for operation in &rule.to {
            for path in &operation.paths.any_of {
                look_at_path(findings, key, (policy.action, at), path);
            }
        }
    }
}

fn look_at_path(
    findings: &mut Findings<'_>,
    key: &ObjectKey,
    (action, rule): (HttpAction, usize),
    path: &PathCondition,
) {
    let PathCondition::Text(text) = path else { return };
    let written = match text {
        StringMatch::Exact(whole) => whole,
        StringMatch::Prefix(prefix) => prefix,
        StringMatch::Suffix(_) | StringMatch::Presence => return,
    };
    match normalize(written) {
        Err(_) => {
            let what = format!(
                "rules[{rule}]: path {written:?} does not begin with a slash, as every path does: it never matches"
            );
            findings.of(key, (Severity::Error, "path-never-matches"), what, "begin it with a slash");
        }
        Ok(read) => {
            if let Some(ambiguity) = read.ambiguity() {
                let what = format!(
                    "rules[{rule}]: path {written:?} holds {ambiguity}, and requests with it are refused: it never matches"
                );
                findings.of(
                    key,
                    (Severity::Warning, "path-never-matches"),
                    what,
                    "write the path as servers read it",
                );
            }
        }
    }
    let ends_a_segment = written.ends_with('/');
    match (text, action) {
        (StringMatch::Prefix(prefix), _) if !ends_a_segment => {
            let what =
                format!("rules[{rule}]: {prefix}* also matches {prefix}x, a longer name of the same segment");
            let advice = format!("write {prefix} and {prefix}/* if only what is below is meant");
            findings.of(key, (Severity::Note, "path-prefix"), what, advice);
        }
        (StringMatch::Exact(whole), HttpAction::Deny) if !ends_a_segment => {
            let what =
                format!("rules[{rule}]: {whole} alone is denied, {whole}/ and what is below it are not");
            let advice = format!("write {whole}* or {whole}/{{**}} beside it if they are meant too");
            findings.of(key, (Severity::Note, "path-exact"), what, advice);
        }
        (
            StringMatch::Prefix(_) | StringMatch::Exact(_) | StringMatch::Suffix(_) | StringMatch::Presence,
            HttpAction::Allow | HttpAction::Deny | HttpAction::Audit | HttpAction::Custom,
        ) => {}
    }
}
