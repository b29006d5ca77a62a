//! One end of many idle connections, as a process of its own: a process may have only so many open
//! files, and both ends of all paths are more than that.

use std::io::{Read, Write, stdout};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;

/// What the end does. It holds the connections until it is killed.
#[derive(Debug, Args)]
pub(crate) struct Hold {
    /// Accept the connections on this port.
    #[arg(long, conflicts_with = "connect", required_unless_present = "connect")]
    listen: Option<u16>,
    /// Open the connections to this address.
    #[arg(long)]
    connect: Option<SocketAddr>,
    /// So many.
    #[arg(long)]
    count: u32,
}

/// What it prints when it can be connected to.
pub(crate) const LISTENING: &str = "listening";
/// What it prints when it has all connections.
pub(crate) const READY: &str = "ready";

/// How long a connection may take to open.
const LIMIT: Duration = Duration::from_secs(20);

/// Is such an end.
///
/// # Errors
/// When a connection does not open.
pub(crate) fn run(hold: &Hold) -> Result<()> {
    let mut held = Vec::new();
    if let Some(port) = hold.listen {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
        writeln!(stdout(), "{LISTENING}")?;
        for _ in 0..hold.count {
            let (mut stream, _) = listener.accept()?;
            stream.write_all(b"!")?;
            held.push(stream);
        }
    }
    if let Some(address) = hold.connect {
        for number in 0..hold.count {
            held.push(connect(address).with_context(|| format!("connection {number}"))?);
        }
    }
    writeln!(stdout(), "{READY}")?;
    loop {
        thread::park();
    }
}

/// Sees an octet through, so that all of the path is there.
fn connect(to: SocketAddr) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.read_exact(&mut [0])?;
    Ok(stream)
}
