//! The files of an authority: reading them, and writing what must never be half-written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::authority::AuthorityError;
use super::parts::{Parts, Place};

/// The parts in a directory that an administrator made, such as a mounted Secret.
pub(super) fn plugged_in(directory: &Path) -> Result<Parts, AuthorityError> {
    Parts::named(|name| {
        let path = directory.join(name);
        let content = read_if_present(&path)?;
        Ok((Place::from(path.as_path()), content))
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, AuthorityError> {
    fs::read(path).map_err(|source| AuthorityError::Read { path: path.to_owned(), source })
}

pub(super) fn read_if_present(path: &Path) -> Result<Option<Vec<u8>>, AuthorityError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(AuthorityError::Read { path: path.to_owned(), source }),
    }
}

/// Where a file is while it is being written.
pub(super) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".unfinished");
    name.into()
}

/// Writes `path`'s content beside it, down to the disk; [`finish`] puts it in its place.
pub(super) fn prepare(path: &Path, content: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let aside = unfinished(path);
    let write = || -> io::Result<()> {
        remove_if_present(&aside)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&aside)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|source| AuthorityError::Write { path: path.to_owned(), source })
}

/// Puts what [`prepare`] wrote in its place, in one step that survives a power cut.
pub(super) fn finish(path: &Path) -> Result<(), AuthorityError> {
    let rename = || -> io::Result<()> {
        fs::rename(unfinished(path), path)?;
        path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
    };
    rename().map_err(|source| AuthorityError::Write { path: path.to_owned(), source })
}

fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
