//! Bulk data on some connections at once, by threads of this program: one at each end of each.
//!
//! Octets count when they have arrived, and the time ends when the last of them has.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Barrier;
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use ambit_tests::namespace::Namespace;
use anyhow::{Context, Result, anyhow, bail, ensure};
use socket2::SockRef;

use crate::cases::Direction;
use crate::pin::{End, Processors};

/// Where the server's end accepts.
pub(crate) const PORT: u16 = 9100;

/// What is sent from where to where.
pub(crate) struct Bulk<'a> {
    pub(crate) client: &'a Namespace,
    pub(crate) server: &'a Namespace,
    /// Where each connection goes.
    pub(crate) to: Vec<SocketAddr>,
    pub(crate) direction: Direction,
    pub(crate) processors: Processors,
    /// Whether the close behind the last octet may come as a reset, as Envoy hands it on at times. That
    /// all octets arrived is seen by counting them.
    pub(crate) may_reset: bool,
}

/// What arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) octets: f64,
    seconds: f64,
}

impl Arrived {
    pub(crate) fn gigabits_per_second(self) -> f64 {
        self.octets * 8.0 / 1e9 / self.seconds
    }
}

impl Bulk<'_> {
    /// Sends on all connections for so long.
    ///
    /// # Errors
    /// When one does not open or breaks, or when what arrives is not as much as was sent.
    pub(crate) fn run(&self, seconds: u32) -> Result<Arrived> {
        let (clients, servers) = self.connect()?;
        let (sending, receiving, from, to) = match self.direction {
            Direction::Send => (clients, servers, End::Client, End::Server),
            Direction::Receive => (servers, clients, End::Server, End::Client),
        };
        let everyone = Barrier::new(sending.len() + receiving.len());
        let span = Duration::from_secs(seconds.into());
        let start = Instant::now();
        let (sent, received) = thread::scope(|scope| {
            let receivers = self.processors.on(to, || {
                Ok(receiving
                    .into_iter()
                    .map(|end| scope.spawn(|| receive(end, &everyone)))
                    .collect::<Vec<_>>())
            })?;
            let senders = self.processors.on(from, || {
                Ok(sending
                    .into_iter()
                    .map(|end| scope.spawn(|| send(end, &everyone, span, self.may_reset)))
                    .collect::<Vec<_>>())
            })?;
            Ok::<_, anyhow::Error>((sum(senders)?, sum(receivers)?))
        })?;
        let seconds = start.elapsed().as_secs_f64();
        ensure!(sent == received && received > 0, "{sent} octets were sent and {received} arrived");
        Ok(Arrived { octets: received as f64, seconds })
    }

    /// Both ends of all connections.
    fn connect(&self) -> Result<(Vec<TcpStream>, Vec<TcpStream>)> {
        let listener = self.server.listen(PORT)?;
        SockRef::from(&listener).set_read_timeout(Some(LIMIT))?;
        let connect = |to: &SocketAddr| {
            TcpStream::connect_timeout(to, LIMIT).with_context(|| format!("a connection to {to}"))
        };
        let clients: Vec<_> =
            self.client.inside(|| self.to.iter().map(connect).collect::<Result<Vec<_>>>())?;
        let servers = clients.iter().map(|_| accept(&listener)).collect::<Result<Vec<_>>>()?;
        for end in clients.iter().chain(&servers) {
            end.set_read_timeout(Some(LIMIT))?;
            end.set_write_timeout(Some(LIMIT))?;
        }
        Ok((clients, servers))
    }
}

fn accept(listener: &TcpListener) -> Result<TcpStream> {
    Ok(listener.accept().context("a connection did not reach the server")?.0)
}

fn send(mut stream: TcpStream, everyone: &Barrier, span: Duration, may_reset: bool) -> Result<u64> {
    let octets = vec![b'a'; AT_A_TIME];
    let mut sent = 0;
    everyone.wait();
    let end = Instant::now() + span;
    while Instant::now() < end {
        stream.write_all(&octets)?;
        sent += AT_A_TIME as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    // The other end has all of it when it closes.
    match stream.read(&mut [0]) {
        Ok(0) => Ok(sent),
        Err(error) if may_reset && error.kind() == ErrorKind::ConnectionReset => Ok(sent),
        Ok(_) => bail!("the receiving end sent something"),
        Err(error) => Err(error.into()),
    }
}

fn receive(mut stream: TcpStream, everyone: &Barrier) -> Result<u64> {
    let mut octets = vec![0; AT_A_TIME];
    let mut received = 0;
    everyone.wait();
    loop {
        match stream.read(&mut octets)? {
            0 => return Ok(received),
            count => received += count as u64,
        }
    }
}

fn sum(threads: Vec<ScopedJoinHandle<'_, Result<u64>>>) -> Result<u64> {
    threads.into_iter().try_fold(0, |sum, thread| {
        let octets = thread.join().map_err(|panic| anyhow!("an end panicked: {panic:?}"))??;
        Ok(sum + octets)
    })
}

/// As much as iperf3 gives to the kernel in one call.
const AT_A_TIME: usize = 128 << 10;

/// How long one call may take, on a machine that is busy.
const LIMIT: Duration = Duration::from_secs(20);
