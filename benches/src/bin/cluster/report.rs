//! What a scenario found, and whether that is good enough.

use serde::Serialize;

use crate::outcome::Kind;
use crate::window::Window;

/// One operation.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    /// What was done.
    pub(crate) operation: String,
    #[serde(flatten)]
    pub(crate) window: Window,
    /// What the operation is for.
    pub(crate) effect: Option<&'static str>,
    /// Until that held everywhere; none when it did not, or when there is nothing to wait for.
    pub(crate) effect_ms: Option<f64>,
    pub(crate) goals: Vec<Judged>,
    /// All of them.
    pub(crate) met: bool,
    /// How far the clocks of pods may be off.
    pub(crate) clock_uncertainty_ms: f64,
    /// What a reader should know.
    pub(crate) notes: Vec<String>,
}

/// What is asked of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The effect holds everywhere within so many milliseconds.
    EffectWithin(u32),
    /// So many milliseconds after the operation nothing fails any more.
    FailuresEndWithin(u32),
    /// No request fails, and no connection that stays open.
    NoFailure,
    /// No request fails.
    NoRequestFailed,
    /// No connection that was open breaks.
    NoOpenConnectionLost,
}

/// A goal and whether it was reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Judged {
    pub(crate) goal: String,
    pub(crate) met: bool,
}

impl Goal {
    fn judge(self, window: &Window, effect_ms: Option<f64>) -> Judged {
        let (goal, met) = match self {
            Self::EffectWithin(ms) => {
                (format!("in force within {ms} ms"), effect_ms.is_some_and(|effect| effect <= f64::from(ms)))
            }
            Self::FailuresEndWithin(ms) => (
                format!("no failure after {ms} ms"),
                window.last_failure_ms.is_none_or(|last| last <= f64::from(ms)),
            ),
            Self::NoFailure => ("no failure".to_owned(), window.failures == 0),
            Self::NoRequestFailed => {
                let requests = window.by_kind.iter().filter(|(kind, _)| **kind != Kind::Open.name());
                let failures: u64 = requests.map(|(_, count)| count.failures).sum();
                ("no request failed".to_owned(), failures == 0)
            }
            Self::NoOpenConnectionLost => {
                ("no open connection lost".to_owned(), window.open_connections_lost == 0)
            }
        };
        Judged { goal, met }
    }
}

impl Report {
    pub(crate) fn new(scenario: impl Into<String>, operation: impl Into<String>, window: Window) -> Self {
        Self {
            scenario: scenario.into(),
            operation: operation.into(),
            window,
            effect: None,
            effect_ms: None,
            goals: Vec::new(),
            met: true,
            clock_uncertainty_ms: 0.0,
            notes: Vec::new(),
        }
    }

    pub(crate) fn effect(mut self, what: &'static str, held_ms: Option<f64>) -> Self {
        self.effect = Some(what);
        self.effect_ms = held_ms;
        self
    }

    /// Judges what was found so far.
    pub(crate) fn goals(mut self, goals: &[Goal]) -> Self {
        self.goals = goals.iter().map(|goal| goal.judge(&self.window, self.effect_ms)).collect();
        self.met = self.goals.iter().all(|judged| judged.met);
        self
    }

    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }
}

/// One line for people.
pub(crate) fn line(report: &Report) -> String {
    let window = &report.window;
    let effect = report.effect.map(|what| match report.effect_ms {
        Some(ms) => format!(", {what} after {ms:.0} ms"),
        None => format!(", NOT {what}"),
    });
    let last = window.last_failure_ms.map(|ms| format!(" (the last at {ms:.0} ms)"));
    let verdict = match (report.goals.is_empty(), report.met) {
        (true, _) => "no goal",
        (false, true) => "goals met",
        (false, false) => "GOALS NOT MET",
    };
    format!(
        "{}: {} of {} requests failed in a window of {:.0} ms{}, {} open connections lost{}: {verdict}",
        report.scenario,
        window.failures,
        window.requests,
        window.window_ms,
        last.unwrap_or_default(),
        window.open_connections_lost,
        effect.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_judged_by_what_was_found() {
        let window = Window {
            failures: 3,
            last_failure_ms: Some(900.0),
            open_connections_lost: 1,
            ..Window::default()
        };
        for (goal, effect_ms, met) in [
            (Goal::EffectWithin(1000), Some(1000.0), true),
            (Goal::EffectWithin(1000), Some(1000.5), false),
            (Goal::EffectWithin(1000), None, false),
            (Goal::FailuresEndWithin(900), None, true),
            (Goal::FailuresEndWithin(899), None, false),
            (Goal::NoFailure, None, false),
            (Goal::NoOpenConnectionLost, None, false),
        ] {
            assert_eq!(goal.judge(&window, effect_ms).met, met, "{goal:?} {effect_ms:?}");
        }
        let report = Report::new("roll", "x", window).goals(&[Goal::FailuresEndWithin(900), Goal::NoFailure]);
        assert!(!report.met);
        assert!(Report::new("roll", "x", Window::default()).goals(&[Goal::NoFailure]).met);
    }
}
