//! What holds for every set of policies and every connection.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::fixtures::snapshot;
use crate::policy::{AllowedBy, Permit, authorize};
use crate::snapshot::Change;

fn matches() -> impl Strategy<Value = Match> {
    let texts = || {
        let texts = vec![
            exact("shop"),
            exact("cluster.local/ns/shop/sa/client"),
            StringMatch::Prefix("s".into()),
            StringMatch::Suffix("client".into()),
            StringMatch::Presence,
        ];
        subsequence(texts, 0..2)
    };
    let accounts = || subsequence(vec![from_account("shop", "client"), from_account("shop", "web")], 0..2);
    let nets = || {
        let nets = ["10.0.0.0/24", "10.0.0.9/32", "::/0"].map(|net| net.parse().unwrap());
        subsequence(nets.to_vec(), 0..2)
    };
    let ports = || subsequence(vec![80_u16, 8080], 0..2);
    let peer = (texts(), texts(), texts(), texts(), accounts(), accounts());
    let address = (nets(), nets(), nets(), nets(), ports(), ports());
    (peer, address).prop_map(|(peer, address)| Match {
        namespaces: peer.0,
        not_namespaces: peer.1,
        principals: peer.2,
        not_principals: peer.3,
        service_accounts: peer.4,
        not_service_accounts: peer.5,
        source_ips: address.0,
        not_source_ips: address.1,
        destination_ips: address.2,
        not_destination_ips: address.3,
        destination_ports: address.4,
        not_destination_ports: address.5,
    })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let clause = prop::collection::vec(matches(), 0..3).prop_map(|any_of| Clause { any_of });
    let rule = prop::collection::vec(clause, 0..3).prop_map(|clauses| Rule { clauses });
    prop::collection::vec(rule, 0..3)
}

fn policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let scope = select(vec![PolicyScope::Global, PolicyScope::Namespace, PolicyScope::WorkloadSelector]);
    let action = select(vec![Action::Allow, Action::Deny]);
    prop::collection::vec((scope, action, rules(), any::<bool>()), 0..4).prop_map(|policies| {
        let numbered = policies.into_iter().enumerate();
        let named = numbered.map(|(index, (scope, action, rules, dry_run))| AuthorizationPolicy {
            dry_run,
            ..policy(scope, &format!("p{index}"), action, rules)
        });
        named.collect()
    })
}

fn connections() -> impl Strategy<Value = Connection> {
    let peers = vec![
        Peer::Unauthenticated,
        Peer::Verified(identity("client")),
        Peer::Verified(identity_of("spiffe://other/ns/s/sa/web")),
    ];
    let ips = vec!["10.0.0.9", "::ffff:10.0.0.9", "10.1.0.9", "fd00::9"];
    let destinations = vec!["10.0.0.1:80", "10.0.0.1:8080", "[fd00::1]:8080"];
    (select(peers), select(ips), select(destinations)).prop_map(|(peer, source, destination)| Connection {
        peer,
        source_ip: ip(source),
        destination: socket(destination),
    })
}

/// What a workload says that names all of the policies.
fn decide(policies: &[AuthorizationPolicy], connection: &Connection) -> Option<Permit> {
    let names: Vec<_> = policies.iter().map(|policy| &*policy.name.name).collect();
    let snapshot = snapshot(policies.iter().cloned().map(Change::from));
    authorize(&snapshot, &web(&names), connection).ok()
}

/// `policies` and one more, that is of no other's name.
fn with(
    policies: &[AuthorizationPolicy],
    name: &str,
    action: Action,
    rules: Vec<Rule>,
) -> Vec<AuthorizationPolicy> {
    policies.iter().cloned().chain([policy(PolicyScope::Namespace, name, action, rules)]).collect()
}

proptest! {
    #[test]
    fn adding_a_deny_never_allows(policies in policies(), rules in rules(), connection in connections()) {
        let more = with(&policies, "more", Action::Deny, rules);
        prop_assert!(decide(&more, &connection).is_none() || decide(&policies, &connection).is_some());
    }

    #[test]
    fn the_first_allow_never_widens(policies in policies(), rules in rules(), connection in connections()) {
        let without: Vec<_> = policies.into_iter().filter(|p| p.action == Action::Deny || p.dry_run).collect();
        let more = with(&without, "more", Action::Allow, rules);
        prop_assert!(decide(&more, &connection).is_none() || decide(&without, &connection).is_some());
    }

    #[test]
    fn once_an_allow_exists_only_a_rule_allows(policies in policies(), connection in connections()) {
        let closed = with(&policies, "closed", Action::Allow, Vec::new());
        if let Some(permit) = decide(&closed, &connection) {
            prop_assert_ne!(permit.allowed_by(), &AllowedBy::NoAllowPolicy);
        }
    }

    #[test]
    fn taking_an_allow_away_never_allows_while_another_stays(
        policies in policies(),
        rules in rules(),
        connection in connections(),
    ) {
        let fewer = with(&policies, "closed", Action::Allow, Vec::new());
        let more = with(&fewer, "more", Action::Allow, rules);
        prop_assert!(decide(&fewer, &connection).is_none() || decide(&more, &connection).is_some());
    }

    #[test]
    fn a_policy_that_is_named_and_unknown_closes(policies in policies(), connection in connections()) {
        let snapshot = snapshot(policies.into_iter().map(Change::from));
        prop_assert!(authorize(&snapshot, &web(&["unknown"]), &connection).is_err());
    }

    #[test]
    fn policies_on_trial_never_decide(policies in policies(), connection in connections()) {
        let enforced: Vec<_> = policies.iter().filter(|policy| !policy.dry_run).cloned().collect();
        let by = |policies: &[_]| decide(policies, &connection).map(|permit| permit.allowed_by().clone());
        prop_assert_eq!(by(&policies), by(&enforced));
    }

    #[test]
    fn the_order_of_policies_does_not_matter(
        (policies, shuffled) in policies().prop_flat_map(|p| (Just(p.clone()), Just(p).prop_shuffle())),
        connection in connections(),
    ) {
        let allowed = |policies: &[_]| decide(policies, &connection).is_some();
        prop_assert_eq!(allowed(&policies), allowed(&shuffled));
    }

    #[test]
    fn a_peer_without_identity_passes_no_rule_that_asks_for_one(
        group in matches(),
        connection in connections(),
    ) {
        let asks = Match { principals: vec![StringMatch::Presence], ..group };
        let allow = policy(PolicyScope::Namespace, "p", Action::Allow, vec![rule(asks)]);
        let connection = Connection { peer: Peer::Unauthenticated, ..connection };
        prop_assert!(decide(&[allow], &connection).is_none());
    }
}
