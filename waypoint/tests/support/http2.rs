//! Applications and clients that speak HTTP/2 properly.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::Request;
use tokio::net::TcpListener;
use tokio::task::spawn_local;

use crate::support::Mesh;

/// Serves each stream by `serve`, and RFC 8441. Counts connections.
pub(crate) fn serve_http2<F, S>(listener: TcpListener, serve: S) -> Rc<Cell<usize>>
where
    F: Future<Output = ()> + 'static,
    S: Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + 'static,
{
    let connections = Rc::new(Cell::new(0));
    let counted = Rc::clone(&connections);
    let serve = Rc::new(serve);
    spawn_local(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            counted.set(counted.get() + 1);
            let serve = Rc::clone(&serve);
            spawn_local(async move {
                let mut builder = h2::server::Builder::new();
                let mut connection = builder.enable_connect_protocol().handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    spawn_local(serve(request, respond));
                }
            });
        }
    });
    connections
}

/// A client's connection to the service.
pub(crate) async fn client(mesh: &Mesh, account: &str) -> SendRequest<Bytes> {
    let wire = crate::support::open(&mesh.tunnel(account).await, mesh.vip).await.unwrap();
    let (client, connection) = h2::client::handshake(wire).await.unwrap();
    spawn_local(connection);
    client.ready().await.unwrap()
}

/// The next octets of a body, however they are cut: as many as `expected`.
pub(crate) async fn expect(body: &mut RecvStream, expected: &str) {
    let mut octets = Vec::new();
    while octets.len() < expected.len() {
        let piece = body.data().await.expect("the body goes on").unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        octets.extend_from_slice(&piece);
    }
    assert_eq!(String::from_utf8_lossy(&octets), expected);
}
