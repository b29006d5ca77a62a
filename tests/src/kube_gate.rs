//! A gate in front of an API server, real or not: plain HTTP on loopback, as `kubectl proxy`, with faults on
//! demand and a record of what passed.
//!
//! A program under test talks to the gate, and the suite to the server itself, so that the same scenario
//! has the same outage everywhere. The gate adds the credentials it was given.

mod faults;
mod forward;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ambit_kube::{Access, connect};
use anyhow::{Context, Result, anyhow};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use faults::Faults;
pub use faults::{Passed, Way};

/// A gate on a thread of its own. It ends when dropped.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    faults: Arc<Faults>,
    stop: watch::Sender<()>,
    thread: Option<JoinHandle<()>>,
}

impl Gate {
    /// Opens a gate to the server that `upstream` leads to.
    ///
    /// # Errors
    /// When there is no port, or `upstream` cannot be used.
    pub fn open(upstream: Access) -> Result<Self> {
        // It never listens, and keeps the port for us while nobody does.
        let reserved = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reserved.local_addr()?.as_socket().context("an address of IP")?;
        let (stop, mut stopped) = watch::channel(());
        let faults = Arc::new(Faults::default());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::clone(&faults);
        let (opened, outcome) = mpsc::channel();
        let thread = thread::Builder::new().name("kube-gate".to_owned()).spawn(move || {
            runtime.block_on(async {
                let client = match connect(&upstream).await {
                    Ok(client) => client,
                    Err(error) => return drop(opened.send(Err(anyhow!(error)))),
                };
                tokio::select! {
                    ended = serve(address, client, shared, opened) => {
                        if let Err(error) = ended {
                            eprintln!("the gate at {address} has ended: {error:#}");
                        }
                    }
                    _ = stopped.changed() => {}
                }
            });
            drop(reserved);
        })?;
        outcome.recv().context("the gate has ended at once")??;
        Ok(Self { address, faults, stop, thread: Some(thread) })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens or closes the way. Closing it cuts or stalls what is under way.
    pub fn set_way(&self, way: Way) {
        self.faults.way.send_replace(way);
    }

    /// Ends all watches that are open.
    pub fn cut_watches(&self) {
        self.faults.cut.send_replace(());
    }

    /// Ends all watches, and answers the next `count` of them and of lists' further pages with 410.
    pub fn expire(&self, count: usize) {
        self.faults.set_expiring(count);
        self.cut_watches();
    }

    /// Answers the next `count` requests with 429 and this `Retry-After`, in seconds.
    pub fn throttle(&self, count: usize, retry_after: u64) {
        self.faults.set_throttled(count, retry_after);
    }

    /// Answers as if there were no such API group, or no longer so.
    pub fn hide(&self, group: Option<&str>) {
        self.faults.set_hidden(group);
    }

    /// Lets every request wait before it passes.
    pub fn delay(&self, delay: Duration) {
        self.faults.set_delay(delay);
    }

    /// From now on what may be done here is taken away: requests come too late.
    pub fn dismiss(&self) {
        self.faults.dismiss();
    }

    /// Everything that has passed, in order.
    pub fn passed(&self) -> Vec<Passed> {
        self.faults.passed()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.send_replace(());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the gate has panicked");
        }
    }
}

async fn serve(
    address: SocketAddr,
    client: Client,
    faults: Arc<Faults>,
    opened: mpsc::Sender<Result<()>>,
) -> Result<()> {
    let mut way = faults.way.subscribe();
    loop {
        let socket = bind(address)?;
        socket.listen(1024)?;
        let listener = TcpListener::from_std(socket.into())?;
        // Only the first opening is waited for.
        let _ = opened.send(Ok(()));
        tokio::select! {
            ended = accept(listener, &client, &faults) => return ended,
            closed = way.wait_for(|way| *way == Way::Refused) => drop(closed?),
        }
        drop(way.wait_for(|way| *way != Way::Refused).await?);
    }
}

/// Serves connections; when dropped, they are cut.
async fn accept(listener: TcpListener, client: &Client, faults: &Arc<Faults>) -> Result<()> {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                let (client, faults) = (client.clone(), Arc::clone(faults));
                let service = service_fn(move |request| {
                    forward::forward(client.clone(), Arc::clone(&faults), request)
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
            // What became of a connection is its client's business.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

fn bind(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into()).with_context(|| format!("{address} cannot be bound"))?;
    Ok(socket)
}
