//! The program that is counted: builds it as it is released, runs it, reads what it says.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;

/// A kind of work, as the program describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Of 1 KiB each way, on a stream that stays open.
    Requests,
    /// From CONNECT to both ends.
    Streams,
    /// By the mebibyte.
    Bulk,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Bulk => "bulk",
        }
    }
}

/// What the program counted in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) allocations: u64,
    pub(crate) allocated: u64,
}

/// Runs it.
pub(crate) fn run(runs: &[(Kind, u64)]) -> Vec<Count> {
    let output = Command::new(program()).args(arguments(runs)).output().expect("the program starts");
    parse(&succeeded(output), runs)
}

/// The words that ask for these runs, in this order.
pub(crate) fn arguments(runs: &[(Kind, u64)]) -> Vec<String> {
    runs.iter().flat_map(|(kind, units)| [kind.name().to_owned(), units.to_string()]).collect()
}

/// Where it is. Built when asked for first: what is counted is never older than its source.
pub(crate) fn program() -> &'static PathBuf {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(build)
}

fn build() -> PathBuf {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["bench", "--locked", "--no-run", "--package", "ambit-hbone", "--bench", "core"])
        .args(["--message-format", "json-render-diagnostics"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo starts");
    let messages = succeeded(output);
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let ours = message["target"]["name"] == "core" && message["target"]["kind"][0] == "bench";
        ours.then(|| message["executable"].as_str().map(PathBuf::from))?
    };
    messages.lines().find_map(executable).expect("cargo names the program that it built")
}

/// What a program printed.
pub(crate) fn succeeded(Output { status, stdout, stderr }: Output) -> String {
    assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).expect("text")
}

fn parse(printed: &str, runs: &[(Kind, u64)]) -> Vec<Count> {
    let lines: Vec<Vec<&str>> = printed.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), runs.len(), "{printed}");
    let count = |(line, (kind, units)): (Vec<&str>, &(Kind, u64))| {
        let [name, done, allocations, allocated] = line[..] else { panic!("{line:?}") };
        assert_eq!((name, done), (kind.name(), units.to_string().as_str()));
        let number = |text: &str| text.parse().expect("a number");
        Count { allocations: number(allocations), allocated: number(allocated) }
    };
    lines.into_iter().zip(runs).map(count).collect()
}
