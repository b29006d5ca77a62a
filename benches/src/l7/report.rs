//! What a run hands out: its figures, how they compare, and what they say of the targets.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};

use super::measure::Work;
use super::way::Way;
use super::{Settings, Stage};
use crate::cases::Metric;
use crate::machine::Machine;
use crate::statistics::{Estimate, estimate, ratio};
use crate::table;

/// What a figure is of.
type Subject = (Stage, Work, Metric);

/// Readings of all rounds, one list for each subject and way.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Taken(Vec<(Subject, Way, Vec<f64>)>);

impl Taken {
    /// Adds a reading. Every way has to be measured in every round of a work.
    pub(super) fn add(&mut self, stage: Stage, work: Work, metric: Metric, way: Way, value: f64) {
        let subject = (stage, work, metric);
        match self.0.iter_mut().find(|(of, on, _)| (*of, *on) == (subject, way)) {
            Some((_, _, values)) => values.push(value),
            None => self.0.push((subject, way, vec![value])),
        }
    }
}

/// Everything, as it is written to the file.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    rounds: u32,
    seconds: u32,
    workers: u16,
    pin: &'static str,
    figures: Vec<Figure>,
    targets: Vec<Target>,
}

/// One line of the outcome.
#[derive(Debug, Serialize)]
struct Figure {
    #[serde(serialize_with = "as_text")]
    stage: Stage,
    #[serde(serialize_with = "as_text")]
    work: Work,
    #[serde(serialize_with = "as_text")]
    metric: Metric,
    unit: &'static str,
    /// Medians of the rounds, with their intervals.
    ways: BTreeMap<Way, Estimate>,
    rounds: BTreeMap<Way, Vec<f64>>,
    /// The median of the rounds' ratios of Ambit's to Envoy's.
    ambit_to_envoy: Option<Estimate>,
    /// The median of the rounds' ratios of Ambit's to no waypoint.
    ambit_to_direct: Option<Estimate>,
}

/// A target, and whether it is reached.
#[derive(Debug, Serialize)]
struct Target {
    name: String,
    wanted: String,
    measured: Option<Estimate>,
    verdict: &'static str,
}

/// Envoy's processor time for a request, of Ambit's: what requests for each second of it are.
const REQUESTS_PER_CPU_SECOND: f64 = 1.5;
/// Ambit's memory, of Envoy's.
const MEMORY: f64 = 0.5;
/// Rounds that a verdict needs of what is measured in rounds.
const ROUNDS: usize = 10;

impl Report {
    pub(super) fn new(settings: &Settings, machine: Machine, taken: Vec<Taken>) -> Self {
        let mut by_subject: BTreeMap<Subject, BTreeMap<Way, Vec<f64>>> = BTreeMap::new();
        for (subject, way, values) in taken.into_iter().flat_map(|taken| taken.0) {
            by_subject.entry(subject).or_default().insert(way, values);
        }
        let figures: Vec<Figure> =
            by_subject.into_iter().map(|(subject, rounds)| Figure::new(subject, rounds)).collect();
        Self {
            machine,
            rounds: settings.rounds,
            seconds: settings.seconds,
            workers: settings.workers,
            pin: settings.pin.name(),
            targets: figures.iter().filter_map(Figure::target).collect(),
            figures,
        }
    }

    /// For people, in Markdown.
    pub(super) fn tables(&self) -> String {
        let Self { rounds, seconds, workers, pin, .. } = self;
        let heading =
            ["stage", "work", "figure", "direct", "envoy", "ambit", "ambit to envoy", "ambit to direct"];
        let figures = self.figures.iter().map(Figure::row);
        let rows: Vec<_> = [heading.map(str::to_owned).to_vec()].into_iter().chain(figures).collect();
        let wanted = ["target", "wanted", "measured", "verdict"].map(str::to_owned).to_vec();
        let targets = self.targets.iter().map(|target| {
            let measured = target.measured.map(table::interval).unwrap_or_default();
            vec![target.name.clone(), target.wanted.clone(), measured, target.verdict.to_owned()]
        });
        let targets: Vec<_> = [wanted].into_iter().chain(targets).collect();
        format!(
            "{}\n\n{rounds} rounds of {seconds} s, workers {workers}, pin {pin}; medians, and ratios with 95 % \
             confidence intervals\n\n{}\n{}",
            self.machine.lines.join("; "),
            table::align(&rows, 3),
            table::align(&targets, 2)
        )
    }
}

impl Figure {
    fn new((stage, work, metric): Subject, rounds: BTreeMap<Way, Vec<f64>>) -> Self {
        let ambit_to = |way: Way| ratio(rounds.get(&Way::Ambit)?, rounds.get(&way)?);
        Self {
            stage,
            work,
            metric,
            unit: metric.unit(),
            ways: rounds.iter().filter_map(|(way, values)| Some((*way, estimate(values)?))).collect(),
            ambit_to_envoy: ambit_to(Way::Envoy),
            ambit_to_direct: ambit_to(Way::Direct),
            rounds,
        }
    }

    fn row(&self) -> Vec<String> {
        let median =
            |way: &Way| self.ways.get(way).map(|estimate| table::number(estimate.median)).unwrap_or_default();
        let ratio = |ratio: Option<Estimate>| ratio.map(table::interval).unwrap_or_default();
        let names =
            [self.stage.to_string(), self.work.to_string(), format!("{}, {}", self.metric, self.unit)];
        names
            .into_iter()
            .chain(Way::ALL.iter().map(median))
            .chain([ratio(self.ambit_to_envoy), ratio(self.ambit_to_direct)])
            .collect()
    }

    /// What is wanted of it, if anything is.
    fn target(&self) -> Option<Target> {
        let name = format!("{}, {}, {}", self.stage, self.work, self.metric);
        match (self.work, self.metric) {
            (Work::Http { .. } | Work::Http2 { .. }, Metric::CpuPerTenThousand) => {
                // So many times the requests is that part of the time.
                let inverse = self.ambit_to_envoy.map(|ratio| Estimate {
                    median: 1.0 / ratio.median,
                    low: 1.0 / ratio.high,
                    high: 1.0 / ratio.low,
                });
                Some(Target {
                    name: format!("{}, {}, requests per CPU second", self.stage, self.work),
                    wanted: format!(">= {REQUESTS_PER_CPU_SECOND} x Envoy"),
                    measured: inverse,
                    verdict: self.verdict(inverse.map(|ratio| ratio.low >= REQUESTS_PER_CPU_SECOND), ROUNDS),
                })
            }
            (Work::Memory | Work::MemoryIdle { .. }, Metric::ServerProportional) => Some(Target {
                name,
                wanted: format!("<= {MEMORY} x Envoy"),
                measured: self.ambit_to_envoy,
                verdict: self.verdict(self.ambit_to_envoy.map(|ratio| ratio.high <= MEMORY), 1),
            }),
            _ => None,
        }
    }

    fn verdict(&self, is_reached: Option<bool>, rounds: usize) -> &'static str {
        let enough = self.rounds.values().all(|values| values.len() >= rounds);
        match is_reached {
            None => "not in this run",
            Some(_) if !enough => "too few rounds",
            Some(true) => "met",
            Some(false) => "not met",
        }
    }
}

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work::Http { connections: 64 };

    fn cpu(ambit: f64, rounds: usize) -> Figure {
        let values = |value| vec![value; rounds];
        let rounds = BTreeMap::from([(Way::Envoy, values(3.0)), (Way::Ambit, values(ambit))]);
        Figure::new((Stage::BASE, WORK, Metric::CpuPerTenThousand), rounds)
    }

    #[test]
    fn less_time_is_more_requests_per_second_of_it() {
        let target = cpu(1.5, 10).target().unwrap();
        assert_eq!((target.measured.unwrap().median, target.verdict), (2.0, "met"));
        assert_eq!(cpu(2.5, 10).target().unwrap().verdict, "not met");
        assert_eq!(cpu(1.5, 9).target().unwrap().verdict, "too few rounds");
    }

    #[test]
    fn readings_of_a_subject_are_kept_in_the_order_of_the_rounds() {
        let mut taken = Taken::default();
        for value in [3.0, 1.0, 2.0] {
            taken.add(Stage::BASE, WORK, Metric::Requests, Way::Ambit, value);
        }
        let text = serde_json::to_string(&taken).unwrap();
        let back: Taken = serde_json::from_str(&text).unwrap();
        assert_eq!(back.0, [((Stage::BASE, WORK, Metric::Requests), Way::Ambit, vec![3.0, 1.0, 2.0])]);
    }

    #[test]
    fn a_row_has_a_cell_for_each_way_and_ratio() {
        let row = cpu(1.5, 10).row();
        assert_eq!(
            row[..6],
            ["base", "http-64", "cpu_per_10k_requests, s", "", "3.00", "1.50"].map(str::to_owned)
        );
        assert_eq!((row[6].as_str(), row[7].as_str()), ("0.500 [0.500, 0.500]", ""));
    }
}
