//! Two relays: HAProxy in TCP mode in each pod, every connection redirected into both. Between the two
//! there is nothing but TCP, or mutual TLS ([`tls`]).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ambit_tests::pod::Pod;
use ambit_tests::process::Process;
use ambit_tests::sandbox::WORK;
use ambit_tests::wait::{self, SOON};
use anyhow::Result;

use super::redirect::{self, INBOUND, OUTBOUND, PROXY_USER};
use super::{Metrics, Proxies, Proxy};
use crate::pin::{End, Processors};

pub(crate) mod tls;

const METRICS: u16 = 8404;

/// Starts both, with nothing but TCP between them.
///
/// # Errors
/// When one does not start.
pub(crate) fn start((client, server): (&Pod, &Pod), workers: u16, processors: Processors) -> Result<Proxies> {
    redirect::outbound(client)?;
    redirect::inbound(server)?;
    let start = |pod, port| {
        let relay = Relay { pod, port, workers };
        relay.start(&relay.configuration(&plain(port)), SESSIONS, SESSIONS)
    };
    Ok(Proxies {
        client: processors.on(End::Client, || start(client, OUTBOUND))?,
        server: processors.on(End::Server, || start(server, INBOUND))?,
    })
}

/// It has two files for each, and may have 20,000 where limits are usual.
pub(crate) const CONNECTIONS: u32 = 9500;

const SESSIONS: Counter = ("haproxy_frontend_sessions_total", &["proxy=\"relay\""]);

/// A counter, and labels of the series that count.
type Counter = (&'static str, &'static [&'static str]);

/// A relay that takes what is redirected to `port` to where it was bound for.
struct Relay<'a> {
    pod: &'a Pod,
    port: u16,
    workers: u16,
}

impl Relay<'_> {
    fn file(&self, kind: &str) -> PathBuf {
        Path::new(WORK).join(format!("{}.haproxy.{kind}", self.pod.namespace().name()))
    }

    fn command(&self) -> Command {
        let mut command = self.pod.command("setpriv");
        command
            .args(["--reuid", PROXY_USER, "--regid", PROXY_USER, "--clear-groups", "--"])
            .args(["haproxy", "-db", "-f"])
            .arg(self.file("cfg"));
        command
    }

    /// Starts it, and waits until it listens.
    fn start(&self, configuration: &str, carried: Counter, passed: Counter) -> Result<Proxy> {
        let name = format!("haproxy in {}", self.pod.namespace().name());
        fs::write(self.file("cfg"), configuration)?;
        let process = Process::start_writing_to(&self.file("log"), &name, &mut self.command())?;
        for port in [self.port, METRICS] {
            wait::until(format!("{name} to listen on {port}"), SOON, || {
                self.pod.namespace().listens_on(port)
            })?;
        }
        let metrics =
            Metrics { namespace: self.pod.namespace().clone(), page: (METRICS, "/metrics"), carried, passed };
        Ok(Proxy::own(&name, process, metrics))
    }

    /// What all relays have in common, around the `sections` that relay.
    fn configuration(&self, sections: &str) -> String {
        format!(
            "global
  nbthread {workers}
  maxconn {CONNECTIONS}
  log stdout format raw local0
defaults
  log global
  timeout connect 5s
  timeout client 1h
  timeout server 1h
{sections}{ORIGIN}frontend metrics
  mode http
  no log
  bind 127.0.0.1:{METRICS}
  http-request use-service prometheus-exporter if {{ path /metrics }}
",
            workers = self.workers
        )
    }
}

/// A server with the address 0.0.0.0 is where the client wanted to go, of either family.
const ORIGIN: &str = "backend origin
  mode tcp
  server origin 0.0.0.0
";

/// The original destination is asked for by the family of the listener, so each has one of its own.
fn plain(port: u16) -> String {
    format!(
        "frontend relay
  mode tcp
  option tcplog
  bind 0.0.0.0:{port}
  bind :::{port} v6only
  default_backend origin
"
    )
}
