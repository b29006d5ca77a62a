//! The balancer picks only what it may, by weight, and the same again from the same seed.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;
use crate::address::Network;
use crate::fixtures::workload;
use crate::workload::Locality;

proptest! {
    #[test]
    fn only_candidates_with_weight_are_picked(
        weights in prop::collection::vec(0_u32..5, 0..8),
        seed: u64,
    ) {
        let picked = pick(&weights, |weight| *weight, &mut SmallRng::seed_from_u64(seed));
        prop_assert_eq!(picked.is_some(), weights.iter().any(|weight| *weight > 0));
        prop_assert!(picked.is_none_or(|weight| *weight > 0));
    }

    #[test]
    fn the_same_seed_picks_the_same(
        weights in prop::collection::vec(any::<u32>(), 1..8),
        seed: u64,
    ) {
        let candidates: Vec<_> = weights.iter().enumerate().collect();
        let pick = || pick(&candidates, |(_, weight)| **weight, &mut SmallRng::seed_from_u64(seed)).copied();
        prop_assert_eq!(pick(), pick());
    }

    #[test]
    fn failover_leaves_somebody_and_strict_leaves_only_full_matches(
        zones in prop::collection::vec("[ab]{0,1}", 1..6),
        nodes in prop::collection::vec("[xy]{0,1}", 1..6),
    ) {
        let client = placed("a", "x");
        let places: Vec<_> = zones.iter().zip(&nodes).map(|(zone, node)| placed(zone, node)).collect();
        let preference = vec![Scope::Zone, Scope::Node];
        let nearest = |mode| {
            let load_balancing = LoadBalancing {
                routing_preference: preference.clone(),
                mode,
                ..LoadBalancing::default()
            };
            nearest(&load_balancing, &client, places.iter().collect(), |place: &&Workload| *place)
        };
        let best = places.iter().map(|place| rank(&preference, &client, place)).max();
        let failover = nearest(LoadBalancingMode::Failover);
        prop_assert!(!failover.is_empty());
        prop_assert!(failover.iter().all(|place| Some(rank(&preference, &client, place)) == best));
        let strict = nearest(LoadBalancingMode::Strict);
        let full = |place: &&Workload| &*place.locality.zone == "a" && &*place.node == "x";
        prop_assert_eq!(strict.len(), places.iter().filter(full).count());
        prop_assert_eq!(nearest(LoadBalancingMode::Unspecified).len(), places.len());
    }
}

#[test]
fn picks_follow_the_weights() {
    let weights = [1_u32, 0, 2, 5];
    let mut picked = [0_u32; 4];
    let candidates: Vec<_> = weights.iter().copied().enumerate().collect();
    let mut rng = SmallRng::seed_from_u64(7);
    for _ in 0..8_000 {
        let (index, _) = pick(&candidates, |(_, weight)| *weight, &mut rng).unwrap();
        picked[*index] += 1;
    }
    // Expected 1000, 0, 2000, 5000; six standard deviations are below 300.
    let near = |count: u32, expected: u32| count.abs_diff(expected) < 300;
    assert_eq!(picked[1], 0);
    assert!(near(picked[0], 1_000) && near(picked[2], 2_000) && near(picked[3], 5_000), "{picked:?}");
}

#[test]
fn the_greatest_weights_do_not_overflow() {
    let weights = [u32::MAX; 3];
    assert!(pick(&weights, |weight| *weight, &mut SmallRng::seed_from_u64(1)).is_some());
}

#[test]
fn a_rank_counts_shared_scopes_from_the_first_on() {
    let client = placed("a", "x");
    let abroad = |place: Workload| Workload { network: Network("abroad".into()), ..place };
    let rows = [
        ("nothing preferred", vec![], placed("a", "x"), 0),
        ("both shared", vec![Scope::Zone, Scope::Node], placed("a", "x"), 2),
        ("the first alone", vec![Scope::Zone, Scope::Node], placed("a", "y"), 1),
        ("a mismatch ends it", vec![Scope::Zone, Scope::Node], placed("b", "x"), 0),
        ("unknown is not shared", vec![Scope::Subzone], placed("a", "x"), 0),
        ("same cluster", vec![Scope::Cluster], placed("b", "y"), 1),
        ("network first, shared", vec![Scope::Network, Scope::Zone], placed("a", "x"), 2),
        ("network first, not shared", vec![Scope::Network, Scope::Zone], abroad(placed("a", "x")), 1),
        (
            "network later, not shared",
            vec![Scope::Zone, Scope::Network, Scope::Node],
            abroad(placed("a", "x")),
            1,
        ),
    ];
    for (rule, preference, endpoint, expected) in rows {
        assert_eq!(rank(&preference, &client, &endpoint), expected, "{rule}");
    }
}

fn placed(zone: &str, node: &str) -> Workload {
    let locality = Locality { zone: zone.into(), ..Locality::default() };
    Workload { locality, node: node.into(), ..workload("placed", &[]) }
}
