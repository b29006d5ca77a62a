//! Files of the state directory, written so that a reader sees the old or the new content, never
//! half of one.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

mod file_set;

pub use file_set::FileSet;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only the user that control runs as.
    Private,
    /// Everyone.
    Public,
}

impl Access {
    fn file_mode(self) -> u32 {
        match self {
            Self::Private => 0o600,
            Self::Public => 0o644,
        }
    }

    fn directory_mode(self) -> u32 {
        match self {
            Self::Private => 0o700,
            Self::Public => 0o755,
        }
    }
}

/// A file of the state directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} {}: check owner and mode of the state directory", path.display())]
pub struct StateError {
    /// What was tried.
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl StateError {
    /// For `map_err`.
    pub fn during(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { action, path, source }
    }
}

/// Makes a directory and those above it.
///
/// # Errors
/// When that is not possible.
pub fn make_directory(path: &Path, access: Access) -> Result<(), StateError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(access.directory_mode())
        .create(path)
        .map_err(StateError::during("cannot make", path))
}

/// Replaces the content of a file.
///
/// # Errors
/// When it cannot be written beside the file, or not put in its place.
pub fn write(path: &Path, content: &str, access: Access) -> Result<(), StateError> {
    let temporary = temporary(path);
    write_temporary(&temporary, content, access).map_err(StateError::during("cannot write", &temporary))?;
    fs::rename(&temporary, path).map_err(StateError::during("cannot replace", path))
}

/// A name that no reader takes for the file itself.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.new"))
}

fn write_temporary(path: &Path, content: &str, access: Access) -> io::Result<()> {
    let mode = access.file_mode();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    // A file left by an interrupted write keeps its old mode otherwise.
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content.as_bytes())
}
