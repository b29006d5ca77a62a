//! A waypoint under test: the program in a pod of its own, which no agent captures.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::agent::AccessRecord;
use crate::control::{root_certificate_path, waypoint_token_path};
use crate::http;
use crate::log::Log;
use crate::mesh::fabric::{CONTROL, Families};
use crate::mesh::{AgentLog, DATAPLANE_MODE, Mesh, Settings};
use crate::pod::Pod;
use crate::process::{LOG_LEVELS, Process};
use crate::sandbox::{self, WORK};
use crate::wait::{self, SOON};

/// By which a Gateway's pods are found.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Where waypoints listen.
const HBONE: u16 = 15008;

/// One instance of a waypoint. It may be down.
#[derive(Debug)]
pub struct Waypoint {
    pod: Pod,
    gateway: String,
    settings: Settings,
    process: Mutex<Option<Process>>,
}

impl Mesh {
    /// A Gateway of class `ambit-waypoint`, `<namespace>/<name>`, with its Service.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn gateway(&self, name: &str) -> Result<()> {
        let (namespace, short) = name.split_once('/').context("a gateway is named namespace/name")?;
        self.service_selecting(name, HBONE, HBONE, (GATEWAY_NAME, short))?;
        self.apply(
            &format!("gateway-{namespace}-{short}.yaml"),
            &format!(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata:\n  name: {short}\n  \
                 namespace: {namespace}\nspec:\n  gatewayClassName: ambit-waypoint\n  listeners:\n  - name: mesh\n    \
                 port: {HBONE}\n    protocol: HBONE\n"
            ),
        )
    }

    /// A pod named `<namespace>/<pod>` for an instance of the Gateway `gateway` of its namespace.
    ///
    /// # Errors
    /// When the kernel refuses a part of it.
    pub fn waypoint(&self, gateway: &str, pod: &str, node: &str) -> Result<Waypoint> {
        let pod = self.pod_with(pod, node, Families::Dual, |object| {
            object.labels.push((GATEWAY_NAME.to_owned(), gateway.to_owned()));
            object.labels.push((DATAPLANE_MODE.to_owned(), "none".to_owned()));
            object.annotations.clear();
            object.service_account = gateway.to_owned();
            object.ready = false;
        })?;
        let settings = self.settings().clone();
        Ok(Waypoint { pod, gateway: gateway.to_owned(), settings, process: Mutex::default() })
    }

    /// Starts an instance, waits until it is ready, and says so of its pod.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start_waypoint(&self, waypoint: &Waypoint) -> Result<()> {
        waypoint.launch()?;
        waypoint.wait_until_ready()?;
        self.change_pod(&waypoint.pod, |object| object.ready = true)
    }
}

impl Waypoint {
    /// Starts it without waiting for anything but its token.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&self) -> Result<()> {
        let object = self.pod.object();
        let token = waypoint_token_path(&object.namespace, &object.name);
        wait::until_true(format!("the token of {}", object.name), SOON, || token.exists())?;
        let mut command = self.pod.namespace().command(sandbox::program("waypoint"));
        command
            .args(["run", "--namespace", &object.namespace, "--gateway", &self.gateway])
            .args(["--service-account", &object.service_account, "--pod-name", &object.name])
            .args(["--xds-address", &format!("https://{CONTROL}:15012")])
            .arg("--xds-root-file")
            .arg(root_certificate_path())
            .arg("--token-file")
            .arg(token)
            .args(["--drain-timeout", "5s"])
            .arg("--state-dir")
            .arg(self.state_directory())
            .args(["--workers", &self.settings.workers.to_string()]);
        let name = format!("waypoint {}", object.name);
        let process = match self.settings.agent_log {
            AgentLog::Kept => {
                Process::start(name, command.args(["--log-format", "json", "--log-level", LOG_LEVELS]))?
            }
            AgentLog::Written => {
                let file = Path::new(WORK).join(format!("{}.waypoint.log", object.name));
                Process::start_writing_to(&file, name, &mut command)?
            }
        };
        *self.slot() = Some(process);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready, or has ended.
    pub fn wait_until_ready(&self) -> Result<()> {
        wait::until("the waypoint to be ready", SOON, || {
            ensure!(self.slot().as_ref().is_some_and(Process::is_running), "it has ended");
            http::get(self.pod.namespace(), 15021, "/healthz/ready")
        })
        .map(drop)
    }

    /// The number of its process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.slot().as_ref().context("the waypoint does not run")?.pid())
    }

    /// Its pod.
    pub fn pod(&self) -> &Pod {
        &self.pod
    }

    /// Ends it as a roll does, and waits for its end.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn terminate(&self, within: Duration) -> Result<()> {
        let process = self.slot().take().context("the waypoint does not run")?;
        process.signal(Signal::SIGTERM)?;
        process.wait_for_end(within).map(drop)
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.slot().take().context("the waypoint does not run")?.kill()
    }

    /// Checks that the configuration it keeps for its next run holds `text`, and that its certificate is kept, too.
    ///
    /// # Errors
    /// When it does not, or there is none.
    pub fn keeps(&self, text: &str) -> Result<()> {
        let kept = fs::read(self.state_directory().join("last-good"))?;
        let holds = kept.windows(text.len()).any(|octets| octets == text.as_bytes());
        ensure!(holds, "what the waypoint keeps for its next run does not hold {text:?}");
        let certificates = fs::read_dir(self.state_directory().join("certificates"))?;
        ensure!(certificates.count() > 0, "it keeps no certificate");
        Ok(())
    }

    fn state_directory(&self) -> PathBuf {
        Path::new(WORK).join(format!("{}.waypoint", self.pod.object().name))
    }

    /// Its metrics.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        http::get(self.pod.namespace(), 15020, "/metrics")
    }

    /// What it knows.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn config_dump(&self) -> Result<Value> {
        Ok(serde_json::from_str(&http::get(self.pod.namespace(), 15000, "/config_dump")?)?)
    }

    /// How many lines its log has.
    ///
    /// # Errors
    /// When it does not run.
    pub fn log_position(&self) -> Result<usize> {
        self.with_log(Log::position)
    }

    /// Waits for a record of the access log at or after `from`.
    ///
    /// # Errors
    /// When none comes.
    pub fn wait_for_access(
        &self,
        from: usize,
        matches: impl Fn(&AccessRecord) -> bool,
    ) -> Result<AccessRecord> {
        let wanted = |line: &str| AccessRecord::parse(line).is_some_and(|record| matches(&record));
        let line = self.with_log(|log| log.wait_from(from, SOON, wanted))??;
        AccessRecord::parse(&line).context("the line was parsed before")
    }

    /// Whether there is a record of the access log at or after `from` already.
    ///
    /// # Errors
    /// When it does not run.
    pub fn has_access(&self, from: usize, matches: impl Fn(&AccessRecord) -> bool) -> Result<bool> {
        let lines = self.with_log(Log::lines)?;
        Ok(lines
            .iter()
            .skip(from)
            .filter_map(|line| AccessRecord::parse(line))
            .any(|record| matches(&record)))
    }

    fn with_log<T>(&self, read: impl FnOnce(&Log) -> T) -> Result<T> {
        let process = self.slot();
        Ok(read(process.as_ref().context("the waypoint does not run")?.log()))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Process>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
