//! What clients see: whether a service answers, and how long an open connection is held up.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ambit_tests::pod::Pod;
use anyhow::{Context, Result, anyhow, bail};

/// Connects to `service` again and again until what an answer says is `wanted`.
///
/// # Errors
/// When it does not become so for a long time.
pub(crate) fn until_answers(client: &Pod, service: SocketAddr, wanted: bool) -> Result<Instant> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if answers(client, service) == wanted {
            return Ok(Instant::now());
        }
        thread::sleep(BETWEEN_TRIES);
    }
    bail!("{service} does not become {wanted} within {PATIENCE:?}")
}

fn answers(client: &Pod, service: SocketAddr) -> bool {
    let exchange = || -> Result<()> {
        let mut stream = client.connect(service)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])?;
        Ok(())
    };
    exchange().is_ok()
}

const PATIENCE: Duration = Duration::from_secs(60);
const BETWEEN_TRIES: Duration = Duration::from_millis(3);
const ANSWER: Duration = Duration::from_secs(2);

/// An exchange of one octet on an open connection every millisecond, and the longest that one took.
pub(crate) struct Pinger {
    ends: Arc<AtomicBool>,
    longest: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Pinger {
    /// Begins, over the mesh.
    ///
    /// # Errors
    /// When the connection cannot be opened.
    pub(crate) fn start(client: &Pod, server: SocketAddr) -> Result<Self> {
        let stream = client.connect(server)?;
        stream.set_nodelay(true)?;
        let (ends, longest) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ended, found) = (Arc::clone(&ends), Arc::clone(&longest));
        let thread = Some(thread::spawn(move || ping(&stream, &ended, &found)));
        Ok(Self { ends, longest, thread })
    }

    /// The longest exchange since the last call.
    pub(crate) fn take_longest(&self) -> Duration {
        Duration::from_nanos(self.longest.swap(0, Ordering::Relaxed))
    }

    /// Ends.
    ///
    /// # Errors
    /// When the connection was cut.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.ends.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it runs")?;
        thread.join().map_err(|_| anyhow!("the pinging thread panicked"))?
    }
}

fn ping(mut stream: &TcpStream, ends: &AtomicBool, longest: &AtomicU64) -> Result<()> {
    while !ends.load(Ordering::Relaxed) {
        let start = Instant::now();
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])?;
        longest.fetch_max(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
