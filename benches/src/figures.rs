//! From readings to figures: medians, ranges and ratios.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cases::{Case, Metric, Reading};
use crate::lane::Path;

/// One line of the outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What was done.
    pub(crate) case: String,
    /// Over which path.
    pub(crate) path: String,
    /// What was measured.
    pub(crate) metric: String,
    /// In which unit.
    pub(crate) unit: String,
    /// Over all rounds.
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// The median of the rounds' ratios to the plain path; none where that has no proxy to measure,
    /// or was not measured.
    pub(crate) ratio_to_plain: Option<f64>,
}

/// Readings of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Readings(BTreeMap<(Case, Metric, Path), Vec<f64>>);

impl Readings {
    /// Adds those of one measurement. Every path has to be measured in every round of a case.
    pub(crate) fn add(&mut self, case: Case, path: Path, readings: impl IntoIterator<Item = Reading>) {
        for Reading { metric, value } in readings {
            self.0.entry((case, metric, path)).or_default().push(value);
        }
    }

    /// One figure for each case, metric and path, in this order.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        self.0.iter().map(|(&(case, metric, path), values)| self.figure(case, metric, path, values)).collect()
    }

    fn figure(&self, case: Case, metric: Metric, path: Path, values: &[f64]) -> Figure {
        let plain = self.0.get(&(case, metric, Path::Plain));
        // Round by round: what slows the machine for a while slows both.
        let ratios =
            plain.map(|plain| values.iter().zip(plain).map(|(value, plain)| value / plain).collect());
        Figure {
            case: case.name().to_owned(),
            path: path.name().to_owned(),
            metric: metric.name().to_owned(),
            unit: metric.unit().to_owned(),
            median: median(values.to_vec()),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            ratio_to_plain: ratios.map(median),
        }
    }
}

/// Of a list that is not empty.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_one_or_between_two() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let mut readings = Readings::default();
        // The second round was slow for both; the ratio of medians would be 0.5.
        for (path, values) in [(Path::Plain, [100.0, 10.0, 100.0]), (Path::Ambit, [50.0, 9.0, 90.0])] {
            for value in values {
                readings.add(Case::HttpOne, path, [Reading::new(Metric::Requests, value)]);
            }
        }
        readings.add(Case::HttpOne, Path::Ambit, [Reading::new(Metric::CpuPerTenThousand, 1.0)]);
        let figures = readings.figures();
        let ratio = |path: &str, metric: &str| {
            figures
                .iter()
                .find(|figure| figure.path == path && figure.metric == metric)
                .unwrap()
                .ratio_to_plain
        };
        assert_eq!(ratio("plain", "requests"), Some(1.0));
        assert_eq!(ratio("ambit", "requests"), Some(0.9));
        assert_eq!(ratio("ambit", "cpu_per_10k_requests"), None);
        assert_eq!((figures[1].min, figures[1].max), (9.0, 90.0));
    }
}
