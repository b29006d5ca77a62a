//! The last good configuration, kept on disk: a proxy that is restarted while control is away
//! serves by it.
//!
//! What a file may hold and when it is refused is in `format`, when it is written
//! in `keeper`; what is put in force is the proxy's decision. The file holds no keys. It has no age limit of its own: without control, certificates end within their
//! life, and nothing is served without them.

mod format;
mod keeper;

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use ambit_mesh::http::WaypointSnapshot;
use ambit_mesh::identity::TrustDomain;
use ambit_mesh::snapshot::{Change, Snapshot};
use nix::unistd::geteuid;
use tracing::{info, warn};

use crate::resources::Resource;

pub use format::Refused;
pub use keeper::{Keeper, keeper};

/// The file in the state directory that holds the last good configuration.
#[derive(Clone, Debug)]
pub struct LastGood {
    path: PathBuf,
    owner: Owner,
}

/// Whose configuration it is. That of another proxy, cluster or trust domain is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster.
    pub cluster_id: String,
    /// The node of an agent, or the Gateway of a waypoint.
    pub proxy: String,
    /// The trust domain.
    pub trust_domain: TrustDomain,
}

/// A configuration that was read back.
#[derive(Debug)]
pub struct Kept {
    /// What it says.
    pub changes: Vec<Change>,
    /// When it was written; whole seconds.
    pub written: SystemTime,
}

/// What can be kept: a configuration that was in force.
pub trait Configuration: Send + Sync + 'static {
    /// Everything that it says.
    fn resources(&self) -> impl Iterator<Item = Resource>;
}

impl Configuration for Snapshot {
    fn resources(&self) -> impl Iterator<Item = Resource> {
        let workloads = self.workloads().map(|workload| Resource::workload(workload));
        let services = self.services().map(|service| Resource::service(service));
        let policies = self.policies().map(|policy| Resource::policy(policy));
        let mesh = self.mesh().map(|mesh| Resource::mesh(mesh));
        workloads.chain(services).chain(policies).chain(mesh)
    }
}

impl Configuration for WaypointSnapshot {
    fn resources(&self) -> impl Iterator<Item = Resource> {
        let routes = self.routes().map(|route| Resource::route(route));
        let policies = self.policies().map(|policy| Resource::http_policy(policy));
        let subsets = self.subsets().map(|subset| Resource::subset(subset));
        self.mesh().resources().chain(routes).chain(policies).chain(subsets)
    }
}

impl LastGood {
    /// The file in this state directory.
    pub fn new(state_dir: &Path, owner: Owner) -> Self {
        Self { path: state_dir.join("last-good"), owner }
    }

    /// The configuration that an earlier run left, if there is one and it can be trusted; the log
    /// says which.
    pub fn take_up(&self, now: SystemTime) -> Option<Vec<Change>> {
        let path = self.path.display();
        match self.load() {
            Ok(Some(Kept { changes, written })) => {
                // Negative only if the clock was set back.
                let age = Duration::from_secs(now.duration_since(written).unwrap_or_default().as_secs());
                info!(
                    %path,
                    ?age,
                    resources = changes.len(),
                    "serving by the last good configuration of an earlier run until control answers"
                );
                Some(changes)
            }
            Ok(None) => None,
            Err(error) => {
                warn!(%error, "the last good configuration of an earlier run is not used: waiting for control");
                None
            }
        }
    }

    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// When it cannot be read, or when anything about it is wrong. Nothing of it is used then.
    pub fn load(&self) -> Result<Option<Kept>, LoadError> {
        let failed = |source| LoadError::Read { path: self.path.clone(), source };
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let metadata = file.metadata().map_err(failed)?;
        if metadata.uid() != geteuid().as_raw() || metadata.mode() & OTHERS_WRITE != 0 {
            return Err(LoadError::Rights { path: self.path.clone() });
        }
        let mut octets = Vec::new();
        file.read_to_end(&mut octets).map_err(failed)?;
        let kept = format::read(&octets, &self.owner);
        kept.map(Some).map_err(|source| LoadError::Refused { path: self.path.clone(), source })
    }

    /// Replaces the file: whenever the process or the machine stops, the old one is there or the
    /// new one, whole.
    ///
    /// # Errors
    /// When it cannot be written. The old one is still there then.
    pub fn save(&self, configuration: &impl Configuration, now: SystemTime) -> Result<(), SaveError> {
        let unfinished = self.path.with_extension("unfinished");
        let saved =
            self.write_to(&unfinished, configuration, now).and_then(|()| fs::rename(&unfinished, &self.path));
        saved.map_err(|source| SaveError { path: self.path.clone(), source })
    }

    fn write_to(&self, path: &Path, configuration: &impl Configuration, now: SystemTime) -> io::Result<()> {
        // Left by a crash, perhaps with other rights than those asked for below.
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = File::options().write(true).create_new(true).mode(OWNER_ONLY).open(path)?;
        let mut file = BufWriter::new(file);
        format::write(configuration, &self.owner, now, &mut file)?;
        file.flush()?;
        file.get_ref().sync_all()
    }
}

/// Why a configuration that is there is not used.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The system refuses.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Somebody else could have put policies of their own into it.
    #[error("others than this process's user own {} or may write to it: chown it, chmod it to 0600, or remove it", path.display())]
    Rights {
        /// The file.
        path: PathBuf,
    },
    /// What it holds cannot be trusted.
    #[error("{}: {source}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Refused,
    },
}

/// The configuration cannot be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}; is the state directory writable, and has it room?", path.display())]
pub struct SaveError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

const OWNER_ONLY: u32 = 0o600;

/// Rights of group and others to write.
const OTHERS_WRITE: u32 = 0o022;

#[cfg(test)]
mod tests;
