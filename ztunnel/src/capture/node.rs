//! The node's own network: the agent's, where it runs as a process of the node, or another, where it
//! runs in a pod.
//!
//! It is never captured. The kubelet's sockets are in it.

use std::path::Path;

use super::netns::{NamespaceError, NetworkNamespace, NetworkNamespaceId, own};

/// The node's own network namespace.
#[derive(Debug)]
pub enum NodeNetwork {
    /// That of the agent.
    Own(NetworkNamespaceId),
    /// Another, held open.
    Other(NetworkNamespace),
}

impl NodeNetwork {
    /// The namespace at `path`, such as `/host/proc/1/ns/net`; the agent's own without one.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: Option<&Path>) -> Result<Self, NamespaceError> {
        match path.map(NetworkNamespace::open) {
            None | Some(Err(NamespaceError::Own { .. })) => own().map(Self::Own),
            Some(other) => other.map(Self::Other),
        }
    }

    /// Which namespace it is.
    pub fn id(&self) -> NetworkNamespaceId {
        match self {
            Self::Own(id) => *id,
            Self::Other(namespace) => namespace.id(),
        }
    }

    /// The namespaces that no pod has: the node's and the agent's own.
    ///
    /// # Errors
    /// When the agent's own cannot be read.
    pub fn not_pods(&self) -> Result<Vec<NetworkNamespaceId>, NamespaceError> {
        Ok(vec![self.id(), own()?])
    }

    /// Runs `work` on this thread in the node's network.
    ///
    /// # Errors
    /// When the namespace cannot be entered: it takes CAP_SYS_ADMIN.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NamespaceError> {
        match self {
            Self::Own(_) => Ok(work()),
            Self::Other(namespace) => namespace.run(work),
        }
    }
}
