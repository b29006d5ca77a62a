//! The agent's socket with answers that the test gives.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use tokio::sync::oneshot;
use ztunnel::capture::netns::NetworkNamespaceId;
use ztunnel::cni::server::Server;
use ztunnel::pods::arrival::{self, CniEvent};

pub(crate) use ztunnel::pods::arrival::CniEvent as Event;

/// Who arrived, left or was checked: the UID, and the namespace that came with it.
type Seen = (String, Option<NetworkNamespaceId>);

/// A running server. Dropping it ends it, as the end of an agent does.
pub(crate) struct Agent {
    seen: Arc<Mutex<Vec<Seen>>>,
    prepare: Mutex<Option<oneshot::Sender<()>>>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    inode_before: Option<u64>,
}

impl Agent {
    /// Serves at once.
    pub(crate) fn start(socket: &Path, answer: impl FnMut(Event) + Send + 'static) -> Self {
        let agent = Self::start_unprepared(socket, answer);
        agent.prepared();
        agent.wait_until_in_place(socket);
        agent
    }

    /// Leaves a predecessor in its place for now.
    pub(crate) fn start_unprepared(socket: &Path, answer: impl FnMut(Event) + Send + 'static) -> Self {
        let inode_before = inode(socket);
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let (prepare, prepared) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();
        let (bound, is_bound) = oneshot::channel();
        let (socket, noted) = (socket.to_owned(), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(socket, noted, answer, bound, prepared, ended));
        });
        is_bound.blocking_recv().unwrap();
        Self { seen, prepare: Mutex::new(Some(prepare)), end: Some(end), thread: Some(thread), inode_before }
    }

    /// It has something to answer by.
    pub(crate) fn prepared(&self) {
        self.prepare.lock().unwrap().take().unwrap().send(()).unwrap();
    }

    /// Waits until the socket at the name is another than before.
    pub(crate) fn wait_until_in_place(&self, socket: &Path) {
        let until = Instant::now() + Duration::from_secs(10);
        while inode(socket) == self.inode_before {
            assert!(Instant::now() < until, "it does not take the place");
            thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// What was asked, in its order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.end.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

async fn serve(
    socket: PathBuf,
    seen: Arc<Mutex<Vec<Seen>>>,
    mut answer: impl FnMut(Event),
    bound: oneshot::Sender<()>,
    prepared: oneshot::Receiver<()>,
    ended: oneshot::Receiver<()>,
) {
    let server = Server::bind(&socket).unwrap();
    bound.send(()).unwrap();
    let (events, mut arriving) = arrival::channel();
    let serving = server.serve(events, async {
        let _ = prepared.await;
    });
    let answering = async {
        while let Some(event) = arriving.recv().await {
            let id = |namespace: &ztunnel::capture::netns::NetworkNamespace| Some(namespace.id());
            let one = match &event {
                CniEvent::Arrival(arrival) => (arrival.pod_uid.to_string(), id(&arrival.namespace)),
                CniEvent::Check(check) => (check.pod_uid.to_string(), id(&check.namespace)),
                CniEvent::Departure(departure) => (departure.pod_uid.to_string(), None),
            };
            seen.lock().unwrap().push(one);
            answer(event);
        }
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(serving, answering) } => {}
        _ = ended => {}
    }
}

fn inode(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}
