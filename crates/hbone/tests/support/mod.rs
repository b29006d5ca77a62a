//! Two ends of a tunnel on loopback, with certificates made on the spot.

mod certificates;

use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;

use ambit_hbone::buffer::BufferPool;
use ambit_hbone::codec::{Codec, Settings};
use ambit_hbone::socket::Socket;
use ambit_hbone::tls::TlsSession;
use ambit_hbone::tunnel::{Keepalive, Tunnel, handshake};

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
