//! Istio's ztunnel at both ends, a program of the reader's: each in its pod, as its "dedicated" mode is
//! meant, with the same capture on the client's side as Envoy.
//!
//! It knows the mesh from a file and has its certificates from an authority of this program's: neither
//! Istio's control plane nor Ambit's takes part.

use std::fs::{self, File, Permissions};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ambit_tests::apps::NGINX;
use ambit_tests::pod::Pod;
use ambit_tests::process::Process;
use ambit_tests::sandbox::WORK;
use ambit_tests::wait::{self, SOON};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::envoy::HBONE;
use super::redirect::{self, OUTBOUND, PROXY_USER};
use super::{Metrics, Proxies, Proxy};
use crate::pin::{End, Processors};

mod authority;

/// What every end is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup<'a> {
    /// The addresses of the server's pod beside that of its interface.
    pub(crate) addresses: &'a [Ipv4Addr],
    pub(crate) workers: u16,
    pub(crate) processors: Processors,
}

/// Starts both, and has one request pass: only then does a ztunnel ask for its certificate.
///
/// # Errors
/// When one does not start, or carries nothing.
pub(crate) fn start((client, server): (&Pod, &Pod), setup: Setup<'_>) -> Result<Proxies> {
    redirect::outbound(client)?;
    let configuration = Path::new(WORK).join("istio.json");
    fs::write(&configuration, mesh([(client, &[]), (server, setup.addresses)])?.to_string())?;
    authority::serve_while([client, server], |root| {
        let start = |pod, counting| {
            OneEnd { pod, configuration: &configuration, root, workers: setup.workers }.start(counting)
        };
        let proxies = Proxies {
            server: setup.processors.on(End::Server, || start(server, DESTINATION))?,
            client: setup.processors.on(End::Client, || start(client, SOURCE))?,
        };
        wait::until("a first request to pass through Istio's ztunnel", SOON, || {
            client.get(server.at(NGINX))?.expect_ok()
        })?;
        Ok(proxies)
    })
}

/// Where the program is inside of the sandbox: what runs as another user may not reach the reader's.
pub(crate) fn program() -> PathBuf {
    Path::new(WORK).join("istio-ztunnel")
}

/// The reader's program, opened before the sandbox covers directories that it may be in.
#[derive(Debug)]
pub(crate) struct Program(File);

impl Program {
    /// Opens it.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let open = || File::open(path).with_context(|| format!("--istio-ztunnel: {}", path.display()));
        open().map(Self)
    }

    /// Copies it to where [`program`] says.
    ///
    /// # Errors
    /// When there is no place for it.
    pub(crate) fn bring_inside(mut self) -> Result<()> {
        let path = program();
        let mut copy = || {
            io::copy(&mut self.0, &mut File::create(&path)?)?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))
        };
        copy().with_context(|| format!("Istio's ztunnel cannot be copied to {}", path.display()))
    }
}

/// It keeps 500 tunnels that nobody uses, and closes the one that has been unused for longest when there
/// is another one. So many of the last ones are there whatever has become unused meanwhile.
pub(crate) const TUNNELS_KEPT: usize = 400;

/// The port and path of its metrics.
const METRICS: (u16, &str) = (15020, "/metrics");

/// Labels of what an end carries over HBONE.
type Counting = &'static [&'static str];
const SOURCE: Counting = &["reporter=\"source\"", "connection_security_policy=\"mutual_tls\""];
const DESTINATION: Counting = &["reporter=\"destination\"", "connection_security_policy=\"mutual_tls\""];
/// Labels of what the client's end passes on without.
const PASSED: Counting = &["reporter=\"source\"", "connection_security_policy=\"unknown\""];

/// One ztunnel.
struct OneEnd<'a> {
    pod: &'a Pod,
    configuration: &'a Path,
    root: &'a Path,
    workers: u16,
}

impl OneEnd<'_> {
    fn start(&self, carried: Counting) -> Result<Proxy> {
        let namespace = self.pod.namespace();
        let object = self.pod.object();
        let name = format!("istio's ztunnel in {}", namespace.name());
        let log = Path::new(WORK).join(format!("{}.istio.log", namespace.name()));
        let mut command = self.pod.command("setpriv");
        command
            .args(["--reuid", PROXY_USER, "--regid", PROXY_USER, "--clear-groups", "--"])
            .args([&program(), Path::new("proxy")])
            .env("PROXY_MODE", "dedicated")
            .env(
                "PROXY_WORKLOAD_INFO",
                format!("{}/{}/{}", object.namespace, object.name, object.service_account),
            )
            .env("ZTUNNEL_WORKER_THREADS", self.workers.to_string())
            .env("XDS_ADDRESS", "")
            .env("LOCAL_XDS_PATH", self.configuration)
            .env("CA_ADDRESS", format!("https://{}", authority::ADDRESS))
            .env("CA_ROOT_CA", self.root)
            // X25519MLKEM768 alone, and still TLS 1.3 alone.
            .env("COMPLIANCE_POLICY", "pqc")
            // To connect from the client's address takes rules in the pod that Envoy has not either.
            .env("ENABLE_ORIG_SRC", "false")
            .env("RUST_LOG", "info");
        let process = Process::start_writing_to(&log, &name, &mut command)?;
        for port in [OUTBOUND, HBONE, METRICS.0] {
            wait::until(format!("{name} to listen on {port}"), SOON, || {
                ensure!(process.is_running(), "it has ended: {}", fs::read_to_string(&log)?);
                namespace.listens_on(port)
            })?;
        }
        let counter = |labels| ("istio_tcp_connections_opened_total", labels);
        let metrics = Metrics {
            namespace: namespace.clone(),
            page: METRICS,
            carried: counter(carried),
            passed: counter(PASSED),
        };
        Ok(Proxy::own(&name, process, metrics))
    }
}

/// The pods as the file has them that ztunnel reads, each with addresses beside those of its interface.
fn mesh(pods: [(&Pod, &[Ipv4Addr]); 2]) -> Result<Value> {
    let workloads = pods.map(|(pod, addresses)| {
        let object = pod.object();
        let own = addresses.iter().copied().map(IpAddr::from);
        json!({
            "uid": format!("Kubernetes//Pod/{}/{}", object.namespace, object.name),
            "name": object.name,
            "namespace": object.namespace,
            "serviceAccount": object.service_account,
            "trustDomain": "cluster.local",
            "clusterId": "Kubernetes",
            "workloadName": object.name,
            "canonicalName": object.name,
            "node": object.node,
            "workloadIps": object.addresses.iter().copied().chain(own).collect::<Vec<_>>(),
            "protocol": "HBONE",
            "services": {},
        })
    });
    Ok(json!({ "workloads": workloads }))
}
