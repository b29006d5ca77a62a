//! The agent's side of the plugin's socket: takes questions, has them answered by whoever manages the
//! pods, and answers.
//!
//! Only root may ask, and what is asked concerns the one network namespace whose descriptor comes with
//! the question: nobody names a namespace by a path here.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketAddrUnix, bind, listen};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use super::wire::{self, About, Answer, PodName, Question};
use crate::capture::netns::NetworkNamespace;
use crate::pods::arrival::{Arrival, Arrived, Check, Checked, CniEvent, Departure};

/// Questions at a time. A kubelet starts a few pods at once; others wait in the socket's queue.
const AT_A_TIME: usize = 64;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// How long a plugin may take to ask and to take its answer.
const PROMPTLY: Duration = Duration::from_secs(2);

/// The longest that anybody waits for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(120);

/// How long after a failed accept the next one is tried.
const PAUSE: Duration = Duration::from_millis(100);

/// The listening socket. It is bound to a name of its own until it takes the place at the name that the
/// plugin knows.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    own_name: OwnName,
    path: PathBuf,
}

/// The name of a socket that nobody knows. Dropping it removes what is there.
#[derive(Debug)]
struct OwnName(PathBuf);

/// The socket cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {} for the CNI plugin: {source}; is the directory writable, and its path short?", path.display())]
pub struct BindError {
    /// The path.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

impl Server {
    /// Listens on behalf of `path`, and there at once if nobody else does. Where a predecessor does, it
    /// goes on until this server [serves](Self::serve) with something to answer by.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn bind(path: &Path) -> Result<Self, BindError> {
        let failed = |source| BindError { path: path.to_owned(), source };
        let own_name = OwnName(path.with_extension(format!("{:016x}", rand::random::<u64>())));
        let listener = listen_at(&own_name.0).map_err(failed)?;
        let server = Self { listener, own_name, path: path.to_owned() };
        if wire::dial(path).is_err() {
            server.take_place().map_err(failed)?;
        }
        Ok(server)
    }

    /// Serves until the future is dropped, which ends the calls that are open. Events go to whoever
    /// manages the pods. A predecessor is left in its place until `prepared`; what it has accepted it
    /// answers itself. The socket stays when the agent ends; then nobody answers.
    pub async fn serve(self, events: mpsc::Sender<CniEvent>, prepared: impl Future<Output = ()>) {
        tokio::join!(self.take_place_when(prepared), self.answer_all(events));
    }

    async fn take_place_when(&self, prepared: impl Future<Output = ()>) {
        prepared.await;
        if let Err(error) = self.take_place() {
            warn!(path = %self.path.display(), %error, "the CNI plugin does not find this agent");
        }
    }

    /// At no time there is nobody at the name.
    fn take_place(&self) -> io::Result<()> {
        match fs::rename(&self.own_name.0, &self.path) {
            // It was done before.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    async fn answer_all(&self, events: mpsc::Sender<CniEvent>) {
        let mut calls = JoinSet::new();
        loop {
            // Neither arm loses anything when the other is taken.
            tokio::select! {
                accepted = self.listener.accept(), if calls.len() < AT_A_TIME => match accepted {
                    Ok((connection, _)) => drop(calls.spawn(serve_one(connection, events.clone()))),
                    Err(error) => {
                        warn!(%error, "a connection of the CNI plugin cannot be accepted");
                        sleep(PAUSE).await;
                    }
                },
                Some(_) = calls.join_next() => {}
            }
        }
    }
}

impl Drop for OwnName {
    fn drop(&mut self) {
        // It is gone where the socket has taken its place.
        let _ = fs::remove_file(&self.0);
    }
}

/// The library knows Unix sockets of one kind, for streams. Those that keep packets apart are accepted and
/// waited for in the same way, and read and written by [`wire`] alone.
fn listen_at(path: &Path) -> io::Result<UnixListener> {
    let socket = wire::packets()?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

/// One question and its answer.
async fn serve_one(connection: UnixStream, events: mpsc::Sender<CniEvent>) {
    if let Err(error) = try_serve_one(connection, events).await {
        warn!(%error, "a call of the CNI plugin failed");
    }
}

async fn try_serve_one(connection: UnixStream, events: mpsc::Sender<CniEvent>) -> io::Result<()> {
    let uid = connection.peer_cred()?.uid();
    if uid != 0 {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("user {uid} is not root")));
    }
    let received = connection.async_io(Interest::READABLE, || wire::receive(&connection));
    let (question, descriptors): (Question, _) = timeout(PROMPTLY, received).await??;
    debug!(?question, descriptors = descriptors.len(), "the CNI plugin asks");
    let answer = answer(&question, descriptors, &events).await;
    let PodName { namespace, name, uid } = &question.pod;
    info!(
        pod.namespace = namespace,
        pod.name = name,
        pod.uid = uid,
        about = ?question.about,
        ?answer,
        "CNI plugin answered"
    );
    let sent = connection.async_io(Interest::WRITABLE, || wire::send(&connection, &answer, None::<&OwnedFd>));
    timeout(PROMPTLY, sent).await?
}

/// What the manager of the pods says, within the time that the plugin has.
async fn answer(question: &Question, descriptors: Vec<OwnedFd>, events: &mpsc::Sender<CniEvent>) -> Answer {
    if question.version != wire::VERSION {
        let (theirs, ours) = (question.version, wire::VERSION);
        return Answer::Unknown(format!("the plugin speaks version {theirs} and this agent version {ours}"));
    }
    let wait = Duration::from_millis(question.wait_ms).min(LONGEST_WAIT);
    match timeout(wait, ask(question, descriptors, events)).await {
        Ok(answer) => answer,
        Err(_) => {
            Answer::Unknown(format!("control has not told this node's agent of the pod within {wait:?}"))
        }
    }
}

async fn ask(question: &Question, descriptors: Vec<OwnedFd>, events: &mpsc::Sender<CniEvent>) -> Answer {
    let pod_uid: Arc<str> = question.pod.uid.as_str().into();
    let sandbox: Arc<str> = question.sandbox.as_str().into();
    match question.about {
        About::Departure => match events.send(CniEvent::Departure(Departure { pod_uid, sandbox })).await {
            Ok(()) => Answer::Noted,
            Err(_) => ending(),
        },
        About::Arrival => {
            let namespace = match namespace_of(question, descriptors) {
                Ok(namespace) => namespace,
                Err(why) => return Answer::Failed(why),
            };
            let (answer, answered) = oneshot::channel();
            let asked = events.send(CniEvent::Arrival(Arrival { pod_uid, sandbox, namespace, answer })).await;
            match (asked, answered.await) {
                (Ok(()), Ok(arrived)) => of_arrival(arrived),
                (Err(_), _) | (_, Err(_)) => ending(),
            }
        }
        About::Check => {
            let namespace = match namespace_of(question, descriptors) {
                Ok(namespace) => namespace,
                Err(why) => return Answer::Failed(why),
            };
            let (answer, answered) = oneshot::channel();
            let asked = events.send(CniEvent::Check(Check { pod_uid, namespace, answer })).await;
            match (asked, answered.await) {
                (Ok(()), Ok(checked)) => of_check(checked),
                (Err(_), _) | (_, Err(_)) => ending(),
            }
        }
    }
}

/// The one namespace that came with the question.
fn namespace_of(question: &Question, descriptors: Vec<OwnedFd>) -> Result<NetworkNamespace, String> {
    let [descriptor]: [OwnedFd; 1] = descriptors.try_into().map_err(|descriptors: Vec<OwnedFd>| {
        format!("{} network namespaces came with the question instead of one", descriptors.len())
    })?;
    let PodName { namespace, name, .. } = &question.pod;
    let path = format!("of pod {namespace}/{name}, from the container runtime");
    NetworkNamespace::from_descriptor(descriptor, Path::new(&path)).map_err(|error| error.to_string())
}

fn of_arrival(arrived: Arrived) -> Answer {
    match arrived {
        Arrived::Captured => Answer::Captured,
        Arrived::NotEnrolled => Answer::NotEnrolled,
        Arrived::Unknown => Answer::Unknown("control has not told this node's agent of the pod".to_owned()),
        Arrived::Failed(why) => Answer::Failed(why),
    }
}

fn of_check(checked: Checked) -> Answer {
    match checked {
        Checked::Captured => Answer::Captured,
        Checked::NotEnrolled => Answer::NotEnrolled,
        Checked::Missing(why) => Answer::Failed(why),
    }
}

fn ending() -> Answer {
    Answer::Unknown("this node's agent is ending".to_owned())
}
