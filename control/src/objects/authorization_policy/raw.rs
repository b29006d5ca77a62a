//! AuthorizationPolicy as it is written, and the rules that Istio's admission checks hold it to.

use serde::Deserialize;

use super::text::{IpBlock, Pattern, Port, ServiceAccountName};
use super::{Action, Condition};
use crate::objects::selector::{Selector, TargetRef};
use crate::objects::values::null_is_default;

/// `maxItems` of `rules` and of `from` in Istio's CRD.
const MAX_RULES: usize = 512;

/// `maxItems` of `targetRefs`, `serviceAccounts` and `notServiceAccounts` in Istio's CRD.
const MAX_REFERENCES: usize = 16;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Spec {
    #[serde(deserialize_with = "null_is_default")]
    selector: Selector,
    target_ref: Option<TargetRef>,
    #[serde(deserialize_with = "null_is_default")]
    target_refs: Vec<TargetRef>,
    #[serde(deserialize_with = "null_is_default")]
    action: Action,
    #[serde(deserialize_with = "null_is_default")]
    rules: Vec<super::Rule>,
    provider: Option<Provider>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Provider {
    #[serde(default, deserialize_with = "null_is_default")]
    name: String,
}

impl TryFrom<Spec> for super::Spec {
    type Error = String;

    fn try_from(raw: Spec) -> Result<Self, Self::Error> {
        let mut target_refs = raw.target_refs;
        target_refs.extend(raw.target_ref);
        if !raw.selector.is_empty() && !target_refs.is_empty() {
            return Err("spec: only one of targetRefs or selector can be set".to_owned());
        }
        at_most(MAX_REFERENCES, target_refs.len(), "spec.targetRefs")?;
        at_most(MAX_RULES, raw.rules.len(), "spec.rules")?;
        match (raw.action, &raw.provider) {
            (Action::Custom, provider) if provider.as_ref().is_none_or(|p| p.name.is_empty()) => {
                return Err("spec.provider.name: must not be empty for action CUSTOM".to_owned());
            }
            (Action::Allow | Action::Deny | Action::Audit, Some(_)) => {
                return Err("spec.provider: must not be set for an action other than CUSTOM".to_owned());
            }
            (Action::Custom | Action::Allow | Action::Deny | Action::Audit, _) => {}
        }
        Ok(Self { selector: raw.selector, target_refs, action: raw.action, rules: raw.rules })
    }
}

#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Rule {
    from: Option<Vec<From>>,
    to: Option<Vec<To>>,
    #[serde(deserialize_with = "null_is_default")]
    when: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct From {
    source: Source,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct To {
    operation: Operation,
}

impl TryFrom<Rule> for super::Rule {
    type Error = String;

    fn try_from(raw: Rule) -> Result<Self, Self::Error> {
        if raw.from.as_ref().is_some_and(Vec::is_empty) {
            return Err("`from` must not be empty".to_owned());
        }
        if raw.to.as_ref().is_some_and(Vec::is_empty) {
            return Err("`to` must not be empty".to_owned());
        }
        let from = raw.from.unwrap_or_default();
        at_most(MAX_RULES, from.len(), "from")?;
        Ok(Self {
            from: from.into_iter().map(|from| from.source.checked()).collect::<Result<_, _>>()?,
            to: raw
                .to
                .unwrap_or_default()
                .into_iter()
                .map(|to| to.operation.checked())
                .collect::<Result<_, _>>()?,
            when: raw.when,
        })
    }
}

/// A field whose values layer 4 does not use.
type Written = Option<Vec<String>>;

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Source {
    #[serde(deserialize_with = "null_is_default")]
    principals: Vec<Pattern>,
    #[serde(deserialize_with = "null_is_default")]
    not_principals: Vec<Pattern>,
    #[serde(deserialize_with = "null_is_default")]
    namespaces: Vec<Pattern>,
    #[serde(deserialize_with = "null_is_default")]
    not_namespaces: Vec<Pattern>,
    #[serde(deserialize_with = "null_is_default")]
    service_accounts: Vec<ServiceAccountName>,
    #[serde(deserialize_with = "null_is_default")]
    not_service_accounts: Vec<ServiceAccountName>,
    #[serde(deserialize_with = "null_is_default")]
    ip_blocks: Vec<IpBlock>,
    #[serde(deserialize_with = "null_is_default")]
    not_ip_blocks: Vec<IpBlock>,
    remote_ip_blocks: Written,
    not_remote_ip_blocks: Written,
    request_principals: Written,
    not_request_principals: Written,
    trust_domains: Written,
    not_trust_domains: Written,
}

impl Source {
    fn checked(self) -> Result<super::Source, String> {
        for list in [&self.service_accounts, &self.not_service_accounts] {
            at_most(MAX_REFERENCES, list.len(), "from.source.serviceAccounts")?;
        }
        let names_accounts = !self.service_accounts.is_empty() || !self.not_service_accounts.is_empty();
        let patterns = [&self.principals, &self.not_principals, &self.namespaces, &self.not_namespaces];
        let names_others = patterns.iter().any(|list| !list.is_empty());
        if names_accounts && names_others {
            return Err(
                "`from.source`: serviceAccounts cannot be set with principals or namespaces".to_owned()
            );
        }
        let beyond_layer_4 = set_fields([
            ("remoteIpBlocks", &self.remote_ip_blocks),
            ("notRemoteIpBlocks", &self.not_remote_ip_blocks),
            ("requestPrincipals", &self.request_principals),
            ("notRequestPrincipals", &self.not_request_principals),
            ("trustDomains", &self.trust_domains),
            ("notTrustDomains", &self.not_trust_domains),
        ]);
        let names_addresses = !self.ip_blocks.is_empty() || !self.not_ip_blocks.is_empty();
        if !(names_accounts || names_others || names_addresses) && beyond_layer_4.is_empty() {
            return Err("`from.source` must not be empty".to_owned());
        }
        Ok(super::Source {
            principals: self.principals.into_iter().map(|pattern| pattern.0).collect(),
            not_principals: self.not_principals.into_iter().map(|pattern| pattern.0).collect(),
            namespaces: self.namespaces.into_iter().map(|pattern| pattern.0).collect(),
            not_namespaces: self.not_namespaces.into_iter().map(|pattern| pattern.0).collect(),
            service_accounts: self.service_accounts,
            not_service_accounts: self.not_service_accounts,
            ip_blocks: self.ip_blocks.into_iter().map(|block| block.0).collect(),
            not_ip_blocks: self.not_ip_blocks.into_iter().map(|block| block.0).collect(),
            beyond_layer_4,
            layer_7: super::SourceLayer7 {
                remote_ip_blocks: self.remote_ip_blocks.unwrap_or_default(),
                not_remote_ip_blocks: self.not_remote_ip_blocks.unwrap_or_default(),
                request_principals: self.request_principals.unwrap_or_default(),
                not_request_principals: self.not_request_principals.unwrap_or_default(),
                trust_domains: self.trust_domains.unwrap_or_default(),
                not_trust_domains: self.not_trust_domains.unwrap_or_default(),
            },
        })
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Operation {
    #[serde(deserialize_with = "null_is_default")]
    ports: Vec<Port>,
    #[serde(deserialize_with = "null_is_default")]
    not_ports: Vec<Port>,
    hosts: Written,
    not_hosts: Written,
    methods: Written,
    not_methods: Written,
    paths: Written,
    not_paths: Written,
}

impl Operation {
    fn checked(self) -> Result<super::Operation, String> {
        let beyond_layer_4 = set_fields([
            ("hosts", &self.hosts),
            ("notHosts", &self.not_hosts),
            ("methods", &self.methods),
            ("notMethods", &self.not_methods),
            ("paths", &self.paths),
            ("notPaths", &self.not_paths),
        ]);
        if self.ports.is_empty() && self.not_ports.is_empty() && beyond_layer_4.is_empty() {
            return Err("`to.operation` must not be empty".to_owned());
        }
        Ok(super::Operation {
            ports: self.ports.into_iter().map(|port| port.0).collect(),
            not_ports: self.not_ports.into_iter().map(|port| port.0).collect(),
            beyond_layer_4,
            layer_7: super::OperationLayer7 {
                hosts: self.hosts.unwrap_or_default(),
                not_hosts: self.not_hosts.unwrap_or_default(),
                methods: self.methods.unwrap_or_default(),
                not_methods: self.not_methods.unwrap_or_default(),
                paths: self.paths.unwrap_or_default(),
                not_paths: self.not_paths.unwrap_or_default(),
            },
        })
    }
}

/// The names of the fields that hold a value.
fn set_fields<const N: usize>(fields: [(&'static str, &Written); N]) -> Vec<&'static str> {
    let is_set = |values: &Written| values.as_ref().is_some_and(|values| !values.is_empty());
    fields.into_iter().filter(|(_, values)| is_set(values)).map(|(name, _)| name).collect()
}

fn at_most(limit: usize, found: usize, field: &str) -> Result<(), String> {
    if found > limit {
        return Err(format!("{field}: Too many: {found}: must have at most {limit} items"));
    }
    Ok(())
}
