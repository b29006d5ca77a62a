//! What holds for every set of policies and every connection.

use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::*;
use crate::fixtures::{snapshot, uid};
use crate::policy::{AllowedBy, Permit, authorize};
use crate::snapshot::{Change, Snapshot, State};

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
        through_waypoint: false,
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

/// Policies by the dozen, as an index is made for.
fn many_policies() -> impl Strategy<Value = Vec<AuthorizationPolicy>> {
    let scope = select(vec![PolicyScope::Global, PolicyScope::Namespace, PolicyScope::WorkloadSelector]);
    let action = select(vec![Action::Allow, Action::Deny]);
    let rules = prop::collection::vec(rule_among_many(), 0..3);
    prop::collection::vec((scope, action, rules, prop::bool::weighted(0.1)), 0..60).prop_map(|policies| {
        let numbered = policies.into_iter().enumerate();
        let named = numbered.map(|(index, (scope, action, rules, dry_run))| AuthorizationPolicy {
            dry_run,
            ..policy(scope, &format!("p{index}"), action, rules)
        });
        named.collect()
    })
}

/// Of one to three conditions, some of which lie in each other: mostly rules that leave most
/// connections out.
fn rule_among_many() -> impl Strategy<Value = Rule> {
    let texts = [
        "exact:cluster.local/ns/shop/sa/client",
        "exact:cluster.local/ns/shop/sa/c",
        "exact:other/ns/s/sa/web",
        "exact:shop",
        "exact:s",
        "prefix:",
        "prefix:cluster.local/",
        "prefix:cluster.local/ns/shop/",
        "prefix:cluster.local/ns/shop/sa/client",
        "prefix:cluster.local/ns/zoo/",
        "prefix:s",
        "prefix:sh",
        "suffix:",
        "suffix:t",
        "suffix:client",
        "suffix:/sa/client",
        "suffix:op",
        "presence",
    ];
    let text = || select(texts.to_vec()).prop_map(string_match);
    let account = select(vec![("shop", "client"), ("shop", "web"), ("s", "web"), ("s/sa", "web")])
        .prop_map(|(namespace, account)| from_account(namespace, account));
    let nets = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.9/24",
        "10.0.0.9/32",
        "10.0.0.10/32",
        "10.1.0.0/16",
        "::/0",
        "::ffff:0:0/90",
        "::ffff:10.0.0.0/104",
        "::ffff:10.0.0.9/128",
        "fd00::/8",
        "fd00::9/128",
    ];
    let net = || select(nets.map(|net| net.parse().unwrap()).to_vec());
    let port = select(vec![80_u16, 8080, 8081, 9090]);
    let none = Match::default;
    let condition = prop_oneof![
        text().prop_map(move |text| Match { principals: vec![text], ..none() }),
        text().prop_map(move |text| Match { namespaces: vec![text], ..none() }),
        account.prop_map(move |account| Match { service_accounts: vec![account], ..none() }),
        net().prop_map(move |net| Match { source_ips: vec![net], ..none() }),
        net().prop_map(move |net| Match { destination_ips: vec![net], ..none() }),
        port.prop_map(move |port| Match { destination_ports: vec![port], ..none() }),
        text().prop_map(move |text| Match { not_principals: vec![text], ..none() }),
        net().prop_map(move |net| Match { not_source_ips: vec![net], ..none() }),
        Just(none()),
    ];
    let group =
        prop::collection::vec(condition, 1..4).prop_map(move |parts| parts.into_iter().fold(none(), joined));
    let clause = prop::collection::vec(group, 1..3).prop_map(|any_of| Clause { any_of });
    prop::collection::vec(clause, 1..3).prop_map(|clauses| Rule { clauses })
}

fn string_match(text: &str) -> StringMatch {
    match text.split_once(':') {
        Some(("exact", text)) => StringMatch::Exact(text.into()),
        Some(("prefix", text)) => StringMatch::Prefix(text.into()),
        Some((_, text)) => StringMatch::Suffix(text.into()),
        None => StringMatch::Presence,
    }
}

/// The conditions of both.
fn joined(mut a: Match, b: Match) -> Match {
    a.namespaces.extend(b.namespaces);
    a.principals.extend(b.principals);
    a.not_principals.extend(b.not_principals);
    a.service_accounts.extend(b.service_accounts);
    a.source_ips.extend(b.source_ips);
    a.not_source_ips.extend(b.not_source_ips);
    a.destination_ips.extend(b.destination_ips);
    a.destination_ports.extend(b.destination_ports);
    a
}

/// Insists on the answer being the one that asking every policy gives.
fn expect_plain_answer(snapshot: &Snapshot, connection: &Connection) -> Result<(), TestCaseError> {
    let Some(web) = snapshot.workload(&uid("web")) else { return Err(TestCaseError::fail("no workload")) };
    let answer = authorize(snapshot, web, connection);
    let answer = answer.map(|permit| (permit.allowed_by().clone(), permit.dry_run().to_vec()));
    prop_assert_eq!(answer, plain::authorize(snapshot, web, connection));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_is_looked_up_is_what_asking_every_policy_gives(
        policies in many_policies(),
        unknown in prop::bool::weighted(0.1),
        connections in prop::collection::vec(connections(), 4),
    ) {
        let mut names: Vec<_> = policies.iter().map(|policy| &*policy.name.name).collect();
        names.extend(unknown.then_some("unknown"));
        let snapshot = snapshot(policies.iter().cloned().map(Change::from).chain([web(&names).into()]));
        for connection in connections {
            expect_plain_answer(&snapshot, &connection)?;
        }
    }

    /// What was prepared never outlives the policies that it was prepared from.
    #[test]
    fn after_any_change_it_is_so_for_the_new_policies(
        policies in many_policies(),
        named in prop::collection::vec(prop::bool::ANY, 60),
        later in prop::collection::vec((0..60_usize, many_policies(), 0..3_u8), 0..4),
        connection in connections(),
    ) {
        let names = policies.iter().zip(&named).filter(|(_, named)| **named).map(|(policy, _)| &*policy.name.name);
        let web = web(&names.collect::<Vec<_>>());
        let mut state = State::default();
        state.apply(policies.iter().cloned().map(Change::from).chain([web.clone().into()]));
        expect_plain_answer(&state.snapshot(), &connection)?;
        let answer = |snapshot: &Snapshot| {
            let web = snapshot.workload(&uid("web")).unwrap();
            (snapshot.policy_stamp(web), authorize(snapshot, web, &connection))
        };
        for (at, replacements, what) in later {
            let Some(changed) = policies.get(at) else { continue };
            let replacement = replacements.into_iter().next();
            let change = match (what, replacement) {
                (0, Some(other)) => AuthorizationPolicy { name: changed.name.clone(), ..other }.into(),
                (1, _) => Workload { requires_waypoint: !web.requires_waypoint, ..web.clone() }.into(),
                (_, _) => Change::RemovePolicy(changed.name.clone()),
            };
            let (stamp, before) = answer(&state.snapshot());
            state.apply([change]);
            expect_plain_answer(&state.snapshot(), &connection)?;
            let (later_stamp, after) = answer(&state.snapshot());
            prop_assert!(!later_stamp.is_still(&stamp) || before == after, "a stamp outlived the answer");
        }
    }
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
