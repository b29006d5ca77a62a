//! Capturing one pod: its namespace, its listeners on every worker, and its redirection.
//!
//! The order matters: the listeners are there before the redirection sends anything to them.

use std::net::TcpListener;
use std::sync::Arc;

use ambit_identity::tls::TlsIdentity;
use ambit_mesh::workload::WorkloadUid;
use socket2::Socket;
use tokio::sync::watch;
use tracing::warn;

use crate::capture::listener::{ListenError, listen};
use crate::capture::marks::{MarkStoreError, Marks};
use crate::capture::netns::{NamespaceError, NetworkNamespace};
use crate::capture::rules::{CapturePort, Exclusions, RuleSet};
use crate::capture::{self, EnrollError};
use crate::pods::PodSettings;
use crate::pods::plan::Wanted;
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
}

/// Captures a pod: every worker gets listeners of its own, then the redirection starts.
pub(super) fn enroll(
    settings: &PodSettings,
    uid: &WorkloadUid,
    wanted: &Wanted,
    certificate: &watch::Receiver<Option<Arc<TlsIdentity>>>,
    workers: &[WorkerHandle],
) -> Result<Arc<NetworkNamespace>, EnrollFailure> {
    let netns = Arc::new(NetworkNamespace::open(&wanted.network_namespace)?);
    settings.registry.note(&wanted.network_namespace)?;
    let marks = settings.marks.load_or_create(&wanted.pod_uid, &mut rand::rng())?;
    let handovers: Vec<PodHandover> = workers
        .iter()
        .map(|_| handover(uid, &netns, marks, certificate.clone()))
        .collect::<Result<_, ListenError>>()?;
    for (worker, handover) in workers.iter().zip(handovers) {
        worker.send(Command::Add(Box::new(handover)));
    }
    let rules = RuleSet { marks, exclusions: Exclusions::default(), ipv6: netns.has_ipv6()? };
    let captured = capture::enroll(&netns, &rules, settings.backend)?;
    if let Err(error) = captured.conntrack {
        warn!(workload = %uid, %error, "half-closed connections of this pod may be forgotten by conntrack");
    }
    Ok(netns)
}

fn handover(
    uid: &WorkloadUid,
    netns: &Arc<NetworkNamespace>,
    marks: Marks,
    identity: watch::Receiver<Option<Arc<TlsIdentity>>>,
) -> Result<PodHandover, ListenError> {
    let open = |port| listen(netns, port).map(|socket: Socket| TcpListener::from(socket));
    Ok(PodHandover {
        uid: uid.clone(),
        netns: Arc::clone(netns),
        marks,
        identity,
        outbound: open(CapturePort::Outbound)?,
        plaintext: open(CapturePort::InboundPlaintext)?,
        hbone: open(CapturePort::InboundHbone)?,
    })
}
