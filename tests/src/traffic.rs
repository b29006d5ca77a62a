//! Connections that the scenarios hold in their own hands: what was sent, what arrived, how it
//! ended.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use aws_lc_rs::digest::{Context as Digester, SHA256};
use socket2::SockRef;

use crate::pod::Pod;
use crate::wait::SOON;

/// How a direction of a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// FIN: everything has arrived.
    Clean,
    /// RST: something may be missing.
    Reset,
}

/// What arrived on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// Octets.
    pub bytes: u64,
    /// SHA-256 of them.
    pub digest: Vec<u8>,
    /// How it ended.
    pub end: End,
}

/// A server thread of [`serve_one`].
#[derive(Debug)]
pub struct Serving<T>(JoinHandle<Result<T>>);

impl<T> Serving<T> {
    /// Waits for what the server made of its connection.
    ///
    /// # Errors
    /// Those of the server.
    pub fn finish(self) -> Result<T> {
        self.0.join().map_err(|panic| anyhow!("the server panicked: {panic:?}"))?
    }
}

/// Accepts one connection in `pod` and hands it to `serve` on a thread.
///
/// # Errors
/// When the port is taken.
pub fn serve_one<T: Send + 'static>(
    pod: &Pod,
    port: u16,
    serve: impl FnOnce(TcpStream) -> Result<T> + Send + 'static,
) -> Result<Serving<T>> {
    let listener = pod.listen(port)?;
    Ok(Serving(thread::spawn(move || {
        let (stream, _) = listener.accept().context("accepting")?;
        stream.set_read_timeout(Some(Duration::from_secs(300)))?;
        serve(stream)
    })))
}

/// Serves every connection to a port of `pod` until the scenario ends: each octet comes back, and
/// so does a FIN.
///
/// # Errors
/// When the port is taken.
pub fn echo(pod: &Pod, port: u16) -> Result<()> {
    let listener = pod.listen(port)?;
    thread::spawn(move || accept_echoes(&listener));
    Ok(())
}

fn accept_echoes(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        thread::spawn(move || {
            let mut reader = &stream;
            // A connection that a scenario cuts ends its echo; the scenario judges the other end.
            let _ = std::io::copy(&mut reader, &mut &stream);
            let _ = stream.flush().and_then(|()| stream.shutdown(Shutdown::Write));
        });
    }
}

/// A connection to an [`echo`] server, kept open.
#[derive(Debug)]
pub struct Held {
    stream: TcpStream,
    exchanges: u64,
}

impl Held {
    /// Opens one and checks that it works.
    ///
    /// # Errors
    /// When nothing comes back.
    pub fn open(from: &Pod, to: SocketAddr) -> Result<Self> {
        Self::over(from.connect(to)?)
    }

    /// Uses a connection that is open.
    ///
    /// # Errors
    /// When nothing comes back.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_read_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
        let mut held = Self { stream, exchanges: 0 };
        held.exchange()?;
        Ok(held)
    }

    /// Opens many.
    ///
    /// # Errors
    /// When one of them does not work.
    pub fn open_many(count: usize, from: &Pod, to: SocketAddr) -> Result<Vec<Self>> {
        (0..count)
            .map(|number| Self::open(from, to).with_context(|| format!("connection {number}")))
            .collect()
    }

    /// Sends a number and insists on its return.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn exchange(&mut self) -> Result<()> {
        self.exchanges += 1;
        let sent = self.exchanges.to_be_bytes();
        self.stream.write_all(&sent).context("sending on an open connection")?;
        let mut back = [0; 8];
        self.stream.read_exact(&mut back).context("reading from an open connection")?;
        ensure!(back == sent, "sent {sent:?} and got back {back:?}");
        Ok(())
    }

    /// Waits until the connection is cut, and returns how and after which time.
    ///
    /// # Errors
    /// When it is still open after `within`.
    pub fn wait_until_cut(&mut self, within: Duration) -> Result<(End, Duration)> {
        let start = Instant::now();
        self.stream.set_read_timeout(Some(within))?;
        match self.stream.read(&mut [0; 1]) {
            Ok(0) => Ok((End::Clean, start.elapsed())),
            Ok(_) => bail!("an octet came that nobody sent"),
            Err(error) if is_reset(&error) => Ok((End::Reset, start.elapsed())),
            Err(error) => Err(error).with_context(|| format!("still open after {within:?}")),
        }
    }

    /// Ends it and waits for the far end to agree.
    ///
    /// # Errors
    /// When the far end does not.
    pub fn close(mut self) -> Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        ensure!(self.stream.read(&mut [0; 1])? == 0, "an octet came that nobody sent");
        Ok(())
    }
}

/// What [`under_load`] did.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Exchanges on the one connection that stayed open.
    pub exchanges: u64,
    /// Requests, each on a connection of its own.
    pub requests: u64,
}

/// Uses the mesh without a pause while `meanwhile` runs: one connection to an [`echo`] server that
/// stays open, and requests to an HTTP server.
///
/// # Errors
/// When one exchange or request fails, or `meanwhile` does.
pub fn under_load(
    client: &Pod,
    http: SocketAddr,
    echo: SocketAddr,
    meanwhile: impl FnOnce() -> Result<()>,
) -> Result<Load> {
    let done = AtomicBool::new(false);
    let mut held = Held::open(client, echo)?;
    let (exchanges, requests) = thread::scope(|scope| {
        let exchanges = scope.spawn(|| repeat_until(&done, || held.exchange()).context("on the long stream"));
        let requests = scope.spawn(|| repeat_until(&done, || client.get(http)?.expect_ok().map(drop)));
        let result = meanwhile();
        done.store(true, Ordering::Relaxed);
        let join = |thread: ScopedJoinHandle<'_, Result<u64>>| {
            thread.join().map_err(|panic| anyhow!("the load panicked: {panic:?}"))?
        };
        let done = (join(exchanges)?, join(requests)?);
        result.map(|()| done)
    })?;
    ensure!(
        exchanges > 100 && requests > 100,
        "only {exchanges} exchanges and {requests} requests were made"
    );
    Ok(Load { exchanges, requests })
}

fn repeat_until(done: &AtomicBool, mut work: impl FnMut() -> Result<()>) -> Result<u64> {
    let mut times = 0;
    while !done.load(Ordering::Relaxed) {
        work().with_context(|| format!("after {times} times without a failure"))?;
        times += 1;
    }
    Ok(times)
}

/// Sends `bytes` octets that differ all along, and returns their digest. Leaves the connection open.
///
/// # Errors
/// When the far end stops taking them.
pub fn send(mut stream: &TcpStream, bytes: u64) -> Result<Vec<u8>> {
    let mut digester = Digester::new(&SHA256);
    let mut block: Vec<u8> =
        (0..1_u32 << 16).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let mut sent = 0;
    while sent < bytes {
        // Two blocks that change places would show.
        block[..8].copy_from_slice(&sent.to_be_bytes());
        let part = usize::try_from(bytes - sent)?.min(block.len());
        stream.write_all(&block[..part]).with_context(|| format!("sending after {sent} octets"))?;
        digester.update(&block[..part]);
        sent += u64::try_from(part)?;
    }
    Ok(digester.finish().as_ref().to_vec())
}

/// Reads until the far end ends.
///
/// # Errors
/// When neither FIN nor RST comes.
pub fn receive(mut stream: &TcpStream) -> Result<Received> {
    let mut digester = Digester::new(&SHA256);
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break End::Clean,
            Ok(read) => {
                digester.update(&buffer[..read]);
                bytes += u64::try_from(read)?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if is_reset(&error) => break End::Reset,
            Err(error) => return Err(error).with_context(|| format!("reading after {bytes} octets")),
        }
    };
    Ok(Received { bytes, digest: digester.finish().as_ref().to_vec(), end })
}

/// Ends a connection with a RST, as a process that crashes with unread data does.
///
/// # Errors
/// When the kernel refuses.
pub fn abort(stream: TcpStream) -> Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    drop(stream);
    Ok(())
}

fn is_reset(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted)
}
