//! What callgrind counts: instructions, by the function and the source file that they belong to.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use crate::core::{Kind, arguments, program, succeeded};

/// The instructions of one run.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// By source file and function.
    instructions: BTreeMap<(String, String), u64>,
}

/// The function that the program counts in, by its name in the profile.
const MEASURED: &str = "core::measured";

/// The C library takes the copy routine that fits the processor. Without these it takes the one that
/// every x86-64 processor has, so that a copy costs the same wherever it is counted.
const SAME_COPY_ROUTINE: &str = "glibc.cpu.hwcaps=-AVX2,-ERMS,-FSRM,-AVX_Fast_Unaligned_Load";

/// Runs the program under callgrind: a profile of each run.
pub(crate) fn run(runs: &[(Kind, u64)]) -> Vec<Profile> {
    let program = program();
    let directory = tempfile::tempdir().expect("a directory for the profiles");
    let file = directory.path().join("profile");
    let output = Command::new("valgrind")
        .env("GLIBC_TUNABLES", SAME_COPY_ROUTINE)
        .args(["--quiet", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--dump-after={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(program)
        .args(arguments(runs))
        .output()
        .expect("valgrind starts: scripts/lib/needs packages installs it");
    succeeded(output);
    // One dump for each call of the function, numbered from 1.
    (1..=runs.len())
        .map(|number| file.with_extension(number.to_string()))
        .map(|dump| fs::read_to_string(&dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display())))
        .map(|text| Profile::parse(&text))
        .collect()
}

impl Profile {
    /// Instructions of the cryptography library: C and assembly, taken by what the processor can do.
    pub(crate) fn cryptography(&self) -> u64 {
        self.sum(is_cryptography)
    }

    /// All others: ours, and those of what we call and how we call it.
    pub(crate) fn ours(&self) -> u64 {
        self.sum(|file, function| !is_cryptography(file, function))
    }

    fn sum(&self, wanted: impl Fn(&str, &str) -> bool) -> u64 {
        let wanted = self.instructions.iter().filter(|((file, function), _)| wanted(file, function));
        wanted.map(|(_, count)| count).sum()
    }

    /// The functions of [`Self::ours`] with most instructions, a line each.
    pub(crate) fn top(&self, lines: usize) -> String {
        let mut functions: BTreeMap<&str, u64> = BTreeMap::new();
        for ((file, function), count) in &self.instructions {
            if !is_cryptography(file, function) {
                *functions.entry(function).or_default() += count;
            }
        }
        let mut functions: Vec<(&str, u64)> = functions.into_iter().collect();
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        functions.iter().take(lines).map(|(name, count)| format!("{count:>12} {name}\n")).collect()
    }

    /// Reads callgrind's format with nothing compressed (Valgrind's manual, "Callgrind Format
    /// Specification"). `fl`, `fi` and `fe` name the source file of the lines that follow, `fn` the
    /// function. Such a line is a line number and a count; the one behind `calls=` counts what was
    /// called, which stands for itself elsewhere.
    fn parse(text: &str) -> Self {
        let mut profile = Self::default();
        let (mut file, mut function, mut of_call, mut totals) = (String::new(), String::new(), false, None);
        for line in text.lines() {
            if line.starts_with(|first: char| first.is_ascii_digit()) {
                let count = line.split(' ').nth(1).and_then(|count| count.parse().ok());
                if !of_call {
                    let place = (file.clone(), function.clone());
                    *profile.instructions.entry(place).or_default() += count.unwrap_or(0_u64);
                }
                of_call = false;
            } else if let Some((key, value)) = line.split_once(['=', ':']) {
                match key {
                    "fl" | "fi" | "fe" => file = value.to_owned(),
                    "fn" => function = value.to_owned(),
                    "calls" => of_call = true,
                    "totals" => totals = value.trim().parse().ok(),
                    _ => {}
                }
            }
        }
        assert_eq!(Some(profile.sum(|_, _| true)), totals, "the profile was not read as it is meant");
        profile
    }
}

/// The library's sources lie below a directory of its own name. Where it has no line numbers, the
/// prefix of its symbols says as much.
fn is_cryptography(file: &str, function: &str) -> bool {
    file.contains("/aws-lc/") || function.starts_with("aws_lc_")
}

#[test]
fn what_a_function_calls_is_not_its_own() {
    let text = "version: 1\nevents: Ir\n\nob=/core\nfl=a.rs\nfn=a::work\n7 10\nfi=b.rs\n9 5\n\
                cfn=aws_lc_1_seal\ncalls=2 44\n8 1000\n9 1\n\nfl=/aws-lc/gcm.c\nfn=seal_scatter\n3 600\n\
                fl=???\nfn=aws_lc_1_seal\n44 400\n\ntotals: 1016\n";
    let profile = Profile::parse(text);
    assert_eq!((profile.ours(), profile.cryptography()), (16, 1000));
    assert_eq!(profile.top(5), "          16 a::work\n");
}
