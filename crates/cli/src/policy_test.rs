//! `ambit policy test`: a team's table of requests, and what is to become of them.
//!
//! Every row is answered as `ambit explain request` answers it; what is here compares. The form of the file
//! is in docs/policy-tests.md.

mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::args::{Output, PolicyTestArgs};
use crate::configuration::{Model, ReadError, read_files};
use crate::explain::answer::{Answer, End, EndpointHop, PolicySays, Share, Way, WaypointHop};
use crate::explain::explain;

pub use table::{Case, Expected, OneOrMore, Table};

/// Why no test was run.
#[derive(Debug, thiserror::Error)]
pub enum PolicyTestError {
    /// The configuration could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The table could not be read.
    #[error("{path}: it cannot be read")]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no table.
    #[error("{path}: {why}")]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody says where the configuration is.
    #[error("{path} says no directory (`dir`), and --dir is not given")]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
}

/// What came of one row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The row's name.
    pub name: String,
    /// What is not as expected; none where all is.
    pub failures: Vec<String>,
    /// The explanation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// Runs a table and prints what fails, with its explanation. The exit status is 1 where something does.
///
/// # Errors
/// When the table or the configuration cannot be read.
pub fn run(args: &PolicyTestArgs) -> Result<ExitCode, PolicyTestError> {
    let path = &args.file;
    let text =
        fs::read_to_string(path).map_err(|source| PolicyTestError::Table { path: path.clone(), source })?;
    let table = Table::read(&text).map_err(|why| PolicyTestError::Form { path: path.clone(), why })?;
    let directories = directories(args, &table)?;
    let inputs = read_files(&directories, args.mesh.as_deployed || table.as_deployed)?;
    let outcomes = test(&Model::new(inputs, args.mesh.settings()), &table);
    print(args.output.output, &outcomes);
    let fails = outcomes.iter().any(|outcome| !outcome.failures.is_empty());
    Ok(if fails { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// A directory of the table's own is relative to its file.
fn directories(args: &PolicyTestArgs, table: &Table) -> Result<Vec<PathBuf>, PolicyTestError> {
    if !args.dir.is_empty() {
        return Ok(args.dir.clone());
    }
    let own = table.dir.as_ref().ok_or_else(|| PolicyTestError::NoDirectory { path: args.file.clone() })?;
    Ok(vec![args.file.parent().unwrap_or_else(|| Path::new(".")).join(own)])
}

/// What comes of every row.
pub fn test(model: &Model, table: &Table) -> Vec<Outcome> {
    let run = |(at, case): (usize, &Case)| {
        let name = case.name.clone().unwrap_or_else(|| format!("case {}", at + 1));
        match explain(model, &case.question()) {
            Ok(answer) => Outcome { name, failures: failures(case, &answer), answer: Some(answer) },
            Err(error) => Outcome { name, failures: vec![error.to_string()], answer: None },
        }
    };
    table.cases.iter().enumerate().map(run).collect()
}

fn failures(case: &Case, answer: &Answer) -> Vec<String> {
    let mut failures = Vec::new();
    let mut fail = |is_wrong: bool, text: String| failures.extend(is_wrong.then_some(text));
    let served = answer.ends.iter().filter(|end| end.is_served()).count();
    let (all, none) = (served == answer.ends.len(), served == 0);
    let by_chance = if !all && !none { ", by chance" } else { "" };
    match case.expect {
        Expected::Allow => fail(!all, format!("expected to be allowed, and is refused{by_chance}")),
        Expected::Deny => fail(!none, format!("expected to be denied, and is served{by_chance}")),
    }
    if let Some(status) = case.status {
        let found: BTreeSet<Option<u16>> = answer.ends.iter().map(http_status).collect();
        let text = found.iter().map(|found| found.map_or("none".to_owned(), |found| found.to_string()));
        let text = text.collect::<Vec<_>>().join(", ");
        fail(found != [Some(status)].into(), format!("expected status {status}, found {text}"));
    }
    let facts = Facts::of(answer);
    compare("route", case.route.as_ref(), &facts.routes, &mut fail);
    compare("backend", case.backend.as_ref(), &facts.backends, &mut fail);
    compare("policy", case.policy.as_ref(), &facts.policies, &mut fail);
    failures
}

/// The status that the mesh gives; 200 stands for whatever an application answers.
fn http_status(end: &End) -> Option<u16> {
    match end {
        End::Reaches { .. } => Some(200),
        End::Answered { status, .. } => Some(*status),
        End::Reset { .. } => None,
    }
}

fn compare(
    what: &str,
    expected: Option<&OneOrMore>,
    found: &BTreeSet<String>,
    fail: &mut impl FnMut(bool, String),
) {
    let Some(expected) = expected else { return };
    let listed = |names: &BTreeSet<String>| match names.len() {
        0 => "none".to_owned(),
        _ => names.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    let expected = expected.names();
    fail(expected != *found, format!("expected {what} {}, found {}", listed(&expected), listed(found)));
}

/// What a row may name.
#[derive(Default)]
struct Facts {
    routes: BTreeSet<String>,
    /// Those that have a share.
    backends: BTreeSet<String>,
    /// Those that decided.
    policies: BTreeSet<String>,
}

impl Facts {
    fn of(answer: &Answer) -> Self {
        let mut facts = Self::default();
        match &answer.way {
            Way::Refused { .. } | Way::Outside { .. } => {}
            Way::Direct { endpoints, .. } => endpoints.iter().for_each(|hop| facts.endpoint(hop)),
            Way::Waypoint(hop) => facts.waypoint(hop),
        }
        facts
    }

    fn waypoint(&mut self, hop: &WaypointHop) {
        self.decided(&hop.policies);
        self.routes.extend(hop.route.as_ref().map(|route| route.route.clone()));
        hop.backends.iter().filter(|share| share.weight > 0).for_each(|share| self.share(share));
    }

    fn share(&mut self, share: &Share) {
        self.backends.insert(share.backend.clone());
        share.endpoints.iter().for_each(|hop| self.endpoint(hop));
        share.through.iter().for_each(|hop| self.waypoint(hop));
    }

    fn endpoint(&mut self, hop: &EndpointHop) {
        self.decided(&hop.policies);
    }

    fn decided(&mut self, policies: &[PolicySays]) {
        let decisive = policies.iter().filter(|policy| policy.decides);
        self.policies.extend(decisive.map(|policy| policy.policy.clone()));
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.failures.is_empty() {
            return write!(f, "ok    {}", self.name);
        }
        write!(f, "FAIL  {}", self.name)?;
        for failure in &self.failures {
            write!(f, "\n      {failure}")?;
        }
        let explanation = self.answer.as_ref().map(ToString::to_string).unwrap_or_default();
        for line in explanation.lines() {
            write!(f, "\n        {line}")?;
        }
        Ok(())
    }
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(output: Output, outcomes: &[Outcome]) {
    match output {
        Output::Json => {
            let json = serde_json::to_string_pretty(outcomes);
            println!("{}", json.expect("texts and numbers serialize"));
        }
        Output::Table => {
            outcomes.iter().for_each(|outcome| println!("{outcome}"));
            let failed = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).count();
            println!("{} of {} as expected", outcomes.len() - failed, outcomes.len());
        }
    }
}

#[cfg(test)]
mod tests;
