//! `control --check`: reads a directory once and reports everything that is wrong with it.

use std::io::{self, Write};
use std::path::Path;

use crate::inputs::Inputs;
use crate::source::{Origin, dir};
use crate::status::{Verdict, place, verdict};
use crate::translate::{Settings, translate};

/// What a check found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is in force as written.
    Clean,
    /// Something is not.
    Broken,
}

/// One line of the report, ordered by place.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    origin: Origin,
    severity: Severity,
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    Error,
    Warning,
}

/// Writes one line for each problem: `<file>:<line>: <error|warning>: <message>`.
///
/// # Errors
/// When `out` cannot be written to.
pub fn check(directory: &Path, settings: &Settings, out: &mut impl Write) -> io::Result<Outcome> {
    let mut inputs = Inputs::default();
    inputs.apply(dir::read_once(directory));
    let findings = findings(&inputs, settings);
    for Finding { origin, severity, message } in &findings {
        let severity = match severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(out, "{origin}: {severity}: {message}")?;
    }
    let is_error = |finding: &Finding| finding.severity == Severity::Error;
    Ok(if findings.iter().any(is_error) { Outcome::Broken } else { Outcome::Clean })
}

fn findings(inputs: &Inputs, settings: &Settings) -> Vec<Finding> {
    let notes = translate(inputs, settings).notes;
    let mut findings: Vec<_> = inputs
        .problems()
        .iter()
        .map(|problem| (problem.origin.clone(), Severity::Error, problem.message.clone()))
        .collect();
    for (key, entry) in inputs.entries() {
        let severity = match verdict(key, entry) {
            (Verdict::Accepted, _) => None,
            (Verdict::Ignored, message) => Some((Severity::Warning, message)),
            (Verdict::LastGoodKept | Verdict::Closed | Verdict::Invalid, message) => {
                Some((Severity::Error, message))
            }
        };
        let verdict = severity.map(|(severity, message)| (severity, format!("{key}: {message}")));
        let notes = notes.0.get(key).into_iter().flatten();
        let notes = notes.map(|note| (Severity::Warning, format!("{key}: {}", note.message)));
        findings.extend(
            verdict
                .into_iter()
                .chain(notes)
                .map(|(severity, message)| (place(entry).clone(), severity, message)),
        );
    }
    let mut findings: Vec<_> = findings
        .into_iter()
        .map(|(origin, severity, message)| Finding { origin, severity, message })
        .collect();
    findings.sort();
    findings
}
