//! Goldens: `testdata/<case>/in.yaml` translates into `out.yaml`. `UPDATE=1` writes the outputs anew;
//! the difference is then reviewed like any other change.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::dump;
use crate::source::catalog::{Catalog, FileState, Files};
use crate::source::reading;
use crate::status::{Verdict, place, verdict};

mod properties;

#[test]
fn objects_translate_as_recorded() {
    let cases = cases();
    assert!(!cases.is_empty(), "no case found");
    let changed: Vec<_> = cases.iter().filter(|case| !is_as_recorded(case)).collect();
    assert!(changed.is_empty(), "differ from out.yaml (UPDATE=1 writes them anew): {changed:#?}");
}

fn is_as_recorded(case: &Path) -> bool {
    let output = serde_saphyr::to_string(&translation(case)).unwrap();
    let path = case.join("out.yaml");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, output).unwrap();
        return true;
    }
    let recorded = fs::read_to_string(path).unwrap_or_default();
    if recorded != output {
        println!("--- {}\n{output}", case.display());
    }
    recorded == output
}

fn translation(case: &Path) -> serde_json::Value {
    let text = fs::read_to_string(case.join("in.yaml")).unwrap();
    let inputs = inputs([("in.yaml", text)]);
    assert!(inputs.problems().is_empty(), "{}: {:?}", case.display(), inputs.problems());
    let settings = settings();
    let mut output = dump::translated(&translate(&inputs, &settings));
    let rejected = inputs.entries().filter_map(|(key, entry)| match verdict(key, entry) {
        (Verdict::Accepted, _) => None,
        (verdict, message) => Some(format!("{} {verdict:?} {key}: {message}", place(entry))),
    });
    let rejected: serde_json::Value = rejected.collect();
    if rejected != serde_json::json!([]) {
        output["rejected"] = rejected;
    }
    output
}

/// What is in force when control starts with these files.
pub(crate) fn inputs<'a>(files: impl IntoIterator<Item = (&'a str, String)>) -> Inputs {
    let read = |(path, text): (&str, String)| {
        let path = Arc::from(path);
        let content = reading::read(&path, &text);
        (path, FileState::Read(content))
    };
    let files = Files { contents: files.into_iter().map(read).collect(), unreadable: Vec::new() };
    let mut inputs = Inputs::default();
    inputs.apply(Catalog::default().update(files));
    inputs
}

pub(crate) fn settings() -> Settings {
    Settings {
        cluster_id: "Kubernetes".into(),
        network: Network::default(),
        trust_domain: TrustDomain::default(),
        mesh_ranges: Vec::new(),
        netns_annotation: NetnsAnnotation::Honoured,
    }
}

#[test]
fn settings_add_to_the_ranges_of_nodes_and_services() {
    let node = |pods| {
        format!("apiVersion: v1\nkind: Node\nmetadata: {{name: node-a}}\nspec: {{podCIDRs: [{pods}]}}\n")
    };
    let settings = Settings { mesh_ranges: vec!["10.2.0.0/16".parse().unwrap()], ..settings() };
    let ranges = |text| {
        let ranges = translate(&inputs([("in.yaml", text)]), &settings).mesh_ranges;
        ranges.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(ranges(node("10.9.0.0/24")), ["10.2.0.0/16", "10.9.0.0/24"]);
    assert_eq!(ranges(node("10.2.7.0/24")), ["10.2.0.0/16"], "one inside the other");
    assert_eq!(ranges(node("")), ["10.2.0.0/16"]);
}

pub(crate) fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut cases: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}
