//! The node agent under test.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::control::{root_certificate_path, token_path};
use crate::host_proc::HostProc;
use crate::http;
use crate::log::Log;
use crate::mesh::fabric::{CONTROL, MESH_RANGES};
use crate::mesh::{AgentLog, CniPlugin, Finding, Settings};
use crate::namespace::Namespace;
use crate::pod::Pod;
use crate::process::{self, LOG_LEVELS, Process};
use crate::sandbox::{self, WORK};
use crate::wait::{self, SOON};

/// `ztunnel run` in the network namespace of a node. It may be down.
#[derive(Debug)]
pub struct Agent {
    node: String,
    namespace: Arc<Namespace>,
    settings: Settings,
    process: Mutex<Option<Arc<Process>>>,
    /// Processes that were succeeded and told to end, which they do when their connections have.
    former: Mutex<Vec<Arc<Process>>>,
    /// How many processes were started beside another, which has its ports.
    generation: AtomicU16,
}

/// In what a process differs from the agent's usual one.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    /// Worker threads.
    pub workers: Option<usize>,
    /// More arguments.
    pub arguments: Vec<String>,
}

impl Differences {
    /// Another number of workers.
    pub fn workers(workers: usize) -> Self {
        Self { workers: Some(workers), ..Self::default() }
    }

    /// More arguments.
    pub fn arguments<A: Into<String>>(arguments: impl IntoIterator<Item = A>) -> Self {
        Self { arguments: arguments.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

/// How long the start of a pod waits for its capture.
pub const CNI_TIMEOUT: Duration = Duration::from_secs(10);

/// One closed connection, as the access log tells of it.
#[derive(Clone, Debug)]
pub struct AccessRecord(Value);

impl Agent {
    /// An agent that is not started so far.
    pub fn new(node: &str, namespace: Arc<Namespace>, settings: Settings) -> Self {
        Self {
            node: node.to_owned(),
            namespace,
            settings,
            process: Mutex::default(),
            former: Mutex::default(),
            generation: AtomicU16::new(0),
        }
    }

    /// Starts it without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&self) -> Result<()> {
        self.launch_as(&Differences::default())
    }

    /// The same for a process that is not the usual one.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch_as(&self, differences: &Differences) -> Result<()> {
        let workers = differences.workers.unwrap_or(self.settings.workers);
        let mut command = self.namespace.command(sandbox::program("ztunnel"));
        command
            .args(["run", "--node", &self.node])
            .args(["--xds-address", &format!("https://{CONTROL}:15012")])
            .arg("--xds-root-file")
            .arg(root_certificate_path())
            .arg("--token-file")
            .arg(token_path(&self.node))
            .arg("--state-dir")
            .arg(self.state_directory())
            .args(["--certificate-ttl", &format!("{}s", self.settings.certificate_life.as_secs())])
            .args(["--drain-timeout", &format!("{}s", self.settings.drain.as_secs())])
            .args(["--capture", self.settings.capture])
            .args(["--workers", &workers.to_string()])
            .args(["--admin-address", &format!("127.0.0.1:{}", self.port(15000))])
            .args(["--metrics-address", &format!("[::]:{}", self.port(15020))])
            .args(["--readiness-address", &format!("[::]:{}", self.port(15021))])
            .args(&differences.arguments);
        match self.settings.finding {
            Finding::Annotation => command.arg("--allow-netns-annotation"),
            Finding::Processes => command.arg("--host-proc").arg(HostProc::directory(&self.node)),
        };
        if self.settings.cni == CniPlugin::Installed {
            let runtime = Path::new(WORK).join(format!("cni-{}", self.node));
            command
                .arg("--cni-conf-dir")
                .arg(runtime.join("net.d"))
                .arg("--cni-bin-dir")
                .arg(runtime.join("bin"))
                .arg("--cni-state-dir")
                .arg(self.kept_directory())
                .args(["--cni-timeout", &format!("{}s", CNI_TIMEOUT.as_secs())]);
        }
        for range in MESH_RANGES {
            command.args(["--mesh-range", range]);
        }
        let name = format!("ztunnel on {}", self.node);
        let process = match self.settings.agent_log {
            AgentLog::Kept => {
                Process::start(name, command.args(["--log-format", "json", "--log-level", LOG_LEVELS]))?
            }
            AgentLog::Written => Process::start_writing_to(&self.log_file(), name, &mut command)?,
        };
        *self.slot() = Some(Arc::new(process));
        Ok(())
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(&self) -> Result<()> {
        self.launch()?;
        self.wait_until_ready()
    }

    /// Starts a process beside the one that runs, and makes it the agent that everything here is about.
    /// Returns the other one.
    ///
    /// # Errors
    /// When none runs, or it cannot be started.
    pub fn launch_successor(&self, differences: &Differences) -> Result<Arc<Process>> {
        let predecessor = self.process()?;
        self.generation.fetch_add(1, Ordering::Relaxed);
        self.launch_as(differences)?;
        Ok(predecessor)
    }

    /// Ends a process that was to succeed, as a crash would, and returns to the one before.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_successor(&self, predecessor: Arc<Process>) -> Result<()> {
        self.kill()?;
        self.generation.fetch_sub(1, Ordering::Relaxed);
        *self.slot() = Some(predecessor);
        Ok(())
    }

    /// Replaces the process as a rollout does: starts another, waits until it is ready, and tells the
    /// old one to end, which it may take its time for.
    ///
    /// # Errors
    /// When one of these fails.
    pub fn replace(&self, differences: &Differences) -> Result<()> {
        let predecessor = self.launch_successor(differences)?;
        self.wait_until_ready()?;
        predecessor.signal(Signal::SIGTERM)?;
        self.former().push(predecessor);
        Ok(())
    }

    /// Waits until every process that was replaced has ended, and ended well.
    ///
    /// # Errors
    /// When one has not.
    pub fn wait_for_former(&self) -> Result<()> {
        for process in self.former().drain(..) {
            let status = process.wait_for_end(SOON)?;
            ensure!(status.success(), "a former ztunnel on {} ended with {status}", self.node);
        }
        Ok(())
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// When it does not, or ends.
    pub fn wait_until_ready(&self) -> Result<()> {
        self.wait_until_ready_within(SOON)
    }

    /// The same for another time.
    ///
    /// # Errors
    /// When it does not, or ends.
    pub fn wait_until_ready_within(&self, time: Duration) -> Result<()> {
        let process = self.process()?;
        wait::until(format!("ztunnel on {} to be ready", self.node), time, || {
            ensure!(process.is_running(), "it has ended");
            http::get(&self.namespace, self.port(15021), "/healthz/ready")
        })
        .map(drop)
    }

    /// Closes a pod before the agent has run (`ztunnel capture`).
    ///
    /// # Errors
    /// When the rules cannot be installed.
    pub fn close(&self, pod: &Pod) -> Result<()> {
        let mut command = self.namespace.command(sandbox::program("ztunnel"));
        command
            .args(["capture", "--capture", self.settings.capture, "--pod-uid", &pod.object().uid, "--netns"])
            .arg(pod.namespace().path())
            .arg("--state-dir")
            .arg(self.state_directory());
        process::succeed(&mut command).map(drop)
    }

    /// Removes every redirection that the agent has left (`ztunnel uninstall`), and returns what it says.
    ///
    /// # Errors
    /// When one stays.
    pub fn uninstall(&self) -> Result<String> {
        let mut command = self.namespace.command(sandbox::program("ztunnel"));
        command.arg("uninstall").arg("--state-dir").arg(self.state_directory());
        match self.settings.finding {
            Finding::Annotation => {}
            Finding::Processes => drop(command.arg("--host-proc").arg(HostProc::directory(&self.node))),
        }
        process::succeed(&mut command)
    }

    /// Ends it as a crash would.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self) -> Result<()> {
        self.slot().take().context("the agent does not run")?.kill()
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not end within its drain deadline and a little, or ends with an error.
    pub fn terminate(&self) -> Result<()> {
        let process = self.slot().take().context("the agent does not run")?;
        process.signal(Signal::SIGTERM)?;
        let status = process.wait_for_end(self.settings.drain + SOON)?;
        ensure!(status.success(), "ztunnel on {} ended with {status} after SIGTERM", self.node);
        Ok(())
    }

    /// The process, while it runs.
    ///
    /// # Errors
    /// When it does not.
    pub fn process(&self) -> Result<Arc<Process>> {
        self.slot().clone().with_context(|| format!("ztunnel on {} does not run", self.node))
    }

    /// Its node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The network it runs in.
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Where its log is written with [`AgentLog::Written`].
    pub fn log_file(&self) -> PathBuf {
        Path::new(WORK).join(format!("agent-{}.log", self.node))
    }

    /// Its configuration dump.
    ///
    /// # Errors
    /// When it does not answer with JSON.
    pub fn dump(&self) -> Result<Value> {
        let text = http::get(&self.namespace, self.port(15000), "/config_dump")?;
        serde_json::from_str(&text).with_context(|| format!("the dump is not JSON: {text}"))
    }

    /// Its metrics in Prometheus' text format.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metrics(&self) -> Result<String> {
        http::get(&self.namespace, self.port(15020), "/metrics")
    }

    /// The sum of every series of `metric` whose labels hold all of `labels` (as `name="value"`).
    ///
    /// # Errors
    /// When it does not answer.
    pub fn metric(&self, metric: &str, labels: &[impl AsRef<str>]) -> Result<f64> {
        Ok(sum_of_series(&self.metrics()?, metric, labels))
    }

    /// A place in its log from which to look for what comes next.
    ///
    /// # Errors
    /// When it does not run.
    pub fn log_position(&self) -> Result<usize> {
        Ok(self.process()?.log().position())
    }

    /// The access log from `from` on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn access_log(&self, from: usize) -> Result<Vec<AccessRecord>> {
        let process = self.process()?;
        Ok(process.log().lines().iter().skip(from).filter_map(|line| AccessRecord::parse(line)).collect())
    }

    /// Waits for a record of the access log.
    ///
    /// # Errors
    /// When none comes.
    pub fn wait_for_access(
        &self,
        from: usize,
        matches: impl Fn(&AccessRecord) -> bool,
    ) -> Result<AccessRecord> {
        let process = self.process()?;
        let wanted = |line: &str| AccessRecord::parse(line).is_some_and(|record| matches(&record));
        let line = process.log().wait_from(from, SOON, wanted)?;
        AccessRecord::parse(&line).context("the line was parsed before")
    }

    /// Waits for a line of its log.
    ///
    /// # Errors
    /// When none comes.
    pub fn wait_for_log(
        &self,
        from: usize,
        within: Duration,
        matches: impl Fn(&str) -> bool,
    ) -> Result<String> {
        self.process()?.log().wait_from(from, within, matches)
    }

    /// Its log, also when it has ended since.
    ///
    /// # Errors
    /// When it does not run.
    pub fn with_log<T>(&self, read: impl FnOnce(&Log) -> T) -> Result<T> {
        Ok(read(self.process()?.log()))
    }

    /// Checks that the configuration it keeps for its next run holds `text`.
    ///
    /// # Errors
    /// When it does not, or there is none.
    pub fn keeps(&self, text: &str) -> Result<()> {
        let kept = fs::read(self.state_directory().join("last-good"))?;
        let holds = kept.windows(text.len()).any(|octets| octets == text.as_bytes());
        ensure!(holds, "what the agent on {} keeps for its next run does not hold {text:?}", self.node);
        Ok(())
    }

    /// Forgets what a reboot does: everything but what was kept for it.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget_as_a_reboot_does(&self) -> Result<()> {
        fs::remove_dir_all(self.state_directory()).context("the state of the agent")
    }

    /// What survives a reboot.
    fn kept_directory(&self) -> PathBuf {
        Path::new(WORK).join(format!("agent-{}-kept", self.node))
    }

    /// Its state directory.
    pub fn state_directory(&self) -> PathBuf {
        Path::new(WORK).join(format!("agent-{}", self.node))
    }

    /// Two processes of one node have the same network here, so that each has its ports for itself. The
    /// first has the usual ones.
    fn port(&self, usual: u16) -> u16 {
        usual + 100 * self.generation.load(Ordering::Relaxed)
    }

    fn former(&self) -> MutexGuard<'_, Vec<Arc<Process>>> {
        self.former.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Process>>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessRecord {
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        let record = Self(value);
        (record.text("target") == Some("access")).then_some(record)
    }

    /// A key of the record as text, such as `src.identity`.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.field(key)?.as_str()
    }

    /// A key of the record as a number, such as `bytes_sent`.
    pub fn number(&self, key: &str) -> Option<u64> {
        let field = self.field(key)?;
        field.as_u64().or_else(|| field.as_str()?.parse().ok())
    }

    /// A key of the record as text.
    ///
    /// # Errors
    /// When it is missing, with the whole record.
    pub fn expect(&self, key: &str) -> Result<&str> {
        self.text(key).ok_or_else(|| anyhow!("the access log has no {key}: {}", self.0))
    }

    /// Fields stand beside the line's own keys or below `fields`, by the formatter's choice.
    fn field(&self, key: &str) -> Option<&Value> {
        self.0.get(key).or_else(|| self.0.get("fields")?.get(key))
    }
}

/// The sum of every series of `metric` in Prometheus' text format whose labels hold all of `labels`
/// (as `name="value"`).
pub fn sum_of_series(text: &str, metric: &str, labels: &[impl AsRef<str>]) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(metric))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter(|rest| labels.iter().all(|label| rest.contains(label.as_ref())))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_metric_are_summed() {
        let text = "# TYPE a_total counter\na_total{reporter=\"source\",flag=\"-\"} 2\na_total{reporter=\"destination\"} 3\na_total_more 9\n";
        assert!((sum_of_series(text, "a_total", &[""]) - 5.0).abs() < f64::EPSILON);
        assert!((sum_of_series(text, "a_total", &["reporter=\"source\""]) - 2.0).abs() < f64::EPSILON);
        assert!(sum_of_series(text, "b_total", &[""]).abs() < f64::EPSILON);
    }

    #[test]
    fn a_record_is_read_in_both_shapes_of_the_json_formatter() {
        let nested = r#"{"target":"access","fields":{"src.identity":"spiffe://a","bytes_sent":7}}"#;
        let flat = r#"{"target":"access","src.identity":"spiffe://a","bytes_sent":"7"}"#;
        for line in [nested, flat] {
            let record = AccessRecord::parse(line).unwrap();
            assert_eq!(
                (record.text("src.identity"), record.number("bytes_sent")),
                (Some("spiffe://a"), Some(7))
            );
        }
        assert!(AccessRecord::parse("plain text").is_none());
        assert!(AccessRecord::parse(r#"{"target":"xds"}"#).is_none());
    }
}
