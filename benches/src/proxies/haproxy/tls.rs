//! Mutual TLS 1.3 between the two relays: a connection of its own for each that was redirected, because
//! HAProxy does not share one in TCP mode.
//!
//! Each end verifies the other's certificate against the one authority. HAProxy has no way to ask for an
//! identity that is a URI.

use std::fs;

use ambit_tests::certificates::{Authority, Validity};
use ambit_tests::pod::Pod;
use anyhow::{Context, Result, bail, ensure};

use super::super::envoy::{self, SUITE};
use super::super::redirect::{self, INBOUND, OUTBOUND};
use super::super::{Proxies, Proxy};
use super::{Counter, Relay, SESSIONS};
use crate::pin::{End, Processors};

/// Starts both. What the client sends to `mesh`, addresses and prefixes, goes to the other one over TLS,
/// and what goes elsewhere as it is.
///
/// # Errors
/// When one does not start.
pub(crate) fn start(
    (client, server): (&Pod, &Pod),
    mesh: &[String],
    workers: u16,
    processors: Processors,
) -> Result<Proxies> {
    redirect::outbound(client)?;
    redirect::inbound(server)?;
    let authority = Authority::generate("benchmark")?;
    Ok(Proxies {
        client: processors.on(End::Client, || {
            let relay = Relay { pod: client, port: OUTBOUND, workers };
            let sections = sections_of_client(&relay.credentials(&authority)?, mesh);
            relay.start(&relay.configuration(&sections), OVER_TLS, PASSED)
        })?,
        server: processors.on(End::Server, || {
            let relay = Relay { pod: server, port: INBOUND, workers };
            relay.start_with_best_key_exchange(&relay.credentials(&authority)?)
        })?,
    })
}

/// Insists on every connection that the server's relay has logged having come over TLS with the suite that
/// the tunnels of the other paths use.
///
/// # Errors
/// When one has not, or when there was none.
pub(crate) fn expect_equal_cryptography(server: &Pod) -> Result<()> {
    let file = Relay { pod: server, port: INBOUND, workers: 0 }.file("log");
    let log = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    // HAProxy marks a frontend of TLS so.
    let mut connections = log.lines().filter(|line| line.contains(" relay~ ")).peekable();
    ensure!(connections.peek().is_some(), "HAProxy has logged no connection over TLS in {}", file.display());
    let wanted = format!(" TLSv1.3 {SUITE}");
    match connections.find(|line| !line.ends_with(&wanted)) {
        Some(other) => bail!("not every connection between the relays used{wanted}: {other}"),
        None => Ok(()),
    }
}

/// What the client's relay sends to the other one.
const OVER_TLS: Counter = ("haproxy_backend_sessions_total", &["proxy=\"peer\""]);
/// What it sends elsewhere.
const PASSED: Counter = ("haproxy_backend_sessions_total", &["proxy=\"origin\""]);

/// From the best one: OpenSSL has the first since its version 3.5.
const KEY_EXCHANGES: [&str; 2] = [envoy::KEY_EXCHANGE, "X25519"];

impl Relay<'_> {
    /// Has a certificate for the pod's identity written to files, and says how HAProxy is to show it and
    /// verify the other end's.
    fn credentials(&self, authority: &Authority) -> Result<String> {
        let issued = authority.issue(&self.pod.identity(), Validity::Current)?;
        let (own, root) = (self.file("pem"), self.file("root.pem"));
        fs::write(&own, issued.certificate + &issued.key)?;
        fs::write(&root, authority.certificate())?;
        Ok(format!(
            "ssl crt {} ca-file {} verify required ssl-min-ver TLSv1.3 ciphersuites {SUITE}",
            own.display(),
            root.display()
        ))
    }

    /// The server chooses, from what OpenSSL offers at the client's end by itself.
    fn start_with_best_key_exchange(&self, credentials: &str) -> Result<Proxy> {
        for key_exchange in KEY_EXCHANGES {
            let configuration = self.configuration(&sections_of_server(credentials, key_exchange));
            fs::write(self.file("cfg"), &configuration)?;
            if self.command().arg("-c").output().context("haproxy -c cannot be started")?.status.success() {
                return self.start(&configuration, SESSIONS, SESSIONS);
            }
        }
        bail!("HAProxy accepts its configuration with none of the key exchanges {KEY_EXCHANGES:?}")
    }
}

/// Neither end of the other paths resumes sessions.
fn sections_of_client(credentials: &str, mesh: &[String]) -> String {
    format!(
        "frontend relay
  mode tcp
  option tcplog
  bind 0.0.0.0:{OUTBOUND}
  bind :::{OUTBOUND} v6only
  use_backend peer if {{ dst {} }}
  default_backend origin
backend peer
  mode tcp
  server peer 0.0.0.0 {credentials} no-ssl-reuse
",
        mesh.join(" ")
    )
}

/// The log has what `option tcplog` has, and how the connection is protected.
fn sections_of_server(credentials: &str, key_exchange: &str) -> String {
    let how = format!("{credentials} curves {key_exchange} no-tls-tickets");
    format!(
        "global
  tune.ssl.cachesize 0
frontend relay
  mode tcp
  log-format \"%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq %sslv %sslc\"
  bind 0.0.0.0:{INBOUND} {how}
  bind :::{INBOUND} v6only {how}
  default_backend origin
"
    )
}
