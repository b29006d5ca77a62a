//! What a run hands out: where it ran and how, its figures, and what they say of the targets.

use serde::Serialize;

use crate::Settings;
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
    idle_connections: u32,
    idle_seconds: u32,
}

impl Report {
    pub(crate) fn new(settings: &Settings, taken: Taken) -> Self {
        let figures = taken.readings.figures();
        Self {
            targets: evaluate(&figures),
            figures,
            machine: taken.machine,
            remarks: taken.remarks,
            settings: How {
                rounds: settings.rounds,
                seconds: settings.seconds,
                workers: settings.workers,
                pin: settings.pin.name(),
                idle_connections: settings.idle_connections,
                idle_seconds: settings.idle_seconds,
            },
        }
    }

    /// For people, in Markdown.
    pub(crate) fn tables(&self) -> String {
        let How { rounds, seconds, workers, pin, .. } = self.settings;
        let machine = self.machine.lines.join("; ");
        let how = format!("{rounds} rounds of {seconds} s, workers {workers}, pin {pin}");
        let remarks: String = self.remarks.iter().map(|remark| format!("{remark}\n\n")).collect();
        format!(
            "{machine}\n\n{how}; medians, and ratios with 95 % confidence intervals\n\n{remarks}{}\n{}",
            table::figures(&self.figures),
            table::targets(&self.targets, &self.machine.peers)
        )
    }
}
