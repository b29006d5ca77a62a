use std::fs;
use std::os::unix::fs::symlink;
use std::sync::mpsc::sync_channel;

use super::*;
use crate::source::{Content, Event};

/// Long enough for any machine: nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(30);

struct Directory {
    root: tempfile::TempDir,
    batches: Receiver<Batch>,
    _source: DirSource,
}

impl Directory {
    /// Watches a directory with these files in it.
    fn with(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("config")).unwrap();
        for (name, text) in files {
            fs::write(root.path().join("config").join(name), text).unwrap();
        }
        let (sender, batches) = sync_channel(1);
        let source = DirSource::start(root.path().join("config"), sender).unwrap();
        Self { root, batches, _source: source }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("config").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The next batch, as a person would write it down: `+` applied, `!` rejected, `-` deleted, `?` a
    /// problem.
    fn next(&self) -> Vec<String> {
        let batch = self.batches.recv_timeout(LONG).unwrap();
        let events = batch.events.iter().map(|event| match event {
            Event::Delete(key) => format!("-{}", key.name),
            Event::Apply(reading) => match reading.content {
                Content::Rejected { .. } => format!("!{}", reading.key.name),
                Content::Object(_) | Content::Foreign => format!("+{}", reading.key.name),
            },
        });
        let problems = batch.problems.iter().map(|problem| format!("?{}", problem.origin));
        events.chain(problems).collect()
    }

    /// Skips batches up to the one with `event`: how often a burst is looked at is not fixed.
    fn until(&self, event: &str) {
        while !self.next().iter().any(|next| next == event) {}
    }
}

fn node(name: &str) -> String {
    format!("apiVersion: v1\nkind: Node\nmetadata:\n  name: {name}\n")
}

#[test]
fn files_are_read_changed_and_removed() {
    let directory = Directory::with(&[("a.yaml", &node("a")), ("b.yml", &node("b")), ("notes.txt", "x")]);
    assert_eq!(directory.next(), ["+a", "+b"]);
    directory.write("a.yaml", &format!("{}---\n{}", node("a"), node("c")));
    assert_eq!(directory.next(), ["+c"]);
    fs::remove_file(directory.path("b.yml")).unwrap();
    assert_eq!(directory.next(), ["-b"]);
}

#[test]
fn a_file_that_is_put_in_place_by_renaming_is_read() {
    let directory = Directory::with(&[("a.yaml", &node("a"))]);
    assert_eq!(directory.next(), ["+a"]);
    directory.write(".a.yaml.swp", &node("b"));
    fs::rename(directory.path(".a.yaml.swp"), directory.path("a.yaml")).unwrap();
    assert_eq!(directory.next(), ["-a", "+b"]);
}

#[test]
fn a_file_that_is_replaced_by_removing_it_first_is_never_gone() {
    let directory = Directory::with(&[("a.yaml", &node("a"))]);
    assert_eq!(directory.next(), ["+a"]);
    fs::remove_file(directory.path("a.yaml")).unwrap();
    directory.write("a.yaml", &format!("{}---\n{}", node("a"), node("b")));
    assert_eq!(directory.next(), ["+b"]);
}

/// Kubelet mounts a ConfigMap as links through `..data`, and swaps that one.
#[test]
fn a_config_map_is_swapped() {
    let directory = Directory::with(&[]);
    assert_eq!(directory.next(), [""; 0]);
    for (version, name) in [("..1", "a"), ("..2", "b")] {
        fs::create_dir(directory.path(version)).unwrap();
        fs::write(directory.path(version).join("mesh.yaml"), node(name)).unwrap();
    }
    symlink("..1", directory.path("..data")).unwrap();
    symlink("..data/mesh.yaml", directory.path("mesh.yaml")).unwrap();
    assert_eq!(directory.next(), ["+a"]);
    symlink("..2", directory.path("..data_tmp")).unwrap();
    fs::rename(directory.path("..data_tmp"), directory.path("..data")).unwrap();
    assert_eq!(directory.next(), ["-a", "+b"]);
}

#[test]
fn subdirectories_are_read_as_they_come() {
    let directory = Directory::with(&[]);
    assert_eq!(directory.next(), [""; 0]);
    fs::create_dir_all(directory.path("team/shop")).unwrap();
    directory.write("team/shop/a.yaml", &node("a"));
    assert_eq!(directory.next(), ["+a"]);
    directory.write("team/shop/a.yaml", &node("b"));
    assert_eq!(directory.next(), ["-a", "+b"]);
}

#[test]
fn a_half_written_file_is_not_judged() {
    let directory = Directory::with(&[("a.yaml", &node("a"))]);
    assert_eq!(directory.next(), ["+a"]);
    // What a writer leaves for a moment: an empty file, a broken one, one that ends within a line.
    let whole = format!("{}---\n{}", node("a"), node("b"));
    for half in ["", "apiVersion: v1\nkind: [", &node("a")[..node("a").len() - 3]] {
        directory.write("a.yaml", half);
    }
    directory.write("a.yaml", &whole);
    assert_eq!(directory.next(), ["+b"]);
}

#[test]
fn what_stays_broken_is_judged() {
    let directory = Directory::with(&[("a.yaml", &node("a")), ("b.yaml", &node("b"))]);
    assert_eq!(directory.next(), ["+a", "+b"]);
    directory.write("a.yaml", &format!("{}spec: [\n", node("a")));
    assert_eq!(directory.next(), ["!a"]);
    directory.write("a.yaml", "");
    assert_eq!(directory.next(), ["-a"]);
}

#[test]
fn the_rest_does_not_wait_for_a_broken_file() {
    let directory = Directory::with(&[("a.yaml", &node("a"))]);
    assert_eq!(directory.next(), ["+a"]);
    directory.write("a.yaml", "}{\n");
    directory.write("b.yaml", &node("b"));
    assert_eq!(directory.next(), ["+b"]);
    assert_eq!(directory.next(), ["?a.yaml:1"]);
}

#[test]
fn a_directory_that_goes_away_takes_nothing_with_it() {
    let directory = Directory::with(&[("a.yaml", &node("a"))]);
    assert_eq!(directory.next(), ["+a"]);
    fs::rename(directory.path(""), directory.root.path().join("away")).unwrap();
    assert_eq!(directory.next(), ["?."]);

    // Another one under the same name is watched in its place.
    fs::create_dir(directory.path("")).unwrap();
    directory.write("b.yaml", &node("b"));
    directory.until("-a");
    directory.write("c.yaml", &node("c"));
    assert_eq!(directory.next(), ["+c"]);
}

#[test]
fn a_directory_that_is_not_there_yet_is_waited_for() {
    let root = tempfile::tempdir().unwrap();
    let (sender, batches) = sync_channel(1);
    let path = root.path().join("config");
    let _source = DirSource::start(path.clone(), sender).unwrap();
    fs::create_dir(&path).unwrap();
    let first = batches.recv_timeout(LONG).unwrap();
    assert!(first.events.is_empty() && first.problems.is_empty());
}

#[test]
fn files_that_cannot_be_read_are_reported_and_keep_their_objects() {
    let directory = Directory::with(&[("a.yaml", &node("a"))]);
    assert_eq!(directory.next(), ["+a"]);
    fs::write(directory.path("a.yaml"), [0xff, b'\n']).unwrap();
    assert_eq!(directory.next(), ["?a.yaml"]);
    symlink("/nowhere", directory.path("b.yaml")).unwrap();
    assert_eq!(directory.next(), ["?a.yaml", "?b.yaml"]);
    directory.write("a.yaml", &node("c"));
    assert_eq!(directory.next(), ["-a", "+c", "?b.yaml"]);
}
