//! Policies of waypoints, read.

use ambit_mesh::http::{
    Condition, GatewayName, HttpAction, HttpPolicy, HttpRule, Operation, PathCondition, Pattern,
    PolicyTarget, Source, Values, path_template,
};
use ambit_mesh::policy::{PolicyName, ServiceAccountMatch, StringMatch};
use ambit_proto::ambit::waypoint::v1 as proto;
use ipnet::IpNet;
use prost::Message;

pub use super::policy_to_proto::to_proto;
use super::{InvalidWaypointResource, Read, all, header_name, non_empty, required, service};
use crate::convert::ports;

/// Reads a policy.
///
/// # Errors
/// When a part of it is missing, of a later version, or impossible.
pub fn from_proto(from: &proto::Policy) -> Read<HttpPolicy> {
    let action = match from.action() {
        proto::Action::Allow => Some(HttpAction::Allow),
        proto::Action::Deny => Some(HttpAction::Deny),
        proto::Action::Audit => Some(HttpAction::Audit),
        proto::Action::Custom => Some(HttpAction::Custom),
        proto::Action::Unspecified => None,
    };
    Ok(HttpPolicy {
        name: PolicyName {
            namespace: non_empty(&from.namespace, "namespace")?.into(),
            name: non_empty(&from.name, "name")?.into(),
        },
        targets: all(&from.targets, target)?,
        action: required(action, "action")?,
        rules: all(&from.rules, rule)?,
        dry_run: from.dry_run,
    })
}

/// What stands in for a policy that cannot be read: it denies what the policy guards, and where not
/// even that can be read, everything.
pub fn stand_in(name: PolicyName, octets: &[u8]) -> HttpPolicy {
    let decoded = proto::Policy::decode(octets).ok();
    let targets = decoded.and_then(|policy| all(&policy.targets, target).ok());
    HttpPolicy {
        name,
        targets: targets.filter(|all| !all.is_empty()).unwrap_or(vec![PolicyTarget::EveryWaypoint]),
        action: HttpAction::Deny,
        rules: vec![HttpRule::default()],
        dry_run: false,
    }
}

fn target(from: &proto::Target) -> Read<PolicyTarget> {
    use proto::target::Kind;
    Ok(match required(from.kind.as_ref(), "target")? {
        Kind::Gateway(of) => PolicyTarget::Gateway(GatewayName {
            namespace: non_empty(&of.namespace, "namespace")?.into(),
            name: non_empty(&of.name, "name")?.into(),
        }),
        Kind::Service(of) => PolicyTarget::Service(service(&of.namespace, &of.hostname)?),
        Kind::EveryWaypoint(_) => PolicyTarget::EveryWaypoint,
    })
}

fn rule(from: &proto::Rule) -> Read<HttpRule> {
    Ok(HttpRule {
        from: all(&from.from, source)?,
        to: all(&from.to, operation)?,
        when: all(&from.when, condition)?,
    })
}

fn source(from: &proto::Source) -> Read<Source> {
    Ok(Source {
        principals: texts(from.principals.as_ref())?,
        request_principals: texts(from.request_principals.as_ref())?,
        namespaces: texts(from.namespaces.as_ref())?,
        service_accounts: accounts(from.service_accounts.as_ref())?,
        trust_domains: texts(from.trust_domains.as_ref())?,
        ip_blocks: blocks(from.ip_blocks.as_ref())?,
        remote_ip_blocks: blocks(from.remote_ip_blocks.as_ref())?,
        unknown: from.unknown.iter().map(|field| field.as_str().into()).collect(),
    })
}

fn operation(from: &proto::Operation) -> Read<Operation> {
    Ok(Operation {
        hosts: texts(from.hosts.as_ref())?,
        ports: port_values(from.ports.as_ref())?,
        methods: texts(from.methods.as_ref())?,
        paths: paths(from.paths.as_ref())?,
        unknown: from.unknown.iter().map(|field| field.as_str().into()).collect(),
    })
}

fn condition(from: &proto::Condition) -> Read<Condition> {
    use proto::condition::Kind;
    Ok(match required(from.kind.as_ref(), "condition")? {
        Kind::RequestHeader(of) => {
            Condition::RequestHeader { name: header_name(&of.name)?, values: texts(of.values.as_ref())? }
        }
        Kind::SourceIp(of) => Condition::SourceIp(blocks(Some(of))?),
        Kind::RemoteIp(of) => Condition::RemoteIp(blocks(Some(of))?),
        Kind::SourceNamespace(of) => Condition::SourceNamespace(texts(Some(of))?),
        Kind::SourceServiceAccount(of) => Condition::SourceServiceAccount(accounts(Some(of))?),
        Kind::SourceTrustDomain(of) => Condition::SourceTrustDomain(texts(Some(of))?),
        Kind::SourcePrincipal(of) => Condition::SourcePrincipal(texts(Some(of))?),
        Kind::DestinationIp(of) => Condition::DestinationIp(blocks(Some(of))?),
        Kind::DestinationPort(of) => Condition::DestinationPort(port_values(Some(of))?),
        Kind::Unknown(key) => Condition::Unknown(key.as_str().into()),
    })
}

fn texts(from: Option<&proto::Texts>) -> Read<Values> {
    let Some(from) = from else { return Ok(Values::default()) };
    Ok(Values { any_of: all(&from.any_of, text)?, none_of: all(&from.none_of, text)? })
}

fn text(from: &proto::Text) -> Read<StringMatch> {
    use proto::text::Kind;
    Ok(match required(from.kind.as_ref(), "text")? {
        Kind::Exact(text) => StringMatch::Exact(text.as_str().into()),
        Kind::Prefix(text) => StringMatch::Prefix(text.as_str().into()),
        Kind::Suffix(text) => StringMatch::Suffix(text.as_str().into()),
        Kind::Presence(_) => StringMatch::Presence,
    })
}

fn blocks(from: Option<&proto::Addresses>) -> Read<Values<IpNet>> {
    let Some(from) = from else { return Ok(Values::default()) };
    let block = |text: &String| {
        text.parse::<IpNet>().map_err(|_| InvalidWaypointResource::Block { text: text.clone() })
    };
    Ok(Values { any_of: all(&from.any_of, block)?, none_of: all(&from.none_of, block)? })
}

fn port_values(from: Option<&proto::Ports>) -> Read<Values<u16>> {
    let Some(from) = from else { return Ok(Values::default()) };
    let port = |port: &u32| Ok(ports::port(*port)?);
    Ok(Values { any_of: all(&from.any_of, port)?, none_of: all(&from.none_of, port)? })
}

fn accounts(from: Option<&proto::ServiceAccounts>) -> Read<Values<ServiceAccountMatch>> {
    let Some(from) = from else { return Ok(Values::default()) };
    let account = |of: &proto::ServiceAccount| {
        Ok(ServiceAccountMatch {
            namespace: non_empty(&of.namespace, "namespace")?.into(),
            service_account: non_empty(&of.name, "name")?.into(),
        })
    };
    Ok(Values { any_of: all(&from.any_of, account)?, none_of: all(&from.none_of, account)? })
}

fn paths(from: Option<&proto::Paths>) -> Read<Values<PathCondition>> {
    let Some(from) = from else { return Ok(Values::default()) };
    Ok(Values { any_of: all(&from.any_of, path)?, none_of: all(&from.none_of, path)? })
}

fn path(from: &proto::PathCondition) -> Read<PathCondition> {
    use proto::path_condition::Kind;
    Ok(match required(from.kind.as_ref(), "path")? {
        Kind::Text(of) => PathCondition::Text(text(of)?),
        Kind::Template(of) => PathCondition::Template(path_template(of)?),
        Kind::Regex(of) => PathCondition::Regex(Pattern::new(of)?),
    })
}
