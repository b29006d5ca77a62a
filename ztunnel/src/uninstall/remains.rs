//! The files of an agent that was uninstalled.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cni::install::{self, InstallError};
use crate::cni::list;
use crate::config::CniSettings;

/// A file stays.
#[derive(Debug, thiserror::Error)]
#[error("cannot remove {}: {source}", path.display())]
pub struct RemoveError {
    /// The file or directory.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Everything that an agent keeps in its state directory, by the beginning of its name. Others' files are
/// left alone: the directory may have been chosen unwisely.
const OURS: [&str; 6] = ["marks", "certificates", "last-good", "captured-namespaces", "handover.", "cni"];

/// Where an agent has put something on its node.
#[derive(Clone, Debug)]
pub struct Places {
    /// Its state directory.
    pub state_dir: PathBuf,
    /// Where it has installed the CNI plugin, and keeps the plugin's list.
    pub cni: CniSettings,
}

impl Places {
    /// Takes the plugin out of the node's chain.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn remove_plugin(&self) -> Result<(), InstallError> {
        match (&self.cni.cni_conf_dir, &self.cni.cni_bin_dir) {
            (Some(conf_dir), Some(bin_dir)) => install::uninstall(conf_dir, bin_dir),
            (_, _) => Ok(()),
        }
    }

    /// Removes all files. The directories stay: they are mounted.
    ///
    /// # Errors
    /// When something cannot be removed; the rest is removed all the same.
    pub fn remove_files(&self) -> Result<(), RemoveError> {
        let list = self.cni.plugin.cni_state_dir.iter().map(|directory| directory.join(list::FILE));
        let mut failed = None;
        for path in ours_in(&self.state_dir)?.into_iter().chain(list) {
            let is_directory = fs::symlink_metadata(&path).is_ok_and(|metadata| metadata.is_dir());
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    failed = Some(RemoveError { path, source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

fn ours_in(state_dir: &Path) -> Result<Vec<PathBuf>, RemoveError> {
    let entries =
        fs::read_dir(state_dir).map_err(|source| RemoveError { path: state_dir.to_owned(), source })?;
    let is_ours = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        OURS.iter().any(|ours| name.starts_with(ours))
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_ours).collect())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config::{Cli, Command};

    #[test]
    fn what_is_ours_goes_and_what_is_not_stays() {
        let state = tempfile::tempdir().unwrap();
        for directory in ["marks", "certificates", "somebody"] {
            fs::create_dir(state.path().join(directory)).unwrap();
            fs::write(state.path().join(directory).join("file"), "x").unwrap();
        }
        for file in
            ["last-good", "last-good.unfinished", "handover.sock", "cni.sock", "cni-list.json", "other"]
        {
            fs::write(state.path().join(file), "x").unwrap();
        }
        let kept = tempfile::tempdir().unwrap();
        fs::write(kept.path().join(list::FILE), "[]").unwrap();
        let arguments = ["ztunnel", "run", "--node", "n1", "--cni-state-dir", kept.path().to_str().unwrap()];
        let Command::Run(config) = Cli::parse_from(arguments).command else {
            unreachable!("it was asked to run")
        };
        let places = Places { state_dir: state.path().to_owned(), cni: config.cni };
        places.remove_plugin().unwrap();
        places.remove_files().unwrap();
        assert_eq!(fs::read_dir(kept.path()).unwrap().count(), 0);
        let mut left: Vec<_> =
            fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["other", "somebody"]);
    }
}
