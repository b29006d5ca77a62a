//! A worker: one thread, one single-threaded runtime, its own listeners, tunnels, buffers and flows.
//!
//! A connection lives and ends on the worker that accepted it; workers share the snapshot, the
//! certificates and what a pod found out about silent endpoints, and nothing else. Pods come and go by [`Command`]s from the agent's main thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::headers::Baggage;
use ambit_hbone::patience::Patience;
use ambit_hbone::pool::Pool;
use ambit_hbone::pool::policy::Limits;
use ambit_hbone::relay::IdleLimits;
use ambit_hbone::socket::Listener;
use ambit_identity::tls::TlsIdentity;
use ambit_mesh::workload::{Workload, WorkloadUid};
use ambit_runtime::drain::DrainWatch;
use ambit_runtime::suspects::Suspects;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tracing::{debug, error, info, warn};

use crate::accept;
use crate::capture::kubelet::NodeSockets;
use crate::capture::listener::Listeners;
use crate::capture::marks::Marks;
use crate::capture::netns::NetworkNamespace;
use crate::capture::node::NodeNetwork;
use crate::capture::rules::CapturePort;
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
    /// Endpoints that did not answer it.
    pub suspects: Arc<Suspects>,
    /// This worker's listening sockets in the pod, one or more for each port.
    pub listeners: Listeners,
}

/// What the main thread asks of a worker.
pub enum Command {
    /// Serve a pod.
    Add(Box<PodHandover>),
    /// A pod leaves the mesh and is sent no new connections. Open ones go on, and those that wait to be
    /// accepted or that a peer opens who does not know it yet are served.
    Release(WorkloadUid),
    /// The pod is gone: end everything of it.
    Remove(WorkloadUid),
    /// Answers how many connections of a pod are open.
    CountFlows(WorkloadUid, oneshot::Sender<usize>),
    /// Answers with copies of a pod's listening sockets, which the worker keeps.
    Lend(WorkloadUid, oneshot::Sender<io::Result<Listeners>>),
    /// A successor serves all pods: take no new connections. Open ones go on.
    Retire,
    /// Answers once everything before it has been done: whether all pods since the last time could be
    /// served.
    Settled(oneshot::Sender<bool>),
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
pub fn start(index: usize, shared: Shared) -> io::Result<WorkerHandle> {
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
    /// How long peers may be silent before others are looked for.
    pub patience: Patience,
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
    /// Endpoints that did not answer it.
    pub suspects: Arc<Suspects>,
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

/// The pods of this worker.
#[derive(Default)]
struct Pods {
    serving: HashMap<WorkloadUid, Serving>,
    /// Whether one could not be served since somebody last asked.
    failed: bool,
}

impl Pods {
    fn add(&mut self, worker: &Rc<Worker>, handover: PodHandover) {
        let uid = handover.uid.clone();
        match Serving::start(worker, handover) {
            Ok(serving) => {
                if let Some(mut replaced) = self.serving.insert(uid, serving) {
                    replaced.stop_accepting();
                    replaced.upkeep.abort();
                }
            }
            Err(error) => {
                error!(%uid, %error, "a pod's listeners cannot be served: is the process out of descriptors?");
                self.failed = true;
            }
        }
    }

    /// Takes no new connections; open ones go on.
    fn retire(&mut self) {
        for serving in self.serving.values_mut() {
            serving.stop_accepting();
            serving.pod.shutdown_tunnels();
        }
    }
}

/// A pod's tasks on this worker.
struct Serving {
    pod: Rc<Pod>,
    listeners: Vec<(CapturePort, Rc<Listener>)>,
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
        patience: Patience::default(),
        idle: IdleLimits { open: config.idle_timeout, half_closed: config.half_closed_timeout },
        shared: shared.clone(),
    });
    let reauthorizing = spawn_local(reauthorize(Rc::clone(&worker)));
    let mut pods = Pods::default();
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
    pods.retire();
    drop(shared);
    tokio::select! {
        () = worker.flows.over() => {}
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

fn on_command(worker: &Rc<Worker>, pods: &mut Pods, command: Command) {
    match command {
        Command::Add(handover) => pods.add(worker, *handover),
        Command::Release(uid) => {
            if let Some(serving) = pods.serving.get(&uid) {
                serving.pod.shutdown_tunnels();
            }
        }
        Command::Remove(uid) => {
            if let Some(mut serving) = pods.serving.remove(&uid) {
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
        Command::Lend(uid, answer) => {
            let lent = pods.serving.get(&uid).map_or_else(|| Ok(Listeners::default()), Serving::lend);
            let _ = answer.send(lent);
        }
        Command::Retire => pods.retire(),
        Command::Settled(answer) => {
            let _ = answer.send(!std::mem::take(&mut pods.failed));
        }
    }
}

impl Serving {
    fn start(worker: &Rc<Worker>, handover: PodHandover) -> io::Result<Self> {
        let PodHandover { uid, netns, marks, identity, suspects, mut listeners } = handover;
        let pod = Rc::new(Pod {
            worker: Rc::clone(worker),
            uid,
            netns,
            marks,
            identity,
            suspects,
            baggage: BaggageText::default(),
            tunnels: Pool::new(Limits::default()),
            accepted: crate::inbound::AcceptedTunnels::default(),
        });
        let mut registered = Vec::new();
        for port in CapturePort::ALL {
            for listener in listeners.of_mut(port).drain(..) {
                registered.push((port, Rc::new(Listener::new(listener)?)));
            }
        }
        let accepting = registered.iter().map(|(port, listener)| accept(*port, listener, &pod)).collect();
        let upkeep = spawn_local(crate::dial::upkeep(Rc::clone(&pod)));
        Ok(Self { pod, listeners: registered, accepting, upkeep })
    }

    /// Closes the listening sockets. Where nobody else holds them, connections that wait in them are
    /// refused.
    fn stop_accepting(&mut self) {
        self.accepting.drain(..).for_each(|task| task.abort());
        self.listeners.clear();
    }

    fn lend(&self) -> io::Result<Listeners> {
        let mut lent = Listeners::default();
        for (port, listener) in &self.listeners {
            lent.of_mut(*port).push(listener.get().try_clone()?);
        }
        Ok(lent)
    }
}

fn accept(port: CapturePort, listener: &Rc<Listener>, pod: &Rc<Pod>) -> JoinHandle<()> {
    let (listener, pod) = (Rc::clone(listener), Rc::clone(pod));
    match port {
        CapturePort::Outbound => spawn_local(accept::run("outbound", listener, pod, crate::outbound::serve)),
        CapturePort::InboundPlaintext => {
            spawn_local(accept::run("plaintext", listener, pod, crate::plaintext::serve))
        }
        CapturePort::InboundHbone => spawn_local(accept::run("hbone", listener, pod, crate::inbound::serve)),
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
            ("outbound", size(crate::outbound::serve), 930),
            ("plaintext", size(crate::plaintext::serve), 1300),
        ] {
            assert!(octets <= limit, "the {journey} journey keeps {octets} octets, {limit} may be");
        }
    }
}
