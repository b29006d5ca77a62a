//! Writes the host's list when it changes.
//!
//! A list gets shorter only by what control says of the whole mesh. A control that says nothing of it
//! (another vendor's), or has not done so up to now, makes it longer at most: a namespace is not
//! forgotten because its last pod has left the node.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ambit_mesh::snapshot::Snapshot;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

use super::{enrolled, read_file, write_file};
use crate::state::SnapshotReader;

/// Where the list is kept, for one node.
#[derive(Debug)]
pub struct Keeper {
    node: String,
    places: Vec<PathBuf>,
    /// What all of the places hold; `None` as long as that is not known.
    written: Option<BTreeSet<Arc<str>>>,
}

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(10);

impl Keeper {
    /// Keeps the list of `node` in these files, which the plugin reads in their order.
    pub fn new(node: String, places: Vec<PathBuf>) -> Self {
        Self { node, places, written: None }
    }

    /// Follows the snapshots until their writer is gone. `first` is told when the list is there.
    pub async fn run(mut self, mut snapshots: SnapshotReader, first: oneshot::Sender<()>) {
        let mut first = Some(first);
        loop {
            let is_kept = snapshots.load().is_none_or(|snapshot| self.keep(&snapshot));
            if self.written.is_some()
                && let Some(first) = first.take()
            {
                // Nobody may wait for it.
                let _ = first.send(());
            }
            // Cancelling loses nothing: the next snapshot is looked at as a whole.
            let more = if is_kept {
                snapshots.changed().await
            } else {
                timeout(RETRY, snapshots.changed()).await.unwrap_or(true)
            };
            if !more {
                return;
            }
        }
    }

    /// Writes what follows from a snapshot where that is not what was written; whether it is there.
    fn keep(&mut self, snapshot: &Snapshot) -> bool {
        let mut namespaces = enrolled(snapshot, &self.node);
        if snapshot.mesh().is_none() {
            namespaces.extend(self.before());
        }
        if self.written.as_ref() == Some(&namespaces) {
            return true;
        }
        // The one that is read first is written last: it is never newer than the others.
        for place in self.places.iter().rev() {
            if let Err(error) = write_file(place, &namespaces) {
                self.written = None;
                let path = place.display();
                warn!(%path, %error, "the list of enrolled namespaces is not written: trying again");
                return false;
            }
        }
        info!(namespaces = namespaces.len(), "the list of enrolled namespaces is written");
        self.written = Some(namespaces);
        true
    }

    /// What is listed already.
    fn before(&self) -> BTreeSet<Arc<str>> {
        match &self.written {
            Some(written) => written.clone(),
            // Every good copy counts: one of them may be older.
            None => {
                let listed = self.places.iter().filter_map(|place| read_file(place).ok()?).flatten();
                listed.map(Arc::from).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use ambit_mesh::mesh::Mesh;
    use ambit_mesh::snapshot::{Change, State};

    use super::super::{FILE, read};
    use super::*;
    use crate::cni::verdict::Listed;

    fn snapshot(changes: impl IntoIterator<Item = Change>) -> Arc<Snapshot> {
        let mut state = State::default();
        state.apply(changes);
        state.snapshot()
    }

    fn told(namespaces: &[&str]) -> Arc<Snapshot> {
        let namespaces = namespaces.iter().map(|name| Arc::from(*name));
        snapshot([Change::Mesh(Arc::new(Mesh::new(namespaces, [])))])
    }

    fn listed(names: &[&str]) -> Listed {
        Listed::Namespaces(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_list_is_in_every_place_and_is_written_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let places: Vec<PathBuf> = ["run", "var"].map(|name| directory.path().join(name).join(FILE)).into();
        let each = || places.iter().map(|place| read(std::slice::from_ref(place))).collect::<Vec<_>>();
        let inode = || fs::metadata(&places[0]).unwrap().ino();
        let mut keeper = Keeper::new("n1".to_owned(), places.clone());
        assert!(keeper.keep(&told(&["shop"])));
        assert_eq!(each(), [listed(&["shop"]), listed(&["shop"])]);
        let before = inode();
        assert!(keeper.keep(&told(&["shop"])));
        assert_eq!(inode(), before, "not written again");
        assert!(keeper.keep(&told(&[])));
        assert_eq!(each(), [listed(&[]), listed(&[])]);
    }

    #[test]
    fn without_word_of_the_mesh_the_list_never_gets_shorter() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join(FILE);
        let listed_now = || read(std::slice::from_ref(&place));
        Keeper::new("n1".to_owned(), vec![place.clone()]).keep(&told(&["shop"]));
        let mut successor = Keeper::new("n1".to_owned(), vec![place.clone()]);
        successor.keep(&snapshot([]));
        assert_eq!(listed_now(), listed(&["shop"]));
        successor.keep(&told(&["bank"]));
        successor.keep(&snapshot([]));
        assert_eq!(listed_now(), listed(&["bank"]));
    }

    #[test]
    fn what_cannot_be_written_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let (good, bad) = (directory.path().join(FILE), directory.path().join("var"));
        fs::write(&bad, "not a directory").unwrap();
        let mut keeper = Keeper::new("n1".to_owned(), vec![good.clone(), bad.join(FILE)]);
        assert!(!keeper.keep(&told(&["shop"])));
        assert_eq!(read(std::slice::from_ref(&good)), Listed::Nothing, "read first, written last");
        fs::remove_file(&bad).unwrap();
        assert!(keeper.keep(&told(&["shop"])));
        assert_eq!(read(&[good]), listed(&["shop"]));
    }
}
