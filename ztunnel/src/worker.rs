//! A worker: one thread, one single-threaded runtime, its own listeners, tunnels, buffers and flows.
//!
//! A connection lives and ends on the worker that accepted it; workers share the snapshot and the
//! certificates, and nothing else. Pods come and go by [`Command`]s from the agent's main thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::headers::Baggage;
use ambit_hbone::pool::Pool;
use ambit_hbone::pool::policy::Limits;
use ambit_hbone::relay::IdleLimits;
use ambit_hbone::socket::Listener;
use ambit_identity::tls::TlsIdentity;
use ambit_mesh::workload::{Workload, WorkloadUid};
use ambit_runtime::drain::DrainWatch;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tracing::{debug, error, info, warn};

use crate::accept;
use crate::capture::kubelet::NodeSockets;
use crate::capture::marks::Marks;
use crate::capture::netns::NetworkNamespace;
use crate::capture::node::NodeNetwork;
use crate::config::DataPathConfig;
use crate::dial::TunnelPool;
use crate::flows::{Flows, StopReason};
use crate::splice::{self, PipePool};
use crate::state::SnapshotReader;

/// What every worker is given.
#[derive(Clone)]
pub struct Shared {
    /// The mesh.
    pub snapshots: SnapshotReader,
    /// Settings of the data path.
    pub config: Arc<DataPathConfig>,
    /// The node's own network, where the kubelet's sockets are.
    pub node_network: Arc<NodeNetwork>,
    /// Says when to stop.
    pub drain: DrainWatch,
}

/// A pod as one worker gets it: its own listeners, and what it shares with the other workers.
pub struct PodHandover {
    /// Which workload it is.
    pub uid: WorkloadUid,
    /// Its network namespace.
    pub netns: Arc<NetworkNamespace>,
    /// The marks of its sockets.
    pub marks: Marks,
    /// Its certificate, as it is renewed.
    pub identity: watch::Receiver<Option<Arc<TlsIdentity>>>,
    /// Listens for what the pod sends (15001).
    pub outbound: TcpListener,
    /// Listens for plaintext that others send it (15006).
    pub plaintext: TcpListener,
    /// Listens for tunnels (15008).
    pub hbone: TcpListener,
}

/// What the main thread asks of a worker.
pub enum Command {
    /// Serve a pod.
    Add(Box<PodHandover>),
    /// Take no new connections of a pod. Open ones go on.
    Release(WorkloadUid),
    /// The pod is gone: end everything of it.
    Remove(WorkloadUid),
    /// Answers how many connections of a pod are open.
    CountFlows(WorkloadUid, tokio::sync::oneshot::Sender<usize>),
}

/// A running worker.
pub struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Starts a worker.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(index: usize, shared: Shared) -> std::io::Result<WorkerHandle> {
    // Bounded by the number of pods on a node.
    let (commands, receiver) = mpsc::unbounded_channel();
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let tasks = LocalSet::new();
        // Dropping the set ends every task that is left.
        tasks.block_on(&runtime, run(index, shared, receiver));
    })?;
    Ok(WorkerHandle { commands, thread: Some(thread) })
}

impl WorkerHandle {
    /// Sends a command. A worker that is gone has nothing left to do.
    pub fn send(&self, command: Command) {
        if self.commands.send(command).is_err() {
            debug!("a worker ended before it was told everything");
        }
    }
}

impl Drop for WorkerHandle {
    /// Waits for the thread, which ends with the drain.
    fn drop(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("a worker thread panicked");
        }
    }
}

/// One worker's own things, shared by its tasks.
pub struct Worker {
    /// What all workers share.
    pub shared: Shared,
    /// Memory for its buffers.
    pub buffers: BufferPool,
    /// Pipes for its plain connections.
    pub pipes: PipePool,
    /// Its source of chance.
    pub rng: RefCell<SmallRng>,
    /// Its open connections.
    pub flows: Flows,
    /// Tells whether the node's kubelet is at the other end of a connection.
    pub node_sockets: Option<NodeSockets>,
    /// How long connections may be silent.
    pub idle: IdleLimits,
}

impl Worker {
    /// What plain connections borrow their memory from.
    pub fn splice_memory(&self) -> splice::Memory {
        splice::Memory { buffers: self.buffers.clone(), pipes: self.pipes.clone() }
    }
}

/// A pod on one worker.
pub struct Pod {
    /// The worker.
    pub worker: Rc<Worker>,
    /// Which workload it is.
    pub uid: WorkloadUid,
    /// Its network namespace.
    pub netns: Arc<NetworkNamespace>,
    /// The marks of its sockets.
    pub marks: Marks,
    /// Its certificate, as it is renewed.
    identity: watch::Receiver<Option<Arc<TlsIdentity>>>,
    /// What it says of itself in every CONNECT.
    pub baggage: BaggageText,
    /// Its tunnels to others.
    pub tunnels: TunnelPool,
    /// The tunnels of others to it.
    pub accepted: crate::inbound::AcceptedTunnels,
}

impl Pod {
    /// The pod's certificate as it is renewed.
    pub fn identities(&self) -> watch::Receiver<Option<Arc<TlsIdentity>>> {
        self.identity.clone()
    }

    /// The pod's certificate; waits for the first one, for a bounded time.
    pub async fn identity(&self) -> Option<Arc<TlsIdentity>> {
        if let Some(identity) = self.identity.borrow().as_ref() {
            return Some(Arc::clone(identity));
        }
        let mut receiver = self.identity.clone();
        let limit = self.worker.shared.config.unknown_wait;
        let found = tokio::time::timeout(limit, receiver.wait_for(Option::is_some)).await.ok()?.ok()?;
        found.clone()
    }
}

/// The `baggage` of a pod as text, written anew only when the pod changes.
#[derive(Default)]
pub struct BaggageText {
    last: RefCell<Option<(Arc<Workload>, Rc<str>)>>,
}

impl BaggageText {
    /// The field's value for the pod as `workload`.
    pub fn of(&self, workload: &Arc<Workload>) -> Rc<str> {
        let mut last = self.last.borrow_mut();
        match &*last {
            // The workload is kept, so that no other can take its place in memory.
            Some((of, text)) if Arc::ptr_eq(of, workload) => Rc::clone(text),
            Some(_) | None => {
                let text: Rc<str> = Baggage::of(workload).to_string().into();
                *last = Some((Arc::clone(workload), Rc::clone(&text)));
                text
            }
        }
    }
}

/// A pod's tasks on this worker.
struct Serving {
    pod: Rc<Pod>,
    accepting: Vec<JoinHandle<()>>,
    upkeep: JoinHandle<()>,
}

async fn run(index: usize, shared: Shared, mut commands: mpsc::UnboundedReceiver<Command>) {
    let config = &shared.config;
    let worker = Rc::new(Worker {
        buffers: BufferPool::new(),
        pipes: PipePool::default(),
        rng: RefCell::new(SmallRng::from_os_rng()),
        flows: Flows::default(),
        node_sockets: node_sockets(&shared.node_network),
        idle: IdleLimits { open: config.idle_timeout, half_closed: config.half_closed_timeout },
        shared: shared.clone(),
    });
    let reauthorizing = spawn_local(reauthorize(Rc::clone(&worker)));
    let mut pods: HashMap<WorkloadUid, Serving> = HashMap::new();
    let mut drain = shared.drain.clone();
    loop {
        tokio::select! {
            // Neither arm loses anything when the other is taken.
            command = commands.recv() => match command {
                Some(command) => on_command(&worker, &mut pods, command),
                None => break,
            },
            _ = drain.draining() => break,
        }
    }
    info!(worker = index, connections = worker.flows.len(), "draining");
    pods.values().for_each(Serving::stop_accepting);
    pods.values().for_each(|serving| serving.pod.shutdown_tunnels());
    drop(shared);
    tokio::select! {
        () = worker.flows.emptied() => {}
        () = drain.forced() => {}
    }
    // The relays that are stopped reset their sockets and write their last line.
    worker.flows.stop_all(&StopReason::Drained);
    worker.flows.emptied().await;
    reauthorizing.abort();
}

/// A node that cannot be asked has no probes: they are refused like everybody else.
fn node_sockets(node: &NodeNetwork) -> Option<NodeSockets> {
    NodeSockets::open(node)
        .inspect_err(|error| {
            warn!(%error, "kubelet probes are not recognised: a policy that refuses plain text refuses them");
        })
        .ok()
}

fn on_command(worker: &Rc<Worker>, pods: &mut HashMap<WorkloadUid, Serving>, command: Command) {
    match command {
        Command::Add(handover) => {
            let uid = handover.uid.clone();
            match Serving::start(worker, *handover) {
                Ok(serving) => {
                    if let Some(replaced) = pods.insert(uid, serving) {
                        replaced.stop_accepting();
                        replaced.upkeep.abort();
                    }
                }
                Err(error) => {
                    error!(%uid, %error, "a pod's listeners cannot be served: is the process out of descriptors?")
                }
            }
        }
        Command::Release(uid) => {
            if let Some(serving) = pods.get(&uid) {
                serving.stop_accepting();
                serving.pod.shutdown_tunnels();
            }
        }
        Command::Remove(uid) => {
            if let Some(serving) = pods.remove(&uid) {
                serving.stop_accepting();
                serving.upkeep.abort();
                serving.pod.shutdown_tunnels();
                worker.flows.stop_pod(&uid, &StopReason::PodGone);
            }
        }
        Command::CountFlows(uid, answer) => {
            // Who asked may have given up waiting.
            let _ = answer.send(worker.flows.of_pod(&uid));
        }
    }
}

impl Serving {
    fn start(worker: &Rc<Worker>, handover: PodHandover) -> std::io::Result<Self> {
        let PodHandover { uid, netns, marks, identity, outbound, plaintext, hbone } = handover;
        let pod = Rc::new(Pod {
            worker: Rc::clone(worker),
            uid,
            netns,
            marks,
            identity,
            baggage: BaggageText::default(),
            tunnels: Pool::new(Limits::default()),
            accepted: crate::inbound::AcceptedTunnels::default(),
        });
        let accepting = vec![
            spawn_local(accept::run(
                "outbound",
                Listener::new(outbound)?,
                Rc::clone(&pod),
                crate::outbound::serve,
            )),
            spawn_local(accept::run(
                "plaintext",
                Listener::new(plaintext)?,
                Rc::clone(&pod),
                crate::plaintext::serve,
            )),
            spawn_local(accept::run("hbone", Listener::new(hbone)?, Rc::clone(&pod), crate::inbound::serve)),
        ];
        let upkeep = spawn_local(crate::dial::upkeep(Rc::clone(&pod)));
        Ok(Self { pod, accepting, upkeep })
    }

    fn stop_accepting(&self) {
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

impl Pod {
    /// Tells peers on both sides that no new streams are welcome; open ones finish.
    fn shutdown_tunnels(&self) {
        self.tunnels.retire(|_, _| true);
        self.accepted.shutdown();
    }
}

/// Asks the policies about every open connection after each change of the snapshot.
async fn reauthorize(worker: Rc<Worker>) {
    let mut snapshots = worker.shared.snapshots.clone();
    while snapshots.changed().await {
        if let Some(snapshot) = snapshots.load() {
            worker.flows.reauthorize(&snapshot);
        }
    }
}

#[cfg(test)]
mod tests {
    /// What a task keeps for as long as its connection is open.
    fn size<A, B, F>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand idle connections are ten thousand of these: what only opening needs is boxed.
    #[test]
    fn the_task_of_an_open_connection_is_small() {
        for (journey, octets, limit) in [
            ("outbound", size(crate::outbound::serve), 900),
            ("plaintext", size(crate::plaintext::serve), 1300),
        ] {
            assert!(octets <= limit, "the {journey} journey keeps {octets} octets, {limit} may be");
        }
    }
}
