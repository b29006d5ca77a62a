//! How an agent serves until its end, and which end it is.
//!
//! ```text
//!            a successor serves                      SIGTERM
//! serving ----------------------------> succeeded ------------> drained, exit
//!    | SIGTERM          ^ a successor serves
//!    v                  |
//! asking ---------------+
//!    |  | the mesh's API group is gone, or control says that the mesh is being uninstalled
//!    |  +-----------------------------> releasing: every pod leaves the mesh; no file stays, exit
//!    | time is over, or a second signal
//!    v
//! closed: drained, exit; rules stay, and pods are closed until the next agent
//! ```
//!
//! An agent never ends by itself, not even when a successor serves and nothing is open: who started it
//! would start it again.

use std::time::Duration;

use ambit_identity::manager::Issuer;
use ambit_runtime::shutdown::Shutdown;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::handover::{Parting, Visit};
use crate::pods::arrival::CniEvent;
use crate::pods::{PodManager, PodStatus};
use crate::state::SnapshotReader;
use crate::uninstall::discovery::Discovery;
use crate::uninstall::remains::Places;
use crate::uninstall::until_uninstalled;
use crate::uninstall::witness::Witness;

/// How the serving ended.
#[derive(Debug)]
pub enum Ending {
    /// A successor serves this node's pods. `told` when the agent was told to end already.
    Succeeded {
        /// The successor.
        parting: Parting,
        /// Whether a signal came.
        told: bool,
    },
    /// The agent was told to end, and nobody succeeds it.
    Closed(Haste),
    /// The mesh was uninstalled.
    Uninstalled,
}

/// Whether open connections are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// They may finish.
    Drain,
    /// Whoever asks a second time does not want to wait.
    Now,
}

/// What the manager of pods listens to.
pub struct Inputs<'a> {
    /// The mesh.
    pub snapshots: &'a mut SnapshotReader,
    /// The CNI plugin.
    pub cni: &'a mut mpsc::Receiver<CniEvent>,
    /// Successors.
    pub successors: &'a mut mpsc::Receiver<Visit>,
}

/// Who may say that the mesh is being uninstalled.
pub struct Inquiry<'a> {
    /// The API server.
    pub discovery: &'a Discovery,
    /// Control, by the configuration that it sends.
    pub witness: Witness,
    /// How long they are asked.
    pub wait: Duration,
}

/// Serves until the end, and says which it is. While it is asked whether the mesh is installed,
/// everything goes on as before: also a successor may still come.
pub async fn serve<I: Issuer>(
    manager: &mut PodManager<I>,
    inputs: &mut Inputs<'_>,
    shutdown: &mut Shutdown,
    inquiry: Option<Inquiry<'_>>,
    mut on_change: impl FnMut(Vec<PodStatus>),
) -> Ending {
    let Inputs { snapshots, cni, successors } = inputs;
    let reason = tokio::select! {
        parting = manager.run(snapshots, cni, successors, &mut on_change) => {
            return succeeded_or_closed(parting, false);
        }
        reason = shutdown.requested() => reason,
    };
    let Some(Inquiry { discovery, witness, wait }) = inquiry else {
        info!(?reason, "told to end");
        return Ending::Closed(Haste::Drain);
    };
    info!(?reason, server = discovery.server(), within = ?wait, "told to end: asking whether the mesh is installed");
    tokio::select! {
        parting = manager.run(snapshots, cni, successors, &mut on_change) => succeeded_or_closed(parting, true),
        () = until_uninstalled(discovery) => Ending::Uninstalled,
        () = witness.until_uninstalling() => {
            info!("control says that the mesh is being uninstalled");
            Ending::Uninstalled
        }
        _ = shutdown.requested() => Ending::Closed(Haste::Now),
        () = sleep(wait) => Ending::Closed(Haste::Drain),
    }
}

fn succeeded_or_closed(parting: Option<Parting>, told: bool) -> Ending {
    parting.map_or(Ending::Closed(Haste::Drain), |parting| Ending::Succeeded { parting, told })
}

/// Lets every pod go and removes what the agent has put on the node.
pub async fn clear_node<I: Issuer>(
    manager: &mut PodManager<I>,
    places: &Places,
    shutdown: &mut Shutdown,
    within: Duration,
) {
    warn!("the mesh was uninstalled: every pod leaves it, and nothing of it stays on this node");
    // First, so that no pod that starts now waits for an agent.
    if let Err(failure) = places.remove_plugin() {
        error!(%failure, "the CNI plugin is still in the node's chain: run `ztunnel cni uninstall` on this node");
    }
    let left = tokio::select! {
        left = manager.release_all(within) => left,
        // Whoever asks again does not want to wait for open connections.
        _ = shutdown.requested() => manager.release_all(Duration::ZERO).await,
    };
    if !left.is_empty() {
        error!(pods = ?left, "not every pod could be cleared: run `ztunnel uninstall` on this node");
        return;
    }
    match places.remove_files() {
        Ok(()) => info!("nothing of the mesh is left on this node"),
        Err(failure) => error!(%failure, "not everything could be removed"),
    }
}
