//! Connections of which each goes to an address of the server that none has used before, so that no
//! tunnel is there for it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::lane::{Lane, body};

/// Connections at once.
const AT_ONCE: usize = 32;

/// Makes one HTTP request to each address, and returns how long all took.
///
/// # Errors
/// When one fails.
pub(crate) fn run(lane: &Lane, addresses: &[SocketAddr]) -> Result<Duration> {
    let (next, body) = (AtomicUsize::new(0), body());
    let take_turns = || -> Result<()> {
        while let Some(address) = addresses.get(next.fetch_add(1, Ordering::Relaxed)) {
            request(*address, &body).with_context(|| format!("a connection to {address}"))?;
        }
        Ok(())
    };
    // Threads are born into the namespace of the one that makes them.
    lane.client.namespace().inside(|| {
        let start = Instant::now();
        thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(take_turns)).collect();
            workers.into_iter().try_for_each(|worker| {
                worker.join().map_err(|panic| anyhow!("a client panicked: {panic:?}"))?
            })
        })?;
        Ok(start.elapsed())
    })
}

/// # Errors
/// When no right answer comes.
pub(crate) fn request(address: SocketAddr, body: &str) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    // In one piece, as HTTP clients send a head: `write!` would make a call and a packet of each part.
    let head = format!("GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(body), "the answer was {answer:?}");
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(10);
