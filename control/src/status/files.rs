//! Keeps a directory of status files equal to a set of documents, touching only what differs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::state::{self, Access, StateError};

/// The status directory.
#[derive(Debug)]
pub struct StatusFiles {
    directory: PathBuf,
    /// What is on disk, by path below the directory.
    written: BTreeMap<PathBuf, String>,
}

impl StatusFiles {
    /// Takes over a directory with whatever an earlier run left in it.
    ///
    /// # Errors
    /// When it cannot be made or read.
    pub fn open(directory: PathBuf) -> Result<Self, StateError> {
        state::make_directory(&directory, Access::Public)?;
        let mut files = Self { directory, written: BTreeMap::new() };
        files.load(&files.directory.clone())?;
        Ok(files)
    }

    /// Writes what differs and removes what is not among the documents. A file that cannot be
    /// written is logged and tried again the next time.
    pub fn write(&mut self, documents: BTreeMap<PathBuf, String>) {
        let gone: Vec<_> =
            self.written.keys().filter(|path| !documents.contains_key(*path)).cloned().collect();
        for path in gone {
            self.remove(&path);
        }
        for (path, content) in documents {
            if self.written.get(&path) == Some(&content) {
                continue;
            }
            match self.put(&path, &content) {
                Ok(()) => {
                    self.written.insert(path, content);
                }
                Err(error) => tracing::warn!(%error, cause = %error.source, "status not written"),
            }
        }
    }

    fn put(&self, path: &Path, content: &str) -> Result<(), StateError> {
        let path = self.directory.join(path);
        if let Some(parent) = path.parent() {
            state::make_directory(parent, Access::Public)?;
        }
        state::write(&path, content, Access::Public)
    }

    /// Directories stay: another object may be written into one at the same time.
    fn remove(&mut self, path: &Path) {
        match fs::remove_file(self.directory.join(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "status not removed");
            }
            Ok(()) | Err(_) => {
                self.written.remove(path);
            }
        }
    }

    fn load(&mut self, directory: &Path) -> Result<(), StateError> {
        let entries = fs::read_dir(directory).map_err(StateError::during("cannot read", directory))?;
        for entry in entries {
            let path = entry.map_err(StateError::during("cannot read", directory))?.path();
            if path.is_dir() {
                self.load(&path)?;
            } else if let Ok(name) = path.strip_prefix(&self.directory) {
                // What cannot be read is not what should be there.
                let content = fs::read_to_string(&path).unwrap_or_default();
                self.written.insert(name.to_owned(), content);
            }
        }
        Ok(())
    }
}
