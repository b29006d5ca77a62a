use proptest::prelude::*;

use super::*;
use crate::source::{Content, Origin, reading};

fn pod(name: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  namespace: shop\n")
}

fn files(texts: &[(&str, &str)]) -> Files {
    let read = |(path, text): &(&str, &str)| {
        let path = Arc::from(*path);
        let content = reading::read(&path, text);
        (path, FileState::Read(content))
    };
    Files { contents: texts.iter().map(read).collect(), unreadable: Vec::new() }
}

/// The events of a batch as a person would write them down.
fn events(batch: &Batch) -> Vec<String> {
    batch
        .events
        .iter()
        .map(|event| match event {
            Event::Delete(key) => format!("delete {key}"),
            Event::Apply(reading) => match &reading.content {
                Content::Object(_) => format!("apply {} {}", reading.key, reading.origin),
                Content::Foreign => format!("foreign {} {}", reading.key, reading.origin),
                Content::Rejected { rejection, .. } => format!("reject {} {}", reading.key, rejection.origin),
            },
        })
        .collect()
}

fn problems(batch: &Batch) -> Vec<String> {
    batch.problems.iter().map(|problem| format!("{:?} {}", problem.reason, problem.origin)).collect()
}

#[test]
fn objects_come_change_move_and_go() {
    let mut catalog = Catalog::default();
    let (a, b) = (pod("a"), pod("b"));
    let batch = catalog.update(files(&[("1.yaml", &format!("{a}---\n{b}"))]));
    assert_eq!(events(&batch), ["apply Pod shop/a 1.yaml:1", "apply Pod shop/b 1.yaml:7"]);

    assert_eq!(events(&catalog.update(files(&[("1.yaml", &format!("{a}---\n{b}"))]))), [""; 0]);

    let batch = catalog.update(files(&[("1.yaml", &a), ("2.yaml", &b)]));
    assert_eq!(events(&batch), ["apply Pod shop/b 2.yaml:1"]);

    let batch = catalog.update(files(&[("2.yaml", &b)]));
    assert_eq!(events(&batch), ["delete Pod shop/a"]);
}

#[test]
fn the_first_of_two_definitions_wins() {
    let mut catalog = Catalog::default();
    let a = pod("a");
    let batch = catalog.update(files(&[("2.yaml", &a), ("1.yaml", &format!("{a}---\n{a}"))]));
    assert_eq!(events(&batch), ["apply Pod shop/a 1.yaml:1"]);
    assert_eq!(problems(&batch), ["Duplicate 1.yaml:7", "Duplicate 2.yaml:1"]);

    let batch = catalog.update(files(&[("2.yaml", &a)]));
    assert_eq!(events(&batch), ["apply Pod shop/a 2.yaml:1"]);
    assert_eq!(problems(&batch), [""; 0]);
}

#[test]
fn an_unreadable_document_that_names_its_object_keeps_that_one() {
    let mut catalog = Catalog::default();
    catalog.update(files(&[("1.yaml", &format!("{}---\n{}", pod("a"), pod("b")))]));
    let batch = catalog.update(files(&[("1.yaml", &format!("{}spec: [\n", pod("a")))]));
    assert_eq!(events(&batch), ["delete Pod shop/b", "reject Pod shop/a 1.yaml:6"]);
    assert_eq!(problems(&batch), [""; 0]);
}

#[test]
fn an_unreadable_document_without_a_name_keeps_every_object_of_its_file() {
    let mut catalog = Catalog::default();
    let (a, b) = (pod("a"), pod("b"));
    catalog.update(files(&[("1.yaml", &format!("{a}---\n{b}")), ("2.yaml", &pod("c"))]));
    let batch = catalog.update(files(&[("1.yaml", &format!("{a}---\n}}{{\n"))]));
    assert_eq!(events(&batch), ["delete Pod shop/c"]);
    assert_eq!(problems(&batch), ["DocumentUnreadable 1.yaml:7"]);

    let batch = catalog.update(files(&[("1.yaml", &a)]));
    assert_eq!(events(&batch), ["delete Pod shop/b"]);
}

#[test]
fn nothing_behind_an_unreadable_path_is_deleted() {
    let unreadable = |path: &str| SourceProblem {
        origin: Origin { file: path.into(), line: 0 },
        reason: SourceReason::FileUnreadable,
        message: "permission denied".to_owned(),
    };
    let mut catalog = Catalog::default();
    let all = [("a.yaml", pod("a")), ("dir/b.yaml", pod("b")), ("dirt.yaml", pod("c"))];
    let all: Vec<_> = all.iter().map(|(path, text)| (*path, text.as_str())).collect();
    catalog.update(files(&all));

    let gone = Files { contents: BTreeMap::new(), unreadable: vec![unreadable("dir"), unreadable("a.yaml")] };
    assert_eq!(events(&catalog.update(gone)), ["delete Pod shop/c"]);
    let gone = Files { contents: BTreeMap::new(), unreadable: vec![unreadable(".")] };
    assert_eq!(events(&catalog.update(gone)), [""; 0]);
    assert_eq!(events(&catalog.update(Files::default())), ["delete Pod shop/a", "delete Pod shop/b"]);
}

#[test]
fn a_list_is_read_item_by_item() {
    let list = "apiVersion: v1\nkind: List\nitems:\n\
                - {apiVersion: v1, kind: Pod, metadata: {name: a}}\n\
                - {apiVersion: v1, kind: Pod, metadata: {}}\n\
                - {apiVersion: apps/v1, kind: Deployment, metadata: {name: d}}\n";
    let batch = Catalog::default().update(files(&[("1.yaml", list)]));
    assert_eq!(events(&batch), ["apply Pod default/a 1.yaml:1", "foreign Deployment.apps d 1.yaml:1"]);
    assert_eq!(problems(&batch), ["DocumentUnreadable 1.yaml:1"]);
}

#[test]
fn errors_name_the_line_in_the_file() {
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: p\n  namespace: shop\nspec:\n";
    let rows = [
        (
            "bad CIDR",
            format!(
                "{policy}  rules:\n  - from:\n    - source:\n        ipBlocks:\n        - 10.0.0.0/8\n        - 10.0.0.0/33\n"
            ),
            13,
        ),
        ("misspelt field", format!("{policy}  rulez: []\n"), 8),
        ("wrong type", format!("{policy}  action: 3\n"), 8),
        (
            "port as a number",
            format!("{policy}  rules:\n  - to:\n    - operation:\n        ports: [80]\n"),
            11,
        ),
        (
            "unknown key",
            format!("{policy}  rules:\n  - when:\n    - key: source.color\n      values: [red]\n"),
            10,
        ),
    ];
    for (name, text, line) in rows {
        let batch = Catalog::default().update(files(&[("p.yaml", &format!("---\n{text}"))]));
        assert_eq!(events(&batch), [format!("reject AuthorizationPolicy shop/p p.yaml:{line}")], "{name}");
    }
}

/// The rules as they are defined: everything is looked at anew for every batch.
#[derive(Default)]
struct Plain {
    files: BTreeMap<Arc<str>, FileContent>,
    objects: BTreeMap<ObjectKey, Arc<Reading>>,
}

impl Plain {
    /// Takes over the files, and says what has changed and which definitions do not count.
    fn update(&mut self, files: &Files) -> (BTreeSet<String>, BTreeSet<Origin>) {
        let Files { contents, unreadable } = files;
        self.files.retain(|path, _| contents.contains_key(path) || is_hidden(path, unreadable));
        for (path, state) in contents {
            if let FileState::Read(content) = state {
                self.files.insert(path.clone(), content.clone());
            }
        }
        let mut objects: BTreeMap<ObjectKey, Arc<Reading>> = BTreeMap::new();
        let mut ignored = BTreeSet::new();
        for reading in self.files.values().flat_map(|file| &file.readings) {
            match objects.get(&reading.key) {
                Some(_) => drop(ignored.insert(reading.origin.clone())),
                None => drop(objects.insert(reading.key.clone(), reading.clone())),
            }
        }
        for (key, reading) in &self.objects {
            let file = self.files.get(&reading.origin.file);
            if file.is_some_and(FileContent::hides_objects) && !objects.contains_key(key) {
                objects.insert(key.clone(), reading.clone());
            }
        }
        let gone = self.objects.keys().filter(|key| !objects.contains_key(key)).map(|key| format!("-{key}"));
        let is_new = |(key, new): &(&ObjectKey, &Arc<Reading>)| {
            self.objects.get(key).is_none_or(|old| differs(old, new))
        };
        let new = objects.iter().filter(is_new).map(|(key, new)| format!("+{key} {}", new.origin));
        let events = gone.chain(new).collect();
        self.objects = objects;
        (events, ignored)
    }
}

/// What one file may hold: objects of which others define some too, and now and then what is no
/// object.
fn file() -> impl Strategy<Value = Option<String>> {
    let document = prop_oneof![
        8 => (0..5_u8, 0..3_u8).prop_map(|(name, text)| {
            format!("{}  labels: {{text: v{text}}}\n", pod(&format!("p{name}")))
        }),
        1 => Just("what: [is, this\n".to_owned()),
    ];
    let text = prop::collection::vec(document, 0..4).prop_map(|documents| documents.join("---\n"));
    prop::option::weighted(0.8, text)
}

proptest! {
    /// Looking at what was touched gives what looking at everything gives.
    #[test]
    fn each_batch_is_what_reading_everything_anew_gives(
        steps in prop::collection::vec((prop::collection::vec(file(), 3), 0..5_u8), 1..12),
    ) {
        let (mut catalog, mut plain) = (Catalog::default(), Plain::default());
        for (texts, what) in steps {
            let named = ["a/1.yaml", "a/2.yaml", "b.yaml"].into_iter().zip(&texts);
            let present: Vec<_> = named.filter_map(|(path, text)| Some((path, text.as_deref()?))).collect();
            let mut files = files(&present);
            if what == 0 {
                let origin = Origin { file: "a".into(), line: 0 };
                let reason = SourceReason::FileUnreadable;
                files.unreadable.push(SourceProblem { origin, reason, message: String::new() });
                files.contents.retain(|path, _| &**path == "b.yaml");
            }
            if what == 1 && let Some(state) = files.contents.values_mut().next() {
                *state = FileState::AsBefore;
            }
            let (events, ignored) = plain.update(&files);
            let batch = catalog.update(files);
            let told = batch.events.iter().map(|event| match event {
                Event::Delete(key) => format!("-{key}"),
                Event::Apply(reading) => format!("+{} {}", reading.key, reading.origin),
            });
            prop_assert_eq!(told.collect::<BTreeSet<_>>(), events);
            let duplicates = batch.problems.iter().filter(|problem| problem.reason == SourceReason::Duplicate);
            prop_assert_eq!(duplicates.map(|problem| problem.origin.clone()).collect::<BTreeSet<_>>(), ignored);
        }
    }
}
