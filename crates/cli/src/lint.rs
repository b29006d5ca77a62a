//! `ambit lint`: what of a configuration would not be enforced, conflicts, or does nothing where it stands.
//!
//! Most of it is what control itself says of its objects: `reported`. What only somebody notices who looks
//! at several objects together, or at what a text will not match, is in `routes`, `policies` and
//! `waypoints`. Pure but for reading and printing.

mod policies;
mod reported;
mod routes;
mod waypoints;

use std::fmt;
use std::process::ExitCode;

use control::objects::ObjectKey;
use control::source::Origin;
use serde::{Serialize, Serializer};

use crate::args::{LintArgs, Output};
use crate::configuration::{ASSUMED, Model, ReadError, read_files};

/// One thing that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The file and the line.
    #[serde(serialize_with = "as_text")]
    pub place: Origin,
    /// How bad it is.
    pub severity: Severity,
    /// The object, where one can be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// Which check found it.
    pub check: &'static str,
    /// What is so.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something is not enforced or not in force as it is written.
    Error,
    /// Something does nothing, or not what it seems to.
    Warning,
    /// Something means more or less than it may seem to.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

fn as_text<S: Serializer>(place: &Origin, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(place)
}

/// Prints findings. The exit status is 1 where one is an error, or with `--strict` a warning.
///
/// # Errors
/// When nothing can be read.
pub fn run(args: &LintArgs) -> Result<ExitCode, ReadError> {
    // Files for GitOps hold no pods: without them every selector would select nothing.
    let model = Model::new(read_files(&args.paths, true)?, args.mesh.settings());
    let findings = lint(&model);
    print(args.output.output, &findings);
    let fails = |finding: &Finding| match finding.severity {
        Severity::Error => true,
        Severity::Warning => args.strict,
        Severity::Note => false,
    };
    Ok(if findings.iter().any(fails) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Everything that is to be said of a configuration, in the order of its files.
pub fn lint(model: &Model) -> Vec<Finding> {
    let mut findings = Findings { model, found: Vec::new() };
    reported::look(&mut findings);
    waypoints::look(&mut findings);
    policies::look(&mut findings);
    routes::look(&mut findings);
    let mut found = findings.found;
    found.retain(|finding| &*finding.place.file != ASSUMED);
    found.sort();
    found.dedup_by(|a, b| a.place == b.place && a.object == b.object && a.what == b.what);
    found
}

/// What was found so far.
struct Findings<'a> {
    model: &'a Model,
    found: Vec<Finding>,
}

impl<'a> Findings<'a> {
    /// Something about an object.
    fn of(
        &mut self,
        key: &ObjectKey,
        (severity, check): (Severity, &'static str),
        what: impl Into<String>,
        advice: impl Into<String>,
    ) {
        let entry = self.model.generation().inputs.entry(key);
        let place =
            entry.map_or_else(|| Origin { file: ASSUMED.into(), line: 0 }, |entry| entry.origin().clone());
        let object = Some(key.to_string());
        self.found.push(Finding { place, severity, object, check, what: what.into(), advice: advice.into() });
    }
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(output: Output, findings: &[Finding]) {
    match output {
        Output::Json => {
            let json = serde_json::to_string_pretty(findings);
            println!("{}", json.expect("texts serialize"));
        }
        Output::Table => findings.iter().for_each(|finding| println!("{finding}")),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, severity, object, check, what, advice } = self;
        let object = object.as_ref().map(|object| format!("{object}: ")).unwrap_or_default();
        write!(f, "{place}: {severity}: {object}{what} [{check}]\n    {advice}")
    }
}

#[cfg(test)]
mod tests;
