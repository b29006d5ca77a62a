//! Decisions are functions of values: where DESIGN.md says "pure", nothing waits, reads a clock,
//! draws a random number of its own or looks at the environment.

use crate::must_be_empty;
use crate::tree::{Part, Source, root, sources};

/// Files and directories that are pure, from the root of the workspace.
const PURE: &[&str] = &[
    "crates/mesh/src/",
    "crates/cli/src/configuration/",
    "crates/cli/src/explain/",
    "crates/hbone/src/codec.rs",
    "crates/hbone/src/codec/",
    "crates/hbone/src/hpack.rs",
    "crates/hbone/src/hpack/",
    "crates/hbone/src/headers.rs",
    "crates/hbone/src/headers/",
    "crates/hbone/src/pool/policy.rs",
    "crates/identity/src/schedule.rs",
    "crates/xds/src/convert.rs",
    "crates/xds/src/convert/",
    "crates/xds/src/server/standing.rs",
    "crates/xds/src/session.rs",
    "crates/xds/src/session/",
    "crates/xds/src/subscriber.rs",
    "crates/xds/src/subscriber/",
    "control/src/kube/events/plan.rs",
    "control/src/kube/gateway_api/status.rs",
    "control/src/kube/lease/election.rs",
    "control/src/kube/pace.rs",
    "control/src/kube/reports/digest.rs",
    "control/src/kube/reports/heard.rs",
    "control/src/kube/reports/merge.rs",
    "control/src/kube/reports/own.rs",
    "control/src/kube/status/condition.rs",
    "control/src/kube/status/desired.rs",
    "control/src/kube/status/ledger.rs",
    "control/src/kube/token_review/answers.rs",
    "control/src/kube/token_review/decide.rs",
    "control/src/kube/token_review/shown.rs",
    "control/src/kube/waypoints/desired.rs",
    "control/src/limits/buckets.rs",
    "ztunnel/src/cni/call.rs",
    "ztunnel/src/cni/network.rs",
    "ztunnel/src/cni/verdict.rs",
    "ztunnel/src/cni/install/chain.rs",
    "ztunnel/src/cni/install/list_text.rs",
    "ztunnel/src/cni/install/repairs.rs",
    "control/src/objects.rs",
    "control/src/objects/",
    "control/src/translate.rs",
    "control/src/translate/",
    "ztunnel/src/pods/cgroup.rs",
    "ztunnel/src/pods/found.rs",
    "ztunnel/src/pods/plan.rs",
    "ztunnel/src/pods/processes.rs",
    "ztunnel/src/pods/schedule.rs",
    "waypoint/src/detect.rs",
    "waypoint/src/exchange/headers.rs",
    "waypoint/src/frames.rs",
    "waypoint/src/frames/",
    "waypoint/src/grpc.rs",
    "waypoint/src/head.rs",
    "waypoint/src/head/",
];

/// What a decision must not contain, and what to do instead.
const IMPURE: &[(&str, &str)] = &[
    (".await", "hand out what is to be waited for as a value"),
    ("async fn", "hand out what is to be waited for as a value"),
    ("::now()", "take the time as an argument"),
    ("rand::rng(", "take the random source as an argument"),
    ("use rand::rng;", "take the random source as an argument"),
    ("rand::random", "take the random source as an argument"),
    ("thread_rng", "take the random source as an argument"),
    ("tokio::", "leave IO to the shell"),
    ("std::env", "take configuration as an argument"),
    ("std::fs", "leave IO to the shell"),
    ("std::net::Tcp", "leave IO to the shell"),
    ("std::net::Udp", "leave IO to the shell"),
    ("std::thread", "decisions run nothing"),
    ("Mutex", "decisions share nothing"),
    ("RwLock", "decisions share nothing"),
];

#[test]
fn decisions_are_functions_of_values() {
    must_be_empty(&violations(&sources("rs")));
}

#[test]
fn what_is_said_to_be_pure_exists() {
    let missing: Vec<String> = PURE
        .iter()
        .filter(|path| !root().join(path).exists())
        .map(|path| format!("{path} has moved: name its new place here"))
        .collect();
    must_be_empty(&missing);
}

fn violations(sources: &[Source]) -> Vec<String> {
    let mut violations = Vec::new();
    for source in sources.iter().filter(|source| PURE.iter().any(|pure| source.path.starts_with(pure))) {
        for line in source.lines().into_iter().filter(|line| line.part == Part::Production) {
            for (impure, instead) in IMPURE.iter().filter(|(impure, _)| line.code.contains(impure)) {
                violations.push(format!("{}:{}: `{impure}`: {instead}", source.path, line.number));
            }
        }
    }
    violations
}

#[test]
fn a_clock_in_mesh_is_found_and_one_in_its_tests_is_not() {
    let source = |path: &str, text: &str| vec![Source { path: path.into(), text: text.into() }];
    let clock = "fn a() { let now = Instant::now(); }\n";
    assert_eq!(violations(&source("crates/mesh/src/decide.rs", clock)).len(), 1);
    assert_eq!(violations(&source("crates/hbone/src/codec/frame.rs", clock)).len(), 1);
    assert!(violations(&source("crates/hbone/src/tunnel.rs", clock)).is_empty());
    assert!(violations(&source("crates/mesh/src/decide/tests.rs", clock)).is_empty());
    let in_tests = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{\n{clock}}}\n");
    assert!(violations(&source("crates/mesh/src/decide.rs", &in_tests)).is_empty());
}
