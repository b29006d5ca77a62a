//! From readings to figures: medians, ranges, and ratios with their intervals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use crate::cases::{Case, Metric, Reading};
use crate::lane::Path;
use crate::statistics::{Better, Estimate, best_of_each_round, estimate, ratio};

/// One line of the outcome.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// What was done.
    #[serde(serialize_with = "as_text")]
    pub(crate) case: Case,
    /// Over which path.
    #[serde(serialize_with = "as_text")]
    pub(crate) path: Path,
    /// What was measured.
    #[serde(serialize_with = "as_text")]
    pub(crate) metric: Metric,
    /// In which unit.
    pub(crate) unit: &'static str,
    /// Which way is good.
    pub(crate) better: Better,
    /// The median of the rounds and its confidence interval.
    #[serde(flatten)]
    pub(crate) estimate: Estimate,
    pub(crate) min: f64,
    pub(crate) max: f64,
    /// What each round yielded.
    pub(crate) rounds: Vec<f64>,
    /// The medians of the rounds' ratios to what other paths yielded; none where that path has no such
    /// figure.
    pub(crate) ratios: Ratios,
}

/// How a figure compares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Ratios {
    pub(crate) plain: Option<Estimate>,
    pub(crate) relay: Option<Estimate>,
    pub(crate) relay_tls: Option<Estimate>,
    pub(crate) envoy: Option<Estimate>,
    pub(crate) istio: Option<Estimate>,
    /// To the better of the peers that speak HBONE, chosen in each round.
    pub(crate) better_peer: Option<Estimate>,
}

/// What a figure is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Versus {
    Plain,
    Relay,
    BetterPeer,
}

impl Ratios {
    /// The ratio to a path's figure; none to Ambit's own.
    pub(crate) fn with(&self, path: Path) -> Option<Estimate> {
        match path {
            Path::Plain => self.plain,
            Path::Relay => self.relay,
            Path::RelayTls => self.relay_tls,
            Path::Envoy => self.envoy,
            Path::Istio => self.istio,
            Path::Ambit => None,
        }
    }

    pub(crate) fn to(&self, versus: Versus) -> Option<Estimate> {
        match versus {
            Versus::Plain => self.plain,
            Versus::Relay => self.relay,
            Versus::BetterPeer => self.better_peer,
        }
    }
}

/// Readings of all rounds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Series>", into = "Vec<Series>")]
pub(crate) struct Readings(BTreeMap<(Case, Metric, Path), Vec<f64>>);

/// What a process hands to another one.
type Series = ((Case, Metric, Path), Vec<f64>);

impl From<Vec<Series>> for Readings {
    fn from(series: Vec<Series>) -> Self {
        Self(series.into_iter().collect())
    }
}

impl From<Readings> for Vec<Series> {
    fn from(readings: Readings) -> Self {
        readings.0.into_iter().collect()
    }
}

impl Readings {
    /// Adds those of one measurement. Every path has to be measured in every round of a case.
    pub(crate) fn add(&mut self, case: Case, path: Path, readings: impl IntoIterator<Item = Reading>) {
        for Reading { metric, value } in readings {
            self.0.entry((case, metric, path)).or_default().push(value);
        }
    }

    /// Adds those of another part of the run, which took other cases.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// One figure for each case, metric and path, in this order.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        self.0
            .iter()
            .filter_map(|(&(case, metric, path), values)| self.figure(case, metric, path, values))
            .collect()
    }

    fn figure(&self, case: Case, metric: Metric, path: Path, values: &[f64]) -> Option<Figure> {
        let of = |path: Path| self.0.get(&(case, metric, path)).map(Vec::as_slice);
        let ratio_to = |path: Path| of(path).and_then(|to| ratio(values, to));
        let peers: Vec<&[f64]> = Path::HBONE_PEERS.into_iter().filter_map(of).collect();
        let best_peer = best_of_each_round(&peers, metric.better());
        Some(Figure {
            case,
            path,
            metric,
            unit: metric.unit(),
            better: metric.better(),
            estimate: estimate(values)?,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            rounds: values.to_vec(),
            ratios: Ratios {
                plain: ratio_to(Path::Plain),
                relay: ratio_to(Path::Relay),
                relay_tls: ratio_to(Path::RelayTls),
                envoy: ratio_to(Path::Envoy),
                istio: ratio_to(Path::Istio),
                better_peer: best_peer.and_then(|peer| ratio(values, &peer)),
            },
        })
    }
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readings() -> Readings {
        let mut readings = Readings::default();
        let rounds = [
            (Path::Plain, [100.0, 10.0, 100.0]),
            (Path::Envoy, [25.0, 3.0, 30.0]),
            (Path::Ambit, [50.0, 9.0, 90.0]),
        ];
        for (path, values) in rounds {
            for value in values {
                readings.add(Case::HTTP_ONE, path, [Reading::new(Metric::Requests, value)]);
            }
        }
        readings.add(Case::HTTP_ONE, Path::Ambit, [Reading::new(Metric::CpuPerTenThousand, 1.0)]);
        readings
    }

    #[test]
    fn a_figure_has_its_rounds_and_its_ratios() {
        let figures = readings().figures();
        let find = |path: Path, metric: Metric| {
            figures.iter().find(|figure| figure.path == path && figure.metric == metric).unwrap()
        };
        let ambit = find(Path::Ambit, Metric::Requests);
        assert_eq!((ambit.min, ambit.max, ambit.estimate.median), (9.0, 90.0, 50.0));
        assert_eq!(ambit.rounds, [50.0, 9.0, 90.0]);
        assert_eq!(ambit.ratios.plain.unwrap().median, 0.9);
        assert_eq!(ambit.ratios.better_peer.unwrap().median, 3.0);
        assert_eq!(ambit.ratios.envoy, ambit.ratios.better_peer);
        assert_eq!(ambit.ratios.relay, None);
        assert_eq!(find(Path::Plain, Metric::Requests).ratios.plain.unwrap().median, 1.0);
        assert_eq!(find(Path::Ambit, Metric::CpuPerTenThousand).ratios, Ratios::default());
    }

    #[test]
    fn the_better_peer_is_chosen_in_each_round_among_those_that_speak_hbone() {
        let mut readings = readings();
        let rounds = [(Path::RelayTls, [500.0; 3]), (Path::Istio, [50.0, 1.0, 15.0])];
        for (path, values) in rounds {
            for value in values {
                readings.add(Case::HTTP_ONE, path, [Reading::new(Metric::Requests, value)]);
            }
        }
        let figures = readings.figures();
        let of_ambit = |metric: Metric| {
            figures.iter().find(|figure| figure.path == Path::Ambit && figure.metric == metric).unwrap()
        };
        let ratios = of_ambit(Metric::Requests).ratios;
        // 50 of Istio's ztunnel, then 3 and 30 of Envoy.
        let better = ratios.better_peer.unwrap();
        assert_eq!((better.low, better.median, better.high), (1.0, 3.0, 3.0));
        assert_eq!(ratios.with(Path::Istio).unwrap().median, 6.0);
        assert_eq!(ratios.with(Path::RelayTls).unwrap().median, 0.1);
    }

    #[test]
    fn readings_survive_the_way_between_processes() {
        let text = serde_json::to_string(&readings()).unwrap();
        let other: Readings = serde_json::from_str(&text).unwrap();
        assert_eq!(other.figures(), readings().figures());
    }

    #[test]
    fn figures_name_what_they_are_of() {
        let figure = serde_json::to_value(&readings().figures()[0]).unwrap();
        assert_eq!((&figure["case"], &figure["path"]), (&"http-1".into(), &"plain".into()));
        assert_eq!((&figure["metric"], &figure["better"]), (&"requests".into(), &"higher".into()));
        assert_eq!(figure["ratios"]["plain"]["low"], 1.0);
    }
}
