//! Plaintext connections that others open to a pod: the same decision and policy as for a tunnel,
//! with a peer that proved nothing.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ambit_mesh::decide::{
    InboundDecision, InboundError, InboundRequest, InboundTarget, ResponseFlag, inbound,
};
use ambit_mesh::policy::{Peer, Probe, may_be_probe, probe};

use crate::accept::Accepted;
use crate::application::{ApplicationError, connect_app};
use crate::flows::Listed;
use crate::inbound::{known_pod, permit};
use crate::record::{Carried, Record};
use crate::splice::splice;
use crate::worker::Pod;
use ambit_hbone::socket::Socket;
use tokio::time::timeout;
use tracing::debug;

/// Serves one plaintext connection.
pub async fn serve(pod: Rc<Pod>, accepted: Accepted) {
    let Ok(local) = accepted.local() else {
        debug!(peer = %accepted.peer, "connection lost at accept");
        return;
    };
    let Accepted { socket, peer, pending } = accepted;
    let mut record = Record::inbound(peer, local);
    // What it takes to admit a connection is large, and not kept while the connection lasts.
    match Box::pin(admit(&pod, (&socket, peer), local, &mut record)).await {
        Ok(Admitted::Open(application, listed)) => {
            drop(pending);
            record.opened();
            let worker = &pod.worker;
            let (memory, stop) = (worker.splice_memory(), listed.stop.clone());
            record.finish(Carried::plain(splice(socket, application, memory, worker.idle, stop).await));
        }
        Ok(Admitted::Over) => record.finish(Carried::nothing()),
        Err(failure) => {
            socket.reset_on_close();
            record.fail(failure.flag(), &failure);
        }
    }
}

/// A connection that is not refused.
enum Admitted {
    /// The application has accepted it.
    Open(Socket, Listed),
    /// Its client has closed it and has sent nothing: there is nothing to carry.
    Over,
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
    (socket, peer): (&Socket, SocketAddr),
    local: SocketAddr,
    record: &mut Record,
) -> Result<Admitted, Failure> {
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
    let (permit, listed) = match permit(pod, &snapshot, &decision) {
        Ok(permitted) => permitted,
        Err(refused) => match found_probe(pod, peer, &decision) {
            // No policy admitted it, so none is asked about it again.
            Some(Probe::Kubelet(permit)) => (permit, pod.worker.flows.list(&pod.uid, None)),
            Some(Probe::Over) if sent_nothing(socket).await => {
                record.probed();
                return Ok(Admitted::Over);
            }
            Some(Probe::Over) | None => return Err(refused.into()),
        },
    };
    record.permitted(&permit);
    Ok(Admitted::Open(connect_app(pod, &permit).await?, listed))
}

/// What policy refuses may be a probe of the node's kubelet. The node's kernel is asked, which answers
/// in one system call.
fn found_probe(pod: &Pod, client: SocketAddr, decision: &InboundDecision) -> Option<Probe> {
    let InboundDecision { workload, connection, .. } = decision;
    if !may_be_probe(workload, connection) {
        return None;
    }
    let node = pod.worker.node_sockets.as_ref()?;
    let found = node
        .find(client, connection.destination)
        .inspect_err(|error| debug!(%client, %error, "cannot ask the node whose connection this is"));
    probe(workload, connection, client, &found.ok()??)
}

/// Whether a client that has closed its socket had sent nothing before.
async fn sent_nothing(socket: &Socket) -> bool {
    let first = poll_fn(|cx| socket.poll_read(cx, &mut [0; 1]));
    matches!(timeout(END_UNDER_WAY, first).await, Ok(Ok(0)))
}

/// How long the end of a connection may be under way from the node to its own pod.
const END_UNDER_WAY: Duration = Duration::from_secs(1);
