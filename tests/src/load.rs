//! A steady load on the mesh that says what of it failed.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};

use crate::pod::Pod;
use crate::traffic::Held;
use crate::wait;

/// Connections that are opened, used and closed, one after the other on each of several threads, and
/// others that stay open and are used all the time.
#[derive(Debug)]
pub struct Load {
    done: Arc<AtomicBool>,
    made: Arc<AtomicU64>,
    requests: Vec<JoinHandle<Result<Tally>>>,
    held: Vec<JoinHandle<Result<Vec<Held>>>>,
}

/// What came of requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many were made.
    pub requests: u64,
    /// Those that failed: when, since the beginning, and how.
    pub failures: Vec<String>,
    /// What the slowest took.
    pub slowest: Duration,
}

impl Load {
    /// None so far.
    pub fn idle() -> Self {
        Self { done: Arc::default(), made: Arc::default(), requests: Vec::new(), held: Vec::new() }
    }

    /// Makes `per_second` requests of `from` to an [`echo`](crate::traffic::echo) server, each on a
    /// connection of its own.
    pub fn requests(&mut self, from: &Pod, to: SocketAddr, per_second: u32) {
        for _ in 0..THREADS {
            let (pod, done, made) = (from.clone(), Arc::clone(&self.done), Arc::clone(&self.made));
            let apart = Duration::from_secs(1) * THREADS / per_second;
            let ask = move || pod.namespace().inside(|| Ok(keep_asking(to, apart, &made, &done)));
            self.requests.push(thread::spawn(ask));
        }
    }

    /// Requests that were made so far.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }

    /// Uses connections to an [`echo`](crate::traffic::echo) server without a pause.
    pub fn keep_using(&mut self, mut held: Vec<Held>) {
        let done = Arc::clone(&self.done);
        self.held.push(thread::spawn(move || {
            let mut next = Instant::now();
            while !done.load(Ordering::Relaxed) {
                held.iter_mut().try_for_each(Held::exchange)?;
                wait::pace(&mut next, BETWEEN_EXCHANGES);
            }
            Ok(held)
        }));
    }

    /// Ends the requests, and returns what came of them and the connections that stayed open.
    ///
    /// # Errors
    /// When one of those that stayed open did not work all the time.
    pub fn finish(self) -> Result<(Tally, Vec<Held>)> {
        self.done.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for thread in self.requests {
            let tally = join(thread)?;
            all.requests += tally.requests;
            all.failures.extend(tally.failures);
            all.slowest = all.slowest.max(tally.slowest);
        }
        let mut open = Vec::new();
        for thread in self.held {
            open.extend(join(thread).context("on a connection that stays open")?);
        }
        Ok((all, open))
    }
}

impl Tally {
    /// Insists that every one of at least so many requests succeeded.
    ///
    /// # Errors
    /// When one failed.
    pub fn expect_no_failure(&self, at_least: u64) -> Result<()> {
        let Self { requests, failures, .. } = self;
        ensure!(
            failures.is_empty(),
            "{} of {requests} requests failed: {:?}",
            failures.len(),
            &failures[..failures.len().min(10)]
        );
        ensure!(
            *requests >= at_least,
            "only {requests} requests were made, {at_least} are needed for a claim"
        );
        Ok(())
    }
}

fn keep_asking(to: SocketAddr, apart: Duration, made: &AtomicU64, done: &AtomicBool) -> Tally {
    let start = Instant::now();
    let mut next = start;
    let mut tally = Tally::default();
    while !done.load(Ordering::Relaxed) {
        wait::pace(&mut next, apart);
        let asked = Instant::now();
        tally.requests += 1;
        made.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = ask(to, tally.requests) {
            tally.failures.push(format!("after {:?}: {error:#}", start.elapsed()));
        }
        tally.slowest = tally.slowest.max(asked.elapsed());
    }
    tally
}

/// A connection that is opened, used and closed by both ends.
fn ask(to: SocketAddr, number: u64) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, LIMIT).context("connecting")?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_nodelay(true)?;
    let sent = number.to_be_bytes();
    stream.write_all(&sent).context("sending")?;
    let mut back = [0; 8];
    stream.read_exact(&mut back).context("reading")?;
    ensure!(back == sent, "sent {sent:?} and got back {back:?}");
    stream.shutdown(Shutdown::Write).context("ending")?;
    ensure!(stream.read(&mut back).context("waiting for the end")? == 0, "an octet came that nobody sent");
    Ok(())
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|panic| anyhow!("the load panicked: {panic:?}"))?
}

/// Threads of one series of requests.
const THREADS: u32 = 4;

/// A connection that stays open is used this often at most.
const BETWEEN_EXCHANGES: Duration = Duration::from_millis(20);

const LIMIT: Duration = Duration::from_secs(15);
