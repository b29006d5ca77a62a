//! Where a successor finds the agent that serves this node.
//!
//! It answers for as long as the process lives, also after the hand-over: whoever comes between that and
//! the successor's own socket must not take the node for unserved.

use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::channel::{Channel, ChannelError};
use super::message::{Answer, Hello, Occupation, PROTOCOL, Request, judge};
use super::visit::{Successor, Visit};
use super::{Myself, PROGRAM};

/// The hand-over socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {}: {source}; is the state directory writable?", path.display())]
pub struct ReceptionError {
    /// The socket.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// What answers successors; run it until the process ends.
pub struct Reception {
    prepared: Prepared,
    myself: Myself,
    replaced: Option<String>,
    visits: mpsc::Sender<Visit>,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    handing_over: bool,
    successor: Option<Successor>,
}

/// Tells the reception what became of the pods.
#[derive(Clone)]
pub struct Notice(Rc<RefCell<State>>);

impl Notice {
    /// They were handed over.
    pub fn succeeded(&self, successor: Successor) {
        self.0.borrow_mut().successor = Some(successor);
    }
}

/// The socket at a name that nobody knows, so that nothing that could fail is left for the moment in which
/// this process is the one to be found. Dropping it removes that name.
pub struct Prepared {
    listener: UnixListener,
    draft: PathBuf,
    path: PathBuf,
}

/// Prepares a socket for root alone, to be put at `path`.
///
/// # Errors
/// See [`ReceptionError`].
pub fn prepare(path: &Path) -> Result<Prepared, ReceptionError> {
    let failed = |source| ReceptionError { path: path.to_owned(), source };
    let draft = path.with_extension(format!("{:08x}", rand::random::<u32>()));
    let listener = listen(&draft).and_then(UnixListener::from_std).map_err(failed)?;
    Ok(Prepared { listener, draft, path: path.to_owned() })
}

impl Prepared {
    /// Puts the socket in the place of that of a predecessor, which ran at `replaced`: at no time nobody
    /// is found there. Successors that ask for the pods come as [`Visit`]s.
    pub fn open(
        self,
        myself: Myself,
        replaced: Option<String>,
    ) -> (Reception, Notice, mpsc::Receiver<Visit>) {
        if let Err(error) = fs::rename(&self.draft, &self.path) {
            error!(path = %self.path.display(), %error, "no successor will find this agent");
        }
        let (visits, visitors) = mpsc::channel(1);
        let state = Rc::<RefCell<State>>::default();
        let reception = Reception { prepared: self, myself, replaced, visits, state: Rc::clone(&state) };
        (reception, Notice(state), visitors)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // It is gone where the socket has taken its place.
        let _ = fs::remove_file(&self.draft);
    }
}

fn listen(draft: &Path) -> io::Result<net::UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::SEQPACKET.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(draft)?)?;
    fs::set_permissions(draft, fs::Permissions::from_mode(OWNER_ONLY))?;
    socket.listen(BACKLOG)?;
    Ok(OwnedFd::from(socket).into())
}

impl Reception {
    /// Answers whoever comes.
    pub async fn run(self) {
        loop {
            match self.prepared.listener.accept().await {
                Ok((socket, _)) => {
                    if let Err(error) = self.greet(socket).await {
                        warn!(%error, "somebody at the hand-over socket was sent away");
                    }
                }
                Err(error) => {
                    warn!(%error, "the hand-over socket cannot accept: waiting before the next try");
                    // Out of descriptors or memory: trying again at once would only burn the thread.
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn greet(&self, socket: UnixStream) -> Result<(), ChannelError> {
        let channel = Channel::of(socket)?;
        let (hello, _) = channel.receive_soon::<Hello>().await?;
        let refusal = judge(&hello, self.occupation(), self.replaced.as_deref());
        info!(
            program = hello.program,
            protocol = hello.protocol,
            ?refusal,
            "another agent asks for the pods"
        );
        let answer = Answer {
            protocol: PROTOCOL,
            program: PROGRAM.to_owned(),
            instance: self.myself.instance.clone(),
            refusal,
        };
        channel.send(&answer, &[]).await?;
        if refusal.is_none() {
            let busy = Busy::begin(&self.state);
            spawn_local(introduce(channel, hello.program, self.visits.clone(), busy));
        }
        Ok(())
    }

    fn occupation(&self) -> Occupation {
        let state = self.state.borrow();
        match &state.successor {
            Some(successor) if successor.runs() => Occupation::Succeeded,
            Some(_) => Occupation::Abandoned,
            None if state.handing_over => Occupation::HandingOver,
            None => Occupation::Serving,
        }
    }
}

/// Waits until the successor asks for the pods, and then until it has been seen to.
async fn introduce(channel: Channel, program: String, visits: mpsc::Sender<Visit>, busy: Busy) {
    match channel.receive().await {
        Ok((Request::Give, _)) => {
            let (over, seen_to) = oneshot::channel();
            if visits.send(Visit::new(channel, program, over)).await.is_ok() {
                // It ends with the visit, however that goes.
                let _over = seen_to.await;
            }
        }
        Ok((Request::Serving, _)) => warn!("the successor says that it serves pods that it was not given"),
        Err(error) => info!(%error, "the successor went away before it asked for the pods"),
    }
    drop(busy);
}

/// While it lives, others wait.
struct Busy(Rc<RefCell<State>>);

impl Busy {
    fn begin(state: &Rc<RefCell<State>>) -> Self {
        state.borrow_mut().handing_over = true;
        Self(Rc::clone(state))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.borrow_mut().handing_over = false;
    }
}

/// How long it rests after an error that is not a visitor's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const OWNER_ONLY: u32 = 0o600;

/// Successors that wait to be greeted.
const BACKLOG: i32 = 16;
