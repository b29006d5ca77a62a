//! What is shipped is what the sources say. `UPDATE=1` writes it anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;

fn deploy(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(directory)
}

/// Files below a directory by relative path.
fn read(directory: &Path) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).into_iter().flatten().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read_to_string(path).unwrap());
            }
        }
    }
    files
}

fn must_be(directory: &Path, expected: &BTreeMap<String, String>) {
    if std::env::var_os("UPDATE").is_some() {
        let _absent = fs::remove_dir_all(directory);
        for (name, text) in expected {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let found = read(directory);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "the files themselves");
    for (name, text) in expected {
        assert_eq!(&found[name], text, "{name} is not what deploy/manifests says: run with UPDATE=1");
    }
}

#[test]
fn the_kustomization_is_written_from_the_sources() {
    let files = kustomization(&sources().unwrap(), &Values::defaults().unwrap()).unwrap();
    must_be(&deploy("daemonset"), &files);
}

#[test]
fn the_charts_templates_are_written_from_the_sources() {
    let files = chart(&sources().unwrap());
    let templates =
        files.iter().map(|(name, text)| (name.strip_prefix("templates/").unwrap().to_owned(), text.clone()));
    must_be(&deploy("helm/templates"), &templates.collect());
}

#[test]
fn the_charts_schema_knows_every_setting_and_no_other() {
    let schema: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(deploy("helm/values.schema.json")).unwrap()).unwrap();
    let defaults: serde_json::Value = serde_saphyr::from_str(DEFAULT_VALUES).unwrap();
    compare("", &schema, &defaults);
}

/// The schema's properties are the mapping's keys, as far as it lists any.
fn compare(path: &str, schema: &serde_json::Value, value: &serde_json::Value) {
    assert!(schema["description"].is_string() || path.is_empty(), "{path} is not explained");
    let Some(properties) = schema["properties"].as_object() else { return };
    assert_eq!(schema["additionalProperties"], false, "{path:?} lets misspelt settings pass");
    let settings = value.as_object().unwrap();
    assert_eq!(properties.keys().collect::<Vec<_>>(), settings.keys().collect::<Vec<_>>(), "{path:?}");
    for (name, property) in properties {
        compare(&format!("{path}.{name}"), property, &settings[name]);
    }
}
