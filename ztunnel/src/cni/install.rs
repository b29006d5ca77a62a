//! Brings the plugin into the node's chain, and out of it.
//!
//! The program is copied to where the runtime looks for plugins, and named in the network configuration
//! that the runtime uses. What to write is decided by `chain`, as texts from texts; `keeper` sees to it
//! that it stays so while the agent runs, and `repairs` when it has to give way.

mod chain;
mod keeper;
mod list_text;
mod repairs;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::json;

pub use chain::{Chained, Change, Waiting};
pub use keeper::Keeper;

use super::{PROGRAM, SOCKET, list};
use crate::config::{CniDirectories, CniPluginSettings};

/// Where the plugin goes and what it is told.
#[derive(Clone, Debug)]
pub struct Installation {
    /// The program to copy.
    pub program: PathBuf,
    /// The directory of network configurations that the runtime reads.
    pub conf_dir: PathBuf,
    /// The directory in which the runtime looks for plugins.
    pub bin_dir: PathBuf,
    /// The configuration to extend; the first by name, as the runtime chooses, where none is named.
    pub conf_name: Option<String>,
    /// What the plugin is told.
    pub settings: PluginSettings,
}

/// What the plugin is told in its part of the network configuration.
#[derive(Clone, Debug)]
pub struct PluginSettings {
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// Where the list of enrolled namespaces survives a reboot.
    pub list_dir: Option<PathBuf>,
    /// The namespace that the mesh itself runs in.
    pub mesh_namespace: String,
    /// Namespaces whose pods the cluster cannot do without.
    pub system_namespaces: Vec<String>,
    /// How long a call may take.
    pub timeout: Duration,
}

impl PluginSettings {
    /// As the command line says.
    pub fn new(plugin: &CniPluginSettings, state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            list_dir: plugin.cni_state_dir.clone(),
            mesh_namespace: plugin.namespace.clone(),
            system_namespaces: plugin.cni_system_namespaces.clone(),
            timeout: plugin.cni_timeout,
        }
    }

    /// The files of the list, the one to read first coming first.
    pub fn lists(&self) -> Vec<PathBuf> {
        let directories = std::iter::once(&self.state_dir).chain(&self.list_dir);
        directories.map(|directory| directory.join(list::FILE)).collect()
    }

    /// The plugin's part of the network configuration, a JSON object.
    fn to_json(&self) -> serde_json::Value {
        json!({
            "type": PROGRAM,
            "socket": self.state_dir.join(SOCKET),
            "lists": self.lists(),
            "meshNamespace": self.mesh_namespace,
            "systemNamespaces": self.system_namespaces,
            "timeoutSeconds": self.timeout.as_secs().max(1),
            "logFile": self.state_dir.join("cni.log"),
        })
    }
}

/// The program that runs.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// Why the plugin is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written or removed.
    #[error("cannot change {}: {source}; is the directory mounted writable?", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// There is nothing to be chained to.
    #[error("{}: {waiting}", directory.display())]
    Nothing {
        /// Where configurations are looked for.
        directory: PathBuf,
        /// What is missing.
        waiting: Waiting,
    },
}

/// Installs the plugin once; the file that names it now.
///
/// # Errors
/// When there is no network configuration so far, or when something cannot be written.
pub fn install(installation: &Installation) -> Result<String, InstallError> {
    copy_program(&installation.program, &installation.bin_dir)?;
    let files = read_files(&installation.conf_dir)?;
    let nothing = |waiting| InstallError::Nothing { directory: installation.conf_dir.clone(), waiting };
    let Chained { file, changes } = installation.chained(&files, chain::Present::Renewed).map_err(nothing)?;
    apply(&installation.conf_dir, &files, &changes)?;
    Ok(file)
}

/// Takes the plugin out of every network configuration, then removes its program. What others have
/// written stays as it is.
///
/// # Errors
/// When something cannot be changed. The program is there as long as a configuration may name it.
pub fn uninstall(conf_dir: &Path, bin_dir: &Path) -> Result<(), InstallError> {
    let files = read_files(conf_dir)?;
    apply(conf_dir, &files, &chain::unchained(&files))?;
    remove(&bin_dir.join(PROGRAM))
}

impl Installation {
    /// As the command line says. The plugin finds the agent in `state_dir`.
    pub fn new(directories: &CniDirectories, plugin: &CniPluginSettings, state_dir: PathBuf) -> Self {
        Self {
            program: OWN_PROGRAM.into(),
            conf_dir: directories.cni_conf_dir.clone(),
            bin_dir: directories.cni_bin_dir.clone(),
            conf_name: plugin.cni_conf_name.clone(),
            settings: PluginSettings::new(plugin, state_dir),
        }
    }

    /// What has to change for the plugin to be in the chain.
    fn chained(&self, files: &BTreeMap<String, String>, present: chain::Present) -> Result<Chained, Waiting> {
        chain::chained(files, self.conf_name.as_deref(), &self.settings.to_json(), present)
    }
}

/// The network configurations of a directory by name. A directory that is not there has none.
fn read_files(directory: &Path) -> Result<BTreeMap<String, String>, InstallError> {
    let failed = |path: &Path, source| InstallError::Read { path: path.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries.map_err(|source| failed(directory, source))?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|source| failed(directory, source))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if !chain::is_configuration(name) || !path.is_file() {
            continue;
        }
        match fs::read_to_string(&path) {
            Ok(text) => drop(files.insert(name.to_owned(), text)),
            // It was there a moment ago.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // The runtime cannot read it, either.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(source) => return Err(failed(&path, source)),
        }
    }
    Ok(files)
}

fn apply(directory: &Path, read: &BTreeMap<String, String>, changes: &[Change]) -> Result<(), InstallError> {
    for change in changes {
        match change {
            Change::Remove(name) => remove(&directory.join(name))?,
            Change::Write(name, text) => {
                let path = directory.join(name);
                let failed = |source| InstallError::Write { path: path.clone(), source };
                replace_text(&path, read.get(name).map(String::as_str), text).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Puts a whole text in place of the one that was read. If somebody has written another meanwhile, that
/// stays, and is looked at anew.
fn replace_text(path: &Path, read: Option<&str>, text: &str) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // No ending that a runtime looks for.
    let unfinished = path.with_file_name(format!(".{name}.ambit-unfinished"));
    let _ = fs::remove_file(&unfinished);
    let mut file = File::options().write(true).create_new(true).mode(0o644).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    if let Ok(before) = fs::metadata(path) {
        file.set_permissions(fs::Permissions::from_mode(before.mode() & 0o7777))?;
        // The runtime is root and reads it in any case.
        let _ = chown(&unfinished, Some(before.uid()), Some(before.gid()));
    }
    file.sync_all()?;
    if fs::read_to_string(path).ok().as_deref() != read {
        fs::remove_file(&unfinished)?;
        return Err(io::Error::other("somebody else has just written it"));
    }
    fs::rename(&unfinished, path)?;
    sync_directory(path)
}

/// Copies the program to where the runtime finds it, if it is not there in the same form.
///
/// # Errors
/// When it cannot be written.
fn copy_program(program: &Path, bin_dir: &Path) -> Result<(), InstallError> {
    let path = bin_dir.join(PROGRAM);
    let failed = |source| InstallError::Write { path: path.clone(), source };
    if is_same(program, &path) {
        return Ok(());
    }
    fs::create_dir_all(bin_dir).map_err(failed)?;
    let unfinished = bin_dir.join(format!(".{PROGRAM}.unfinished"));
    let _ = fs::remove_file(&unfinished);
    let written = || {
        // Under another name first: a program that runs cannot be written to, and half of one not run.
        let mut file = File::options().write(true).create_new(true).mode(0o755).open(&unfinished)?;
        io::copy(&mut File::open(program)?, &mut file)?;
        file.set_permissions(fs::Permissions::from_mode(0o755))?;
        file.sync_all()?;
        fs::rename(&unfinished, &path)?;
        sync_directory(&path)
    };
    written().map_err(failed)
}

/// Whether two files have the same content.
fn is_same(one: &Path, other: &Path) -> bool {
    let length = |path: &Path| fs::metadata(path).ok().map(|metadata| metadata.len());
    length(one) == length(other) && digest(one).is_ok_and(|content| Some(content) == digest(other).ok())
}

/// A program is not held in memory as a whole for this.
fn digest(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut part = vec![0; 64 << 10];
    loop {
        match file.read(&mut part)? {
            0 => return Ok(context.finish().as_ref().to_vec()),
            length => context.update(part.get(..length).unwrap_or_default()),
        }
    }
}

fn remove(path: &Path) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(InstallError::Write { path: path.to_owned(), source })
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

#[cfg(test)]
mod tests;
