//! Two plain relays: HAProxy in TCP mode in each pod, every connection redirected into both.

use std::fs;
use std::path::Path;

use ambit_tests::pod::Pod;
use ambit_tests::process::Process;
use ambit_tests::sandbox::WORK;
use ambit_tests::wait::{self, SOON};
use anyhow::Result;

use super::redirect::{self, INBOUND, OUTBOUND, PROXY_USER};
use super::{Metrics, Proxies, Proxy};
use crate::pin::{End, Processors};

const METRICS: u16 = 8404;

/// Starts both.
///
/// # Errors
/// When one does not start.
pub(crate) fn start((client, server): (&Pod, &Pod), workers: u16, processors: Processors) -> Result<Proxies> {
    redirect::outbound(client)?;
    redirect::inbound(server)?;
    Ok(Proxies {
        client: processors.on(End::Client, || relay(client, OUTBOUND, workers))?,
        server: processors.on(End::Server, || relay(server, INBOUND, workers))?,
    })
}

/// A relay that takes what is redirected to `port` to where it was bound for.
fn relay(pod: &Pod, port: u16, workers: u16) -> Result<Proxy> {
    let name = format!("haproxy in {}", pod.namespace().name());
    let file = |kind: &str| Path::new(WORK).join(format!("{}.haproxy.{kind}", pod.namespace().name()));
    fs::write(file("cfg"), configuration(port, workers))?;
    let mut command = pod.command("setpriv");
    command
        .args(["--reuid", PROXY_USER, "--regid", PROXY_USER, "--clear-groups", "--"])
        .args(["haproxy", "-db", "-f"])
        .arg(file("cfg"));
    let process = Process::start_writing_to(&file("log"), &name, &mut command)?;
    for port in [port, METRICS] {
        wait::until(format!("{name} to listen on {port}"), SOON, || pod.namespace().listens_on(port))?;
    }
    let metrics = Metrics {
        namespace: pod.namespace().clone(),
        page: (METRICS, "/metrics"),
        carried: SESSIONS,
        passed: SESSIONS,
    };
    Ok(Proxy::own(&name, process, metrics))
}

/// It has two files for each, and may have 20,000 where limits are usual.
pub(crate) const CONNECTIONS: u32 = 9500;

const SESSIONS: (&str, &[&str]) = ("haproxy_frontend_sessions_total", &["proxy=\"relay\""]);

/// A server with the address 0.0.0.0 is where the client wanted to go, of either family. The original
/// destination is asked for by the family of the listener, so each has one of its own.
fn configuration(port: u16, workers: u16) -> String {
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
frontend relay
  mode tcp
  option tcplog
  bind 0.0.0.0:{port}
  bind :::{port} v6only
  default_backend origin
backend origin
  mode tcp
  server origin 0.0.0.0
frontend metrics
  mode http
  no log
  bind 127.0.0.1:{METRICS}
  http-request use-service prometheus-exporter if {{ path /metrics }}
"
    )
}
