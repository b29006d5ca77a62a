//! Capturing one pod: its namespace, its listeners on every worker, and its redirection.
//!
//! The order matters: the listeners are there before the redirection sends anything to them.

use std::collections::BTreeSet;
use std::sync::Arc;

use ambit_identity::tls::TlsIdentity;
use ambit_mesh::workload::{CaptureExclusions, WorkloadUid};
use ambit_runtime::suspects::Suspects;
use tokio::sync::watch;
use tracing::warn;

use crate::capture::listener::{ListenError, Listeners, listen};
use crate::capture::marks::{MarkStoreError, Marks};
use crate::capture::netns::{NamespaceError, NetworkNamespace};
use crate::capture::rules::{CapturePort, Exclusions, RuleSet};
use crate::capture::{self, EnrollError};
use crate::handover::spread;
use crate::pods::PodSettings;
use crate::pods::plan::{Held, Place};
use crate::pods::registry::RegistryError;
use crate::worker::{Command, PodHandover, WorkerHandle};

/// Why a pod was not captured.
#[derive(Debug, thiserror::Error)]
pub(super) enum EnrollFailure {
    /// Its namespace cannot be opened.
    #[error(transparent)]
    Netns(#[from] NamespaceError),
    /// Its marks cannot be read or kept.
    #[error(transparent)]
    Marks(#[from] MarkStoreError),
    /// It cannot be noted for `ztunnel uninstall`.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A port is taken, or the process is out of descriptors.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Its redirection cannot be installed.
    #[error(transparent)]
    Rules(#[from] EnrollError),
    /// Its namespace was found and is gone.
    #[error("its network namespace was found and is gone: it is looked for again")]
    Lost,
    /// Its namespace is the node's.
    #[error("its network namespace is the node's own, which is never captured")]
    Node,
}

/// Captures a pod: every worker gets listeners of its own, then the redirection starts.
pub(super) fn enroll(
    settings: &PodSettings,
    uid: &WorkloadUid,
    held: &Held,
    netns: &Arc<NetworkNamespace>,
    certificate: &watch::Receiver<Option<Arc<TlsIdentity>>>,
    workers: &[WorkerHandle],
) -> Result<(), EnrollFailure> {
    match &held.place {
        Place::Named(path) => settings.registry.note(path)?,
        // No path leads to it when the agent is gone: `ztunnel uninstall` looks for it.
        Place::Found(_) => {}
    }
    serve(settings, uid, &held.pod_uid, netns, certificate, workers, Listeners::default())?;
    redirect(settings, uid, held, netns)
}

/// Has every worker accept a pod's connections: on the sockets that were taken over from a predecessor,
/// and on new ones where those are too few.
pub(super) fn serve(
    settings: &PodSettings,
    uid: &WorkloadUid,
    pod_uid: &str,
    netns: &Arc<NetworkNamespace>,
    certificate: &watch::Receiver<Option<Arc<TlsIdentity>>>,
    workers: &[WorkerHandle],
    taken: Listeners,
) -> Result<(), EnrollFailure> {
    let marks = settings.marks.load_or_create(pod_uid, &mut rand::rng())?;
    let suspects = Arc::<Suspects>::default();
    let handovers: Vec<PodHandover> = spread(taken, workers.len())
        .into_iter()
        .map(|share| {
            let listeners = complete(share, netns)?;
            let (uid, netns, identity) = (uid.clone(), Arc::clone(netns), certificate.clone());
            Ok(PodHandover { uid, netns, marks, identity, suspects: Arc::clone(&suspects), listeners })
        })
        .collect::<Result<_, ListenError>>()?;
    for (worker, handover) in workers.iter().zip(handovers) {
        worker.send(Command::Add(Box::new(handover)));
    }
    Ok(())
}

/// Starts the redirection, or replaces the rules of a captured pod. Its marks stay, and with them its
/// open connections.
pub(super) fn redirect(
    settings: &PodSettings,
    uid: &WorkloadUid,
    held: &Held,
    netns: &NetworkNamespace,
) -> Result<(), EnrollFailure> {
    let marks = settings.marks.load_or_create(&held.pod_uid, &mut rand::rng())?;
    let captured = capture::enroll(netns, &rules(held, marks, netns)?, settings.backend)?;
    if let Err(error) = captured.conntrack {
        warn!(workload = %uid, %error, "half-closed connections of this pod may be forgotten by conntrack");
    }
    Ok(())
}

fn rules(held: &Held, marks: Marks, netns: &NetworkNamespace) -> Result<RuleSet, NamespaceError> {
    let CaptureExclusions { inbound_ports, outbound_ports, outbound_destinations } = held.exclusions.clone();
    let exclusions =
        Exclusions { inbound_ports, inbound_sources: BTreeSet::new(), outbound_ports, outbound_destinations };
    // The rules of a pod are one bounded batch.
    let probe_ports = held.probe_ports.iter().copied().take(MOST_PROBE_PORTS).collect();
    Ok(RuleSet { marks, exclusions, probe_ports, ipv6: netns.has_ipv6()? })
}

/// A worker has at least one socket for each port.
fn complete(mut share: Listeners, netns: &NetworkNamespace) -> Result<Listeners, ListenError> {
    for port in CapturePort::ALL {
        if share.of(port).is_empty() {
            share.of_mut(port).push(listen(netns, port)?.into());
        }
    }
    Ok(share)
}

/// Ports beyond this number are captured like all others: a probe that only connects to one of them
/// asks the agent.
const MOST_PROBE_PORTS: usize = 32;
