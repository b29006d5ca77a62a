//! Accepting connections, without losing the worker to a flood or to a lack of descriptors.
//!
//! Which options an accepted socket has is the listening socket's matter (`capture::listener`).

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ambit_hbone::socket::{Listener, Socket};
use metrics::counter;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::flows::Pending;
use crate::worker::Pod;

/// A connection as its listener gave it.
pub struct Accepted {
    /// The socket.
    pub socket: Socket,
    /// Who connected: the original client's address, IPv4 never as mapped IPv6.
    pub peer: SocketAddr,
    /// Counts it until something else does.
    pub pending: Pending,
}

impl Accepted {
    /// The address it came to: with TPROXY the one the client asked for.
    ///
    /// # Errors
    /// When the socket is not connected.
    pub fn local(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr().map(canonical)
    }
}

/// Accepts until aborted; each connection is served by a task of its own, owned by the worker.
pub async fn run<F, S>(name: &'static str, listener: Rc<Listener>, pod: Rc<Pod>, serve: S)
where
    S: Fn(Rc<Pod>, Accepted) -> F,
    F: Future<Output = ()> + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match Socket::of_nonblocking(stream) {
                Ok(socket) => {
                    let pending = pod.worker.flows.accept(&pod.uid);
                    let accepted = Accepted { socket, peer: canonical(peer), pending };
                    spawn_local(serve(Rc::clone(&pod), accepted));
                }
                // The client is gone already.
                Err(error) => debug!(listener = name, %peer, %error, "connection lost at accept"),
            },
            Err(error) => {
                counter!("ambit_accept_errors_total", "listener" => name).increment(1);
                warn!(listener = name, %pod.uid, %error, "cannot accept: waiting before the next try");
                // Out of descriptors or memory: trying again at once would only burn the worker.
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The address without the IPv4-mapped form that a dual-stack listener gives.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How long a listener rests after an error that is not the client's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
