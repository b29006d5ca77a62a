//! Accepting connections, without losing the worker to a flood or to a lack of descriptors.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use ambit_hbone::socket::{Listener, Socket};
use metrics::counter;
use socket2::{SockRef, TcpKeepalive};
use tokio::task::spawn_local;
use tokio::time::sleep;
use tracing::warn;

use crate::worker::Pod;

/// A connection as its listener gave it.
pub struct Accepted {
    /// The socket.
    pub socket: Socket,
    /// Who connected: the original client's address, IPv4 never as mapped IPv6.
    pub peer: SocketAddr,
    /// The address it came to: with TPROXY the one the client asked for.
    pub local: SocketAddr,
}

/// Accepts until aborted; each connection is served by a task of its own, owned by the worker.
pub async fn run<F, S>(name: &'static str, listener: Listener, pod: Rc<Pod>, serve: S)
where
    S: Fn(Rc<Pod>, Accepted) -> F,
    F: Future<Output = ()> + 'static,
{
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => match accepted(stream, peer) {
                Ok(accepted) => {
                    spawn_local(serve(Rc::clone(&pod), accepted));
                }
                // The client is gone already.
                Err(error) => tracing::debug!(listener = name, %peer, %error, "connection lost at accept"),
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

fn accepted(stream: TcpStream, peer: SocketAddr) -> io::Result<Accepted> {
    let options = SockRef::from(&stream);
    options.set_tcp_nodelay(true)?;
    options.set_tcp_keepalive(&KEEPALIVE)?;
    let local = canonical(stream.local_addr()?);
    Ok(Accepted { socket: Socket::new(stream)?, peer: canonical(peer), local })
}

/// The address without the IPv4-mapped form that a dual-stack listener gives.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// How long a listener rests after an error that is not the client's.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Finds clients that went away without a word: after 180 s of silence, every 180 s, nine times, as
/// Istio's proxies do.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(180))
    .with_interval(Duration::from_secs(180))
    .with_retries(9);
