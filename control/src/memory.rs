//! The last good version of every object, on disk: a restart of control while a document is broken
//! must not forget it. A Namespace that is forgotten would take its pods out of the mesh.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use crate::inputs::{Entry, Inputs};
use crate::objects::ObjectKey;
use crate::source::{Content, Origin, Reading, reading};
use crate::state::{Access, FileSet, StateError};

/// Begins the line before a remembered document, which says where it was written.
const ORIGIN: &str = "# from ";

/// The directory of last good versions.
#[derive(Debug)]
pub struct Memory {
    files: FileSet,
    /// Whether the directory holds what is in force, and nothing else.
    is_kept: bool,
}

impl Memory {
    /// Opens the directory, and returns inputs that remember what is in it.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(directory: PathBuf) -> Result<(Inputs, Self), StateError> {
        // Objects may hold secrets, such as a pod's environment.
        let (files, found) = FileSet::open(directory, Access::Private)?;
        let inputs = Inputs::remembering(found.values().filter_map(|text| recall(text)));
        Ok((inputs, Self { files, is_kept: false }))
    }

    /// Remembers what is in force now, of which `changed` may be other than at the last call.
    pub fn keep(&mut self, inputs: &Inputs, changed: &BTreeSet<ObjectKey>) {
        let document = |entry: &Entry| {
            let Reading { origin: Origin { file, line }, text, .. } = &**entry.good()?;
            text.as_ref().map(|text| format!("{ORIGIN}{file}:{line}\n{text}"))
        };
        if std::mem::replace(&mut self.is_kept, true) {
            for key in changed {
                self.files.write_one(key.path("yaml"), inputs.entry(key).and_then(document));
            }
            return;
        }
        // The first time: whatever else an earlier run left goes.
        let good = inputs.entries().filter_map(|(key, entry)| Some((key.path("yaml"), document(entry)?)));
        self.files.write(&good.collect());
    }
}

/// The object of a remembered document; `None` when this version of control cannot read it.
fn recall(text: &str) -> Option<Reading> {
    let (first, document) = text.split_once('\n')?;
    let (file, line) = first.strip_prefix(ORIGIN)?.rsplit_once(':')?;
    let origin = Origin { file: file.into(), line: line.parse().ok()? };
    let found = reading::read(&Arc::from(file), document).readings.into_iter().next()?;
    let is_good = matches!(found.content, Content::Object(_));
    is_good.then(|| Reading { origin, ..Arc::unwrap_or_clone(found) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inputs::InForce;
    use crate::source::catalog::{Catalog, FileState, Files};

    const GOOD: &str = "apiVersion: v1\nkind: List\nitems:\n\
        - {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio.io/dataplane-mode: ambient}}}\n\
        - {apiVersion: v1, kind: Node, metadata: {name: node-a}}\n---\n\
        apiVersion: v1\nkind: Node\nmetadata: {name: node-b}\n";

    const BROKEN: &str = "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: shop\n  labels: [\n---\n\
        apiVersion: v1\nkind: Node\nmetadata:\n  name: node-c\nspec: [\n";

    fn everything(inputs: &Inputs) -> BTreeSet<ObjectKey> {
        inputs.entries().map(|(key, _)| key.clone()).collect()
    }

    fn apply(inputs: &mut Inputs, text: &str) {
        let content = reading::read(&"all.yaml".into(), text);
        let contents = [("all.yaml".into(), FileState::Read(content))].into();
        inputs.apply(Catalog::default().update(Files { contents, unreadable: Vec::new() }));
    }

    #[test]
    fn a_restart_remembers_what_cannot_be_read_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last-good");
        let (mut inputs, mut memory) = Memory::open(path.clone()).unwrap();
        apply(&mut inputs, GOOD);
        memory.keep(&inputs, &everything(&inputs));

        for _restart in 0..2 {
            let (mut inputs, mut memory) = Memory::open(path.clone()).unwrap();
            apply(&mut inputs, BROKEN);
            memory.keep(&inputs, &everything(&inputs));
            let in_force: Vec<_> = inputs
                .entries()
                .map(|(key, entry)| match &entry.in_force {
                    InForce::LastGood(good) => format!("{key} from {}", good.origin),
                    InForce::AsWritten | InForce::Closed | InForce::Nothing => {
                        format!("{key} {:?}", entry.in_force)
                    }
                })
                .collect();
            assert_eq!(in_force, ["Namespace shop from all.yaml:1", "Node node-c Nothing"]);
        }
    }

    #[test]
    fn a_change_is_remembered_and_what_it_does_not_touch_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last-good");
        let on_disk =
            || FileSet::open(path.clone(), Access::Private).unwrap().1.into_keys().collect::<Vec<_>>();
        let (mut inputs, mut memory) = Memory::open(path.clone()).unwrap();
        let mut catalog = Catalog::default();
        let mut step = |text: &str| {
            let content = reading::read(&"all.yaml".into(), text);
            let contents = [("all.yaml".into(), FileState::Read(content))].into();
            let batch = catalog.update(Files { contents, unreadable: Vec::new() });
            let changed = batch.events.iter().map(|event| event.key().clone()).collect();
            inputs.apply(batch);
            memory.keep(&inputs, &changed);
        };
        step(GOOD);
        assert_eq!(on_disk().len(), 3);
        step("apiVersion: v1\nkind: Node\nmetadata: {name: node-b}\n");
        assert_eq!(on_disk(), [std::path::Path::new("Node/node-b.yaml")]);
        step(GOOD);
        assert_eq!(on_disk().len(), 3);
    }

    #[test]
    fn nothing_is_remembered_of_what_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("last-good");
        let (mut inputs, mut memory) = Memory::open(path.clone()).unwrap();
        apply(&mut inputs, GOOD);
        memory.keep(&inputs, &everything(&inputs));

        let (mut inputs, mut memory) = Memory::open(path).unwrap();
        apply(&mut inputs, "");
        apply(&mut inputs, BROKEN);
        memory.keep(&inputs, &everything(&inputs));
        assert!(inputs.entries().all(|(_, entry)| entry.object().is_none()));
    }
}
