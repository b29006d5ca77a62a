//! The targets, and whether figures reach them.
//!
//! Pure. A target is reached when the bound of the confidence interval that is farther from it reaches
//! it: the lower one of what has to be large, the upper one of what has to be small.

use serde::Serialize;

use crate::cases::{Case, Metric};
use crate::figures::{Figure, Versus};
use crate::lane::Path;
use crate::statistics::Estimate;

mod rows;

/// A row of the table of targets, evaluated.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Target {
    /// What is wanted, in the words of the list of targets.
    pub(crate) row: &'static str,
    /// The case and the metric.
    pub(crate) figure: String,
    /// Whose figure the ratio is to, or none where the figure itself is the target.
    pub(crate) against: Option<Versus>,
    /// The bound.
    pub(crate) bound: String,
    /// What was measured.
    pub(crate) measured: Option<Estimate>,
    pub(crate) verdict: Verdict,
    /// Where it is measured if not here, or what a reader has to know.
    pub(crate) note: &'static str,
}

/// What became of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    Met,
    Missed,
    /// The run had fewer rounds than a verdict needs.
    TooFewRounds,
    /// This run did not take the case or one of the paths.
    NotTaken,
    /// No part of this suite measures it.
    Elsewhere,
}

/// A target.
#[derive(Clone, Copy, Debug)]
struct Row {
    row: &'static str,
    wanted: Wanted,
    note: &'static str,
}

/// What a target is of.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// A figure of Ambit's.
    Figure { case: Case, metric: Metric, of: Of, bound: Bound },
    /// Nothing that this suite measures; the note says who does.
    Elsewhere,
}

/// What of a figure.
#[derive(Clone, Copy, Debug)]
enum Of {
    /// The ratio to a peer's.
    RatioTo(Versus),
    /// The figure itself.
    Itself,
}

/// How much is wanted.
#[derive(Clone, Copy, Debug)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Rounds that a verdict needs of what is measured in rounds.
const ROUNDS: usize = 10;

/// Every target, in the order of their list.
pub(crate) fn evaluate(figures: &[Figure]) -> Vec<Target> {
    rows::all().iter().map(|row| row.evaluate(figures)).collect()
}

impl Row {
    fn evaluate(&self, figures: &[Figure]) -> Target {
        let &Self { row, wanted, note } = self;
        match wanted {
            Wanted::Elsewhere => Target {
                row,
                figure: String::new(),
                against: None,
                bound: String::new(),
                measured: None,
                verdict: Verdict::Elsewhere,
                note,
            },
            Wanted::Figure { case, metric, of, bound } => {
                let found = figures
                    .iter()
                    .find(|figure| (figure.case, figure.metric, figure.path) == (case, metric, Path::Ambit));
                let measured = found.and_then(|figure| of.take(figure));
                let rounds = found.map_or(0, |figure| figure.rounds.len());
                Target {
                    row,
                    figure: format!("{case}, {metric}"),
                    against: of.against(),
                    bound: bound.text(of, metric),
                    measured,
                    verdict: verdict(measured, rounds, case, bound),
                    note,
                }
            }
        }
    }
}

fn verdict(measured: Option<Estimate>, rounds: usize, case: Case, bound: Bound) -> Verdict {
    match measured {
        None => Verdict::NotTaken,
        Some(_) if rounds < ROUNDS && case.is_taken_in_rounds() => Verdict::TooFewRounds,
        Some(estimate) if bound.is_reached(estimate) => Verdict::Met,
        Some(_) => Verdict::Missed,
    }
}

impl Of {
    fn take(self, figure: &Figure) -> Option<Estimate> {
        match self {
            Self::RatioTo(versus) => figure.ratios.to(versus),
            Self::Itself => Some(figure.estimate),
        }
    }

    fn against(self) -> Option<Versus> {
        match self {
            Self::RatioTo(versus) => Some(versus),
            Self::Itself => None,
        }
    }
}

impl Bound {
    fn is_reached(self, estimate: Estimate) -> bool {
        match self {
            Self::AtLeast(least) => estimate.low >= least,
            Self::AtMost(most) => estimate.high <= most,
        }
    }

    fn text(self, of: Of, metric: Metric) -> String {
        let unit = match of {
            Of::RatioTo(_) => " x".to_owned(),
            Of::Itself => format!(" {}", metric.unit()),
        };
        match self {
            Self::AtLeast(least) => format!(">= {least}{unit}"),
            Self::AtMost(most) => format!("<= {most}{unit}"),
        }
    }
}

impl Verdict {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "not met",
            Self::TooFewRounds => "too few rounds",
            Self::NotTaken => "not in this run",
            Self::Elsewhere => "measured elsewhere",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Reading;
    use crate::figures::Readings;

    /// Ambit against an Envoy that does 100 in each round.
    fn requests(ambit: &[f64]) -> Vec<Figure> {
        let mut readings = Readings::default();
        for value in ambit {
            for (path, value) in [(Path::Envoy, 100.0), (Path::Ambit, *value)] {
                readings.add(Case::HTTP_SIXTY_FOUR, path, [Reading::new(Metric::Requests, value)]);
            }
        }
        readings.figures()
    }

    fn row(bound: Bound) -> Row {
        let of = Of::RatioTo(Versus::BetterPeer);
        let wanted = Wanted::Figure { case: Case::HTTP_SIXTY_FOUR, metric: Metric::Requests, of, bound };
        Row { row: "a", wanted, note: "" }
    }

    #[test]
    fn the_farther_bound_of_the_interval_decides() {
        let mut rounds = [200.0; 12];
        let verdict = |rounds: &[f64], bound| row(bound).evaluate(&requests(rounds)).verdict;
        assert_eq!(verdict(&rounds, Bound::AtLeast(2.0)), Verdict::Met);
        assert_eq!(verdict(&rounds, Bound::AtMost(2.0)), Verdict::Met);
        // The median stays 2, and the interval begins at 1.
        rounds[..5].fill(100.0);
        assert_eq!(verdict(&rounds, Bound::AtLeast(1.8)), Verdict::Missed);
        assert_eq!(verdict(&rounds, Bound::AtLeast(1.0)), Verdict::Met);
        assert_eq!(verdict(&rounds, Bound::AtMost(1.9)), Verdict::Missed);
    }

    #[test]
    fn few_rounds_and_no_rounds_have_no_verdict() {
        let bound = Bound::AtLeast(1.0);
        assert_eq!(row(bound).evaluate(&requests(&[900.0; 9])).verdict, Verdict::TooFewRounds);
        let target = row(bound).evaluate(&[]);
        assert_eq!((target.verdict, target.measured), (Verdict::NotTaken, None));
    }

    #[test]
    fn a_target_says_what_it_is_of() {
        let target = row(Bound::AtLeast(1.8)).evaluate(&requests(&[200.0; 10]));
        assert_eq!((target.figure.as_str(), target.against), ("http-64, requests", Some(Versus::BetterPeer)));
        assert_eq!(target.bound, ">= 1.8 x");
    }

    #[test]
    fn every_target_is_of_a_case_that_exists_or_says_where_it_is_measured() {
        let all = Case::all();
        for row in rows::all() {
            match row.wanted {
                Wanted::Figure { case, .. } => assert!(all.contains(&case), "{case}"),
                Wanted::Elsewhere => assert!(!row.note.is_empty(), "{}", row.row),
            }
        }
    }
}
