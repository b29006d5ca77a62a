//! What the program does without an agent: closing one pod, and opening all of them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::agent::backend;
use crate::capture::marks::{MarkStore, MarkStoreError};
use crate::capture::netns::{NamespaceError, NetworkNamespace, NetworkNamespaceId};
use crate::capture::node::NodeNetwork;
use crate::capture::rules::{Exclusions, RuleSet};
use crate::capture::{self, DetectError, EnrollError};
use crate::config::{CaptureConfig, UninstallConfig};
use crate::pods::registry::{Registry, RegistryError};

/// Why a pod could not be closed or opened.
#[derive(Debug, thiserror::Error)]
pub enum OneshotError {
    /// The namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The marks.
    #[error(transparent)]
    Marks(#[from] MarkStoreError),
    /// The list of namespaces.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Neither backend works.
    #[error(transparent)]
    Detect(#[from] DetectError),
    /// The rules.
    #[error("{}: {source}", namespace.display())]
    Rules {
        /// Where.
        namespace: PathBuf,
        /// The cause.
        #[source]
        source: EnrollError,
    },
    /// The node's processes cannot be listed.
    #[error("cannot list the node's processes in {}: is its /proc mounted there?", path.display())]
    HostProc {
        /// Where.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Installs a pod's redirection without listeners: its connections are refused until an agent
/// serves it.
///
/// # Errors
/// See [`OneshotError`].
pub fn capture(config: &CaptureConfig) -> Result<(), OneshotError> {
    let netns = NetworkNamespace::open(&config.netns)?;
    let marks =
        MarkStore::open(&config.state_dir)?.load_or_create(&config.pod_uid, &mut StdRng::from_os_rng())?;
    Registry::new(&config.state_dir).note(&config.netns)?;
    let ipv6 = netns.has_ipv6()?;
    let rules = RuleSet { marks, exclusions: Exclusions::default(), probe_ports: BTreeSet::new(), ipv6 };
    let captured = capture::enroll(&netns, &rules, backend(config.capture)?);
    captured.map(|_| ()).map_err(|source| OneshotError::Rules { namespace: config.netns.clone(), source })
}

/// Removes the redirection of every pod that was captured on this node: those that the state directory
/// names, and with the node's `/proc` every network namespace that has something of ours. Connections
/// that are still captured are reset; new ones are no longer protected. `opened` is told of each
/// namespace from which something was removed.
///
/// # Errors
/// When rules could not be removed; the other pods are done all the same.
pub fn uninstall(config: &UninstallConfig, mut opened: impl FnMut(&Path)) -> Result<(), OneshotError> {
    let registry = Registry::new(&config.state_dir);
    let mut failed = None;
    for namespace in registry.list()? {
        match open_named(&namespace) {
            Ok(removed) => {
                registry.forget(&namespace)?;
                removed.then(|| opened(&namespace));
            }
            Err(error) => failed = Some(error),
        }
    }
    if let Some(host_proc) = &config.host_proc {
        let not_pods = NodeNetwork::open(config.host_netns.as_deref())?.not_pods()?;
        for path in namespaces(host_proc, &not_pods)? {
            match open_found(&path) {
                Ok(true) => opened(&path),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Opens the pod at a path; the pod, and its rules with it, may be gone.
fn open_named(namespace: &Path) -> Result<bool, OneshotError> {
    if !namespace.exists() {
        return Ok(false);
    }
    open(&NetworkNamespace::open(namespace)?)
}

/// Opens a namespace that was seen; what has ended since needs nothing.
fn open_found(path: &Path) -> Result<bool, OneshotError> {
    match NetworkNamespace::open(path) {
        Ok(namespace) => open(&namespace),
        Err(NamespaceError::Open { .. } | NamespaceError::NotANamespace { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes what is ours from a namespace; says whether there was anything.
fn open(netns: &NetworkNamespace) -> Result<bool, OneshotError> {
    let rules = |source| OneshotError::Rules { namespace: netns.path().to_owned(), source };
    if !capture::has_traces(netns).map_err(rules)? {
        return Ok(false);
    }
    capture::remove(netns).map_err(rules)?;
    Ok(true)
}

/// A path to each network namespace of the node that may be a pod's: those of its processes, and those
/// that a runtime keeps without one.
fn namespaces(host_proc: &Path, not_pods: &[NetworkNamespaceId]) -> Result<Vec<PathBuf>, OneshotError> {
    let listed = fs::read_dir(host_proc)
        .map_err(|source| OneshotError::HostProc { path: host_proc.to_owned(), source })?;
    let is_process = |name: &str| name.bytes().all(|octet| octet.is_ascii_digit());
    let of_processes = listed
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_process))
        .map(|entry| entry.path().join("ns/net"));
    let kept = fs::read_dir(host_proc.join(KEPT)).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut seen: BTreeSet<NetworkNamespaceId> = not_pods.iter().copied().collect();
    let is_new = |path: &PathBuf| {
        let id = fs::metadata(path).map(|file| NetworkNamespaceId { device: file.dev(), inode: file.ino() });
        id.is_ok_and(|id| seen.insert(id))
    };
    Ok(of_processes.chain(kept).filter(is_new).collect())
}

/// Where container runtimes mount the namespaces of sandboxes, as the node's first process sees it.
const KEPT: &str = "1/root/run/netns";
