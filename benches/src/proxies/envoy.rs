//! Envoy speaking HBONE at both ends, set up for the same work as Ambit's agents: the same capture
//! on the client's side, certificates of one trust domain, TLS 1.3 with the same suite and key
//! exchange, an access log.

use std::fs;
use std::path::{Path, PathBuf};

use ambit_tests::certificates::{Authority, Validity};
use ambit_tests::pod::Pod;
use ambit_tests::process::Process;
use ambit_tests::sandbox::{self, WORK};
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::redirect::{self, OUTBOUND, PROXY_USER};
use super::{Metrics, Proxies, Proxy};
use crate::pin::{End, Processors};

pub(crate) mod configuration;

pub(crate) const ADMIN: u16 = 15000;
pub(crate) const HBONE: u16 = 15008;
/// Where Envoy tells its counters.
pub(crate) const METRICS: &str = "/stats/prometheus";

/// Starts both.
///
/// # Errors
/// When one does not start.
pub(crate) fn start((client, server): (&Pod, &Pod), workers: u16, processors: Processors) -> Result<Proxies> {
    let authority = Authority::generate("benchmark")?;
    redirect::outbound(client)?;
    let client_end = OneEnd { pod: client, port: OUTBOUND, workers };
    let server_end = OneEnd { pod: server, port: HBONE, workers };
    let start_server = || {
        server_end.start(
            json!({ "static_resources": configuration::server(&server_end.credentials(&authority)?) }),
            (
                "envoy_http_downstream_rq_xx",
                &["envoy_response_code_class=\"2\"", "envoy_http_conn_manager_prefix=\"hbone\""],
            ),
        )
    };
    let start_client = || {
        client_end.start(
            json!({ "static_resources": configuration::client(&client_end.credentials(&authority)?, &server.identity()) }),
            ("envoy_cluster_upstream_rq_total", &["envoy_cluster_name=\"hbone\""]),
        )
    };
    Ok(Proxies {
        server: processors.on(End::Server, start_server)?,
        client: processors.on(End::Client, start_client)?,
    })
}

/// Insists on every handshake having agreed on the suite and key exchange that Ambit's agents agree
/// on with each other.
///
/// # Errors
/// When one has not, or when there was none.
pub(crate) fn expect_equal_cryptography(proxies: &Proxies) -> Result<()> {
    let text = proxies.server.metrics.text()?;
    for (kind, wanted) in [("ciphers", SUITE), ("curves", KEY_EXCHANGE)] {
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| line.contains(&format!("ssl_{kind}")) && !line.starts_with('#'))
            .collect();
        ensure!(!lines.is_empty(), "Envoy counts no handshake by {kind}");
        let other = lines.iter().find(|line| !line.contains(wanted) && !line.ends_with(" 0"));
        ensure!(other.is_none(), "not every handshake of Envoy used {wanted}: {lines:?}");
    }
    Ok(())
}

/// What Ambit's agents agree on with each other.
pub(crate) const SUITE: &str = "TLS_AES_128_GCM_SHA256";
/// The first choice of Ambit's agents.
pub(crate) const KEY_EXCHANGE: &str = "X25519MLKEM768";

/// One Envoy.
pub(crate) struct OneEnd<'a> {
    /// The pod that it runs in.
    pub(crate) pod: &'a Pod,
    /// The port by which it is known to serve.
    pub(crate) port: u16,
    pub(crate) workers: u16,
}

/// Files with what an end shows and trusts.
pub(crate) struct Credentials {
    certificate: PathBuf,
    key: PathBuf,
    root: PathBuf,
}

impl OneEnd<'_> {
    fn file(&self, kind: &str) -> PathBuf {
        Path::new(WORK).join(format!("{}.envoy.{kind}", self.pod.namespace().name()))
    }

    /// Has a certificate for the pod's identity written to files.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn credentials(&self, authority: &Authority) -> Result<Credentials> {
        let issued = authority.issue(&self.pod.identity(), Validity::Current)?;
        let files = Credentials {
            certificate: self.file("certificate.pem"),
            key: self.file("key.pem"),
            root: self.file("root.pem"),
        };
        fs::write(&files.certificate, issued.certificate)?;
        fs::write(&files.key, issued.key)?;
        fs::write(&files.root, authority.certificate())?;
        Ok(files)
    }

    /// Starts it with a bootstrap configuration, to which its admin interface is added.
    ///
    /// # Errors
    /// When it does not serve in time.
    pub(crate) fn start(
        &self,
        mut configuration: Value,
        carried: (&'static str, &'static [&'static str]),
    ) -> Result<Proxy> {
        configuration["admin"] =
            json!({ "address": { "socket_address": { "address": "127.0.0.1", "port_value": ADMIN } } });
        fs::write(self.file("json"), configuration.to_string())?;
        let name = format!("envoy in {}", self.pod.namespace().name());
        let mut command = self.pod.command("setpriv");
        command
            .args(["--reuid", PROXY_USER, "--regid", PROXY_USER, "--clear-groups", "--"])
            .arg(sandbox::envoy()?)
            .args(["--concurrency", &self.workers.to_string(), "--disable-hot-restart"])
            .args(["--log-level", "warning", "--config-path"])
            .arg(self.file("json"));
        let process = Process::start_writing_to(&self.file("log"), &name, &mut command)?;
        let namespace = self.pod.namespace();
        wait::until(format!("{name} to listen on {}", self.port), SOON, || {
            ensure!(process.is_running(), "it has ended: {}", self.log()?);
            namespace.listens_on(self.port)
        })?;
        let metrics =
            Metrics { namespace: namespace.clone(), page: (ADMIN, METRICS), carried, passed: carried };
        Ok(Proxy::own(&name, process, metrics))
    }

    fn log(&self) -> Result<String> {
        fs::read_to_string(self.file("log")).context("the log of Envoy")
    }
}
