//! A worker: one thread, one single-threaded runtime, its own listener, tunnels, buffers and
//! connections to endpoints.
//!
//! A request lives and ends on the worker that accepted its connection; workers share the snapshot,
//! the certificate and what they found out about silent endpoints, and nothing else.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::headers::Baggage;
use ambit_hbone::patience::Patience;
use ambit_hbone::pool::Pool;
use ambit_hbone::pool::policy::Limits;
use ambit_hbone::socket::Listener;
use ambit_identity::tls::TlsIdentity;
use ambit_runtime::drain::DrainWatch;
use ambit_runtime::suspects::Suspects;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use socket2::{Domain, Protocol, Type};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{error, info, warn};

use crate::claimed::Claims;
use crate::config::DataPathConfig;
use crate::ingress::{self, AcceptedTunnels};
use crate::parting::Destinations;
use crate::state::SnapshotReader;
use crate::upstream::{self, Connections, TunnelPool};

/// What every worker is given.
#[derive(Clone)]
pub struct Shared {
    /// What is decided by.
    pub snapshots: SnapshotReader,
    /// Settings of the data path.
    pub config: Arc<DataPathConfig>,
    /// Our certificate, as it is renewed.
    pub identity: watch::Receiver<Option<Arc<TlsIdentity>>>,
    /// Endpoints that did not answer.
    pub suspects: Arc<Suspects>,
    /// Says when to stop.
    pub drain: DrainWatch,
}

/// One worker's own things, shared by its tasks.
pub struct Worker {
    /// What all workers share.
    pub shared: Shared,
    /// Memory for its tunnels' buffers.
    pub buffers: BufferPool,
    /// Tunnels to endpoints.
    pub tunnels: TunnelPool,
    /// Connections to endpoints.
    pub connections: Connections,
    /// How long endpoints may be silent before others are looked for.
    pub patience: Patience,
    /// Its source of chance.
    pub rng: RefCell<SmallRng>,
    /// What clients' agents say of them.
    pub claims: RefCell<Claims>,
    /// What open connections are for.
    pub destinations: Destinations,
    /// The tunnels of others to us.
    pub accepted: AcceptedTunnels,
    /// Connections of clients that are open.
    open: Cell<usize>,
    leaving: watch::Sender<Option<Leaving>>,
}

/// How we go.
#[derive(Clone, Copy, Debug)]
pub struct Leaving {
    /// Until when connections that are idle may begin another request.
    pub idle_until: Instant,
}

impl Worker {
    /// Our certificate; the first one is waited for, for a bounded time.
    pub async fn identity(&self) -> Option<Arc<TlsIdentity>> {
        if let Some(identity) = self.shared.identity.borrow().as_ref() {
            return Some(Arc::clone(identity));
        }
        let mut receiver = self.shared.identity.clone();
        let deadline = Instant::now() + self.shared.config.unknown_wait;
        let found = timeout_at(deadline, receiver.wait_for(Option::is_some)).await.ok()?.ok()?;
        found.clone()
    }

    /// What we say of ourselves in every CONNECT and every answer to one.
    pub fn own_baggage(&self) -> String {
        let snapshot = self.shared.snapshots.load();
        let own = snapshot.as_ref().and_then(|snapshot| snapshot.own());
        own.map(|workload| Baggage::of(workload).to_string()).unwrap_or_default()
    }

    /// Whether we are going, and how.
    pub fn leaving(&self) -> Option<Leaving> {
        *self.leaving.borrow()
    }

    /// Waits until we are going.
    pub async fn until_leaving(&self) -> Leaving {
        let mut leaving = self.leaving.subscribe();
        let found = leaving.wait_for(Option::is_some).await;
        match found.as_deref() {
            Ok(Some(leaving)) => *leaving,
            Ok(None) | Err(_) => Leaving { idle_until: Instant::now() },
        }
    }

    /// Counts a connection of a client for as long as the answer lives.
    pub fn count(self: &Rc<Self>) -> OpenConnection {
        self.open.set(self.open.get() + 1);
        OpenConnection { worker: Rc::clone(self) }
    }
}

/// Counts a connection.
pub struct OpenConnection {
    worker: Rc<Worker>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.worker.open.set(self.worker.open.get() - 1);
    }
}

/// A running worker. Dropping it waits for its end, which comes with the drain.
pub struct WorkerHandle {
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            error!("a worker thread panicked");
        }
    }
}

/// A listening socket that several workers can each have one of.
///
/// # Errors
/// When the address cannot be had.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Starts a worker.
///
/// # Errors
/// When the thread or its runtime cannot be made.
pub fn start(index: usize, shared: Shared, listener: TcpListener) -> io::Result<WorkerHandle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        let tasks = LocalSet::new();
        // Dropping the set ends every task that is left.
        tasks.block_on(&runtime, run(index, shared, listener));
        drop(tasks);
        // What pingora spawned belongs to this thread, too: it must not be dropped on another.
        drop(runtime);
    })?;
    Ok(WorkerHandle { thread: Some(thread) })
}

async fn run(index: usize, shared: Shared, listener: TcpListener) {
    let mut drain = shared.drain.clone();
    let worker = Rc::new(Worker {
        buffers: BufferPool::new(),
        tunnels: Pool::new(Limits::default()),
        connections: Connections::default(),
        patience: Patience::default(),
        rng: RefCell::new(SmallRng::from_os_rng()),
        claims: RefCell::default(),
        destinations: Destinations::default(),
        accepted: AcceptedTunnels::default(),
        open: Cell::new(0),
        leaving: watch::Sender::new(None),
        shared,
    });
    let accepting = spawn_local(accept(Rc::clone(&worker), listener));
    let upkeep = spawn_local(upstream::upkeep(Rc::clone(&worker)));
    let following = spawn_local(worker.destinations.clone().follow(worker.shared.snapshots.clone()));
    let deadline = drain.draining().await;
    let idle_until = Instant::now() + deadline.saturating_duration_since(Instant::now()) / IDLE_SHARE;
    worker.leaving.send_replace(Some(Leaving { idle_until }));
    info!(worker = index, connections = worker.open.get(), "draining");
    // Clients are asked to go; who has not heard yet, or comes because others have not, is served.
    worker.accepted.shutdown();
    let idle = async {
        tokio::time::sleep_until(idle_until).await;
        accepting.abort();
        while worker.open.get() > 0 {
            sleep(LOOK).await;
        }
        sleep(LAST_FRAMES).await;
    };
    tokio::select! {
        () = idle => {}
        () = drain.forced() => info!(worker = index, connections = worker.open.get(), "cut off"),
    }
    upkeep.abort();
    following.abort();
}

async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    let listener = match Listener::new(listener) {
        Ok(listener) => listener,
        Err(error) => {
            error!(%error, "the listener cannot be served: is the process out of descriptors?");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                spawn_local(ingress::serve(Rc::clone(&worker), stream, peer));
            }
            Err(error) => {
                warn!(%error, "cannot accept: is the process out of descriptors?");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// The part of a drain in which new connections are still taken, and idle ones may go on: others need
/// that long to hear of it.
const IDLE_SHARE: u32 = 5;

/// How often it is looked whether all connections have ended.
const LOOK: Duration = Duration::from_millis(20);

/// For what was written last to leave.
const LAST_FRAMES: Duration = Duration::from_millis(50);

/// After an accept that failed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
