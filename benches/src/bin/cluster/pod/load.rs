//! The load: requests at a fixed rate on new connections, on kept ones, and octets on connections that
//! stay open.
//!
//! New connections are an open loop: each request is begun when it is due, whatever became of those
//! before. On a connection one request follows the other, so that one that waits delays the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::time::{Interval, MissedTickBehavior, interval, sleep, timeout};

use super::http1::{self, classify};
use super::ports;
use super::recorder::Recorder;
use super::serve::answer;
use super::steer::{Generation, Steering, listen};
use crate::clock::Clock;
use crate::outcome::{Failure, Kind};

/// Requests on new connections that may wait at once. More would be a load that only the failure makes.
const MAX_WAITING: usize = 500;
/// Between attempts to open a connection again.
const PAUSE: Duration = Duration::from_millis(100);

/// The load of one pod.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// What it answers: a load pod serves too, so that others can see whether it is captured.
    #[arg(long, env = "HOSTNAME")]
    name: String,
    /// Where requests go, in turn. Without one there is no load.
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Vec<SocketAddr>,
    /// Where connections that stay open go, in turn.
    #[arg(long, value_name = "ADDRESS:PORT")]
    echo: Vec<SocketAddr>,
    /// Milliseconds between two requests on new connections.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    new_every_ms: u64,
    /// Connections that are kept between requests.
    #[arg(long, default_value_t = 2)]
    kept: usize,
    /// Milliseconds between two requests on each of them.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..))]
    kept_every_ms: u64,
    /// Connections that stay open.
    #[arg(long, default_value_t = 10)]
    open: usize,
    /// Milliseconds between two octets on each of them.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    open_every_ms: u64,
    /// Milliseconds that a request may take, its connection included.
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

/// Makes the load until SIGTERM.
///
/// # Errors
/// When the port of the controller cannot be listened on.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    ensure!(
        settings.http.is_empty() == settings.echo.is_empty(),
        "--http and --echo are given together, or neither is"
    );
    let recorder = Arc::new(Recorder::new(Clock::start()));
    let connections = Generation::default();
    let client = Client {
        recorder: Arc::clone(&recorder),
        limit: Duration::from_millis(settings.timeout_ms),
        connections: connections.clone(),
    };
    if !settings.http.is_empty() {
        start(&client, settings);
    }
    let mut end = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let steering = Steering::new(recorder, connections);
    tokio::spawn(answer(listen(ports::GUARDED).await?, settings.name.as_str().into(), steering.clone()));
    tokio::select! {
        ended = steering.serve(ports::STEER) => ended,
        _ = end.recv() => Ok(()),
    }
}

fn start(client: &Client, settings: &Settings) {
    let every = Duration::from_millis(settings.new_every_ms);
    tokio::spawn(client.clone().requests(settings.http.clone(), every));
    let every = Duration::from_millis(settings.kept_every_ms);
    for (_, target) in (0..settings.kept).zip(settings.http.iter().cycle()) {
        tokio::spawn(client.clone().kept(*target, every));
    }
    let every = Duration::from_millis(settings.open_every_ms);
    for (_, target) in (0..settings.open).zip(settings.echo.iter().cycle()) {
        tokio::spawn(client.clone().open(*target, every));
    }
}

#[derive(Clone, Debug)]
struct Client {
    recorder: Arc<Recorder>,
    limit: Duration,
    /// Connections of a generation before this one are replaced.
    connections: Generation,
}

impl Client {
    async fn requests(self, targets: Vec<SocketAddr>, every: Duration) {
        let waiting = Arc::new(Semaphore::new(MAX_WAITING));
        // What is late is begun all the same: an open loop leaves nothing out.
        let mut due = ticks(every, MissedTickBehavior::Burst);
        for target in targets.into_iter().cycle() {
            due.tick().await;
            let began_us = self.recorder.clock().now_us();
            let Ok(permit) = Arc::clone(&waiting).try_acquire_owned() else {
                self.recorder.record(began_us, Kind::New, Some(Failure::Backlog), None);
                continue;
            };
            let client = self.clone();
            tokio::spawn(async move {
                let asked = async {
                    let mut stream = connect(target).await?;
                    http1::ask(&mut stream, &mut Vec::new(), false).await
                };
                let answer = client.within(asked).await;
                let peer = answer.as_ref().ok().and_then(|answer| client.recorder.peer(&answer.body));
                client.recorder.record(began_us, Kind::New, answer.err(), peer);
                drop(permit);
            });
        }
    }

    async fn kept(self, target: SocketAddr, every: Duration) {
        let mut due = ticks(every, MissedTickBehavior::Skip);
        let mut connection: Option<Kept> = None;
        let mut generation = self.connections.get();
        loop {
            due.tick().await;
            if self.connections.get() != generation {
                generation = self.connections.get();
                connection = None;
            }
            let began_us = self.recorder.clock().now_us();
            let peer = connection.as_ref().and_then(|kept| kept.peer);
            match self.within(ask_again(connection.take(), target)).await {
                Ok((mut kept, answer)) => {
                    kept.peer = self.recorder.peer(&answer.body);
                    self.recorder.record(began_us, Kind::Kept, None, kept.peer);
                    connection = answer.keeps.then_some(kept);
                }
                Err(failure) => self.recorder.record(began_us, Kind::Kept, Some(failure), peer),
            }
        }
    }

    async fn open(self, target: SocketAddr, every: Duration) {
        loop {
            let began_us = self.recorder.clock().now_us();
            let greeted = async {
                let mut stream = connect(target).await?;
                let name = line(&mut stream).await?;
                Ok((stream, name))
            };
            match self.within(greeted).await {
                Ok((stream, name)) => self.exchange(stream, self.recorder.peer(&name), every).await,
                Err(failure) => self.recorder.record(began_us, Kind::Open, Some(failure), None),
            }
            sleep(PAUSE).await;
        }
    }

    /// Sends octets until one does not come back, or the connection is to be replaced.
    async fn exchange(&self, mut stream: TcpStream, peer: Option<u16>, every: Duration) {
        let mut due = ticks(every, MissedTickBehavior::Skip);
        let generation = self.connections.get();
        loop {
            due.tick().await;
            if self.connections.get() != generation {
                return;
            }
            let began_us = self.recorder.clock().now_us();
            let failure = self.within(octet(&mut stream)).await.err();
            self.recorder.record(began_us, Kind::Open, failure, peer);
            if failure.is_some() {
                return;
            }
        }
    }

    async fn within<T>(&self, step: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        timeout(self.limit, step).await.unwrap_or(Err(Failure::TimedOut))
    }
}

/// A connection between two requests.
#[derive(Debug)]
struct Kept {
    stream: TcpStream,
    buffer: Vec<u8>,
    peer: Option<u16>,
}

async fn ask_again(kept: Option<Kept>, target: SocketAddr) -> Result<(Kept, http1::Answer), Failure> {
    let mut kept = match kept {
        Some(kept) => kept,
        None => Kept { stream: connect(target).await?, buffer: Vec::new(), peer: None },
    };
    let answer = http1::ask(&mut kept.stream, &mut kept.buffer, true).await?;
    Ok((kept, answer))
}

async fn connect(target: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(target).await.map_err(|error| classify(&error))?;
    stream.set_nodelay(true).map_err(|error| classify(&error))?;
    Ok(stream)
}

async fn octet(stream: &mut TcpStream) -> Result<(), Failure> {
    stream.write_all(b".").await.map_err(|error| classify(&error))?;
    let back = stream.read_u8().await.map_err(|error| classify(&error))?;
    if back == b'.' { Ok(()) } else { Err(Failure::WrongAnswer) }
}

/// A server's greeting. Nothing follows it before we send something.
async fn line(stream: &mut TcpStream) -> Result<String, Failure> {
    let mut text = Vec::new();
    while text.last() != Some(&b'\n') {
        if text.len() > 256 {
            return Err(Failure::WrongAnswer);
        }
        if stream.read_buf(&mut text).await.map_err(|error| classify(&error))? == 0 {
            return Err(Failure::Closed);
        }
    }
    text.pop();
    String::from_utf8(text).map_err(|_| Failure::WrongAnswer)
}

fn ticks(every: Duration, missed: MissedTickBehavior) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(missed);
    ticks
}
