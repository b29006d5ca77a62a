//! The truth table of AuthorizationPolicy at layer 4, and what no combination may do.

mod plain;
mod properties;
mod table;

use crate::fixtures::{identity, ip, policy_name, socket, workload};
use crate::identity::SpiffeId;
use crate::policy::{
    Action, AuthorizationPolicy, Clause, Connection, Match, Peer, PolicyScope, Rule, ServiceAccountMatch,
    StringMatch,
};
use crate::workload::Workload;

/// A connection of `shop/client` from 10.0.0.9 to port 8080 of 10.0.0.1.
fn from_client() -> Connection {
    from(Peer::Verified(identity("client")))
}

fn from(peer: Peer) -> Connection {
    Connection {
        peer,
        source_ip: ip("10.0.0.9"),
        destination: socket("10.0.0.1:8080"),
        through_waypoint: false,
    }
}

/// The destination: `shop/web`, which names `policies`.
fn web(policies: &[&str]) -> Workload {
    let authorization_policies = policies.iter().map(|name| policy_name("shop", name)).collect();
    Workload { authorization_policies, ..workload("web", &["10.0.0.1"]) }
}

fn identity_of(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

/// A rule of one clause with one match.
fn rule(group: Match) -> Rule {
    Rule { clauses: vec![any_of([group])] }
}

fn any_of(groups: impl IntoIterator<Item = Match>) -> Clause {
    Clause { any_of: groups.into_iter().collect() }
}

fn everything() -> Rule {
    Rule::default()
}

fn on_port(port: u16) -> Match {
    Match { destination_ports: vec![port], ..Match::default() }
}

fn from_namespace(namespace: &str) -> Match {
    Match { namespaces: vec![exact(namespace)], ..Match::default() }
}

fn from_account(namespace: &str, service_account: &str) -> ServiceAccountMatch {
    ServiceAccountMatch { namespace: namespace.into(), service_account: service_account.into() }
}

fn policy(scope: PolicyScope, name: &str, action: Action, rules: Vec<Rule>) -> AuthorizationPolicy {
    AuthorizationPolicy { scope, ..crate::fixtures::policy(name, action, rules) }
}
