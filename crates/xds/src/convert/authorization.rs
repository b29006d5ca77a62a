//! `istio.security.Authorization`, and what stands in for one that cannot be read.
//!
//! Read from its octets rather than from a decoded message: decoding drops fields that this build
//! does not know, and a condition that is dropped silently makes an ALLOW rule wider.
//! What an unenforceable condition does to its rule is decided in `rules`.

mod matches;
mod rules;
mod to_proto;

use ambit_mesh::policy::{Action, AuthorizationPolicy, PolicyName, PolicyScope, Rule};
use ambit_proto::istio::security as proto;
use prost::{DecodeError, Message};

use super::ports::InvalidPort;

pub use to_proto::to_proto;

/// Reads a policy from the octets of its message.
///
/// # Errors
/// When the policy as a whole cannot be enforced as it is meant. The caller keeps its last good
/// version, or uses [`stand_in`] where there is none.
pub fn decode(octets: &[u8]) -> Result<AuthorizationPolicy, InvalidAuthorization> {
    let from = Encoded::decode(octets)?;
    if from.name.is_empty() || from.namespace.is_empty() {
        return Err(InvalidAuthorization::Name);
    }
    let action = match proto::Action::try_from(from.action) {
        Ok(proto::Action::Allow) => Action::Allow,
        Ok(proto::Action::Deny) => Action::Deny,
        Err(_) => return Err(InvalidAuthorization::Action { value: from.action }),
    };
    Ok(AuthorizationPolicy {
        name: PolicyName { namespace: from.namespace.into(), name: from.name.into() },
        scope: scope(from.scope).ok_or(InvalidAuthorization::Scope { value: from.scope })?,
        action,
        rules: rules::rules(&from.rules, action)?,
        dry_run: from.dry_run,
    })
}

/// What is enforced in place of a policy that cannot be read and of which no good version is held:
/// it denies what the policy selects, as far as that can be told, and every workload otherwise.
///
/// A policy that is only logged stays one.
pub fn stand_in(name: PolicyName, octets: &[u8]) -> AuthorizationPolicy {
    let readable = Encoded::decode(octets).ok();
    let selected = readable.as_ref().and_then(|policy| scope(policy.scope));
    AuthorizationPolicy {
        dry_run: readable.is_some_and(|policy| policy.dry_run),
        ..deny_all(name, selected.unwrap_or(PolicyScope::Global))
    }
}

/// A policy that denies everything to the workloads it selects.
pub fn deny_all(name: PolicyName, scope: PolicyScope) -> AuthorizationPolicy {
    AuthorizationPolicy {
        name,
        scope,
        action: Action::Deny,
        rules: vec![Rule { clauses: Vec::new() }],
        dry_run: false,
    }
}

fn scope(value: i32) -> Option<PolicyScope> {
    match proto::Scope::try_from(value) {
        Ok(proto::Scope::Global) => Some(PolicyScope::Global),
        Ok(proto::Scope::Namespace) => Some(PolicyScope::Namespace),
        Ok(proto::Scope::WorkloadSelector) => Some(PolicyScope::WorkloadSelector),
        Err(_) => None,
    }
}

/// The message with its rules still encoded. Numbers as in `authorization.proto`.
#[derive(Clone, PartialEq, Message)]
struct Encoded {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    namespace: String,
    #[prost(int32, tag = "3")]
    scope: i32,
    #[prost(int32, tag = "4")]
    action: i32,
    #[prost(bytes = "vec", repeated, tag = "5")]
    rules: Vec<Vec<u8>>,
    #[prost(bool, tag = "6")]
    dry_run: bool,
}

/// Why a policy is refused as a whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthorization {
    /// It cannot be decoded.
    #[error("it cannot be decoded")]
    Decode(#[from] DecodeError),
    /// It cannot be named.
    #[error("namespace or name is empty")]
    Name,
    /// What it selects is not known.
    #[error("scope {value} is not known")]
    Scope {
        /// The number on the wire.
        value: i32,
    },
    /// What a match means is not known.
    #[error("action {value} is not known: ALLOW (0) and DENY (1) are")]
    Action {
        /// The number on the wire.
        value: i32,
    },
    /// A range of addresses is malformed.
    #[error("{field}: an address of {octets} octets with prefix length {length} is not a range")]
    Range {
        /// In which field.
        field: &'static str,
        /// How many octets the address has.
        octets: usize,
        /// The prefix length.
        length: u32,
    },
    /// A port is impossible.
    #[error("{field}")]
    Port {
        /// In which field.
        field: &'static str,
        /// Why.
        source: InvalidPort,
    },
}

#[cfg(test)]
mod tests;
