//! Which crate may depend on which (DESIGN.md 2).

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::process::Command;

use serde_json::Value;

use crate::{must_be_empty, tree};

const PROGRAMS: [&str; 4] = ["ztunnel", "waypoint", "control", "ambit"];
/// Members that may use anything, and that nothing uses.
const ON_TOP: [&str; 2] = ["ambit-tests", "ambit-benches"];

/// What each crate may use of ours, outside of its tests.
const ALLOWED: [(&str, &[&str]); 11] = [
    ("ambit-mesh", &[]),
    ("ambit-proto", &[]),
    ("ambit-xds", &["ambit-mesh", "ambit-proto"]),
    ("ambit-identity", &["ambit-mesh", "ambit-proto"]),
    ("ambit-kube", &[]),
    ("ambit-runtime", &["ambit-mesh", "ambit-proto"]),
    // A tunnel's ends are known by certificates: identity makes the TLS configurations and verifies.
    ("ambit-hbone", &["ambit-mesh", "ambit-identity"]),
    ("ztunnel", LIBRARIES),
    ("waypoint", LIBRARIES),
    ("control", LIBRARIES),
    ("ambit", COMMAND),
];

/// The command answers for control and the waypoint, by the very functions that they run: a copy would come
/// to disagree.
const COMMAND: &[&str] = &[
    "ambit-mesh",
    "ambit-proto",
    "ambit-xds",
    "ambit-hbone",
    "ambit-identity",
    "ambit-kube",
    "ambit-runtime",
    "control",
    "waypoint",
];

const LIBRARIES: &[&str] = &[
    "ambit-mesh",
    "ambit-proto",
    "ambit-xds",
    "ambit-hbone",
    "ambit-identity",
    "ambit-kube",
    "ambit-runtime",
];

/// What the pure crate may use of others': values and their algorithms, nothing that acts.
const ALLOWED_OF_OTHERS_IN_MESH: [&str; 6] = ["http", "ipnet", "rand", "regex", "rustc-hash", "thiserror"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Production,
    Tests,
}

/// A member and its dependencies.
#[derive(Debug)]
struct Member {
    name: String,
    dependencies: Vec<(String, Kind)>,
}

#[test]
fn dependencies_point_downwards() {
    must_be_empty(&violations(&members()));
}

fn members() -> Vec<Member> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(tree::root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("a text of the format").to_owned();
    let dependency = |value: &Value| {
        let kind = if value["kind"] == "dev" { Kind::Tests } else { Kind::Production };
        (text(&value["name"]), kind)
    };
    let member = |value: &Value| Member {
        name: text(&value["name"]),
        dependencies: list(&value["dependencies"]).iter().map(dependency).collect(),
    };
    list(&metadata["packages"]).iter().map(member).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list of the format")
}

fn violations(members: &[Member]) -> Vec<String> {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.into();
    let ours: BTreeSet<&str> = members.iter().map(|member| member.name.as_str()).collect();
    let mut violations = Vec::new();
    for Member { name, dependencies } in members {
        if ON_TOP.contains(&name.as_str()) {
            continue;
        }
        let Some(may_use) = allowed.get(name.as_str()) else {
            violations.push(format!("{name} has no place in the order of dependencies: give it one here"));
            continue;
        };
        for (dependency, kind) in dependencies {
            let dependency = dependency.as_str();
            let is_fine = match kind {
                _ if !ours.contains(dependency) => {
                    *kind == Kind::Tests
                        || name != "ambit-mesh"
                        || ALLOWED_OF_OTHERS_IN_MESH.contains(&dependency)
                }
                Kind::Production => may_use.contains(&dependency),
                // Tests of a library may use another library, never a program.
                Kind::Tests => LIBRARIES.contains(&dependency),
            };
            if !is_fine {
                violations.push(format!("{name} must not depend on {dependency} ({kind:?})"));
            }
        }
    }
    violations
}

#[test]
fn a_program_on_a_program_and_a_runtime_in_mesh_are_found() {
    let member = |name: &str, dependencies: &[(&str, Kind)]| Member {
        name: name.to_owned(),
        dependencies: dependencies.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect(),
    };
    let mut good = vec![
        member("ambit-mesh", &[("thiserror", Kind::Production), ("proptest", Kind::Tests)]),
        member("ambit-xds", &[("ambit-mesh", Kind::Production), ("tokio", Kind::Production)]),
        member("ambit-tests", &[("control", Kind::Production)]),
    ];
    good.extend(PROGRAMS.map(|program| member(program, &[("ambit-xds", Kind::Production)])));
    assert_eq!(violations(&good), [""; 0]);

    for (name, dependency, kind) in [
        ("ztunnel", "control", Kind::Production),
        ("control", "ztunnel", Kind::Tests),
        ("ambit-mesh", "tokio", Kind::Production),
        ("ambit-mesh", "ambit-xds", Kind::Production),
        ("ambit-xds", "control", Kind::Tests),
        ("ambit-xds", "ambit-tests", Kind::Tests),
        ("newcomer", "ambit-mesh", Kind::Production),
    ] {
        let broken = member(name, &[(dependency, kind)]);
        let mut tree = vec![broken];
        tree.extend(
            good.iter()
                .filter(|other| other.name != name)
                .map(|other| Member { name: other.name.clone(), dependencies: other.dependencies.clone() }),
        );
        assert_eq!(violations(&tree).len(), 1, "{name} on {dependency}");
    }
}
