//! Plaintext connections that others open to a pod: the same decision and policy as for a tunnel,
//! with a peer that proved nothing.

use std::net::SocketAddr;
use std::rc::Rc;

use ambit_mesh::decide::{
    InboundDecision, InboundError, InboundRequest, InboundTarget, ResponseFlag, inbound,
};
use ambit_mesh::policy::{Peer, Permit, admit_probe, may_be_probe};

use crate::accept::Accepted;
use crate::application::{ApplicationError, connect_app};
use crate::flows::Listed;
use crate::inbound::{known_pod, permit};
use crate::record::{Carried, Record};
use crate::splice::splice;
use crate::worker::Pod;
use ambit_hbone::socket::Socket;
use tracing::debug;

/// Serves one plaintext connection.
pub async fn serve(pod: Rc<Pod>, accepted: Accepted) {
    let Ok(local) = accepted.local() else {
        debug!(peer = %accepted.peer, "connection lost at accept");
        return;
    };
    let mut record = Record::inbound(accepted.peer, local);
    // What it takes to admit a connection is large, and not kept while the connection lasts.
    match Box::pin(admit(&pod, accepted.peer, local, &mut record)).await {
        Ok((application, listed)) => {
            record.opened();
            let worker = &pod.worker;
            let (memory, stop) = (worker.splice_memory(), listed.stop.clone());
            record.finish(Carried::plain(
                splice(accepted.socket, application, memory, worker.idle, stop).await,
            ));
        }
        Err(failure) => {
            accepted.socket.reset_on_close();
            record.fail(failure.flag(), &failure);
        }
    }
}

/// Why a plaintext connection was not served.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("no configuration yet: check that control is reachable")]
    NoSnapshot,
    #[error(transparent)]
    Inbound(#[from] InboundError),
    #[error(transparent)]
    Application(#[from] ApplicationError),
}

impl Failure {
    fn flag(&self) -> ResponseFlag {
        match self {
            Self::Inbound(error) => error.reason(),
            Self::NoSnapshot | Self::Application(_) => ResponseFlag::ConnectFailure,
        }
    }
}

async fn admit(
    pod: &Rc<Pod>,
    peer: SocketAddr,
    local: SocketAddr,
    record: &mut Record,
) -> Result<(Socket, Listed), Failure> {
    let request = InboundRequest {
        workload: &pod.uid,
        local,
        target: InboundTarget::Plaintext,
        peer: Peer::Unauthenticated,
        peer_ip: peer.ip(),
    };
    let snapshot = known_pod(pod).await.ok_or(Failure::NoSnapshot)?;
    let decision = inbound(&snapshot, &request)?;
    record.inbound_decided(&snapshot, &decision);
    let permitted = permit(pod, &snapshot, &decision);
    let (permit, listed) = permitted.or_else(|refused| probe(pod, peer, &decision).ok_or(refused))?;
    record.permitted(&permit);
    Ok((connect_app(pod, &permit).await?, listed))
}

/// What policy refuses may be a probe of the node's kubelet. The node's kernel is asked, which answers
/// in one system call.
fn probe(pod: &Pod, client: SocketAddr, decision: &InboundDecision) -> Option<(Permit, Listed)> {
    let InboundDecision { workload, connection, .. } = decision;
    if !may_be_probe(workload, connection) {
        return None;
    }
    let node = pod.worker.node_sockets.as_ref()?;
    let found = node
        .find(client, connection.destination)
        .inspect_err(|error| debug!(%client, %error, "cannot ask the node whose connection this is"));
    let permit = admit_probe(workload, connection, client, &found.ok()??)?;
    // No policy admitted it, so none is asked about it again.
    Some((permit, pod.worker.flows.list(&pod.uid, None)))
}
