//! The port by which the controller, and the kubelet, ask a pod.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};

use super::http1::{self, Request};
use super::probe::{Probes, Want};
use super::recorder::Recorder;
use crate::clock::Clock;

/// What may be asked of.
#[derive(Clone, Debug)]
pub(super) struct Steering {
    clock: Clock,
    is_ready: Arc<AtomicBool>,
    probes: Arc<Probes>,
    recorder: Arc<Recorder>,
    connections: Generation,
}

/// Counts up when connections that are open are to be replaced.
#[derive(Clone, Debug, Default)]
pub(super) struct Generation(Arc<AtomicU32>);

impl Generation {
    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Steering {
    /// `connections` is asked by whoever holds some.
    pub(super) fn new(recorder: Arc<Recorder>, connections: Generation) -> Self {
        let clock = recorder.clock();
        let is_ready = Arc::new(AtomicBool::new(true));
        Self { clock, is_ready, probes: Arc::new(Probes::new(clock)), recorder, connections }
    }

    /// From now on the kubelet hears that this pod is not ready.
    pub(super) fn retire(&self) {
        self.is_ready.store(false, Ordering::Relaxed);
    }

    /// Whether [`Self::retire`] has been called.
    pub(super) fn is_retired(&self) -> bool {
        !self.is_ready.load(Ordering::Relaxed)
    }

    /// Serves for ever.
    ///
    /// # Errors
    /// When the port cannot be listened on.
    pub(super) async fn serve(self, port: u16) -> Result<()> {
        let listener = listen(port).await?;
        loop {
            // An error of accept is of that connection, or of the system for a moment.
            let Ok((stream, _)) = listener.accept().await else { continue };
            tokio::spawn(self.clone().converse(stream));
        }
    }

    async fn converse(self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Ok(Some(request)) = http1::request(&mut stream, &mut buffer).await {
            let (status, body) = self.answer(&request);
            if http1::respond(&mut stream, status, &body, request.keeps).await.is_err() || !request.keeps {
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> (&'static str, String) {
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/ready") if self.is_retired() => ("503 Service Unavailable", String::new()),
            ("GET", "/ready") => ("200 OK", String::new()),
            ("GET", "/now") => ("200 OK", self.clock.now_us().to_string()),
            ("GET", "/log") => {
                let from = request.parameter("from").and_then(|text| text.parse().ok()).unwrap_or(0);
                json(&self.recorder.log(from))
            }
            ("GET", "/probe") => json(&self.probes.results()),
            ("POST", "/probe") => self.probe(request),
            ("POST", "/reconnect") => {
                self.connections.advance();
                ("200 OK", String::new())
            }
            // Without a word to anybody, as a process that is killed.
            ("POST", "/crash") => process::exit(137),
            _ => ("404 Not Found", String::new()),
        }
    }

    fn probe(&self, request: &Request) -> (&'static str, String) {
        let targets = request.parameter("targets").unwrap_or_default().split(',');
        let targets: Result<Vec<SocketAddr>, _> = targets.map(str::parse).collect();
        let want = request.parameter("want").and_then(|text| text.parse::<Want>().ok());
        let every = request.parameter("every_ms").and_then(|text| text.parse().ok());
        let (Ok(targets), Some(want), Some(every_ms)) = (targets, want, every) else {
            return ("400 Bad Request", "targets, want and every_ms".to_owned());
        };
        self.probes.start(&targets, want, Duration::from_millis(every_ms));
        ("200 OK", String::new())
    }
}

fn json(value: &impl Serialize) -> (&'static str, String) {
    match serde_json::to_string(value) {
        Ok(text) => ("200 OK", text),
        Err(error) => ("500 Internal Server Error", error.to_string()),
    }
}

/// Listens on every address of the pod, of both families where the kernel has both.
pub(super) async fn listen(port: u16) -> Result<TcpListener> {
    if let Ok(listener) = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        return Ok(listener);
    }
    let of_one = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await;
    of_one.with_context(|| format!("port {port} cannot be listened on"))
}
