//! A server: answers its name over HTTP, and every octet on another port.
//!
//! At SIGTERM it is not ready any more, goes on until the endpoints have gone everywhere, and ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::recorder::Recorder;
use super::steer::{Generation, Steering, listen};
use super::{http1, ports};
use crate::clock::Clock;

/// A server.
#[derive(Clone, Debug, Args)]
pub(crate) struct Settings {
    /// What it answers.
    #[arg(long, env = "HOSTNAME")]
    name: String,
    /// How long it serves after SIGTERM, in seconds, while it says that it is not ready.
    #[arg(long, default_value_t = 5)]
    linger_seconds: u64,
}

/// Serves until SIGTERM, and a little longer.
///
/// # Errors
/// When a port cannot be listened on.
pub(crate) async fn run(settings: &Settings) -> Result<()> {
    let steering = Steering::new(Arc::new(Recorder::new(Clock::start())), Generation::default());
    let name: Arc<str> = settings.name.as_str().into();
    for port in [ports::HTTP, ports::GUARDED] {
        tokio::spawn(answer(listen(port).await?, Arc::clone(&name), steering.clone()));
    }
    tokio::spawn(echo(listen(ports::ECHO).await?, Arc::clone(&name)));
    let mut end = signal(SignalKind::terminate()).context("SIGTERM cannot be waited for")?;
    let retiring = async {
        end.recv().await;
        steering.retire();
        sleep(Duration::from_secs(settings.linger_seconds)).await;
        Ok(())
    };
    tokio::select! {
        ended = steering.clone().serve(ports::STEER) => ended,
        ended = retiring => ended,
    }
}

/// Answers requests with a name.
pub(super) async fn answer(listener: TcpListener, name: Arc<str>, steering: Steering) {
    loop {
        // An error of accept is of that connection, or of the system for a moment.
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(converse(stream, Arc::clone(&name), steering.clone()));
    }
}

async fn converse(mut stream: TcpStream, name: Arc<str>, steering: Steering) {
    let mut buffer = Vec::new();
    while let Ok(Some(request)) = http1::request(&mut stream, &mut buffer).await {
        // Who is told so opens the next connection to another pod.
        let keeps = request.keeps && !steering.is_retired();
        if http1::respond(&mut stream, "200 OK", &name, keeps).await.is_err() || !keeps {
            return;
        }
    }
}

async fn echo(listener: TcpListener, name: Arc<str>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(repeat(stream, Arc::clone(&name)));
    }
}

/// The name and a line feed, then what comes.
async fn repeat(mut stream: TcpStream, name: Arc<str>) {
    let mut buffer = [0; 256];
    if stream.set_nodelay(true).is_err() || stream.write_all(format!("{name}\n").as_bytes()).await.is_err() {
        return;
    }
    while let Ok(count @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
