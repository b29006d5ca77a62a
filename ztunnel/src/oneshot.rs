//! What the program does without an agent: closing one pod, and opening all of them.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::agent::backend;
use crate::capture::marks::{MarkStore, MarkStoreError};
use crate::capture::netns::{NamespaceError, NetworkNamespace};
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
    let rules = RuleSet { marks, exclusions: Exclusions::default(), ipv6: netns.has_ipv6()? };
    let captured = capture::enroll(&netns, &rules, backend(config.capture)?);
    captured.map(|_| ()).map_err(|source| OneshotError::Rules { namespace: config.netns.clone(), source })
}

/// Removes the redirection of every pod that was captured on this node. Connections that are still
/// captured are reset; new ones are no longer protected.
///
/// # Errors
/// When rules could not be removed; the other pods are done all the same.
pub fn uninstall(config: &UninstallConfig) -> Result<(), OneshotError> {
    let registry = Registry::new(&config.state_dir);
    let mut failed = None;
    for namespace in registry.list()? {
        match open(&namespace) {
            Ok(()) => registry.forget(&namespace)?,
            Err(error) => failed = Some(error),
        }
    }
    failed.map_or(Ok(()), Err)
}

fn open(namespace: &Path) -> Result<(), OneshotError> {
    // The pod, and its rules with it, may be gone.
    if !namespace.exists() {
        return Ok(());
    }
    let netns = NetworkNamespace::open(namespace)?;
    capture::remove(&netns).map_err(|source| OneshotError::Rules { namespace: namespace.to_owned(), source })
}
