//! Which of several endpoints takes a connection: locality first, then chance by weight.
//!
//! Which endpoints may take it at all is decided before, in `decide`.

use rand::Rng;

use crate::service::{LoadBalancing, LoadBalancingMode, Scope};
use crate::workload::Workload;

/// One of `candidates`, each with a chance of its share of the total weight. `None` when there is no
/// weight at all: a candidate of weight 0 is never picked.
pub fn pick<'a, T>(
    candidates: &'a [T],
    weight: impl Fn(&T) -> u32,
    rng: &mut (impl Rng + ?Sized),
) -> Option<&'a T> {
    pick_position(candidates, weight, rng).map(|at| &candidates[at])
}

/// The position of what [`pick`] would pick.
pub fn pick_position<T>(
    candidates: &[T],
    weight: impl Fn(&T) -> u32,
    rng: &mut (impl Rng + ?Sized),
) -> Option<usize> {
    let total: u64 = candidates.iter().map(|candidate| u64::from(weight(candidate))).sum();
    if total == 0 {
        return None;
    }
    let mut left = rng.random_range(0..total);
    candidates.iter().position(|candidate| {
        let weight = u64::from(weight(candidate));
        let chosen = left < weight;
        left = left.saturating_sub(weight);
        chosen
    })
}

/// Those of `candidates` that the service prefers for `client`, in their order.
pub fn nearest<T>(
    load_balancing: &LoadBalancing,
    client: &Workload,
    mut candidates: Vec<T>,
    workload: impl Fn(&T) -> &Workload,
) -> Vec<T> {
    let preference = &load_balancing.routing_preference;
    let rank_of = |candidate: &T| rank(preference, client, workload(candidate));
    let wanted = match load_balancing.mode {
        LoadBalancingMode::Unspecified | LoadBalancingMode::Passthrough => return candidates,
        LoadBalancingMode::Strict => preference.len(),
        LoadBalancingMode::Failover => candidates.iter().map(rank_of).max().unwrap_or(0),
    };
    candidates.retain(|candidate| rank_of(candidate) == wanted);
    candidates
}

/// How many scopes, from the first one on, `client` and `endpoint` share.
///
/// Istio's NETWORK scope in first place ranks a match up but does not end the comparison on a
/// mismatch, so that locality still counts among endpoints of other networks.
pub fn rank(preference: &[Scope], client: &Workload, endpoint: &Workload) -> usize {
    let mut rank = 0;
    for (position, scope) in preference.iter().enumerate() {
        if share(*scope, client, endpoint) {
            rank += 1;
        } else if position > 0 || *scope != Scope::Network {
            break;
        }
    }
    rank
}

/// Whether both are in the same scope. What is unknown is the same as nothing; the empty network
/// is a network like any other.
fn share(scope: Scope, client: &Workload, endpoint: &Workload) -> bool {
    let known_and_same = |a: &str, b: &str| !a.is_empty() && a == b;
    match scope {
        Scope::Region => known_and_same(&client.locality.region, &endpoint.locality.region),
        Scope::Zone => known_and_same(&client.locality.zone, &endpoint.locality.zone),
        Scope::Subzone => known_and_same(&client.locality.subzone, &endpoint.locality.subzone),
        Scope::Node => known_and_same(&client.node, &endpoint.node),
        Scope::Cluster => known_and_same(&client.cluster_id, &endpoint.cluster_id),
        Scope::Network => client.network == endpoint.network,
    }
}

#[cfg(test)]
mod tests;
