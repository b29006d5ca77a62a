//! Policies of waypoints, written.

use ambit_mesh::http::{
    Condition, HttpAction, HttpPolicy, HttpRule, Operation, PathCondition, PolicyTarget, Source, Values,
    path_template_text,
};
use ambit_mesh::policy::{ServiceAccountMatch, StringMatch};
use ambit_proto::ambit::waypoint::v1 as proto;
use ipnet::IpNet;

/// Writes a policy.
pub fn to_proto(from: &HttpPolicy) -> proto::Policy {
    let action = match from.action {
        HttpAction::Allow => proto::Action::Allow,
        HttpAction::Deny => proto::Action::Deny,
        HttpAction::Audit => proto::Action::Audit,
        HttpAction::Custom => proto::Action::Custom,
    };
    proto::Policy {
        namespace: from.name.namespace.to_string(),
        name: from.name.name.to_string(),
        targets: from.targets.iter().map(target).collect(),
        action: action.into(),
        rules: from.rules.iter().map(rule).collect(),
        dry_run: from.dry_run,
    }
}

fn target(from: &PolicyTarget) -> proto::Target {
    use proto::target::Kind;
    let kind = match from {
        PolicyTarget::Gateway(of) => Kind::Gateway(proto::GatewayTarget {
            namespace: of.namespace.to_string(),
            name: of.name.to_string(),
        }),
        PolicyTarget::Service(of) => Kind::Service(proto::ServiceTarget {
            namespace: of.namespace.to_string(),
            hostname: of.hostname.to_string(),
        }),
        PolicyTarget::EveryWaypoint => Kind::EveryWaypoint(true),
    };
    proto::Target { kind: Some(kind) }
}

fn rule(from: &HttpRule) -> proto::Rule {
    proto::Rule {
        from: from.from.iter().map(source).collect(),
        to: from.to.iter().map(operation).collect(),
        when: from.when.iter().map(condition).collect(),
    }
}

fn source(from: &Source) -> proto::Source {
    proto::Source {
        principals: given(&from.principals).map(texts),
        request_principals: given(&from.request_principals).map(texts),
        namespaces: given(&from.namespaces).map(texts),
        service_accounts: given(&from.service_accounts).map(accounts),
        trust_domains: given(&from.trust_domains).map(texts),
        ip_blocks: given(&from.ip_blocks).map(blocks),
        remote_ip_blocks: given(&from.remote_ip_blocks).map(blocks),
        unknown: from.unknown.iter().map(ToString::to_string).collect(),
    }
}

fn operation(from: &Operation) -> proto::Operation {
    proto::Operation {
        hosts: given(&from.hosts).map(texts),
        ports: given(&from.ports).map(ports),
        methods: given(&from.methods).map(texts),
        paths: given(&from.paths).map(paths),
        unknown: from.unknown.iter().map(ToString::to_string).collect(),
    }
}

fn condition(from: &Condition) -> proto::Condition {
    use proto::condition::Kind;
    let kind = match from {
        Condition::RequestHeader { name, values } => Kind::RequestHeader(proto::HeaderCondition {
            name: name.to_string(),
            values: Some(texts(values)),
        }),
        Condition::SourceIp(of) => Kind::SourceIp(blocks(of)),
        Condition::RemoteIp(of) => Kind::RemoteIp(blocks(of)),
        Condition::SourceNamespace(of) => Kind::SourceNamespace(texts(of)),
        Condition::SourceServiceAccount(of) => Kind::SourceServiceAccount(accounts(of)),
        Condition::SourceTrustDomain(of) => Kind::SourceTrustDomain(texts(of)),
        Condition::SourcePrincipal(of) => Kind::SourcePrincipal(texts(of)),
        Condition::DestinationIp(of) => Kind::DestinationIp(blocks(of)),
        Condition::DestinationPort(of) => Kind::DestinationPort(ports(of)),
        Condition::Unknown(key) => Kind::Unknown(key.to_string()),
    };
    proto::Condition { kind: Some(kind) }
}

/// Absent where nothing is asked.
fn given<T>(values: &Values<T>) -> Option<&Values<T>> {
    (!values.is_empty()).then_some(values)
}

fn texts(from: &Values) -> proto::Texts {
    proto::Texts {
        any_of: from.any_of.iter().map(text).collect(),
        none_of: from.none_of.iter().map(text).collect(),
    }
}

fn text(from: &StringMatch) -> proto::Text {
    use proto::text::Kind;
    let kind = match from {
        StringMatch::Exact(text) => Kind::Exact(text.to_string()),
        StringMatch::Prefix(text) => Kind::Prefix(text.to_string()),
        StringMatch::Suffix(text) => Kind::Suffix(text.to_string()),
        StringMatch::Presence => Kind::Presence(true),
    };
    proto::Text { kind: Some(kind) }
}

fn blocks(from: &Values<IpNet>) -> proto::Addresses {
    proto::Addresses {
        any_of: from.any_of.iter().map(ToString::to_string).collect(),
        none_of: from.none_of.iter().map(ToString::to_string).collect(),
    }
}

fn ports(from: &Values<u16>) -> proto::Ports {
    proto::Ports {
        any_of: from.any_of.iter().copied().map(u32::from).collect(),
        none_of: from.none_of.iter().copied().map(u32::from).collect(),
    }
}

fn accounts(from: &Values<ServiceAccountMatch>) -> proto::ServiceAccounts {
    let account = |of: &ServiceAccountMatch| proto::ServiceAccount {
        namespace: of.namespace.to_string(),
        name: of.service_account.to_string(),
    };
    proto::ServiceAccounts {
        any_of: from.any_of.iter().map(account).collect(),
        none_of: from.none_of.iter().map(account).collect(),
    }
}

fn paths(from: &Values<PathCondition>) -> proto::Paths {
    proto::Paths {
        any_of: from.any_of.iter().map(path).collect(),
        none_of: from.none_of.iter().map(path).collect(),
    }
}

fn path(from: &PathCondition) -> proto::PathCondition {
    use proto::path_condition::Kind;
    let kind = match from {
        PathCondition::Text(of) => Kind::Text(text(of)),
        PathCondition::Template(parts) => Kind::Template(path_template_text(parts)),
        PathCondition::Regex(pattern) => Kind::Regex(pattern.source().to_owned()),
    };
    proto::PathCondition { kind: Some(kind) }
}
