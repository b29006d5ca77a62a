//! What rounds say: medians, and how sure they are of them.
//!
//! Pure: values in, estimates out. An interval is the percentile bootstrap of a median: rounds are drawn
//! with replacement, many times, and the middle 95 % of the medians of what was drawn are the interval.
//! The draws come from a fixed seed, so that the same readings give the same interval.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// A median and its 95 % confidence interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Estimate {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// Which way a figure is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    Higher,
    Lower,
}

impl Better {
    /// The better one of two.
    pub(crate) fn of(self, one: f64, other: f64) -> f64 {
        match self {
            Self::Higher => one.max(other),
            Self::Lower => one.min(other),
        }
    }
}

/// The median of values, one of each round; none without a round.
pub(crate) fn estimate(values: &[f64]) -> Option<Estimate> {
    let (low, high) = interval(values)?;
    Some(Estimate { median: median(values.to_vec())?, low, high })
}

/// The median of the rounds' own ratios: what slows the machine for a while slows both sides of one.
///
/// Both lists have one value for each round, in the same order.
pub(crate) fn ratio(values: &[f64], to: &[f64]) -> Option<Estimate> {
    let ratios: Vec<f64> = values.iter().zip(to).map(|(value, to)| value / to).collect();
    // Nothing divided by nothing is no ratio; it would take the whole figure with it.
    if ratios.iter().any(|ratio| !ratio.is_finite()) {
        return None;
    }
    estimate(&ratios)
}

/// The best of several peers in each round.
pub(crate) fn best_of_each_round(peers: &[&[f64]], better: Better) -> Option<Vec<f64>> {
    let (first, others) = peers.split_first()?;
    let best = |(round, value): (usize, &f64)| {
        others.iter().filter_map(|peer| peer.get(round)).fold(*value, |best, value| better.of(best, *value))
    };
    Some(first.iter().enumerate().map(best).collect())
}

/// Of a list that is not empty.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[middle - 1], upper) })
}

fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut medians = Vec::with_capacity(RESAMPLES);
    for _ in 0..RESAMPLES {
        let drawn = (0..values.len()).map(|_| values[rng.random_range(0..values.len())]).collect();
        medians.push(median(drawn)?);
    }
    medians.sort_by(f64::total_cmp);
    let outside = RESAMPLES * 25 / 1000;
    Some((medians[outside], medians[RESAMPLES - 1 - outside]))
}

const RESAMPLES: usize = 10_000;
const SEED: u64 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one_or_between_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(Vec::new()), None);
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The second round was slow for both; the ratio of medians would be 0.5.
        let found = ratio(&[50.0, 9.0, 90.0], &[100.0, 10.0, 100.0]).unwrap();
        assert_eq!(found, Estimate { median: 0.9, low: 0.5, high: 0.9 });
    }

    #[test]
    fn a_ratio_to_nothing_is_none() {
        assert_eq!(ratio(&[1.0, 1.0], &[1.0, 0.0]), None);
    }

    #[test]
    fn equal_rounds_leave_no_doubt_and_one_round_says_nothing_of_it() {
        for values in [&[2.0; 10][..], &[2.0]] {
            assert_eq!(estimate(values), Some(Estimate { median: 2.0, low: 2.0, high: 2.0 }));
        }
    }

    #[test]
    fn an_interval_is_reproducible_and_around_the_median() {
        let values: Vec<f64> = (1..=11).map(f64::from).collect();
        let first = estimate(&values).unwrap();
        assert_eq!(first, estimate(&values).unwrap());
        assert!((first.median - 6.0).abs() < f64::EPSILON);
        // The order statistics whose coverage is nearest to 95 % of a median of 11 values.
        assert!((2.0..=4.0).contains(&first.low), "{first:?}");
        assert!((8.0..=10.0).contains(&first.high), "{first:?}");
    }

    #[test]
    fn one_wild_round_does_not_widen_the_interval_without_bound() {
        let mut values = vec![1.0; 10];
        values[3] = 1000.0;
        assert!((estimate(&values).unwrap().high - 1.0).abs() < f64::EPSILON);
    }

    #[test]
    fn the_better_peer_may_change_from_round_to_round() {
        let peers: [&[f64]; 2] = [&[1.0, 5.0], &[3.0, 4.0]];
        assert_eq!(best_of_each_round(&peers, Better::Higher), Some(vec![3.0, 5.0]));
        assert_eq!(best_of_each_round(&peers, Better::Lower), Some(vec![1.0, 4.0]));
        assert_eq!(best_of_each_round(&[], Better::Lower), None);
    }
}
