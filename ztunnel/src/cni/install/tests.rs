//! Goldens: `testdata/cni/<case>/in` becomes `testdata/cni/<case>/out`. `UPDATE=1` writes the outputs
//! anew; the difference is then reviewed like any other change.

use std::fs;

use tempfile::TempDir;

use super::chain::{Present, chained, is_configuration, unchained};
use super::*;

/// An installation into a directory of its own, in which no directory is there so far.
pub(super) fn installation() -> (TempDir, Installation) {
    let directory = tempfile::tempdir().unwrap();
    let settings = PluginSettings {
        state_dir: "/run/ambit".into(),
        list_dir: Some("/var/lib/ambit".into()),
        mesh_namespace: "ambit-system".to_owned(),
        system_namespaces: vec!["kube-system".to_owned()],
        timeout: Duration::from_secs(20),
    };
    let [program, conf_dir, bin_dir] = ["program", "net.d", "bin"].map(|name| directory.path().join(name));
    fs::write(&program, "the program").unwrap();
    (directory, Installation { program, conf_dir, bin_dir, conf_name: None, settings })
}

fn ours() -> serde_json::Value {
    installation().1.settings.to_json()
}

type Files = BTreeMap<String, String>;

fn cases() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/cni");
    let mut cases: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn changed(files: &Files, changes: &[Change]) -> Files {
    let mut files = files.clone();
    for change in changes {
        match change {
            Change::Write(name, text) => drop(files.insert(name.clone(), text.clone())),
            Change::Remove(name) => drop(files.remove(name).unwrap()),
        }
    }
    files
}

fn put_in(files: &Files) -> Chained {
    chained(files, None, &ours(), Present::Renewed).unwrap()
}

#[test]
fn configurations_are_extended_as_recorded() {
    for case in cases() {
        let before = read_files(&case.join("in")).unwrap();
        let Chained { file, changes } = put_in(&before);
        let after = changed(&before, &changes);
        let first_usable = after.keys().find(|name| after[*name].contains("cniVersion\"") && **name >= file);
        assert_eq!(first_usable, Some(&file), "{}", case.display());
        let out = case.join("out");
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&out).unwrap();
            for (name, text) in after.iter().filter(|(name, text)| before.get(*name) != Some(text)) {
                fs::write(out.join(name), text).unwrap();
            }
        }
        let mut expected = before;
        expected.extend(read_files(&out).unwrap());
        assert_eq!(after, expected, "{}", case.display());
    }
}

#[test]
fn what_was_put_in_is_valid_changes_nothing_when_repeated_and_leaves_no_trace() {
    for case in cases() {
        let before = read_files(&case.join("in")).unwrap();
        let Chained { file, changes } = put_in(&before);
        let after = changed(&before, &changes);
        let list: serde_json::Value = serde_json::from_str(&after[&file]).unwrap();
        let plugins = list["plugins"].as_array().unwrap();
        assert_eq!(plugins.last(), Some(&ours()), "{}", case.display());
        assert!(list["name"].is_string() && list["cniVersion"].is_string());
        for present in [Present::Renewed, Present::Left] {
            let again = chained(&after, None, &ours(), present).unwrap();
            assert_eq!(again, Chained { file: file.clone(), changes: Vec::new() }, "{}", case.display());
        }
        assert_eq!(changed(&after, &unchained(&after)), before, "{}", case.display());
    }
}

#[test]
fn what_others_write_meanwhile_stays() {
    let before = Files::from([("10-net.conflist".to_owned(), NET.to_owned())]);
    let mut files = changed(&before, &put_in(&before).changes);
    let text = files.get_mut("10-net.conflist").unwrap();
    *text = text.replace("\"bridge\"", "\"ptp\"").replace("]}", ",{\"type\":\"tuning\"}],\"later\":1}");
    assert!(put_in(&files).changes.is_empty(), "ours need not be the last");
    let after = changed(&files, &unchained(&files));
    let expected =
        r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ptp"},{"type":"tuning"}],"later":1}"#;
    assert_eq!(after["10-net.conflist"], expected);
}

const NET: &str = r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"}]}"#;

#[test]
fn a_part_that_says_something_else_is_renewed_or_left() {
    for (text, rest) in [
        (NET.replace("]}", r#",{"type":"ambit-cni","x":1}]}"#), 1),
        (NET.replace("}]}", "},\n  {\n    \"type\": \"ambit-cni\"\n  }\n]}"), 1),
        (NET.replace("[{", "[{\"type\":\"ambit-cni\"},{"), 1),
    ] {
        let files = Files::from([("10-net.conflist".to_owned(), text.clone())]);
        assert!(chained(&files, None, &ours(), Present::Left).unwrap().changes.is_empty(), "{text}");
        let after = changed(&files, &put_in(&files).changes);
        let list: serde_json::Value = serde_json::from_str(&after["10-net.conflist"]).unwrap();
        let plugins = list["plugins"].as_array().unwrap();
        assert_eq!((plugins.len(), plugins.contains(&ours())), (1 + rest, true), "{text}");
        let without: serde_json::Value =
            serde_json::from_str(&changed(&after, &unchained(&after))["10-net.conflist"]).unwrap();
        assert_eq!(without, serde_json::from_str::<serde_json::Value>(NET).unwrap(), "{text}");
    }
}

#[test]
fn a_list_of_ours_follows_the_configuration_it_was_made_from() {
    let conf = |master: &str| {
        format!(r#"{{"cniVersion":"0.4.0","name":"net","type":"macvlan","master":"{master}"}}"#)
    };
    let name = "10-net.conf".to_owned();
    let before = Files::from([(name.clone(), conf("eth0"))]);
    let files = changed(&before, &put_in(&before).changes);
    let own = "10-net.ambit.conflist";
    assert!(files[own].contains("eth0"));
    assert!(own < name.as_str(), "the runtime takes it first");

    let edited = Files::from([(name.clone(), conf("eth1")), (own.to_owned(), files[own].clone())]);
    for present in [Present::Renewed, Present::Left] {
        let edited_list = changed(&edited, &chained(&edited, None, &ours(), present).unwrap().changes);
        assert!(edited_list[own].contains("eth1") && !edited_list[own].contains("eth0"));
    }
    let of_another_agent = files[own].replace("\"timeoutSeconds\": 20", "\"timeoutSeconds\": 30");
    assert_ne!(of_another_agent, files[own]);
    let other = Files::from([(name.clone(), conf("eth0")), (own.to_owned(), of_another_agent)]);
    assert!(chained(&other, None, &ours(), Present::Left).unwrap().changes.is_empty());

    let mut replaced = files.clone();
    replaced.remove(&name);
    replaced.insert("20-new.conflist".to_owned(), NET.to_owned());
    let changes = put_in(&replaced).changes;
    assert!(changes.contains(&Change::Remove(own.to_owned())), "what it was made from is gone: {changes:?}");
}

#[test]
fn where_nothing_can_be_extended_it_is_said_why() {
    let refused = |files: &[(&str, &str)], asked| {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        chained(&files, asked, &ours(), Present::Renewed).unwrap_err().to_string()
    };
    assert!(refused(&[], None).contains("no network configuration so far"));
    assert!(refused(&[("a.conflist", NET)], Some("b.conflist")).contains("--cni-conf-name"));
    for (text, part) in [
        ("{", "not a network configuration"),
        (r#"{"cniVersion":"1.0.0","plugins":[{"type":"bridge"}]}"#, "no name"),
        (r#"{"cniVersion":"1.0.0","name":"n"}"#, "no plugins"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "no plugin that makes a network"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"ambit-cni"}]}"#, "no plugin that makes"),
        (r#"{"name":"n","plugins":[{"type":"bridge"}]}"#, "cniVersion is \"\""),
        (r#"{"cniVersion":"0.2.0","name":"n","plugins":[{"type":"bridge"}]}"#, "cniVersion is \"0.2.0\""),
    ] {
        let said = refused(&[("a.conflist", text)], None);
        assert!(said.contains("a.conflist: it") && said.contains(part), "{text}: {said}");
    }
    assert!(refused(&[("a.conf", r#"{"cniVersion":"1.0.0","name":"n"}"#)], None).contains("no type"));
}

#[test]
fn only_what_a_runtime_reads_is_a_configuration() {
    for (name, expected) in [
        ("10-a.conflist", true),
        ("10-a.conf", true),
        ("10-a.json", true),
        ("10-a.conflist.bak", false),
        (".10-a.conflist.ambit-unfinished", false),
        (".hidden.conf", true),
        ("kubeconfig", false),
    ] {
        assert_eq!(is_configuration(name), expected, "{name}");
    }
}

#[test]
fn installing_and_uninstalling_restore_what_was_there() {
    let (_directory, installation) = installation();
    assert!(matches!(install(&installation), Err(InstallError::Nothing { .. })));
    fs::create_dir_all(&installation.conf_dir).unwrap();
    let path = installation.conf_dir.join("10-net.conflist");
    fs::write(&path, NET).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    for _ in 0..2 {
        assert_eq!(install(&installation).unwrap(), "10-net.conflist");
    }
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600, "rights stay");
    let program = installation.bin_dir.join(PROGRAM);
    assert!(is_same(&installation.program, &program));
    assert_eq!(fs::metadata(&program).unwrap().mode() & 0o777, 0o755);
    for _ in 0..2 {
        uninstall(&installation.conf_dir, &installation.bin_dir).unwrap();
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), NET);
    assert!(!program.exists());
    assert_eq!(fs::read_dir(&installation.conf_dir).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn what_somebody_else_has_just_written_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("10-net.conflist");
    fs::write(&path, "theirs").unwrap();
    assert!(replace_text(&path, Some("as it was read"), "ours").is_err());
    assert!(replace_text(&path, None, "ours").is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
    replace_text(&path, Some("theirs"), "ours").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "ours");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}
