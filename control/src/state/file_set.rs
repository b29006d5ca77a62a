//! Keeps a directory equal to a set of documents, touching only what differs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Access, StateError, make_directory, write};
use crate::source::reading::hash;

/// A directory that holds nothing but a set of documents.
#[derive(Debug)]
pub struct FileSet {
    directory: PathBuf,
    access: Access,
    /// Hashes of what is on disk, by path below the directory.
    written: BTreeMap<PathBuf, u64>,
}

impl FileSet {
    /// Takes over a directory, and returns what an earlier run left in it, by path below it.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(directory: PathBuf, access: Access) -> Result<(Self, BTreeMap<PathBuf, String>), StateError> {
        make_directory(&directory, access)?;
        let mut found = BTreeMap::new();
        load(&directory, &directory, &mut found)?;
        let written = found.iter().map(|(path, content)| (path.clone(), hash(content))).collect();
        Ok((Self { directory, access, written }, found))
    }

    /// Writes what differs and removes what is not among the documents. A file that cannot be
    /// written is logged and tried again the next time.
    pub fn write(&mut self, documents: &BTreeMap<PathBuf, String>) {
        let gone: Vec<_> =
            self.written.keys().filter(|path| !documents.contains_key(*path)).cloned().collect();
        for path in gone {
            self.remove(&path);
        }
        for (path, content) in documents {
            self.write_if_different(path, content);
        }
    }

    /// Writes one document, or removes it if there is none, and leaves all others as they are.
    pub fn write_one(&mut self, path: PathBuf, content: Option<String>) {
        match content {
            Some(content) => self.write_if_different(&path, &content),
            None if self.written.contains_key(&path) => self.remove(&path),
            None => {}
        }
    }

    fn write_if_different(&mut self, path: &Path, content: &str) {
        let hash = hash(content);
        if self.written.get(path) == Some(&hash) {
            return;
        }
        match self.put(path, content) {
            Ok(()) => {
                self.written.insert(path.to_owned(), hash);
            }
            Err(error) => tracing::warn!(%error, cause = %error.source, "state not written"),
        }
    }

    fn put(&self, path: &Path, content: &str) -> Result<(), StateError> {
        let path = self.directory.join(path);
        if let Some(parent) = path.parent() {
            make_directory(parent, self.access)?;
        }
        write(&path, content, self.access)
    }

    fn remove(&mut self, path: &Path) {
        let file = self.directory.join(path);
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %file.display(), %error, "state not removed");
            }
            Ok(()) | Err(_) => {
                self.written.remove(path);
                self.remove_empty_parents(&file);
            }
        }
    }

    fn remove_empty_parents(&self, file: &Path) {
        let parents = file.ancestors().skip(1).take_while(|parent| *parent != self.directory);
        for parent in parents {
            // Fails when it is not empty, which ends the way up.
            if fs::remove_dir(parent).is_err() {
                return;
            }
        }
    }
}

fn load(root: &Path, directory: &Path, found: &mut BTreeMap<PathBuf, String>) -> Result<(), StateError> {
    for entry in fs::read_dir(directory).map_err(StateError::during("cannot read", directory))? {
        let path = entry.map_err(StateError::during("cannot read", directory))?.path();
        if path.is_dir() {
            load(root, &path, found)?;
        } else if let Ok(name) = path.strip_prefix(root) {
            // What cannot be read is not what should be there: it is written anew or removed.
            found.insert(name.to_owned(), fs::read_to_string(&path).unwrap_or_default());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_follows_its_documents() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("set");
        let set = |rows: &[(&str, &str)]| -> BTreeMap<PathBuf, String> {
            rows.iter().map(|(path, content)| (path.into(), (*content).to_owned())).collect()
        };
        let on_disk = || FileSet::open(root.clone(), Access::Private).unwrap().1;

        let (mut files, left) = FileSet::open(root.clone(), Access::Private).unwrap();
        assert!(left.is_empty());
        files.write(&set(&[("a/b/c.json", "1"), ("d.json", "2")]));
        assert_eq!(on_disk(), set(&[("a/b/c.json", "1"), ("d.json", "2")]));

        // What an earlier run left and nobody asks for any more goes, with its directories.
        let (mut files, _) = FileSet::open(root.clone(), Access::Private).unwrap();
        files.write(&set(&[("d.json", "3")]));
        assert_eq!(on_disk(), set(&[("d.json", "3")]));
        assert!(!root.join("a").exists());
    }
}
