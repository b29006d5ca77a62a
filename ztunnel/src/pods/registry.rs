//! Which network namespaces this node's agents have captured, for `ztunnel uninstall`.
//!
//! One file in the state directory, a path a line. It may name namespaces that are gone.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The list of captured namespaces.
#[derive(Clone, Debug)]
pub struct Registry {
    file: PathBuf,
}

/// The list cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the list of captured pods in {}: {source}; is the state directory writable?", path.display())]
pub struct RegistryError {
    /// The file.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl Registry {
    /// The list in this state directory.
    pub fn new(state_dir: &Path) -> Self {
        Self { file: state_dir.join("captured-namespaces") }
    }

    /// Adds a namespace.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn note(&self, namespace: &Path) -> Result<(), RegistryError> {
        self.change(|paths| paths.insert(namespace.to_owned()))
    }

    /// Removes a namespace.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn forget(&self, namespace: &Path) -> Result<(), RegistryError> {
        self.change(|paths| paths.remove(namespace))
    }

    /// All namespaces.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn list(&self) -> Result<BTreeSet<PathBuf>, RegistryError> {
        match fs::read_to_string(&self.file) {
            Ok(text) => Ok(text.lines().map(PathBuf::from).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeSet::new()),
            Err(source) => Err(RegistryError { path: self.file.clone(), source }),
        }
    }

    fn change(&self, change: impl FnOnce(&mut BTreeSet<PathBuf>) -> bool) -> Result<(), RegistryError> {
        let mut paths = self.list()?;
        if !change(&mut paths) {
            return Ok(());
        }
        let text: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
        let unfinished = self.file.with_extension("unfinished");
        let written = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, &self.file));
        written.map_err(|source| RegistryError { path: self.file.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_listed_until_they_are_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let registry = Registry::new(state.path());
        assert!(registry.list().unwrap().is_empty());
        for path in ["/run/netns/b", "/run/netns/a", "/run/netns/b"] {
            registry.note(Path::new(path)).unwrap();
        }
        registry.forget(Path::new("/run/netns/b")).unwrap();
        assert_eq!(registry.list().unwrap(), BTreeSet::from([PathBuf::from("/run/netns/a")]));
    }
}
