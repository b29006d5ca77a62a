//! Connections that are open and do nothing.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use ambit_tests::namespace::Namespace;
use anyhow::{Context, Result, anyhow};

use crate::lane::Lane;

/// Where the server's end accepts them.
const PORT: u16 = 9000;

/// How long one may take to open.
const LIMIT: Duration = Duration::from_secs(10);

/// Both ends of open connections. They close with this value.
#[must_use = "the connections close when this is dropped"]
pub(crate) struct Idle {
    _clients: Vec<TcpStream>,
    _servers: Vec<TcpStream>,
}

/// Opens so many, and sees an octet through each, so that all of the path is there.
///
/// # Errors
/// When one does not open.
pub(crate) fn open(lane: &Lane, count: u32) -> Result<Idle> {
    let listener = lane.server.listen(PORT)?;
    let accepting = thread::spawn(move || accept(&listener, count));
    let address = lane.server.at(PORT);
    let clients: Result<Vec<_>> = (0..count)
        .map(|number| {
            connect(lane.client.namespace(), address).with_context(|| format!("connection {number}"))
        })
        .collect();
    let clients = clients?;
    let servers = accepting.join().map_err(|panic| anyhow!("the server panicked: {panic:?}"))??;
    Ok(Idle { _clients: clients, _servers: servers })
}

fn accept(listener: &TcpListener, count: u32) -> Result<Vec<TcpStream>> {
    (0..count)
        .map(|_| {
            let (mut stream, _) = listener.accept()?;
            stream.write_all(b"!")?;
            Ok(stream)
        })
        .collect()
}

fn connect(from: &Namespace, to: SocketAddr) -> Result<TcpStream> {
    let mut stream = from.connect(to)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}
