//! `security.istio.io` AuthorizationPolicy: who may call a workload.
//!
//! Conditions of layer 4 are kept as values; those of layer 7 only by name, because nothing here
//! can evaluate them: `translate::authorization` decides what that means.

use ambit_mesh::policy::StringMatch;
use ipnet::IpNet;
use serde::Deserialize;

use super::Body;
use super::envelope::Envelope;
use super::meta::Meta;
use super::selector::{Selection, Selector, TargetRef};

mod condition;
mod raw;
mod text;

pub use condition::{Condition, Values};
pub use text::ServiceAccountName;
pub(crate) use text::parse_pattern;

/// Who may call a workload.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "Envelope<Spec>")]
pub struct AuthorizationPolicy {
    /// Metadata.
    pub metadata: Meta,
    /// What was asked for.
    pub spec: Spec,
}

/// `spec` of an AuthorizationPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "raw::Spec")]
pub struct Spec {
    /// Which workloads; empty for the whole namespace, or the whole mesh in the root namespace.
    pub selector: Selector,
    /// Gateways or services whose waypoint enforces it; then no workload is selected.
    pub target_refs: Vec<TargetRef>,
    /// What a match means.
    pub action: Action,
    /// Any of them may match; without rules the policy never matches.
    pub rules: Vec<Rule>,
}

/// What a match means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Allow, if nothing denies.
    #[default]
    Allow,
    /// Deny.
    Deny,
    /// Mark for an audit log; never decides.
    Audit,
    /// Ask an external authorizer.
    Custom,
}

/// Matches when any of `from` and any of `to` and all of `when` do; what is absent is true.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(try_from = "raw::Rule")]
pub struct Rule {
    /// Who calls. Empty: anyone.
    pub from: Vec<Source>,
    /// What is called. Empty: anything.
    pub to: Vec<Operation>,
    /// Under which conditions.
    pub when: Vec<Condition>,
}

/// A caller. Fields are joined by AND, values of a field by OR; no value of a `not_` field may match.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "fields carry the names that AuthorizationPolicy gives them")]
pub struct Source {
    pub principals: Vec<StringMatch>,
    pub not_principals: Vec<StringMatch>,
    pub namespaces: Vec<StringMatch>,
    pub not_namespaces: Vec<StringMatch>,
    pub service_accounts: Vec<ServiceAccountName>,
    pub not_service_accounts: Vec<ServiceAccountName>,
    pub ip_blocks: Vec<IpNet>,
    pub not_ip_blocks: Vec<IpNet>,
    /// Fields that layer 4 cannot evaluate, by name.
    pub beyond_layer_4: Vec<&'static str>,
    /// What those fields hold, as it is written.
    pub layer_7: SourceLayer7,
}

/// What a waypoint can evaluate of a caller, as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "fields carry the names that AuthorizationPolicy gives them")]
pub struct SourceLayer7 {
    pub remote_ip_blocks: Vec<String>,
    pub not_remote_ip_blocks: Vec<String>,
    pub request_principals: Vec<String>,
    pub not_request_principals: Vec<String>,
    pub trust_domains: Vec<String>,
    pub not_trust_domains: Vec<String>,
}

/// What a waypoint can evaluate of what is called, as it is written.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "fields carry the names that AuthorizationPolicy gives them")]
pub struct OperationLayer7 {
    pub hosts: Vec<String>,
    pub not_hosts: Vec<String>,
    pub methods: Vec<String>,
    pub not_methods: Vec<String>,
    pub paths: Vec<String>,
    pub not_paths: Vec<String>,
}

/// What is called.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "fields carry the names that AuthorizationPolicy gives them")]
pub struct Operation {
    pub ports: Vec<u16>,
    pub not_ports: Vec<u16>,
    /// Fields that layer 4 cannot evaluate, by name.
    pub beyond_layer_4: Vec<&'static str>,
    /// What those fields hold, as it is written.
    pub layer_7: OperationLayer7,
}

impl AuthorizationPolicy {
    /// What stands in for a policy that cannot be read: it denies what it selects, as far as known.
    pub fn deny_all(body: Option<Body<'_>>) -> Self {
        let Selection { selector, mut target_refs } = Selection::of(body);
        // One that claims both is taken for the one that is enforced here.
        if !selector.is_empty() {
            target_refs.clear();
        }
        let rules = vec![Rule::default()];
        let spec = Spec { selector, target_refs, action: Action::Deny, rules };
        Self { metadata: Meta::default(), spec }
    }
}

impl From<Envelope<Spec>> for AuthorizationPolicy {
    fn from(Envelope { metadata, spec, .. }: Envelope<Spec>) -> Self {
        Self { metadata, spec }
    }
}
