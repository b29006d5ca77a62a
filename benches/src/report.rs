//! What a run hands out: where it ran and how, its figures, and what they say of the targets.

use serde::Serialize;

use crate::Settings;
use crate::cases::{Case, Metric};
use crate::figures::Figure;
use crate::l4::Taken;
use crate::machine::Machine;
use crate::table;
use crate::targets::{Target, evaluate};

/// Everything, as it is written to the file.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    settings: How,
    /// What a reader of the figures has to know, such as what could not be measured here.
    remarks: Vec<String>,
    pub(crate) figures: Vec<Figure>,
    targets: Vec<Target>,
}

/// Settings that figures depend on.
#[derive(Debug, Serialize)]
struct How {
    rounds: u32,
    seconds: u32,
    workers: u16,
    pin: &'static str,
    same_node: bool,
    idle_connections: u32,
    idle_seconds: u32,
}

impl Report {
    pub(crate) fn new(settings: &Settings, taken: Taken) -> Self {
        let figures = taken.readings.figures();
        let mut remarks = taken.remarks;
        remarks.extend(behind(&figures));
        Self {
            targets: evaluate(&figures),
            figures,
            machine: taken.machine,
            remarks,
            settings: How {
                rounds: settings.rounds,
                seconds: settings.seconds,
                workers: settings.workers,
                pin: settings.pin().name(),
                same_node: settings.same_node,
                idle_connections: settings.idle_connections,
                idle_seconds: settings.idle_seconds,
            },
        }
    }

    /// For people, in Markdown.
    pub(crate) fn tables(&self) -> String {
        let How { rounds, seconds, workers, pin, same_node, .. } = self.settings;
        let machine = self.machine.lines.join("; ");
        let where_pods_are = if same_node { ", all pods on one node" } else { "" };
        let how = format!("{rounds} rounds of {seconds} s, workers {workers}, pin {pin}{where_pods_are}");
        let remarks: String = self.remarks.iter().map(|remark| format!("{remark}\n\n")).collect();
        format!(
            "{machine}\n\n{how}; medians, and ratios with 95 % confidence intervals\n\n{remarks}{}\n{}",
            table::figures(&self.figures),
            table::targets(&self.targets, &self.machine.peers)
        )
    }
}

/// Paths that answer fewer requests than are due: their latency says how long that was measured.
fn behind(figures: &[Figure]) -> Vec<String> {
    let is_behind = |figure: &&Figure| match figure.case {
        Case::Paced(pace) => {
            figure.metric == Metric::Requests
                && figure.estimate.median < KEEPS_UP * f64::from(pace.per_second)
        }
        Case::Bulk { .. }
        | Case::Http { .. }
        | Case::ConnectionsWarm
        | Case::ConnectionsCold
        | Case::Passthrough
        | Case::Fairness
        | Case::Churn
        | Case::Delayed { .. }
        | Case::MemoryIdle
        | Case::MemoryPerConnection => false,
    };
    let remark = |figure: &Figure| {
        let (path, case, median) = (figure.path, figure.case, figure.estimate.median);
        format!(
            "{path} does not keep up with {case}: {median:.0} answers a second; its latency there is no figure"
        )
    };
    figures.iter().filter(is_behind).map(remark).collect()
}

/// The part of what is due that has to be answered in time.
const KEEPS_UP: f64 = 0.98;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::Reading;
    use crate::figures::Readings;
    use crate::lane::Path;

    #[test]
    fn a_path_that_falls_behind_is_named() {
        let mut readings = Readings::default();
        for (path, per_second) in [(Path::Plain, 500.0), (Path::Relay, 495.0), (Path::Envoy, 400.0)] {
            readings.add(Case::PACED[0], path, [Reading::new(Metric::Requests, per_second)]);
            readings.add(Case::HTTP_ONE, path, [Reading::new(Metric::Requests, 1.0)]);
        }
        let remarks = behind(&readings.figures());
        assert_eq!(remarks.len(), 1, "{remarks:?}");
        assert!(remarks[0].starts_with("envoy does not keep up with paced-500: 400 "), "{remarks:?}");
    }
}
