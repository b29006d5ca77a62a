//! A Kubernetes API server in memory, over plain HTTP on loopback: the double that the contract suite
//! (`tests/tests/kube/`) holds against a real one.
//!
//! It keeps the promises that clients build on: one revision for every change, lists of one revision in
//! pages, watches that resume and are told when they cannot, conflicts, the wall between `status` and the
//! rest, field managers, tokens bound to pods, and Roles. Kinds of CustomResourceDefinitions come and go
//! with their definitions.
//!
//! It is simpler than the real one in this:
//! * Nothing is validated but names, revisions and preconditions; a custom object is not held against its
//!   schema, nor pruned. Defaults are only those of `objects.rs` and the cluster IPs of Services.
//! * There are no controllers, no admission and no garbage collection. A namespace's objects go with it at
//!   once, as do those of a definition.
//! * Lists are not streamed (`sendInitialEvents`): servers on an older etcd cannot, so that we ask none.
//! * JSON patches and strategic merge patches are refused with 415. Applying takes JSON.
//! * The two groups of Events are apart. Conversion between versions changes the version's name alone.
//! * Who shows no token may do everything, as behind `kubectl proxy`.
//! * It speaks HTTP/1.1.
//!
//! Faults of the network and of a busy server are made in front of it, by [`crate::kube_gate`], where they
//! can be made in front of a real server too.

mod apply;
mod auth;
mod discovery;
mod errors;
mod kinds;
mod list;
mod objects;
mod ownership;
mod rbac;
mod render;
mod request;
mod selector;
mod serve;
mod state;
mod store;
mod watch;
mod write;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::sync::watch as channel;

use auth::User;
pub use rbac::{Asked, Permissions, unused};
use serve::Server;
use state::State;

/// A server on a thread of its own. It ends when dropped.
#[derive(Debug)]
pub struct ApiServer {
    address: SocketAddr,
    server: Server,
    stop: channel::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Starts an empty one on a port that is free.
    ///
    /// # Errors
    /// When there is no port or no thread.
    pub fn start() -> Result<Self> {
        let listener =
            std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port on loopback")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let server = Server {
            state: Arc::new(Mutex::new(State::new())),
            changed: Arc::new(channel::Sender::new(0)),
            close_watches: Arc::new(channel::Sender::new(())),
        };
        let (stop, stopped) = channel::channel(());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let running = server.clone();
        let thread = thread::Builder::new().name("kube-api".to_owned()).spawn(move || {
            let served = runtime.block_on(async {
                let listener = TcpListener::from_std(listener)?;
                running.run(listener, stopped).await
            });
            if let Err(error) = served {
                eprintln!("the API server's double has ended: {error}");
            }
        })?;
        let api = Self { address, server, stop, thread: Some(thread) };
        for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            api.state().seed_namespace(namespace)?;
        }
        Ok(api)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Forgets what was before now: older lists and watches get 410.
    pub fn compact(&self) {
        self.state().store.compact();
    }

    /// Ends all watches, as a restart behind a load balancer would.
    pub fn close_watches(&self) {
        self.server.close_watches.send_replace(());
    }

    /// Gives a user a token. Without a group that has permissions, Roles decide what the user may do.
    pub fn add_user(&self, token: &str, name: &str, groups: &[&str]) {
        self.state().tokens.add_user(token, User::new(name, groups));
    }

    /// Makes a ServiceAccount's token expire now.
    pub fn expire_token(&self, token: &str) {
        self.state().tokens.expire(token, OffsetDateTime::now_utc());
    }

    /// What a user was refused, and what it may do and has not done.
    pub fn permissions(&self, user: &str) -> Permissions {
        let state = self.state();
        state.audit.permissions(&state.store, user)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.server.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.send_replace(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the API server's double has panicked");
        }
    }
}
