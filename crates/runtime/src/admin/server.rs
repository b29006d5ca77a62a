//! Sockets and limits of the HTTP servers: HTTP/1.1, one request per connection.
//!
//! What is answered is the [`Router`]'s.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Router;

/// Connections served at a time; more wait in the listener's backlog.
const MAX_CONNECTIONS: usize = 64;
/// Connections that the kernel keeps waiting.
const BACKLOG: i32 = 128;
/// Octets of a request's head; nothing here needs more than a path and a few headers.
const MAX_HEAD: usize = 16 * 1024;
/// Header fields of a request.
const MAX_HEADERS: usize = 64;
/// From accept to the end of the request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From accept to the last octet of the answer, for clients that do not read it.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to leave the listener alone after accept failed, as it does when the process is out of
/// descriptors: the cause does not go away by trying again at once.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(200);

/// A bound listener and what it answers.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    router: Arc<Router>,
}

impl Server {
    /// Binds `address`; `flag` is the one that the address came from, for the error. An unspecified
    /// IPv6 address takes IPv4 as well, and stands for IPv4 alone on a host without IPv6. Call it
    /// inside a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, flag: &'static str, router: Router) -> Result<Self, BindError> {
        let listener = listen(address).map_err(|source| BindError { address, flag, source })?;
        Ok(Self { listener, router: Arc::new(router) })
    }

    /// The bound address, with the port that was chosen if 0 was asked for.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until dropped, which ends the connections too.
    pub async fn serve(self) {
        let free = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let Ok(place) = Arc::clone(&free).acquire_owned().await else {
                return; // Nobody closes the semaphore.
            };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let router = Arc::clone(&self.router);
                    connections.spawn(async move {
                        serve_connection(stream, router).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin connection not accepted");
                    sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, router: Arc<Router>) {
    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let uri = request.uri();
        let reply = router.answer(request.method(), uri.path(), uri.query());
        std::future::ready(Ok::<_, Infallible>(reply.into_response()))
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection failed"),
        Err(_) => tracing::debug!(?CONNECTION_TIMEOUT, "admin connection took too long"),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match Socket::new(Domain::for_address(address), Type::STREAM, None) {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => {
            return listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())));
        }
        socket => socket?,
    };
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}: choose another address with {flag} ({})", environment(flag))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// The flag that it came from.
    pub flag: &'static str,
    /// What the system said.
    pub source: io::Error,
}

/// The environment variable of a flag: `AMBIT_ADMIN_ADDRESS` for `--admin-address`.
fn environment(flag: &str) -> String {
    format!("AMBIT_{}", flag.trim_start_matches('-').replace('-', "_").to_uppercase())
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::super::Reply;
    use super::*;

    fn start() -> (SocketAddr, JoinSet<()>) {
        let router = Router::new("test").get("/hello", "greets", |_| Reply::text("hello\n"));
        let server = Server::bind("127.0.0.1:0".parse().unwrap(), "--admin-address", router).unwrap();
        let address = server.local_address().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(server.serve());
        (address, tasks)
    }

    async fn exchange(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        // A refused request may end in a reset after its answer.
        let _read = stream.read_to_string(&mut answer).await;
        answer
    }

    #[tokio::test]
    async fn a_request_is_answered_and_the_connection_closed() {
        let (address, _tasks) = start();
        let answer = exchange(address, b"GET /hello?x=1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.to_lowercase().contains("\r\ncache-control: no-store\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\nhello\n"), "{answer}");
        let answer = exchange(address, b"POST /hello HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405"), "{answer}");
        assert!(answer.to_lowercase().contains("\r\nallow: get, head\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn an_oversized_head_ends_its_own_connection_only() {
        let (address, _tasks) = start();
        let head = format!("GET /hello HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(2 * MAX_HEAD));
        let answer = exchange(address, head.as_bytes()).await;
        assert!(!answer.contains("hello"), "{answer}");
        let answer = exchange(address, b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.ends_with("hello\n"), "{answer}");
    }

    #[tokio::test]
    async fn silent_clients_do_not_keep_others_out() {
        let (address, _tasks) = start();
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS - 1 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let answer = exchange(address, b"GET /hello HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert!(answer.ends_with("hello\n"), "{answer}");
    }

    #[tokio::test]
    async fn an_address_in_use_is_reported_with_its_flag() {
        let (address, _tasks) = start();
        let error = Server::bind(address, "--admin-address", Router::new("second")).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&address.to_string()), "{text}");
        assert!(text.ends_with("with --admin-address (AMBIT_ADMIN_ADDRESS)"), "{text}");
    }
}
