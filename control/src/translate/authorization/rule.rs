//! One rule of an AuthorizationPolicy as clauses of layer 4.
//!
//! A clause left out is true. So what layer 4 cannot evaluate is left out here, which widens the
//! rule: right for a rule that denies, and never used for one that allows.

use ambit_mesh::identity::TrustDomain;
use ambit_mesh::policy::{Clause, Match, ServiceAccountMatch, StringMatch};

use crate::objects::authorization_policy::{Condition, Operation, Rule, ServiceAccountName, Source};

/// What layer 4 cannot evaluate of a rule, by name.
pub(super) fn beyond_layer_4(rule: &Rule) -> Vec<&str> {
    let from = rule.from.iter().flat_map(|source| source.beyond_layer_4.iter().copied());
    let to = rule.to.iter().flat_map(|operation| operation.beyond_layer_4.iter().copied());
    let when = rule.when.iter().filter_map(|condition| match condition {
        Condition::BeyondLayer4 { key, .. } => Some(key.as_str()),
        Condition::SourceIp(_)
        | Condition::SourceNamespace(_)
        | Condition::SourcePrincipal(_)
        | Condition::SourceServiceAccount(_)
        | Condition::DestinationIp(_)
        | Condition::DestinationPort(_) => None,
    });
    from.chain(to).chain(when).collect()
}

/// What the values of a policy are relative to.
pub(in crate::translate) struct Values<'a> {
    /// The policy's namespace: where a service account without namespace lives.
    pub(in crate::translate) namespace: &'a str,
    /// What `cluster.local` in a principal stands for.
    pub(in crate::translate) trust_domain: &'a TrustDomain,
}

impl Values<'_> {
    /// The clauses of a rule that layer 4 can evaluate.
    pub(super) fn clauses(&self, rule: &Rule) -> Vec<Clause> {
        let from = any_of(&rule.from, |source| self.source(source));
        let to = any_of(&rule.to, operation);
        let when = rule.when.iter().filter_map(|condition| self.condition(condition));
        let when = when.map(|condition| Clause { any_of: vec![condition] });
        from.into_iter().chain(to).chain(when).collect()
    }

    fn source(&self, source: &Source) -> Match {
        Match {
            principals: self.principals(&source.principals),
            not_principals: self.principals(&source.not_principals),
            namespaces: source.namespaces.clone(),
            not_namespaces: source.not_namespaces.clone(),
            service_accounts: self.service_accounts(&source.service_accounts),
            not_service_accounts: self.service_accounts(&source.not_service_accounts),
            source_ips: source.ip_blocks.clone(),
            not_source_ips: source.not_ip_blocks.clone(),
            ..Match::default()
        }
    }

    fn condition(&self, condition: &Condition) -> Option<Match> {
        Some(match condition {
            Condition::SourceIp(values) => Match {
                source_ips: values.any_of.clone(),
                not_source_ips: values.none_of.clone(),
                ..Match::default()
            },
            Condition::SourceNamespace(values) => Match {
                namespaces: values.any_of.clone(),
                not_namespaces: values.none_of.clone(),
                ..Match::default()
            },
            Condition::SourcePrincipal(values) => Match {
                principals: self.principals(&values.any_of),
                not_principals: self.principals(&values.none_of),
                ..Match::default()
            },
            Condition::SourceServiceAccount(values) => Match {
                service_accounts: self.service_accounts(&values.any_of),
                not_service_accounts: self.service_accounts(&values.none_of),
                ..Match::default()
            },
            Condition::DestinationIp(values) => Match {
                destination_ips: values.any_of.clone(),
                not_destination_ips: values.none_of.clone(),
                ..Match::default()
            },
            Condition::DestinationPort(values) => Match {
                destination_ports: values.any_of.clone(),
                not_destination_ports: values.none_of.clone(),
                ..Match::default()
            },
            Condition::BeyondLayer4 { .. } => return None,
        })
    }

    /// Istio, "Trust Domain Migration": `cluster.local` in a principal points to the trust domain of
    /// the mesh.
    pub(in crate::translate) fn principals(&self, principals: &[StringMatch]) -> Vec<StringMatch> {
        let own = |text: &str| match text.strip_prefix("cluster.local/") {
            Some(rest) => format!("{}/{rest}", self.trust_domain).into(),
            None => text.into(),
        };
        let principal = |principal: &StringMatch| match principal {
            StringMatch::Exact(text) => StringMatch::Exact(own(text)),
            StringMatch::Prefix(text) => StringMatch::Prefix(own(text)),
            StringMatch::Suffix(_) | StringMatch::Presence => principal.clone(),
        };
        principals.iter().map(principal).collect()
    }

    pub(in crate::translate) fn service_accounts(
        &self,
        names: &[ServiceAccountName],
    ) -> Vec<ServiceAccountMatch> {
        let name = |name: &ServiceAccountName| ServiceAccountMatch {
            namespace: name.namespace.as_deref().unwrap_or(self.namespace).into(),
            service_account: name.name.as_str().into(),
        };
        names.iter().map(name).collect()
    }
}

/// A clause that matches when any of the alternatives does; `None` (true) where there are none, or
/// where nothing is left of one of them: then that one is true.
fn any_of<T>(alternatives: &[T], translate: impl Fn(&T) -> Match) -> Option<Clause> {
    let any_of: Vec<_> = alternatives.iter().map(translate).collect();
    let is_true = any_of.is_empty() || any_of.iter().any(Match::is_empty);
    (!is_true).then_some(Clause { any_of })
}

fn operation(operation: &Operation) -> Match {
    Match {
        destination_ports: operation.ports.clone(),
        not_destination_ports: operation.not_ports.clone(),
        ..Match::default()
    }
}
