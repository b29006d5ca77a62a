//! One replica of control, on a loopback address of its own, so that its ports are its own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::process::Process;
use crate::wait::until_answered;
use crate::{http, sandbox};

/// A running replica. It is killed when dropped.
pub struct Control {
    process: Process,
    address: IpAddr,
    started: Instant,
    name: String,
}

impl Control {
    /// Starts a replica named `name` that reads the API server of a kubeconfig file, with `more` arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        name: &str,
        kubeconfig: &Path,
        namespace: &str,
        directory: &Path,
        more: &[&str],
    ) -> Result<Self> {
        let address = IpAddr::V4(own_address());
        let state = directory.join(name);
        std::fs::create_dir_all(&state)?;
        let mut command = Command::new(sandbox::built_program("control")?);
        command
            .args(["--kubernetes", "--namespace", namespace, "--log-format", "json"])
            .args(["--log-level", "info,control=debug,ambit_xds=debug"])
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--state")
            .arg(&state)
            .args(["--xds-name", &address.to_string()])
            .args(["--pod-name", name])
            .args(more);
        for (flag, port) in [
            ("--xds-address", XDS),
            ("--admin-address", ADMIN),
            ("--readiness-address", READY),
            ("--metrics-address", METRICS),
        ] {
            command.args([flag, &SocketAddr::new(address, port).to_string()]);
        }
        let process = Process::start(format!("{namespace}/{name}"), &mut command)?;
        Ok(Self { process, address, started: Instant::now(), name: name.to_owned() })
    }

    /// Waits until it is ready, and says how long that took from its start.
    ///
    /// # Errors
    /// When it does not become ready, or has ended.
    pub async fn ready(&self, within: Duration) -> Result<Duration> {
        let what = format!("{} to be ready", self.name);
        until_answered(what, within, async || {
            ensure!(self.process.is_running(), "it has ended");
            http::get_at(SocketAddr::new(self.address, READY), "/healthz/ready")
        })
        .await?;
        Ok(self.started.elapsed())
    }

    /// `https://` and so on, of its xDS and certificates.
    ///
    /// # Errors
    /// Never: an address is a URL.
    pub fn url(&self) -> Result<::http::Uri> {
        format!("https://{}", SocketAddr::new(self.address, XDS)).parse().context("an address is a URL")
    }

    /// Its name, which its Lease and report carry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&self) -> Result<()> {
        self.process.kill()
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// When it is gone.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(Signal::SIGTERM)
    }

    /// The program.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

const XDS: u16 = 15012;
const ADMIN: u16 = 15000;
const READY: u16 = 15021;
const METRICS: u16 = 15020;

/// One of the sixteen million addresses of loopback, drawn for this replica.
fn own_address() -> Ipv4Addr {
    let [second, third, last, _] = rand::random::<u32>().to_be_bytes();
    Ipv4Addr::new(127, second | 1, third, last.clamp(1, 254))
}
