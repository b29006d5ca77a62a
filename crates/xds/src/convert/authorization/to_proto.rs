//! Writing a policy.

use ambit_mesh::policy::{
    Action, AuthorizationPolicy, Clause, Match, PolicyScope, Rule, ServiceAccountMatch, StringMatch,
};
use ambit_proto::istio::security as proto;
use ambit_proto::istio::security::string_match::MatchType;
use ipnet::IpNet;

use crate::convert::address;

/// Writes a policy.
pub fn to_proto(from: &AuthorizationPolicy) -> proto::Authorization {
    let scope = match from.scope {
        PolicyScope::Global => proto::Scope::Global,
        PolicyScope::Namespace => proto::Scope::Namespace,
        PolicyScope::WorkloadSelector => proto::Scope::WorkloadSelector,
    };
    let action = match from.action {
        Action::Allow => proto::Action::Allow,
        Action::Deny => proto::Action::Deny,
    };
    proto::Authorization {
        name: from.name.name.to_string(),
        namespace: from.name.namespace.to_string(),
        scope: scope.into(),
        action: action.into(),
        rules: from.rules.iter().map(rule).collect(),
        dry_run: from.dry_run,
        extensions: Vec::new(),
    }
}

fn rule(from: &Rule) -> proto::Rule {
    proto::Rule { clauses: from.clauses.iter().map(clause).collect() }
}

fn clause(from: &Clause) -> proto::Clause {
    proto::Clause { matches: from.any_of.iter().map(condition).collect() }
}

fn condition(from: &Match) -> proto::Match {
    proto::Match {
        namespaces: from.namespaces.iter().map(text).collect(),
        not_namespaces: from.not_namespaces.iter().map(text).collect(),
        principals: from.principals.iter().map(text).collect(),
        not_principals: from.not_principals.iter().map(text).collect(),
        source_ips: from.source_ips.iter().map(range).collect(),
        not_source_ips: from.not_source_ips.iter().map(range).collect(),
        destination_ips: from.destination_ips.iter().map(range).collect(),
        not_destination_ips: from.not_destination_ips.iter().map(range).collect(),
        destination_ports: from.destination_ports.iter().copied().map(u32::from).collect(),
        not_destination_ports: from.not_destination_ports.iter().copied().map(u32::from).collect(),
        service_accounts: from.service_accounts.iter().map(service_account).collect(),
        not_service_accounts: from.not_service_accounts.iter().map(service_account).collect(),
        extensions: Vec::new(),
    }
}

fn text(from: &StringMatch) -> proto::StringMatch {
    let match_type = match from {
        StringMatch::Exact(text) => MatchType::Exact(text.to_string()),
        StringMatch::Prefix(text) => MatchType::Prefix(text.to_string()),
        StringMatch::Suffix(text) => MatchType::Suffix(text.to_string()),
        StringMatch::Presence => MatchType::Presence(()),
    };
    proto::StringMatch { match_type: Some(match_type) }
}

fn range(from: &IpNet) -> proto::Address {
    proto::Address { address: address::octets(from.addr()), length: u32::from(from.prefix_len()) }
}

fn service_account(from: &ServiceAccountMatch) -> proto::ServiceAccountMatch {
    proto::ServiceAccountMatch {
        namespace: from.namespace.to_string(),
        service_account: from.service_account.to_string(),
    }
}
