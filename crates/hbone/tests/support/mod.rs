//! Two ends of a tunnel on loopback, with certificates made on the spot.

mod certificates;

use std::future::Future;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::codec::{Codec, ConnectRequest, Settings};
use ambit_hbone::relay::IdleLimits;
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{Keepalive, Tunnel, TunnelStream, handshake};
use tokio::task::LocalSet;

pub(crate) use certificates::Root;

/// A connected pair of sockets on loopback: who connected, who accepted.
pub(crate) fn tcp_pair() -> (Socket, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    (Socket::new(connected).unwrap(), Socket::new(accepted).unwrap())
}

/// An application's end, driven by tokio, and the proxy's end of the same connection.
pub(crate) fn application() -> (tokio::net::TcpStream, Rc<Socket>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connected = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    connected.set_nonblocking(true).unwrap();
    (tokio::net::TcpStream::from_std(connected).unwrap(), Rc::new(Socket::new(accepted).unwrap()))
}

/// Both ends of a tunnel, their drivers running on the current `LocalSet`.
pub(crate) async fn tunnel_pair(settings: (Settings, Settings)) -> (Tunnel, Tunnel) {
    let root = Root::new();
    let (client_id, server_id) = (root.workload("client"), root.workload("server"));
    let (connected, accepted) = tcp_pair();
    let buffers = BufferPool::new();
    let client = TlsSession::client(Arc::clone(&client_id.client)).unwrap();
    let server = TlsSession::server(Arc::clone(&server_id.server)).unwrap();
    // Each end by itself: the client's driver sends what the server's handshake ends with.
    let end = async |socket, session, codec| {
        let secured = handshake(socket, session, &buffers).await.unwrap();
        let (tunnel, driver) = Tunnel::new(secured, codec, buffers.clone(), Keepalive::default());
        tokio::task::spawn_local(driver);
        tunnel
    };
    tokio::join!(
        end(connected, client, Codec::client(settings.0)),
        end(accepted, server, Codec::server(settings.1))
    )
}

/// What ends of a tunnel allow each other by themselves.
pub(crate) const DEFAULT: (Settings, Settings) = (Settings::CLIENT, Settings::SERVER);

/// No connection is silent for too long.
pub(crate) const PATIENT: IdleLimits =
    IdleLimits { open: Duration::from_secs(3600), half_closed: Duration::from_secs(3600) };

/// Any request.
pub(crate) const REQUEST: ConnectRequest<'static> =
    ConnectRequest { authority: "10.0.0.1:80", headers: &[("forwarded", "for=\"10.0.0.2:1\"")] };

/// Runs a test on a worker.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

/// An open stream through the tunnel, both halves answered.
pub(crate) async fn open(client: &Tunnel, server: &Tunnel) -> (TunnelStream, TunnelStream) {
    let mut near = client.open(&REQUEST).unwrap();
    let (head, mut far) = server.next_request().await.unwrap();
    assert!(head.is_connect());
    assert_eq!(head.authority(), "10.0.0.1:80");
    assert_eq!(head.headers().text("forwarded"), Some("for=\"10.0.0.2:1\""));
    far.accept(&[("baggage", "k8s.pod.name=web")]);
    let response = near.response().await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(response.headers.text("baggage"), Some("k8s.pod.name=web"));
    (near, far)
}

/// Octets of which none looks like its neighbours.
pub(crate) fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|i| (i as u8).wrapping_mul(31).wrapping_add(seed) ^ (i >> 8) as u8).collect()
}
